//! `cargo xtask bench [name …] [option …]`: the comparisons of `tests/bench`, each of which measures both sides in one run and prints a table.

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
    ("fleet", "100,000 tasks on 5,000 simulated agents: the control plane's CPU, memory and latencies"),
];

/// Runs the named benchmarks, or all of them. What begins with the first option goes to each of them.
pub fn run_bench(arguments: &[String]) -> Result<(), String> {
    let options = arguments.iter().position(|argument| argument.starts_with('-')).unwrap_or(arguments.len());
    let (arguments, options) = arguments.split_at(options);
    let known = |name: &String| BENCHMARKS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        let list: Vec<String> = BENCHMARKS.iter().map(|(name, what)| format!("  {name:10} {what}")).collect();
        return Err(format!("there is no benchmark `{unknown}`; there are\n{}", list.join("\n")));
    }
    setup::run_setup(&["--bench".to_owned()])?;
    run("cargo", &["build", "--release", "--locked"])?;
    // The simulated agents of `fleet`.
    run("cargo", &["build", "--release", "--locked", "--package", "agent", "--example", "fleet"])?;
    let python = python().display().to_string();
    for (name, what) in BENCHMARKS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            println!("\n{name}: {what}");
            let program = format!("tests/bench/{name}.py");
            let line: Vec<&str> = std::iter::once(program.as_str()).chain(options.iter().map(String::as_str)).collect();
            run_with(&python, &line, &[("LONGSHORE", &release_binary())])?;
        }
    }
    Ok(())
}
