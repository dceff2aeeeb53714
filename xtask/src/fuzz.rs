//! `cargo xtask fuzz`: coverage-guided fuzzing of everything that reads bytes from outside.
//!
//! The targets are functions of our crates (their `fuzz` modules), what they start from is in `crates/*/corpus`, and
//! `fuzz/` links them with libFuzzer. Stable Rust has all that this needs: the compiler's coverage pass is a code
//! generation option. What is found on the way is kept in `target/fuzz/corpus`, so that the next run goes on from there.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    setup,
    shell::{output, root},
};

/// What makes the compiler count edges and show comparisons to libFuzzer.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that were folded into one condition would look the same.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// How it is called.
pub const HELP: &str = "[target …] [--seconds N]: N seconds (30) each; TARGET -- ARGUMENTS: libFuzzer's own arguments, or an input to run again";
const SECONDS: u32 = 30;
/// A target that needs longer for one input, or more memory, has a bug.
const BOUNDS: &[&str] = &["-timeout=10", "-rss_limit_mb=1024", "-max_len=16384"];
/// Lines of a crash that are shown: the panic's message and what libFuzzer says.
const SHOWN: usize = 40;

/// Fuzzes the named targets, or all.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let (chosen, seconds, own) = parse(arguments)?;
    setup::install_programs(setup::FUZZ_PROGRAMS)?;
    let binary = build()?;
    if let Some(own) = own {
        let [target] = chosen.as_slice() else { return Err("name one target before --".to_owned()) };
        let status = fuzzer(&binary, target).args(own).status();
        let status = status.map_err(|error| format!("{}: {error}", binary.display()))?;
        return if status.success() { Ok(()) } else { Err(format!("{target}: {status}")) };
    }
    println!(
        "{:26} {:>11} {:>8} {:>13} {:>11} {:>9}",
        "target", "runs", "runs/s", "edges before", "edges after", "new inputs"
    );
    let mut broken = Vec::new();
    for target in &chosen {
        let found = fuzz(&binary, target, seconds)?;
        println!(
            "{target:26} {:>11} {:>8} {:>13} {:>11} {:>9}{}",
            found.runs,
            found.runs / u64::from(seconds.max(1)),
            found.edges_before,
            found.edges,
            found.inputs,
            if found.failure.is_empty() { "" } else { "  FAILED" }
        );
        for line in &found.failure {
            println!("  {line}");
        }
        if let Some(artifact) = &found.artifact {
            println!("  the input is {artifact}; see it again with\n    cargo xtask fuzz {target} -- {artifact}");
        }
        if !found.failure.is_empty() {
            broken.push(target.as_str());
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("failed: {}", broken.join(", "))) }
}

/// The targets, the seconds, and what comes after `--`.
type Parsed<'a> = (Vec<String>, u32, Option<&'a [String]>);

fn parse(arguments: &[String]) -> Result<Parsed<'_>, String> {
    let (ours, own) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (arguments.get(..at).unwrap_or_default(), arguments.get(at + 1..)),
        None => (arguments, None),
    };
    let known = targets();
    let (mut chosen, mut seconds) = (Vec::new(), SECONDS);
    let mut ours = ours.iter();
    while let Some(argument) = ours.next() {
        if argument == "--seconds" {
            seconds = ours.next().and_then(|number| number.parse().ok()).ok_or("--seconds needs a number")?;
            continue;
        }
        let before = chosen.len();
        let named = |target: &&String| *target == argument || target.split('/').any(|part| part == argument);
        chosen.extend(known.iter().filter(named).cloned());
        if chosen.len() == before {
            return Err(format!("there is no target `{argument}`; there are\n  {}\n{HELP}", known.join("\n  ")));
        }
    }
    Ok((if chosen.is_empty() { known } else { chosen }, seconds, own))
}

/// Every target, named by its crate and its corpus: tests of the crates see to it that each has one.
fn targets() -> Vec<String> {
    let mut found = Vec::new();
    for owner in children(&root().join("crates")) {
        for corpus in children(&owner.join("corpus")) {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(format!("{}/{}", name(&owner), name(&corpus)));
        }
    }
    found
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn directory() -> PathBuf {
    root().join("target/fuzz")
}

/// Builds the fuzzer for a named machine, so that build scripts and macros are left as they are.
fn build() -> Result<PathBuf, String> {
    let version = output("rustc", &["-vV"])?;
    let machine = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--package", "fuzz", "--features", "libfuzzer", "--profile", "fuzz"]);
    cargo.args(["--target", machine, "--target-dir"]).arg(directory());
    cargo.env("RUSTFLAGS", COVERAGE.join(" ")).current_dir(root());
    eprintln!("── building the fuzzer");
    match cargo.status() {
        Ok(status) if status.success() => Ok(directory().join(machine).join("fuzz/fuzz")),
        Ok(status) => Err(format!("the fuzzer could not be built: {status}")),
        Err(error) => Err(format!("cargo: {error}")),
    }
}

fn fuzzer(binary: &Path, target: &str) -> Command {
    let mut command = Command::new(binary);
    command.env("FUZZ_TARGET", target).args(BOUNDS).current_dir(root());
    command
}

/// What a run of libFuzzer said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    runs: u64,
    edges_before: u64,
    edges: u64,
    inputs: u64,
    /// What was printed when the target failed; empty when it did not.
    failure: Vec<String>,
    artifact: Option<String>,
}

fn fuzz(binary: &Path, target: &str, seconds: u32) -> Result<Found, String> {
    let scratch = directory().join("corpus").join(target);
    let artifacts = root().join("fuzz/artifacts");
    for directory in [&scratch, &artifacts] {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    let (owner, name) = target.split_once('/').unwrap_or((target, ""));
    let mut command = fuzzer(binary, target);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix=fuzz/artifacts/{owner}-{name}-"))
        // What is new is written to the first; the committed one is only read.
        .args([scratch, root().join("crates").join(owner).join("corpus").join(name)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
    let mut found = Found::default();
    let mut said = VecDeque::new();
    let terminal = std::io::stderr().is_terminal();
    for line in BufReader::new(child.stderr.take().ok_or("libFuzzer says nothing")?).split(b'\n') {
        let line = line.map_err(|error| format!("{target}: {error}"))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if found.note(&line) {
            if terminal {
                eprint!("\r\x1b[2K{target} {} runs, {} edges", found.runs, found.edges);
                let _ = std::io::stderr().flush();
            }
        } else {
            said.push_back(line);
            if said.len() > SHOWN {
                said.pop_front();
            }
        }
    }
    if terminal {
        eprint!("\r\x1b[2K");
    }
    let status = child.wait().map_err(|error| format!("{target}: {error}"))?;
    if !status.success() {
        found.failure = said.into_iter().collect();
        found.failure.push(status.to_string());
    }
    Ok(found)
}

impl Found {
    /// Takes what a line says; whether it is one of those that only show how it goes.
    fn note(&mut self, line: &str) -> bool {
        if let Some(path) = line.split_once("Test unit written to ").map(|(_, path)| path) {
            self.artifact = Some(path.trim().to_owned());
        }
        if let Some(statistic) = line.strip_prefix("stat::") {
            let (name, value) = statistic.split_once(':').unwrap_or((statistic, ""));
            let value = value.trim().parse().unwrap_or(0);
            match name {
                "number_of_executed_units" => self.runs = value,
                "new_units_added" => self.inputs = value,
                _ => {}
            }
            return true;
        }
        let Some(status) = line.strip_prefix('#') else { return line.starts_with("INFO: ") };
        let words: Vec<&str> = status.split_whitespace().collect();
        self.runs = words.first().and_then(|runs| runs.parse().ok()).unwrap_or(self.runs);
        let edges = words.iter().position(|word| *word == "cov:").and_then(|at| words.get(at + 1)?.parse().ok());
        self.edges = edges.unwrap_or(self.edges);
        if words.get(1) == Some(&"INITED") {
            self.edges_before = self.edges;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_prints_is_understood() {
        let mut found = Found::default();
        assert!(found.note("INFO: Seed: 1"));
        assert!(found.note("#7\tINITED cov: 371 ft: 500 corp: 5/900b exec/s: 0 rss: 40Mb"));
        assert!(found.note("#1024\tpulse  cov: 402 ft: 600 corp: 9/1kb lim: 4 exec/s: 512 rss: 41Mb"));
        assert_eq!((found.runs, found.edges_before, found.edges), (1024, 371, 402));
        assert!(!found.note("thread '<unnamed>' panicked at crates/wire/src/fuzz.rs:1:1:"));
        assert!(
            !found.note(
                "artifact_prefix='fuzz/artifacts/api-json-'; Test unit written to fuzz/artifacts/api-json-crash-1"
            )
        );
        assert!(found.note("stat::number_of_executed_units: 2000"));
        assert!(found.note("stat::new_units_added:          12"));
        assert_eq!((found.runs, found.inputs), (2000, 12));
        assert_eq!(found.artifact.as_deref(), Some("fuzz/artifacts/api-json-crash-1"));
    }

    #[test]
    fn targets_are_named_whole_or_in_part() {
        let chosen = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            parse(&names).map(|(chosen, seconds, own)| (chosen, seconds, own.map(<[String]>::len)))
        };
        assert_eq!(chosen(&["runtime/layer", "--seconds", "5"]), Ok((vec!["runtime/layer".to_owned()], 5, None)));
        assert_eq!(chosen(&["manifest"]).map(|chosen| chosen.0.len()), Ok(2));
        assert_eq!(chosen(&["layer", "--", "file"]), Ok((vec!["runtime/layer".to_owned()], SECONDS, Some(1))));
        assert!(chosen(&[]).is_ok_and(|chosen| chosen.0.len() >= 13));
        assert!(chosen(&["nothing"]).is_err());
        assert!(chosen(&["--seconds"]).is_err());
    }
}
