//! Workers: one thread each, with its own runtime, its own connections and its own pools. A connection stays on the
//! worker that it was given to, and so do the connections to targets that serve it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{SocketAddr, TcpStream as StdTcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use domain::{Clock, balancing::ProtocolVersion};
use hyper::server::conn::http1;
use tokio::{
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::mpsc,
};

use crate::{
    connection, cookie::Key, group::Target, pool::Pool, routing::Routing, tcp::Flows, tls::handshakes::Handshakes,
};

/// How often pools are looked through for connections that have been idle for too long.
const SWEEP: Duration = Duration::from_secs(10);

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// A connection accepted by the listener on this port.
    Serve(StdTcpStream, u16),
    /// A new routing.
    Route(Arc<Routing>),
}

/// A routing together with this worker's connections to its targets.
#[derive(Debug, Default)]
pub struct Table {
    /// The routing.
    pub routing: Arc<Routing>,
    /// One per target, in the order of the routing's groups and targets.
    pools: Vec<Vec<Rc<Pool>>>,
}

impl Table {
    /// The connections to a target of a group, by their indexes.
    pub fn pool(&self, group: usize, target: usize) -> Option<Rc<Pool>> {
        self.pools.get(group)?.get(target).cloned()
    }
}

/// A worker, seen from its own thread.
#[derive(Debug)]
pub struct Worker {
    table: RefCell<Rc<Table>>,
    random: Cell<u64>,
    /// What cookies are sealed with.
    pub key: Arc<Key>,
    /// Open flows of a network load balancer.
    pub flows: Flows,
    /// Handshakes of TLS that are going on.
    pub handshakes: Handshakes,
    /// How HTTP/1 is read.
    pub http1: http1::Builder,
}

impl Worker {
    fn new(seed: u64, key: Arc<Key>, handshakes: usize) -> Rc<Self> {
        Rc::new(Self {
            table: RefCell::default(),
            random: Cell::new(seed | 1),
            key,
            flows: Flows::default(),
            handshakes: Handshakes::new(handshakes),
            http1: connection::http1(),
        })
    }

    /// The table in force now.
    pub fn table(&self) -> Rc<Table> {
        self.table.borrow().clone()
    }

    /// The idle timeout in force now.
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.table.borrow().routing.attributes.idle_timeout_seconds.max(1)))
    }

    /// Seconds since the epoch, for trace ids and cookies.
    pub fn seconds(&self) -> u64 {
        u64::try_from(Clock::system_now().seconds()).unwrap_or(0)
    }

    /// Pseudo-random bits (xorshift64*), for trace ids: unique, not secret.
    pub fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Puts a routing in force. Targets that stay keep their connections; those that went from their group have theirs
    /// cut; those whose whole group is no longer used finish what they have.
    fn install(&self, routing: Arc<Routing>) {
        let previous = self.table();
        let mut kept: HashMap<(&str, SocketAddr, ProtocolVersion), Rc<Pool>> = HashMap::new();
        for (group, pools) in previous.routing.groups.iter().zip(&previous.pools) {
            for pool in pools {
                kept.insert((&group.arn, pool.address(), pool.version()), pool.clone());
            }
        }
        let pools = routing.groups.iter().map(|group| {
            let pool = |target: &Target| {
                let existing = kept.remove(&(group.arn.as_str(), target.address, group.version));
                existing.unwrap_or_else(|| Pool::new(target.address, group.version, group.secure))
            };
            group.targets.iter().map(pool).collect()
        });
        let pools = pools.collect();
        for ((group, ..), pool) in kept {
            if routing.groups.iter().any(|stays| stays.arn == group) {
                pool.close();
            } else {
                pool.retire();
            }
        }
        self.flows.settle(routing.tcp.as_ref());
        *self.table.borrow_mut() = Rc::new(Table { routing, pools });
    }

    fn sweep(&self) {
        let timeout = self.idle_timeout();
        for pool in self.table().pools.iter().flatten() {
            pool.sweep(timeout);
        }
    }
}

/// A worker, seen from the thread that accepts.
#[derive(Debug)]
pub struct Handle {
    messages: mpsc::UnboundedSender<Message>,
    connections: Arc<AtomicUsize>,
}

/// All workers.
#[derive(Debug)]
pub struct Workers(Vec<Handle>);

impl Workers {
    /// Starts `count` workers; they end when this is dropped. Handshakes get at most half of the `limit` of connections.
    pub fn start(count: usize, seed: u64, key: &Arc<Key>, limit: usize) -> io::Result<Self> {
        let handshakes = limit / 2 / count.max(1);
        let start = |index: usize| {
            let (messages, inbox) = mpsc::unbounded_channel();
            let connections = Arc::new(AtomicUsize::new(0));
            let counter = connections.clone();
            let seed = seed.wrapping_add(u64::try_from(index).unwrap_or(0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let key = key.clone();
            thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run(inbox, &counter, seed, key, handshakes))?;
            Ok(Handle { messages, connections })
        };
        (0..count.max(1)).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// How many connections are being served.
    pub fn connections(&self) -> usize {
        self.0.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }

    /// Gives a connection to the worker with the fewest.
    pub fn serve(&self, stream: StdTcpStream, port: u16) {
        if let Some(worker) = self.0.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed)) {
            worker.connections.fetch_add(1, Ordering::Relaxed);
            if worker.messages.send(Message::Serve(stream, port)).is_err() {
                worker.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Puts a routing in force everywhere. A connection handed over later is served by it or a newer one.
    pub fn route(&self, routing: &Arc<Routing>) {
        for worker in &self.0 {
            let _ = worker.messages.send(Message::Route(routing.clone()));
        }
    }
}

fn run(
    mut inbox: mpsc::UnboundedReceiver<Message>,
    counter: &Arc<AtomicUsize>,
    seed: u64,
    key: Arc<Key>,
    handshakes: usize,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            std::process::exit(1);
        }
    };
    runtime.block_on(async move {
        let worker = Worker::new(seed, key, handshakes);
        let sweeper = worker.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeper.sweep();
            }
        });
        while let Some(message) = inbox.recv().await {
            match message {
                Message::Route(routing) => worker.install(routing),
                Message::Serve(stream, port) => {
                    let served = Served(counter.clone());
                    let worker = worker.clone();
                    tokio::task::spawn_local(async move {
                        let _served = served;
                        let outcome = match TcpStream::from_std(stream) {
                            Ok(stream) => connection::serve(worker, stream, port).await,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = outcome {
                            tracing::trace!(%error, "the connection failed");
                        }
                    });
                }
            }
        }
    });
}

/// Counts a connection until it ends, whichever way.
struct Served(Arc<AtomicUsize>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs hyper's own tasks on the worker's thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}
