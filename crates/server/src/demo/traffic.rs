//! The proof: requests through the load balancer until every task has answered.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::stack::{Balancer, Task};
use crate::{aws::Client, supervisor::Error};

/// How long the targets may take to become healthy.
const TIMEOUT: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests to the load balancer until each of the tasks has answered one. Gives how many requests it took.
pub async fn reach_every_task(
    client: &Client,
    balancer: &Balancer,
    tasks: &[Task],
    progress: impl Fn(&str),
) -> Result<usize, Error> {
    let expected: BTreeSet<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    let mut answered: BTreeSet<String> = BTreeSet::new();
    let started = Instant::now();
    let mut requests = 0;
    let mut last = String::new();
    while started.elapsed() < TIMEOUT {
        match request(balancer).await {
            Ok(page) => {
                requests += 1;
                match page.split("hello from task ").nth(1).map(|rest| rest.trim().to_owned()) {
                    Some(task) => drop(answered.insert(task)),
                    None => last = page.lines().next().unwrap_or_default().to_owned(),
                }
            }
            Err(error) => last = error.to_string(),
        }
        if expected.iter().all(|task| answered.contains(*task)) {
            return Ok(requests);
        }
        progress(&format!("{} of {} tasks have answered; {last}", answered.len(), expected.len()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let health = super::stack::target_health(client, &balancer.target_group).await.unwrap_or_default();
    Err(format!(
        "after {TIMEOUT:?} only {} of {} tasks had answered through {}; the last answer: {last}; target health: {health}",
        answered.len(),
        expected.len(),
        balancer.url
    )
    .into())
}

async fn request(balancer: &Balancer) -> Result<String, Error> {
    let exchange = async {
        let address = resolve(&balancer.host, balancer.port).await?;
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", balancer.host);
        stream.write_all(head.as_bytes()).await?;
        let mut page = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut page).await?;
        Ok::<_, Error>(String::from_utf8_lossy(&page).into_owned())
    };
    tokio::time::timeout(REQUEST_TIMEOUT, exchange).await?
}

/// The load balancer's address on this host, by the same name that a browser would use.
async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let mut found = tokio::net::lookup_host((host, port)).await?;
    found.find(|address| address.ip() != Ipv4Addr::UNSPECIFIED).ok_or_else(|| format!("{host} has no address").into())
}
