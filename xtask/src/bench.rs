//! `cargo xtask bench [name …] [option …]`: comparisons, each of which measures both sides in one run and prints a table. Most are
//! programs in `tests/bench`; what is compared within one crate is an example of that crate.

use crate::{
    ci::release_binary,
    setup,
    shell::{python, run, run_with},
};

/// What a benchmark is, by name, and what it compares. Add one here and nowhere else.
const BENCHMARKS: &[(&str, Program, &str)] = &[
    ("run_task", Program::Platform, "RunTask to the process's first instruction, against `docker run`"),
    ("registry", Program::Platform, "pushes and pulls, against Debian's docker-registry"),
    ("balancer", Program::Platform, "HTTP through a load balancer, against nginx and haproxy"),
    ("footprint", Program::Platform, "start to ready, and resident memory as the platform fills"),
    ("placement", Program::Example, "placement alone, against asking every instance, from 50 to 5,000 instances"),
    (
        "fleet",
        Program::Platform,
        "100,000 tasks on 5,000 simulated agents: the control plane's CPU, memory and latencies",
    ),
];

/// How a benchmark is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    /// `tests/bench/{name}.py`, which starts the whole platform and the programs that it is compared with.
    Platform,
    /// The example `{name}_bench` of the crate of that name, which needs nothing else.
    Example,
}

/// Runs the named benchmarks, or all of them. What begins with the first option goes to each of them.
pub fn run_bench(arguments: &[String]) -> Result<(), String> {
    let options = arguments.iter().position(|argument| argument.starts_with('-')).unwrap_or(arguments.len());
    let (arguments, options) = arguments.split_at(options);
    let known = |name: &String| BENCHMARKS.iter().any(|(known, ..)| known == name);
    if let Some(unknown) = arguments.iter().find(|name| !known(name)) {
        let list: Vec<String> = BENCHMARKS.iter().map(|(name, _, what)| format!("  {name:10} {what}")).collect();
        return Err(format!("there is no benchmark `{unknown}`; there are\n{}", list.join("\n")));
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|wanted| wanted == name);
    let wanted: Vec<_> = BENCHMARKS.iter().filter(|(name, ..)| wanted(name)).collect();
    if wanted.iter().any(|(_, program, _)| *program == Program::Platform) {
        setup::run_setup(&["--bench".to_owned()])?;
        run("cargo", &["build", "--release", "--locked"])?;
    }
    if wanted.iter().any(|(name, ..)| *name == "fleet") {
        // The simulated agents.
        run("cargo", &["build", "--release", "--locked", "--package", "agent", "--example", "fleet"])?;
    }
    for (name, program, what) in wanted {
        println!("\n{name}: {what}");
        match program {
            Program::Platform => {
                let script = format!("tests/bench/{name}.py");
                let line: Vec<&str> =
                    std::iter::once(script.as_str()).chain(options.iter().map(String::as_str)).collect();
                run_with(&python().display().to_string(), &line, &[("LONGSHORE", &release_binary())])?;
            }
            Program::Example => {
                let example = format!("{name}_bench");
                run("cargo", &["run", "--quiet", "--release", "--locked", "-p", name, "--example", &example])?;
            }
        }
    }
    Ok(())
}
