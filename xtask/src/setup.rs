//! `cargo xtask setup`: installs what the tests need, and nothing that is there already: Debian packages, and a Python
//! environment with the AWS CLI and SDK at pinned versions.

use std::{env, path::Path};

use crate::shell::{python, root, run, run_with};

/// Programs that the platform or its tests call, each with the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("mkfs.ext4", "e2fsprogs"),
    ("curl", "curl"),
    ("busybox", "busybox-static"),
    ("pgrep", "procps"),
    ("dockerd", "docker.io"),
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("docker-registry", "docker-registry"),
    ("openssl", "openssl"),
    // The second command line, by its path: the Python environment brings the first one, under the same name.
    ("/usr/bin/aws", "awscli"),
];

/// Programs that only benchmarks call.
const BENCH_PROGRAMS: &[(&str, &str)] = &[("wrk", "wrk"), ("nginx", "nginx-light"), ("haproxy", "haproxy")];

/// Programs that only `vmtest` calls.
const VM_PROGRAMS: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86")];

/// Programs that only `cargo xtask fuzz` calls: libFuzzer is C++.
pub const FUZZ_PROGRAMS: &[(&str, &str)] = &[("c++", "g++")];

/// Python packages, pinned: the models that the API is generated from come with botocore.
const PYTHON_PACKAGES: &str = "tests/requirements.txt";

/// Installs what is missing. `--bench` adds what benchmarks need, `--vm` what `vmtest` needs.
pub fn run_setup(arguments: &[String]) -> Result<(), String> {
    let given = |option: &str| arguments.iter().any(|argument| argument == option);
    let bench = if given("--bench") { BENCH_PROGRAMS } else { &[] };
    let vm = if given("--vm") { VM_PROGRAMS } else { &[] };
    install_programs(&[PROGRAMS, bench, vm].concat())?;
    python_environment()
}

/// Installs the packages of those programs that are not there.
pub fn install_programs(wanted: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(packages: &[&str]) -> Result<(), String> {
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    run_with("apt-get", &["update", "-qq"], &quiet)?;
    let arguments = [&["install", "-y", "-qq", "--no-install-recommends"], packages].concat();
    // Services that packages would start are none of ours: dockerd is started by the tests that need it.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let deny = !policy.exists() && std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_ok();
    if deny {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755));
    }
    let installed = run_with("apt-get", &arguments, &quiet);
    if deny {
        let _ = std::fs::remove_file(policy);
    }
    installed
}

fn python_environment() -> Result<(), String> {
    let wanted = root().join(PYTHON_PACKAGES);
    let mark = root().join(".venv/requirements.txt");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    if python().exists() && read(&mark) == read(&wanted) {
        return Ok(());
    }
    if run("python3", &["-m", "venv", "--clear", ".venv"]).is_err() {
        install(&["python3", "python3-venv"])?;
        run("python3", &["-m", "venv", "--clear", ".venv"])?;
    }
    let python = python().display().to_string();
    run(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", PYTHON_PACKAGES])?;
    std::fs::copy(&wanted, &mark).map_err(|error| format!("{}: {error}", mark.display()))?;
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/sbin".into()]);
    places.iter().any(|place| place.join(program).is_file())
}
