//! Whether the machine forwards packets between its bridge and the world, and leaving that as it was found.
//!
//! The network host does the same for VPCs and marks it in the same way, so that either finds what the other has done.

use std::io;
use std::process::{Command, Stdio};

use domain::network::names::{digits as six, link_prefix};

use plumbing::nft;

/// Whether the machine forwards packets at all: one switch for everybody on it.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// An empty table that says: one of ours has switched that on. It goes with the machine's next start, as the switch's
/// position does.
const MARK: &str = "ls_forwarding";

/// Makes the machine forward the bridge's packets. Idempotent.
pub fn ensure(digits: &str) -> io::Result<()> {
    if std::fs::read_to_string(FORWARD)?.trim() != "1" {
        nft::apply(&format!("add table ip {MARK}\n"))?;
        std::fs::write(FORWARD, "1")?;
    }
    accept(digits)
}

/// Inserts iptables rules for our links where forwarding is refused by default, as Docker sets it: another table's
/// `accept` does not undo a `drop` of that one. Docker leaves the chain DOCKER-USER to others.
fn accept(digits: &str) -> io::Result<()> {
    // Merely asking would make its tables, which then look as if somebody had set them up.
    if !uses_iptables(&nft::tables()) {
        return Ok(());
    }
    let Some(rules) = iptables(&["-S", "FORWARD"])? else { return Ok(()) };
    if !rules.contains("-P FORWARD DROP") {
        return Ok(());
    }
    let chain = if iptables(&["-S", "DOCKER-USER"])?.is_some() { "DOCKER-USER" } else { "FORWARD" };
    for direction in ["-i", "-o"] {
        if change(digits, "-C", chain, direction)?.is_none() && change(digits, "-I", chain, direction)?.is_none() {
            return Err(io::Error::other(format!("the iptables chain {chain} takes no rule for the bridge")));
        }
    }
    Ok(())
}

/// Whether anybody has set something up with iptables, in either of its kinds.
fn uses_iptables(tables: &[String]) -> bool {
    let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    !names.trim().is_empty() || tables.iter().any(|name| name == "filter")
}

fn change(digits: &str, what: &str, chain: &str, direction: &str) -> io::Result<Option<String>> {
    let bridge = format!("{}b0", link_prefix(digits));
    let comment = format!("ls-{}", six(digits));
    iptables(&[what, chain, direction, &bridge, "-m", "comment", "--comment", &comment, "-j", "ACCEPT"])
}

/// Runs iptables: what it printed, or `None` when it refused or is not installed, which is no harm: then nothing here
/// was set up with it.
fn iptables(arguments: &[&str]) -> io::Result<Option<String>> {
    let output = Command::new("iptables")
        .arg("-w")
        .args(arguments)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the rules away, and switches forwarding off again if it was us who switched it on, and nobody else has set up
/// packet filtering or translation meanwhile: who has may rely on it. Says what was done.
pub fn restore(digits: &str) -> io::Result<Vec<String>> {
    let mut done = Vec::new();
    let tables = nft::tables();
    let iptables = uses_iptables(&tables);
    for chain in ["DOCKER-USER", "FORWARD"].into_iter().filter(|_| iptables) {
        for direction in ["-i", "-o"] {
            // Once for each time it was inserted; a bound, because nobody should wait for a tool that misbehaves.
            for _ in 0..8 {
                if change(digits, "-D", chain, direction)?.is_none() {
                    break;
                }
                done.push(format!("iptables rule {direction} of the bridge in {chain}"));
            }
        }
    }
    // Another of ours still needs it, and will see to it when it goes.
    let ours = tables.iter().any(|name| name.starts_with("ls_") && name != MARK);
    if ours || !tables.iter().any(|name| name == MARK) {
        return Ok(done);
    }
    let others = iptables || tables.iter().any(|name| name != MARK);
    if !others {
        std::fs::write(FORWARD, "0")?;
        done.push("forwarding, which was off before".to_owned());
    }
    nft::apply(&format!("delete table ip {MARK}\n"))?;
    Ok(done)
}
