//! The task metadata, credentials and task protection endpoints at 169.254.170.2:80, one server per network namespace.
//!
//! As Amazon's set-up, the address is not listened on itself, so that a container may have port 80 on every address:
//! a rule inside the task's network namespace redirects it to a high port of the loopback. The listener lives inside
//! that namespace, so nobody but the task's own containers reaches it, and it serves that task only. Containers in the
//! machine's own network share one server, as all do at Amazon: there the id in the path is the secret that tells them
//! apart.

pub mod documents;
mod limiter;
mod listener;
mod network;
mod protection;
mod server;
pub mod stats;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::aws::{CallError, Client};
use crate::engine::record::{ContainerRecord, TaskRecord};
use crate::instance::Kind;
use crate::roles::Roles;

pub use network::{Counters, read as read_counters};

/// The port Amazon's agent has on the loopback.
pub const PORT: u16 = 51_679;

/// Reads what a container uses, by its runtime id.
pub type Statistics = Arc<dyn Fn(&str) -> Option<runtime::Stats> + Send + Sync>;

/// Reads what passed through a container's interfaces; nothing if it has none of its own.
pub type Network = Arc<dyn Fn(&ContainerRecord) -> BTreeMap<String, Counters> + Send + Sync>;

/// What a task's endpoint answers from.
#[derive(Clone)]
pub struct Context {
    /// What the agent runs as.
    pub kind: Kind,
    /// The task.
    pub task_arn: String,
    /// Where it runs.
    pub availability_zone: String,
    /// Everybody's credentials; only the task's own are served.
    pub roles: Arc<Roles>,
    /// The task's newest record.
    pub view: Arc<dyn Fn() -> Option<Arc<TaskRecord>> + Send + Sync>,
    /// What its containers use.
    pub stats: Statistics,
    /// Used and total bytes of the task's ephemeral storage.
    pub storage: Arc<dyn Fn() -> Option<(u64, u64)> + Send + Sync>,
    /// Asks the control plane for the task's tags.
    pub tags: Arc<dyn Fn() -> Tags + Send + Sync>,
    /// The platform's API, for what the task asks of it through the agent, as itself.
    pub api: Client,
    /// What passed through its containers' interfaces.
    pub network: Network,
    /// What was read of its containers before.
    pub readings: Arc<stats::Readings>,
}

/// Tags on their way.
pub type Tags = Pin<Box<dyn Future<Output = Result<BTreeMap<String, String>, CallError>> + Send>>;

/// The context of the task that an id of a request's path belongs to.
pub type Finder = Arc<dyn Fn(&str) -> Option<Context> + Send + Sync>;

/// Who is served.
#[derive(Clone)]
pub enum Served {
    /// One task, whoever asks.
    Task(Box<Context>),
    /// Any task, by the id in the path: nobody else knows it.
    Any(Finder),
}

/// An endpoint; closes when dropped.
pub struct Endpoint {
    server: AbortHandle,
}

impl Endpoint {
    /// Opens the endpoint inside a network namespace.
    pub async fn open(netns: PathBuf, context: Context) -> std::io::Result<Endpoint> {
        let listener = listener::open(netns).await?;
        Ok(Endpoint::serve(listener, Served::Task(Box::new(context))))
    }

    /// Opens the endpoint of the machine's own network, for tasks in host mode.
    pub async fn open_own(finder: Finder) -> std::io::Result<Endpoint> {
        Ok(Endpoint::serve(listener::open_own().await?, Served::Any(finder)))
    }

    /// Serves any task at a listener that is there already.
    pub fn open_at(listener: tokio::net::TcpListener, finder: Finder) -> Endpoint {
        Endpoint::serve(listener, Served::Any(finder))
    }

    fn serve(listener: tokio::net::TcpListener, served: Served) -> Endpoint {
        Endpoint { server: tokio::spawn(server::run(listener, served)).abort_handle() }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}
