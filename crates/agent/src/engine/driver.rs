//! The seam between the task engine and the host: what the engine asks for, and nothing about how it is done.
//!
//! [`crate::host::Host`] does it with our own runtime, [`crate::docker::Docker`] with Docker Engine; tests with a made-up one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::Timestamp;
use domain::agent_protocol::payload::Task;

use super::health::{Check, Outcome};
use super::machine::{Ended, Failure, Pulled};
use super::record::{ContainerNetwork, StateChange, TaskRecord};

/// A container whose own process was executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// When.
    pub at: Timestamp,
    /// What it has of the instance's network.
    pub network: ContainerNetwork,
    /// What the runtime calls it, where that is not as it was asked to.
    pub named: Option<Named>,
}

/// What a runtime that gives identifiers by itself calls a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// SIGTERM to SIGKILL when the definition does not say.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What was found of a container after a restart of the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// It runs, since then.
    Running(Started),
    /// It ended; it had been started then.
    Ended(Option<Timestamp>, Ended),
    /// It was never executed; whatever there was of it is removed.
    Nothing,
}

/// What to create and start.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// The task.
    pub task: Arc<Task>,
    /// Which of its containers.
    pub index: usize,
    /// Its id in the runtime.
    pub runtime_id: String,
    /// Name of the task's ephemeral storage.
    pub volume: Option<String>,
}

/// What the engine asks of the host it runs on.
pub trait Driver: Send + Sync + 'static {
    /// Makes the task's network, cgroup, storage and metadata endpoint ready, and again after a restart of the agent.
    fn provision(&self, task: Arc<Task>, volume: String) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Brings a container's image to the host; tells what its tag resolved to as soon as that is known.
    fn pull(
        &self,
        task: Arc<Task>,
        index: usize,
        resolved: impl Fn(String) + Send + Sync + 'static,
    ) -> impl Future<Output = Result<Pulled, Failure>> + Send;

    /// Creates and starts a container.
    fn start(&self, order: StartOrder) -> impl Future<Output = Result<Started, Failure>> + Send;

    /// Looks for a container after a restart of the agent, and follows its logs again if it is there.
    fn find(&self, task: Arc<Task>, index: usize, runtime_id: &str) -> impl Future<Output = Found> + Send;

    /// Waits for a container's end.
    fn wait(&self, runtime_id: &str) -> impl Future<Output = Ended> + Send;

    /// Stops a container: its signal, its time, the kill. Returns once it ended or cannot be killed.
    fn stop(&self, runtime_id: &str, signal: Option<&str>, grace: Duration) -> impl Future<Output = ()> + Send;

    /// Takes back what a container that ended for good had of the instance's network, before anybody is told of its end:
    /// its ports may be another task's next.
    fn release(&self, task: Arc<Task>, index: usize) -> impl Future<Output = ()> + Send;

    /// How long a container may take to stop when its definition does not say.
    fn stop_timeout(&self) -> Duration {
        STOP_TIMEOUT
    }

    /// Runs a health check inside a container.
    fn check(&self, runtime_id: &str, check: &Check) -> impl Future<Output = Outcome> + Send;

    /// Waits until everything an ended container wrote was delivered.
    fn drained(&self, runtime_id: &str) -> impl Future<Output = ()> + Send;

    /// Removes everything of the task from the host.
    fn clean_up(&self, record: Arc<TaskRecord>) -> impl Future<Output = ()> + Send;

    /// Tells the control plane, for as long as it takes; returns once the change was taken or can never be.
    fn submit(&self, task_arn: &str, change: &StateChange) -> impl Future<Output = ()> + Send;

    /// Remembers a task across restarts of the agent.
    fn save(&self, record: &TaskRecord);

    /// Forgets a task that is gone and told.
    fn forget(&self, record: &TaskRecord);

    /// The time.
    fn now(&self) -> Timestamp;

    /// An id for a new container of a task.
    fn new_runtime_id(&self, task_id: &str) -> String;
}
