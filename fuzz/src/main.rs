//! libFuzzer around the fuzz targets of our crates: `cargo xtask fuzz` builds and runs this.
//!
//! A target is named by its crate and its own name, such as `runtime/layer`; what it starts from is in
//! `crates/runtime/corpus/layer`. libFuzzer owns `main` and the arguments, so the name comes in the environment.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

type Target = fn(&[u8]);

/// The crates that have targets. A new target of one of them needs no change here.
const CRATES: &[(&str, &[(&str, Target)])] = &[
    ("api", api::fuzz::TARGETS),
    ("placement", placement::fuzz::TARGETS),
    ("registry", registry::fuzz::TARGETS),
    ("runtime", runtime::fuzz::TARGETS),
    ("telemetry", telemetry::fuzz::TARGETS),
];

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let (wanted, target) = name.split_once('/').unwrap_or((&name, ""));
    let targets = CRATES.iter().find(|(owner, _)| *owner == wanted).map_or(&[][..], |(_, targets)| *targets);
    match targets.iter().find(|(known, _)| *known == target) {
        Some((_, found)) => *found,
        None => {
            eprintln!(
                "FUZZ_TARGET={name}: there is no such target; see fuzz/src/main.rs and the crates' `fuzz` modules"
            );
            std::process::exit(2);
        }
    }
}

fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));
