//! A listener inside another network namespace, and the rule that leads 169.254.170.2:80 to it.
//!
//! Entering a namespace changes a thread for good, so it is done on a thread of its own that ends right after.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

/// The port Amazon's agent has on the loopback.
const PORT: u16 = 51_679;

/// The rule as Amazon's `ecs-init` makes it, safe to apply again.
const RULES: &str = "table ip longshore_task\n\
    delete table ip longshore_task\n\
    table ip longshore_task {\n\
    \tchain output {\n\
    \t\ttype nat hook output priority -100; policy accept;\n\
    \t\tip daddr 169.254.170.2 tcp dport 80 redirect to :51679\n\
    \t}\n\
    }\n";

/// Opens the listener.
pub async fn open(netns: PathBuf) -> io::Result<tokio::net::TcpListener> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        // The receiver is gone only when nobody wants the listener any more.
        let _ = sender.send(open_here(&netns));
    })?;
    let listener = receiver.await.map_err(|_| io::Error::other("the namespace's thread ended early"))??;
    tokio::net::TcpListener::from_std(listener)
}

fn open_here(netns: &Path) -> io::Result<TcpListener> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    apply_rules()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn apply_rules() -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("nft: {error}")))?;
    if let Some(mut input) = nft.stdin.take() {
        input.write_all(RULES.as_bytes())?;
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
