//! The data plane of a load balancer: listeners, rules, health checks. One process per load balancer, without
//! privileges, inside the network namespace of the load balancer's first interface.
//!
//! It follows its slice of desired state through the feed and keeps it on disk, so that it serves on while the control
//! plane is down and after its own restart. It never opens the store and knows nothing of the API. Mirrors Amazon's
//! application load balancers: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/>.
//!
//! Entry points: [`main`] for the process, [`plane::run`] for the loop in it, `proxy::respond` for one request.

pub mod body;
pub mod choice;
pub mod client;
pub mod condition;
pub mod connection;
pub mod headers;
pub mod health;
pub mod listeners;
pub mod pattern;
pub mod plane;
pub mod pool;
pub mod proxy;
pub mod redirect;
pub mod responses;
pub mod routing;
pub mod stream;
pub mod tunnel;
pub mod worker;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    thread,
};

use domain::balancing::slice::{self, SliceItem};
use feed::{FollowOptions, Follower};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};

/// The most worker threads.
const MAX_WORKERS: usize = 16;

/// File descriptors that are not for clients and their targets.
const OTHER_DESCRIPTORS: u64 = 256;

/// How the process is started. Paths are relative to the data directory, which is the working directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// The load balancer's ARN.
    pub load_balancer: String,
    /// The feed's socket.
    pub feed_socket: PathBuf,
    /// `host`'s socket, which gives listening sockets.
    pub host_socket: PathBuf,
    /// Where the slice is kept between starts.
    pub cache: PathBuf,
    /// The address on which it listens in its own network namespace; all of them in the platform.
    pub bind: Ipv4Addr,
}

impl Options {
    /// The paths that the platform uses.
    pub fn new(load_balancer: &str) -> Self {
        let id: String = load_balancer.rsplit('/').take(1).collect();
        let safe: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        Self {
            load_balancer: load_balancer.to_owned(),
            feed_socket: "run/feed.sock".into(),
            host_socket: "run/host.sock".into(),
            cache: format!("balancers/{safe}.json").into(),
            bind: Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses something it needs.
    #[error("the load balancer's process cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Runs a load balancer's process until it is killed. Blocks.
pub fn main(options: Options) -> Result<(), Error> {
    if let Some(directory) = options.cache.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let limit = connection_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (items, slices) = watch::channel(plane::Items::default());
        let (sender, mut reports) = mpsc::channel(16);
        let surroundings = plane::Surroundings {
            bind: options.bind,
            provider: Some(options.host_socket.clone()),
            workers: thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
            limit,
            // The hasher's keys are random: enough for ids that are to be unique.
            seed: RandomState::new().build_hasher().finish(),
        };
        let mut follower = Follower::<SliceItem>::start(FollowOptions {
            socket: options.feed_socket.clone(),
            consumer: slice::consumer(&options.load_balancer),
            cache: Some(options.cache.clone()),
        });
        let first = follower.slice();
        items.send_replace(Arc::new(first.items.values().cloned().collect()));
        let mut plane = std::pin::pin!(plane::run(surroundings, slices, sender));
        loop {
            tokio::select! {
                ended = &mut plane => return Ok(ended?),
                slice = follower.changed() => {
                    items.send_replace(Arc::new(slice.items.values().cloned().collect()));
                    follower.acknowledge(slice.revision);
                }
                Some(report) = reports.recv() => {
                    follower.report(slice::REPORT_KEY, &report);
                }
            }
        }
    })
}

/// The most clients at once: each may need two descriptors. Raises the soft limit first.
fn connection_limit() -> usize {
    let limit = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() => hard,
        Ok((soft, _)) => soft,
        Err(_) => 1024,
    };
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(16)
}
