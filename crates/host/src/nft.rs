//! Running `nft` on a script, in the calling thread's network namespace. One script is one transaction: all of it
//! happens or none.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

/// Applies a script; an empty one costs nothing. The error carries what `nft` said.
pub(crate) fn apply(script: &str) -> io::Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("nft cannot be run (is nftables installed?): {error}"))
        })?;
    if let Some(mut input) = child.stdin.take() {
        // `nft` reads all of its input before it says anything, so neither side waits for the other.
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft refused a change: {}", said.trim().chars().take(500).collect::<String>())))
}

/// What `nft` prints for these arguments; empty when it fails, as it does for a table that is not there.
pub(crate) fn list(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
