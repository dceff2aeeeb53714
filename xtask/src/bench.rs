//! `cargo xtask bench [name …]`: the comparisons of `tests/bench`, each of which measures both sides in one run and prints a table.

use crate::{
    ci::release_binary,
    setup,
    shell::{python, run, run_with},
};

/// Name of the program in `tests/bench`, and what it compares. Add a benchmark here and nowhere else.
const BENCHMARKS: &[(&str, &str)] = &[
    ("run_task", "RunTask to the process's first instruction, against `docker run`"),
    ("registry", "pushes and pulls, against Debian's docker-registry"),
    ("balancer", "HTTP through a load balancer, against nginx and haproxy"),
    ("footprint", "start to ready, and resident memory as the platform fills"),
];

/// Runs the named benchmarks, or all of them.
pub fn run_bench(arguments: &[String]) -> Result<(), String> {
    let known = |name: &String| BENCHMARKS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        let list: Vec<String> = BENCHMARKS.iter().map(|(name, what)| format!("  {name:10} {what}")).collect();
        return Err(format!("there is no benchmark `{unknown}`; there are\n{}", list.join("\n")));
    }
    setup::run_setup(&["--bench".to_owned()])?;
    run("cargo", &["build", "--release", "--locked"])?;
    let python = python().display().to_string();
    for (name, what) in BENCHMARKS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            println!("\n{name}: {what}");
            run_with(&python, &[&format!("tests/bench/{name}.py")], &[("LONGSHORE", &release_binary())])?;
        }
    }
    Ok(())
}
