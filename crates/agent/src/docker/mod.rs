//! The engine's [`Driver`] on Docker Engine, as Amazon's agent has it: containers, images and their networks are
//! Docker's, and what the agent adds is the same as with our own runtime.
//!
//! What Docker cannot do, or not as Amazon documents it, is not offered to the control plane ([`machine`]), or refused
//! by its name. [`client`] speaks Docker's API, [`api`] is what is read of it, [`create`] what is asked for.

mod api;
mod client;
mod containers;
mod create;
mod files;
pub mod logs;
pub mod machine;
mod metadata;
mod pull;
mod registry;
mod stats;
pub mod teardown;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use domain::agent_protocol::payload::{Container, Task};
use domain::{Clock, IdSource, Timestamp};
use runtime::{Group, Limits};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::engine::driver::{Driver, Found, Named, StartOrder, Started};
use crate::engine::health::{Check, Outcome};
use crate::engine::machine::{Ended, Failure, Pulled};
use crate::engine::record::{StateChange, TaskRecord, task_id};
use crate::host::{Settings, reasons};
use crate::identity::Identity;
use crate::logs::{EXECUTION_ROLE, LogDriver, Sink, Source};
use crate::network::Mode;
use crate::roles::Roles;
use crate::session::status::Checking;
use crate::telling;
use client::Client;
use create::{AGENT_LABEL, TASK_LABEL};
use machine::Machine;
use registry::Registries;

/// How long the last lines of an ended task may take before it is removed.
const LINES_PATIENCE: Duration = Duration::from_secs(600);

/// How long the engine may take to say that it is well.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// A machine whose containers are Docker Engine's.
pub struct Docker {
    settings: Settings,
    identity: Arc<Identity>,
    roles: Arc<Roles>,
    client: Client,
    engine: Machine,
    registries: Registries,
    pulls: pull::Locks,
    /// What Docker calls containers, by the ids that they were asked for by.
    names: Mutex<HashMap<String, Named>>,
    /// Docker's identifiers of images that were pulled, by task and container: the record has them a moment later.
    pulled: Mutex<HashMap<(String, usize), String>>,
    drains: Mutex<HashMap<String, watch::Receiver<bool>>>,
    /// When the last outcome of a health check ended that was taken in.
    seen: Mutex<HashMap<String, String>>,
    readings: stats::Readings,
    endpoints: metadata::Endpoints,
    tasks: OnceLock<Weak<Engine<Docker>>>,
    source: Mutex<IdSource>,
}

/// A lock whose holder panicked is as good as any: what it guards is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Docker {
    /// Checks that the engine answers.
    pub fn check_runtime(self: &Arc<Self>) -> Checking {
        let docker = self.clone();
        Box::pin(async move {
            let asked = tokio::time::timeout(PROBE_PATIENCE, docker.client.get::<serde_json::Value>("/info")).await;
            match asked {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("Docker Engine does not answer".to_owned()),
            }
        })
    }

    /// Puts it together.
    pub fn new(settings: Settings, identity: Arc<Identity>, roles: Arc<Roles>, engine: Machine) -> Arc<Docker> {
        Arc::new(Docker {
            registries: Registries::new(identity.client.clone()),
            client: engine.client.clone(),
            settings,
            identity,
            roles,
            engine,
            pulls: Mutex::default(),
            names: Mutex::default(),
            pulled: Mutex::default(),
            drains: Mutex::default(),
            seen: Mutex::default(),
            readings: Arc::default(),
            endpoints: metadata::Endpoints::default(),
            tasks: OnceLock::new(),
            source: Mutex::new(IdSource::from_system()),
        })
    }

    /// The engine of tasks that this serves; told once.
    pub fn serve(&self, tasks: &Arc<Engine<Docker>>) {
        let _ = self.tasks.set(Arc::downgrade(tasks));
    }

    /// The newest record of a task.
    fn view(&self, arn: &str) -> Option<Arc<TaskRecord>> {
        self.tasks.get().and_then(Weak::upgrade)?.view(arn)
    }

    /// The newest record of a task, with the names that its containers have in Docker even before they are in it: a
    /// container may ask for its own the moment it is started.
    fn named_view(&self, arn: &str) -> Option<Arc<TaskRecord>> {
        let mut record = self.view(arn)?;
        let names = lock(&self.names);
        let known = |id: Option<&String>| names.get(id?).filter(|named| Some(&named.id) != id).cloned();
        let new: Vec<_> = record.containers.iter().map(|container| known(container.runtime_id.as_ref())).collect();
        if new.iter().any(Option::is_some) {
            for (container, named) in Arc::make_mut(&mut record).containers.iter_mut().zip(new) {
                if let Some(Named { id, name }) = named {
                    container.rename(id, name);
                }
            }
        }
        Some(record)
    }

    /// Removes containers that this agent has made and that are in no record of it. An engine that does not answer is no
    /// reason not to start.
    pub async fn remove_orphans(&self, records: &[TaskRecord]) {
        let known: HashSet<&str> = records.iter().map(|record| record.task.arn.as_str()).collect();
        let own = match self.labelled(TASK_LABEL).await {
            Ok(own) => own,
            Err(error) => {
                tracing::warn!(%error, "containers that no task knows cannot be looked for");
                return;
            }
        };
        for one in own {
            let task = one.labels.get(TASK_LABEL).map(String::as_str).unwrap_or_default();
            if !known.contains(task) {
                tracing::warn!(container = one.id, label = AGENT_LABEL, "removing a container no task knows");
                if let Err(error) = self.remove(&one.id).await {
                    tracing::warn!(container = one.id, %error, "an orphan could not be removed");
                }
            }
        }
    }

    /// What is kept of a container on our side: how much of its lines was delivered.
    fn lines_of(&self, id: &str) -> PathBuf {
        self.settings.directory.join("lines").join(id)
    }

    /// Docker's name of the task's cgroup, if the task has limits of its own.
    fn group_of(&self, task: &Task) -> Option<String> {
        let wanted = self.engine.groups && (task.memory.is_some() || task.cpu.is_some());
        wanted.then(|| format!("/{}", self.settings.task_cgroup(task_id(&task.arn))))
    }

    fn make_group(&self, task: &Task) -> Result<(), Failure> {
        let failed = |why: &dyn std::fmt::Display| reasons::resource("failed to create the task's cgroup", why);
        let limited = task.memory.is_some() || task.cpu.is_some();
        if !limited || (!self.engine.groups && task.containers.len() == 1) {
            return Ok(());
        }
        if !self.engine.groups {
            return Err(failed(
                &"limits of a task of several containers need Docker's cgroup driver to be cgroupfs, and /sys/fs/cgroup to be the machine's and writable",
            ));
        }
        let memory = task.memory.and_then(|mebibytes| u64::try_from(mebibytes).ok()).map(|mebibytes| mebibytes << 20);
        let cpu = task.cpu.filter(|cpu| *cpu > 0.0);
        let limits = Limits {
            memory_bytes: memory,
            cpu_quota_microseconds: cpu.map(|cpu| (cpu * 100_000.0) as u64),
            cpu_period_microseconds: cpu.map(|_| 100_000),
            ..Limits::default()
        };
        Group::create(&self.settings.task_cgroup(task_id(&task.arn)), &limits).map(drop).map_err(|error| failed(&error))
    }

    async fn open_streams(&self, task: &Task) -> Result<(), Failure> {
        for container in &task.containers {
            // A stream with the container's own identifier is made later.
            if let Some(sink) = self.sink(task, container, "") {
                let opened = sink.open().await;
                opened.map_err(|error| reasons::resource("failed to validate logger args", &error))?;
            }
        }
        Ok(())
    }

    /// Where a container's lines go; `None` if nobody keeps them.
    fn sink(&self, task: &Task, container: &Container, runtime_id: &str) -> Option<Sink> {
        // The driver was checked when the task was received.
        let driver = LogDriver::of(container).ok()?;
        let (client, roles) = (&self.identity.client, &self.roles);
        // As Amazon's agent: with the instance's own keys where the control plane does not say otherwise.
        let own = container.logs_auth_strategy.as_deref() != Some(EXECUTION_ROLE);
        let instance = own.then_some(&self.identity);
        driver.sink(&Source { client, roles, instance, task, container: &container.name, runtime_id })
    }

    async fn remove_task(&self, record: &TaskRecord) {
        let here = self.of_task(&record.task.arn).await.unwrap_or_default();
        let lines = async {
            for one in &here {
                self.drained(&one.id).await;
            }
        };
        if tokio::time::timeout(LINES_PATIENCE, lines).await.is_err() {
            tracing::warn!(task = record.id(), "the last lines of a task could not be delivered and are lost");
        }
        for one in &here {
            if let Err(error) = self.remove(&one.id).await {
                tracing::warn!(container = one.id, %error, "a container could not be removed");
            }
            lock(&self.drains).remove(&one.id);
            lock(&self.seen).remove(&one.id);
            lock(&self.names).retain(|_, named| named.id != one.id);
            let _ = std::fs::remove_dir_all(self.lines_of(&one.id));
        }
        lock(&self.pulled).retain(|(arn, _), _| *arn != record.task.arn);
        if self.engine.groups
            && let Ok(group) = Group::open(&self.settings.task_cgroup(record.id()))
            && let Err(error) = group.remove()
        {
            tracing::warn!(task = record.id(), %error, "a task's cgroup could not be removed");
        }
    }
}

/// Refuses what a task asks of its network and Docker does not do. The control plane does not place such a task here; this
/// is for the one that does.
fn check_network(task: &Task) -> Result<(), Failure> {
    let refused = |what: String| {
        let why = format!("{what} is not supported with the docker runtime");
        Err(reasons::resource("failed to configure the task's network", &why))
    };
    match Mode::of(task) {
        Ok(Mode::Awsvpc) => return refused("networkMode awsvpc".to_owned()),
        Ok(_) => {}
        Err(other) => return refused(format!("networkMode {other}")),
    }
    // Docker finds free ports one by one, and a range is promised to be in a row.
    let mut mappings = task.containers.iter().flat_map(|container| &container.port_mappings);
    match mappings.find(|mapping| !mapping.container_port_range.is_empty()) {
        Some(mapping) => refused(format!("containerPortRange {}", mapping.container_port_range)),
        None => Ok(()),
    }
}

impl Driver for Docker {
    async fn provision(&self, task: Arc<Task>, _: String) -> Result<(), Failure> {
        check_network(&task)?;
        self.make_group(&task)?;
        // After a restart of the agent the streams are there already.
        let again = self.view(&task.arn).is_some_and(|record| record.provisioned);
        if again { Ok(()) } else { self.open_streams(&task).await }
    }

    async fn pull(
        &self,
        task: Arc<Task>,
        index: usize,
        resolved: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pulled, Failure> {
        self.pull_image(&task, index, resolved).await
    }

    async fn start(&self, order: StartOrder) -> Result<Started, Failure> {
        self.start_container(order).await
    }

    async fn find(&self, task: Arc<Task>, index: usize, runtime_id: &str) -> Found {
        self.find_container(&task, index, runtime_id).await
    }

    async fn wait(&self, runtime_id: &str) -> Ended {
        self.wait_for(runtime_id).await
    }

    async fn stop(&self, runtime_id: &str, _: Option<&str>, grace: Duration) {
        self.stop_container(runtime_id, grace).await;
    }

    /// Docker takes it back by itself when a container ends.
    async fn release(&self, _: Arc<Task>, _: usize) {}

    fn stop_timeout(&self) -> Duration {
        self.settings.stop_timeout
    }

    async fn check(&self, runtime_id: &str, check: &Check) -> Outcome {
        self.next_outcome(runtime_id, check).await
    }

    async fn drained(&self, runtime_id: &str) {
        let drain = lock(&self.drains).get(&self.resolve(runtime_id)).cloned();
        if let Some(mut drain) = drain {
            // An error means that the pump is gone, and with it the wait.
            let _ = drain.wait_for(|done| *done).await;
        }
    }

    /// Amazon's agent leaves the containers of a task that ended to whoever wants to look at them, for a while.
    async fn clean_up(&self, record: Arc<TaskRecord>) {
        let since = record.execution_stopped_at.unwrap_or_else(|| self.now());
        let made = record.containers.iter().any(|container| container.started_at.is_some());
        if made {
            tokio::time::sleep(self.engine.cleanup_wait.saturating_sub(self.now().since(since))).await;
        }
        self.remove_task(&record).await;
    }

    async fn submit(&self, task_arn: &str, change: &StateChange) {
        telling::submit(&self.identity, &self.source, task_arn, change).await;
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

    fn new_runtime_id(&self, task_id: &str) -> String {
        telling::new_id(&self.source, task_id)
    }
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::payload::PortMapping;

    use super::*;

    #[test]
    fn networks_that_docker_does_not_have_are_refused_by_name() {
        let task = |mode: &str, range: &str| {
            let mapping = PortMapping { container_port_range: range.into(), ..PortMapping::default() };
            let container = Container { port_mappings: vec![mapping], ..Container::default() };
            Task { network_mode: mode.into(), containers: vec![container], ..Task::default() }
        };
        for mode in ["", "bridge", "host", "none"] {
            assert_eq!(check_network(&task(mode, "")), Ok(()), "{mode}");
        }
        for (mode, range, what) in [
            ("awsvpc", "", "networkMode awsvpc is not supported with the docker runtime"),
            ("overlay", "", "networkMode overlay"),
            ("bridge", "8000-8003", "containerPortRange 8000-8003"),
        ] {
            let Failure(why) = check_network(&task(mode, range)).expect_err(what);
            assert!(why.contains(what), "{why}");
        }
    }
}
