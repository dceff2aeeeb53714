//! The data plane of a load balancer: listeners, rules, health checks. One process per load balancer, without
//! privileges, inside the network namespace of the load balancer's first interface.
//!
//! It follows its slice of desired state through the feed and keeps it on disk, so that it serves on while the control
//! plane is down and after its own restart. It never opens the store and knows nothing of the API. Mirrors Amazon's
//! application load balancers, <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/>, and in [`tcp`]
//! network load balancers.
//!
//! Entry points: [`main`] for the process, [`plane::run`] for the loop in it, `proxy::respond` for one request.

pub mod body;
pub mod choice;
pub mod client;
pub mod condition;
pub mod connection;
pub mod cookie;
pub mod group;
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
pub mod slow_start;
pub mod sticky;
pub mod stream;
pub mod tcp;
pub mod tls;
pub mod tunnel;
pub mod worker;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::Ipv4Addr,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use domain::balancing::{
    network::is_network,
    slice::{self, SliceItem},
};
use feed::{FollowOptions, Follower};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use tokio::sync::{mpsc, watch};

/// The most worker threads.
const MAX_WORKERS: usize = 16;

/// File descriptors that are not for clients and their targets.
const OTHER_DESCRIPTORS: u64 = 256;

/// How often the newest report is sent again: what it says of health is kept in memory only by those who read it.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How the process is started. Paths are relative to the data directory, which is the working directory.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  longshore balancer --load-balancer arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/0123456789abcdef"
)]
pub struct Options {
    /// The load balancer's ARN.
    #[arg(long)]
    pub load_balancer: String,
    /// The feed's socket.
    #[arg(long, default_value = "run/feed.sock")]
    pub feed_socket: PathBuf,
    /// The socket of `host`, which gives listening sockets.
    #[arg(long, default_value = "run/host.sock")]
    pub host_socket: PathBuf,
    /// The directory where the slice is kept between starts.
    #[arg(long, default_value = "balancers")]
    pub cache: PathBuf,
    /// The address to listen at in the own network namespace.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind: Ipv4Addr,
    /// User and group to become for good before anything is served, when started as root.
    #[arg(long, default_value_t = 64_580)]
    pub user: u32,
}

impl Options {
    /// The file of the slice: named by the load balancer's id.
    fn cache_file(&self) -> PathBuf {
        self.file("json")
    }

    /// The file of the key that cookies are sealed with.
    fn key_file(&self) -> PathBuf {
        self.file("key")
    }

    fn file(&self, extension: &str) -> PathBuf {
        let id = self.load_balancer.rsplit('/').next().unwrap_or_default();
        let safe: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        self.cache.join(format!("{safe}.{extension}"))
    }
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses something it needs.
    #[error("the load balancer's process cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Runs a load balancer's process until it is killed. Blocks. To be called before the process has other threads.
pub fn main(options: Options) -> Result<(), Error> {
    let limit = connection_limit();
    prepare_cache(&options)?;
    become_user(options.user, is_network(&options.load_balancer))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options, limit))
}

async fn serve(options: Options, limit: usize) -> Result<(), Error> {
    let mut follower = Follower::<SliceItem>::start(FollowOptions {
        socket: options.feed_socket.clone(),
        consumer: slice::consumer(&options.load_balancer),
        cache: Some(options.cache_file()),
    });
    // Nothing is served or reported before it is known what: the first start needs the server, later ones do not.
    let first = loop {
        let slice = follower.changed().await;
        if slice.known {
            break slice;
        }
    };
    let (items, slices) = watch::channel::<plane::Items>(Arc::new(first.items.values().cloned().collect()));
    follower.acknowledge(first.revision);
    let (sender, mut reports) = mpsc::channel(16);
    let surroundings = plane::Surroundings {
        bind: options.bind,
        provider: Some(options.host_socket.clone()),
        workers: thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        limit,
        // The hasher's keys are random: enough for ids that are to be unique.
        seed: RandomState::new().build_hasher().finish(),
        key: Arc::new(cookie::Key::kept(&options.key_file())?),
    };
    let mut plane = pin!(plane::run(surroundings, slices, sender));
    let mut newest = None;
    let mut again = tokio::time::interval(REPORT_INTERVAL);
    loop {
        tokio::select! {
            ended = &mut plane => return Ok(ended?),
            slice = follower.changed() => {
                items.send_replace(Arc::new(slice.items.values().cloned().collect()));
                follower.acknowledge(slice.revision);
            }
            Some(report) = reports.recv() => {
                follower.report(slice::REPORT_KEY, &report);
                newest = Some(report);
            }
            _ = again.tick() => {
                if let Some(report) = &newest {
                    follower.report(slice::REPORT_KEY, report);
                }
            }
        }
    }
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

/// The directory of the slice's copy, owned by who will write it.
fn prepare_cache(options: &Options) -> io::Result<()> {
    std::fs::create_dir_all(&options.cache)?;
    if geteuid().is_root() {
        std::os::unix::fs::chown(&options.cache, Some(options.user), Some(options.user))?;
    }
    Ok(())
}

/// Gives root's rights up for good; one that is not root has none to give. One is kept to `speak_for_others`: connecting from
/// a client's address asks for CAP_NET_RAW, whose reach is this network namespace, which nothing else lets it leave.
fn become_user(user: u32, speak_for_others: bool) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    if geteuid().is_root() {
        prctl::set_keepcaps(speak_for_others)?;
        let (group, user) = (Gid::from_raw(user), Uid::from_raw(user));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        let wanted = if speak_for_others { CapabilitySet::NET_RAW } else { CapabilitySet::empty() };
        let kept = wanted & capabilities(None)?.permitted;
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)?;
    }
    Ok(())
}
