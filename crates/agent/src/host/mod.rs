//! The engine's [`Driver`] on a real Linux host: the runtime's containers, the images, the control plane's API.
//!
//! What is particular to a kind of instance is in [`crate::instance`], to a network mode in [`crate::network`].

mod collect;
mod containers;
pub mod network;
mod provision;
mod pull;
pub(crate) mod reasons;
pub(crate) mod spec;
mod storage;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use domain::agent_protocol::payload::Task;
use domain::{Clock, IdSource, Timestamp};
use runtime::{Container, ImageStore, Runtime};
use tokio::sync::{Notify, OnceCell, watch};

use crate::engine::Engine;
use crate::engine::driver::{Driver, Found, StartOrder, Started};
use crate::engine::health::{Check, Outcome};
use crate::engine::machine::{Ended, Failure, Pulled};
use crate::engine::record::{Desired, StateChange, TaskRecord};
use crate::identity::Identity;
use crate::instance::Kind;
use crate::metadata::Endpoint;
use crate::metadata::stats::Readings;
use crate::network::awsvpc::Interfaces;
use crate::network::bridge::Bridge;
use crate::roles::Roles;
use crate::session::status::Checking;
use crate::session::tcs::Usage;
use crate::telling;

/// What the host part of the agent is told once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the agent runs as.
    pub kind: Kind,
    /// Six hexadecimal digits that mark this platform's kernel objects.
    pub platform: String,
    /// Where interfaces' network namespaces are.
    pub interfaces: Interfaces,
    /// The agent's directory.
    pub directory: PathBuf,
    /// `AWS_ENDPOINT_URL` inside tasks.
    pub task_endpoint: String,
    /// Certificates (PEM) to trust beside the machine's own.
    pub authorities: Option<String>,
    /// Registries that are pulled from elsewhere: name → URL.
    pub mirrors: Vec<(String, String)>,
    /// The instance's availability zone.
    pub availability_zone: String,
    /// Most bytes of images that no task uses.
    pub image_cache: u64,
    /// SIGTERM to SIGKILL where a definition does not say.
    pub stop_timeout: Duration,
}

impl Settings {
    /// Where tasks are remembered.
    pub fn tasks(&self) -> PathBuf {
        self.directory.join("tasks")
    }

    /// Where ephemeral storage is.
    pub fn volumes(&self) -> PathBuf {
        self.directory.join("volumes")
    }

    /// Where the runtime keeps its containers.
    pub fn containers(&self) -> PathBuf {
        self.directory.join("containers")
    }

    /// The cgroup of all tasks.
    pub fn cgroup(&self) -> String {
        format!("longshore/{}", self.platform)
    }

    /// The cgroup of one task.
    pub fn task_cgroup(&self, id: &str) -> String {
        format!("longshore/{}/{id}", self.platform)
    }
}

/// A Linux host.
pub struct Host {
    settings: Settings,
    identity: Arc<Identity>,
    roles: Arc<Roles>,
    runtime: Arc<Runtime>,
    images: Arc<ImageStore>,
    pulled: Mutex<HashMap<(String, usize), Arc<runtime::Image>>>,
    collector: Notify,
    /// This instance's own networks; a Fargate host has none.
    bridge: Option<Arc<Bridge>>,
    /// Metadata endpoints by the network namespace they are in.
    endpoints: Mutex<HashMap<PathBuf, Arc<OnceCell<Endpoint>>>>,
    /// The one in the machine's own network.
    own_endpoint: OnceCell<Endpoint>,
    readings: Mutex<HashMap<String, Arc<Readings>>>,
    this: Weak<Host>,
    drains: Mutex<HashMap<String, watch::Receiver<bool>>>,
    engine: OnceLock<Weak<Engine<Host>>>,
    ids: Mutex<IdSource>,
}

/// A lock whose holder panicked is as good as any: what it guards is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Puts a host together.
    pub fn new(
        settings: Settings,
        identity: Arc<Identity>,
        roles: Arc<Roles>,
        runtime: Arc<Runtime>,
        images: Arc<ImageStore>,
        bridge: Option<Arc<Bridge>>,
    ) -> Arc<Host> {
        Arc::new_cyclic(|this| Host {
            settings,
            identity,
            roles,
            runtime,
            images,
            pulled: Mutex::default(),
            collector: Notify::new(),
            bridge,
            endpoints: Mutex::default(),
            own_endpoint: OnceCell::new(),
            readings: Mutex::default(),
            this: this.clone(),
            drains: Mutex::default(),
            engine: OnceLock::new(),
            ids: Mutex::new(IdSource::from_system()),
        })
    }

    /// The engine that this host serves; told once.
    pub fn serve(&self, engine: &Arc<Engine<Host>>) {
        let _ = self.engine.set(Arc::downgrade(engine));
    }

    /// The newest record of a task.
    fn view(&self, arn: &str) -> Option<Arc<TaskRecord>> {
        self.engine.get().and_then(Weak::upgrade)?.view(arn)
    }

    fn is_wanted(&self, arn: &str) -> bool {
        self.view(arn).is_none_or(|record| record.desired == Desired::Running)
    }

    fn container(&self, runtime_id: &str) -> Option<Container> {
        self.runtime.get(runtime_id)
    }

    /// What a container used, for telemetry.
    pub fn usage(&self, runtime_id: &str) -> Option<Usage> {
        let stats = self.container(runtime_id)?.stats().ok()?;
        Some(Usage {
            cpu_nanoseconds: stats.cpu_usage_nanoseconds,
            cores: stats.online_cpus,
            memory: stats.memory_usage_bytes,
            read: stats.io_read_bytes,
            written: stats.io_write_bytes,
        })
    }

    /// Checks that the runtime could make a container.
    pub fn check_runtime(&self) -> Checking {
        let (runtime, cgroup) = (self.runtime.clone(), self.settings.cgroup());
        Box::pin(async move { runtime.check(&cgroup).await.map_err(|error| error.to_string()) })
    }

    /// Removes what is on the host but in no record, after a `kill -9` in the middle of something.
    pub async fn remove_orphans(&self, records: &[TaskRecord]) {
        let mut known = HashSet::new();
        for container in records.iter().flat_map(|record| &record.containers) {
            known.extend(container.runtime_id.iter().chain(&container.former_ids).map(String::as_str));
        }
        for container in self.runtime.list() {
            if !known.contains(container.id()) {
                tracing::warn!(container = container.id(), "removing a container no task knows");
                if let Err(error) = container.delete().await {
                    tracing::warn!(container = container.id(), %error, "an orphan could not be removed");
                }
            }
        }
        let tasks: HashSet<&str> = records.iter().map(TaskRecord::id).collect();
        provision::remove_orphan_groups(&self.settings, &tasks).await;
        storage::remove_orphans(&self.settings, &tasks).await;
    }
}

impl Driver for Host {
    async fn provision(&self, task: Arc<Task>, volume: String) -> Result<(), Failure> {
        self.make_ready(task, volume).await
    }

    async fn pull(
        &self,
        task: Arc<Task>,
        index: usize,
        resolved: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pulled, Failure> {
        self.pull_image(task, index, resolved).await
    }

    async fn start(&self, order: StartOrder) -> Result<Started, Failure> {
        self.start_container(order).await
    }

    async fn find(&self, task: Arc<Task>, index: usize, runtime_id: &str) -> Found {
        self.find_container(task, index, runtime_id).await
    }

    async fn wait(&self, runtime_id: &str) -> Ended {
        match self.container(runtime_id) {
            Some(container) => containers::ended(&container.wait().await),
            None => Ended { exit_code: None, out_of_memory: false, at: self.now() },
        }
    }

    async fn stop(&self, runtime_id: &str, signal: Option<&str>, grace: Duration) {
        self.stop_container(runtime_id, signal, grace).await;
    }

    async fn release(&self, task: Arc<Task>, index: usize) {
        self.leave(&task, index).await;
    }

    fn stop_timeout(&self) -> Duration {
        self.settings.stop_timeout
    }

    async fn check(&self, runtime_id: &str, check: &Check) -> Outcome {
        self.check_container(runtime_id, check).await
    }

    async fn drained(&self, runtime_id: &str) {
        let drain = lock(&self.drains).get(runtime_id).cloned();
        if let Some(mut drain) = drain {
            // An error means that the pump is gone, and with it the wait.
            let _ = drain.wait_for(|done| *done).await;
        }
    }

    async fn clean_up(&self, record: Arc<TaskRecord>) {
        self.remove_task(record).await;
    }

    async fn submit(&self, task_arn: &str, change: &StateChange) {
        telling::submit(&self.identity, &self.ids, task_arn, change).await;
    }

    fn save(&self, record: &TaskRecord) {
        telling::save(&self.settings, record);
    }

    fn forget(&self, record: &TaskRecord) {
        telling::forget(&self.settings, record);
        self.roles.forget(&record.task.arn);
    }

    fn now(&self) -> Timestamp {
        Clock::system_now()
    }

    /// As on Fargate; also the container's name at the metadata endpoint.
    fn new_runtime_id(&self, task_id: &str) -> String {
        telling::new_id(&self.ids, task_id)
    }
}
