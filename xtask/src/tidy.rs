//! `cargo xtask tidy`: what keeps the structure as `ARCHITECTURE.md` says: which crate may depend on which, licences
//! and sources of everything we build on, module docs, and files short enough to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::shell::{output, root};

/// Which of our crates each may depend on. `server`, the composition root, may depend on all.
const ARROWS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("api", &["wire"]),
    ("domain", &[]),
    ("store", &["domain"]),
    ("placement", &["store", "domain"]),
    ("telemetry", &["domain"]),
    ("control", &["store", "placement", "domain"]),
    ("iam", &["wire", "store", "domain"]),
    ("registry", &["iam", "store", "domain"]),
    ("services", &["api", "wire", "iam", "store", "placement", "control", "registry", "telemetry", "domain"]),
    ("feed", &["domain"]),
    ("balancer", &["feed", "domain"]),
    ("runtime", &[]),
    ("plumbing", &["domain"]),
    ("host", &["feed", "runtime", "plumbing", "domain"]),
    ("agent", &["api", "wire", "runtime", "plumbing", "domain"]),
    ("guest", &["agent"]),
];

const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "MPL-2.0+",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that must not come in, each with its reason.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "TLS is rustls with ring: no C library"),
    ("native-tls", "TLS is rustls with ring: no C library"),
    ("aws-lc-sys", "needs cmake: use ring"),
    ("libseccomp-sys", "needs libseccomp: use seccompiler"),
    ("libbpf-sys", "needs libelf"),
    ("protobuf-src", "builds protoc"),
    ("prost-build", "needs protoc"),
];

/// Crates whose licence is in a file only, as we read it there.
const LICENCE_FILES: &[(&str, &str)] = &[("rust-criu", "MIT")];

/// Longer files are hard to read in one sitting.
const MAX_LINES: usize = 600;

/// Checks everything and reports all that is wrong.
pub fn run(_: &[String]) -> Result<(), String> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--locked", "--all-features"])?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let mut wrong = arrows(&metadata);
    wrong.extend(packages(&metadata));
    wrong.extend(files());
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("\n  {}", wrong.join("\n  ")))
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn arrows(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let own: BTreeSet<&str> = own(metadata).map(|package| text(package, "name")).collect();
    let mut wrong = Vec::new();
    for package in self::own(metadata) {
        let name = text(package, "name");
        if ["server", "xtask", "fuzz"].contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("the crate {name} is not in xtask/src/tidy.rs: say there what it may depend on"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let on = text(dependency, "name");
            let normal = dependency.get("kind").is_none_or(Value::is_null);
            if normal && own.contains(on) && !allowed.contains(&on) {
                wrong.push(format!("{name} depends on {on}: arrows point down, see ARCHITECTURE.md"));
            }
        }
    }
    wrong
}

fn own(metadata: &Value) -> impl Iterator<Item = &Value> {
    list(metadata, "packages").filter(|package| package.get("source").is_none_or(Value::is_null))
}

fn packages(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in list(metadata, "packages") {
        let (name, version) = (text(package, "name"), text(package, "version"));
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            wrong.push(format!("{name} {version} is banned: {reason}"));
        }
        let source = text(package, "source");
        if !source.is_empty() && !source.starts_with("registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{name} {version} comes from {source}: only crates.io is allowed"));
        }
        let read = LICENCE_FILES.iter().find(|(known, _)| *known == name).map(|(_, licence)| *licence);
        if !licence_allowed(read.unwrap_or(text(package, "license"))) {
            wrong.push(format!("{name} {version} has the licence '{}'", text(package, "license")));
        }
    }
    wrong
}

/// Whether a licence expression can be met: every `AND` part, by one of its `OR` choices.
fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

fn files() -> Vec<String> {
    let mut wrong = Vec::new();
    for crate_source in ["crates", "xtask", "fuzz"] {
        for path in rust_files(&root().join(crate_source)) {
            let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
            let content = fs::read_to_string(&path).unwrap_or_default();
            if content.starts_with("// @generated") {
                continue;
            }
            if content.lines().count() > MAX_LINES {
                wrong.push(format!("{shown} has more than {MAX_LINES} lines: split it"));
            }
            let test = shown.contains("/tests/") || shown.ends_with("tests.rs");
            if !content.trim_start().starts_with("//!") && !test {
                wrong.push(format!("{shown} does not open with `//!`: say what it is for"));
            }
        }
    }
    wrong
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_met_by_choice() {
        assert!(licence_allowed("MIT OR Apache-2.0"));
        assert!(licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(licence_allowed("MIT/Apache-2.0"));
        assert!(licence_allowed("GPL-3.0 OR MIT"));
        assert!(!licence_allowed("GPL-3.0"));
        assert!(!licence_allowed("MIT AND AGPL-3.0"));
        assert!(!licence_allowed(""));
    }
}
