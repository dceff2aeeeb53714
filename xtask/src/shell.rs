//! Running other programs, with what they print shown as it comes.

use std::{path::PathBuf, process::Command, time::Instant};

/// The repository's root.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// The Python of the environment that [`crate::setup`] makes.
pub fn python() -> PathBuf {
    root().join(".venv/bin/python")
}

/// Runs a program in the repository's root and says how long it took.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_with(program, arguments, &[])
}

/// As [`run`], with variables added to the environment.
pub fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let shown = format!("{program} {}", arguments.join(" "));
    eprintln!("\n── {shown}");
    let started = Instant::now();
    let status = Command::new(program).args(arguments).envs(environment.iter().copied()).current_dir(root()).status();
    let seconds = started.elapsed().as_secs();
    match status {
        Ok(status) if status.success() => {
            eprintln!("── done in {seconds} s");
            Ok(())
        }
        Ok(status) => Err(format!("`{shown}` ended with {status} after {seconds} s")),
        Err(error) => Err(format!("`{shown}` could not be started: {error}")),
    }
}

/// What a program prints on standard output.
pub fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.map_err(|error| format!("`{program}` could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{program} {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
