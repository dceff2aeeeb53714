//! Running `nft` on a script, in the calling thread's network namespace. One script is one transaction: all of it
//! happens or none.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

fn nft(arguments: &[&str]) -> Command {
    let mut command = Command::new("nft");
    // Some shells leave out where administrators' programs are.
    // The last is the machine's, in an EC2 instance whose image has none.
    command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin:/run/longshore/bin");
    command
}

/// Applies a script; an empty one costs nothing. The error carries what `nft` said.
pub fn apply(script: &str) -> io::Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    let mut child =
        nft(&["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(
            |error| io::Error::new(error.kind(), format!("nft cannot be run (is nftables installed?): {error}")),
        )?;
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
pub fn list(arguments: &[&str]) -> String {
    let output = nft(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The names of the tables there are.
pub fn tables() -> Vec<String> {
    let text = list(&["list", "tables"]);
    text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}
