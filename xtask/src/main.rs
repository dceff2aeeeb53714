//! Everything a developer runs: `cargo xtask codegen`, and the other tasks listed by `cargo xtask`.
//!
//! Each task is a module with `run(arguments) -> Result<(), String>`; this file only finds it.

mod bench;
mod ci;
mod codegen;
mod fuzz;
mod setup;
mod shell;
mod tidy;
mod vmtest;

use std::process::ExitCode;

type Task = fn(&[String]) -> Result<(), String>;

/// Name, one line of help, and what to run. Add a task here and nowhere else.
const TASKS: &[(&str, &str, Task)] = &[
    ("ci", "everything that must hold before a change lands", ci::run_ci),
    ("setup", "[--bench] [--vm]: install what the tests need", setup::run_setup),
    ("e2e", "[pytest arguments]: the end-to-end tests", ci::end_to_end),
    ("bench", "[name …] [option …]: comparisons with other programs, as tables", bench::run_bench),
    ("vmtest", "a Debian kernel with cgroup v2 only, and power cuts, in qemu", vmtest::run_vmtest),
    ("fuzz", fuzz::HELP, fuzz::run),
    ("tidy", "crate arrows, licences, module docs, file lengths", tidy::run),
    (
        "codegen",
        "[--check]: write crates/api and docs/coverage.md from Amazon's models, or see that they are current",
        codegen::run,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let Some((_, _, task)) = TASKS.iter().find(|(known, _, _)| *known == name) else {
        eprintln!("usage: cargo xtask <task>");
        for (name, help, _) in TASKS {
            eprintln!("  {name} {help}");
        }
        return ExitCode::from(2);
    };
    match task(arguments.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cargo xtask {name}: {message}");
            ExitCode::FAILURE
        }
    }
}
