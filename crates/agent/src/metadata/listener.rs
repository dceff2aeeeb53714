//! A listener inside another network namespace, and the rule that leads 169.254.170.2:80 to it.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use super::PORT;
use plumbing::{netns, nft};

/// Opens the listener of the machine's own network, whose rule is in the table of the agent's bridge.
pub async fn open_own() -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await
}

/// Opens the listener of a namespace.
pub async fn open(netns: PathBuf) -> io::Result<tokio::net::TcpListener> {
    let opened = tokio::task::spawn_blocking(move || {
        netns::within(&netns, || {
            nft::apply(&rules())?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    });
    tokio::net::TcpListener::from_std(opened.await.map_err(io::Error::other)??)
}

/// The rule as Amazon's `ecs-init` makes it, safe to apply again.
fn rules() -> String {
    format!(
        "table ip longshore_task
delete table ip longshore_task
table ip longshore_task {{
\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
\t\tip daddr 169.254.170.2 tcp dport 80 redirect to :{PORT}
\t}}
}}
"
    )
}
