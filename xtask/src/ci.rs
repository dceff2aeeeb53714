//! `cargo xtask ci`: everything that must hold before a change lands, in the order of what fails fastest.

use crate::{
    codegen, setup,
    shell::{python, root, run, run_with},
    tidy,
};

/// Runs all checks and tests.
pub fn run_ci(_: &[String]) -> Result<(), String> {
    setup::run_setup(&[])?;
    run("cargo", &["fmt", "--all", "--check"])?;
    step("tidy", || tidy::run(&[]))?;
    step("codegen --check", || codegen::run(&["--check".to_owned()]))?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    run("cargo", &["build", "--release", "--workspace", "--locked"])?;
    run("cargo", &["test", "--release", "--workspace", "--locked"])?;
    end_to_end(&[])
}

/// `cargo xtask e2e [pytest arguments]`: the end-to-end tests against the release build.
pub fn end_to_end(arguments: &[String]) -> Result<(), String> {
    setup::run_setup(&[])?;
    run("cargo", &["build", "--release", "--locked"])?;
    let binary = release_binary();
    let python = python().display().to_string();
    let mut pytest = vec!["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"];
    pytest.extend(arguments.iter().map(String::as_str));
    if !arguments.iter().any(|argument| argument.starts_with("tests/")) {
        // They wait more than they compute: two files at a time, each process with a platform of its own.
        pytest.extend(["-n", "2", "--dist", "loadfile", "tests/e2e"]);
    }
    run_with(&python, &pytest, &[("LONGSHORE", &binary)])
}

/// Where a release build leaves the program.
pub fn release_binary() -> String {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    target.join("release/longshore").display().to_string()
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    eprintln!("\n── {name}");
    work()
}
