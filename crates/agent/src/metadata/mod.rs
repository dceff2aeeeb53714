//! The task metadata and credentials endpoints at 169.254.170.2:80, one server per task.
//!
//! As Amazon's set-up, the address is not listened on itself, so that a container may have port 80 on every address:
//! a rule inside the task's network namespace redirects it to a high port of the loopback. The listener lives inside
//! that namespace, so nobody but the task's own containers reaches it, and it serves that task only.

mod documents;
mod limiter;
mod listener;
mod network;
mod server;
pub mod stats;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::aws::CallError;
use crate::engine::record::TaskRecord;
use crate::roles::Roles;

/// Reads what a container uses, by its runtime id.
pub type Statistics = Arc<dyn Fn(&str) -> Option<runtime::Stats> + Send + Sync>;

/// What a task's endpoint answers from.
#[derive(Clone)]
pub struct Context {
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
    /// The task's network namespace.
    pub netns: PathBuf,
    /// What was read of its containers before.
    pub readings: Arc<stats::Readings>,
}

/// Tags on their way.
pub type Tags = Pin<Box<dyn Future<Output = Result<BTreeMap<String, String>, CallError>> + Send>>;

/// A task's endpoint; closes when dropped.
pub struct Endpoint {
    server: AbortHandle,
}

impl Endpoint {
    /// Opens the endpoint inside a network namespace.
    pub async fn open(netns: PathBuf, context: Context) -> std::io::Result<Endpoint> {
        let listener = listener::open(netns).await?;
        let server = tokio::spawn(server::run(listener, context)).abort_handle();
        Ok(Endpoint { server })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}
