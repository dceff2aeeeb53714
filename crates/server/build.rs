//! Builds the program that the demo's image holds: one small static executable, so that the image needs nothing else
//! and no download. It is a plain source file, compiled directly, because the platform itself is linked dynamically.

use std::{env, path::PathBuf, process::Command};

fn main() {
    // Inside an EC2 instance whose files are an OCI image's, `host` puts the libraries that the program was linked with here.
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,/run/longshore/lib");
    let source = "demo-image/whoami.rs";
    println!("cargo::rerun-if-changed={source}");
    let Some(out) = env::var_os("OUT_DIR").map(|directory| PathBuf::from(directory).join("whoami")) else {
        panic!("cargo sets OUT_DIR");
    };
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let status = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-name=whoami", "-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "--target", &variable("TARGET"), source, "-o"])
        .arg(&out)
        .status();
    match status {
        Ok(status) if status.success() => println!("cargo::rustc-env=WHOAMI={}", out.display()),
        outcome => panic!("the demo's program cannot be compiled ({outcome:?}): is libc6-dev installed?"),
    }
}
