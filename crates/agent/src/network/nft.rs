//! Running `nft` on a script, in the calling thread's network namespace. One script is one transaction: all of it
//! happens or none.

use std::io::{self, Write};
use std::process::{Command, Stdio};

fn nft(arguments: &[&str]) -> Command {
    let mut command = Command::new("nft");
    command.args(arguments).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    command
}

/// Applies a script. The error carries what `nft` said.
pub fn apply(script: &str) -> io::Result<()> {
    let mut child = nft(&["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("nft (is nftables installed?): {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // `nft` reads all of its input before it says anything, so neither side waits for the other.
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {}", said.trim().chars().take(500).collect::<String>())))
}

/// The names of the tables there are.
pub fn tables() -> Vec<String> {
    let output = nft(&["list", "tables"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}
