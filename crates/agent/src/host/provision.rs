//! A task's surroundings: its network, cgroup, storage, log streams and metadata endpoint; and their removal.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::payload::{Container, Task};
use runtime::{Group, Limits};

use super::storage::{self, Storage};
use super::{Host, Settings, lock, reasons};
use crate::engine::machine::Failure;
use crate::engine::record::{TaskRecord, task_id};
use crate::instance::Kind;
use crate::logs::{EXECUTION_ROLE, LogDriver, Sink, Source};

/// How long the last lines of an ended task may take before it is removed.
const LINES_PATIENCE: Duration = Duration::from_secs(600);

impl Host {
    pub(super) async fn make_ready(&self, task: Arc<Task>, volume: String) -> Result<(), Failure> {
        check_devices(&task)?;
        let storage = Storage::of(&self.settings, &volume);
        let again = storage.exists();
        let group = self.make_group(&task);
        let stored = async {
            if again {
                return Ok(());
            }
            let bytes = storage::gibibytes(&task) << 30;
            match tokio::task::spawn_blocking(move || storage.create(bytes)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(reasons::resource("failed to create the ephemeral storage", &error)),
                Err(error) => Err(reasons::resource("failed to create the ephemeral storage", &error)),
            }
        };
        let streams = async {
            // After a restart of the agent the streams are there already.
            if again { Ok(()) } else { self.open_streams(&task).await }
        };
        let network = self.prepare_network(&task, again);
        let (stored, streams, network) = tokio::join!(stored, streams, network);
        group.and(streams).and(network).and(stored)
    }

    fn make_group(&self, task: &Task) -> Result<(), Failure> {
        let host = host_processes();
        let memory = task.memory.and_then(|mebibytes| u64::try_from(mebibytes).ok());
        let limits = Limits {
            memory_bytes: memory.map(|mebibytes| mebibytes << 20),
            // No swap, as on Fargate.
            memory_swap_bytes: memory.map(|mebibytes| mebibytes << 20),
            pids: memory.map(|mebibytes| processes(mebibytes, host)),
            cpu_quota_microseconds: task.cpu.filter(|cpu| *cpu > 0.0).map(|cpu| (cpu * 100_000.0) as u64),
            cpu_period_microseconds: task.cpu.filter(|cpu| *cpu > 0.0).map(|_| 100_000),
            ..Limits::default()
        };
        let path = self.settings.task_cgroup(task_id(&task.arn));
        // Neither one task nor all of them together keep the host from starting processes of its own.
        let all = Limits { pids: Some(host / 4 * 3), ..Limits::default() };
        Group::create(&self.settings.cgroup(), &all)
            .and_then(|_| Group::create(&path, &limits))
            .map(drop)
            .map_err(|error| reasons::resource("failed to create the task's cgroup", &error))
    }

    async fn open_streams(&self, task: &Task) -> Result<(), Failure> {
        for container in &task.containers {
            if let Some(sink) = self.sink(task, container, "") {
                let opened = sink.open().await;
                opened.map_err(|error| reasons::resource("failed to validate logger args", &error))?;
            }
        }
        Ok(())
    }

    /// Where a container's lines go; `None` if nobody keeps them.
    pub(super) fn sink(&self, task: &Task, container: &Container, runtime_id: &str) -> Option<Sink> {
        // The driver was checked when the task was received.
        let driver = LogDriver::of(container).ok()?;
        let (client, roles) = (&self.identity.client, &self.roles);
        // As Amazon's agent: with the instance's own role where the control plane does not say otherwise.
        let own =
            self.settings.kind != Kind::Fargate && container.logs_auth_strategy.as_deref() != Some(EXECUTION_ROLE);
        let instance = own.then_some(&self.identity);
        driver.sink(&Source { client, roles, instance, task, container: &container.name, runtime_id })
    }

    pub(super) async fn remove_task(&self, record: Arc<TaskRecord>) {
        let arn = &record.task.arn;
        let ids = record.containers.iter().flat_map(|one| one.runtime_id.iter().chain(&one.former_ids));
        let ids: Vec<String> = ids.cloned().collect();
        let lines = async {
            for id in &ids {
                crate::engine::driver::Driver::drained(self, id).await;
            }
        };
        if tokio::time::timeout(LINES_PATIENCE, lines).await.is_err() {
            tracing::warn!(task = record.id(), "the last lines of a task could not be delivered and are lost");
        }
        if let Some(netns) = self.settings.interfaces.netns(&record.task) {
            lock(&self.endpoints).remove(&netns);
        }
        lock(&self.readings).remove(arn);
        for id in &ids {
            lock(&self.drains).remove(id);
            let Some(container) = self.container(id) else { continue };
            if let Err(error) = container.delete().await {
                tracing::warn!(container = id, %error, "a container could not be removed");
            }
        }
        for index in 0..record.containers.len() {
            self.leave(&record.task, index).await;
            lock(&self.pulled).remove(&(arn.clone(), index));
        }
        self.collector.notify_one();
        Storage::of(&self.settings, record.volume.as_deref().unwrap_or(record.id())).remove().await;
        let group = self.settings.task_cgroup(record.id());
        let removed = tokio::task::spawn_blocking(move || Group::open(&group)?.remove()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(task = record.id(), %error, "a task's cgroup could not be removed");
        }
    }
}

/// No kind of instance of ours registers GPUs: a task that has one was not meant for here.
fn check_devices(task: &Task) -> Result<(), Failure> {
    let Some(device) = task.associations.first() else { return Ok(()) };
    let why = format!("{} {} is not supported by this agent", device.kind, device.name);
    Err(reasons::resource("failed to associate devices", &why))
}

/// How many processes and threads a task of this many MiB may have: as many as the kernel allows a machine of that
/// memory, as a Fargate task is one, and at most a quarter of the host's.
fn processes(mebibytes: u64, host: u64) -> u64 {
    mebibytes.saturating_mul(8).min(host / 4)
}

/// How many processes and threads there can be at all.
fn host_processes() -> u64 {
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|most| most.trim().parse().ok());
    most.unwrap_or(32_768)
}

/// Ends what runs in the cgroups of tasks that are in no record: a host that has lost its directory has lost all else
/// it knew of them.
pub(super) async fn remove_orphan_groups(settings: &Settings, known: &HashSet<&str>) {
    let Ok(all) = Group::open(&settings.cgroup()) else { return };
    for name in all.children().into_iter().filter(|name| !known.contains(name.as_str())) {
        let Ok(group) = Group::open(&settings.task_cgroup(&name)) else { continue };
        let removed = tokio::task::spawn_blocking(move || (group.kill(), group.remove())).await;
        match removed {
            Ok((processes, Ok(()))) => tracing::warn!(task = name, processes, "ended what ran of a task nobody knows"),
            Ok((_, Err(error))) => tracing::warn!(task = name, %error, "an orphaned cgroup could not be removed"),
            Err(error) => tracing::warn!(task = name, %error, "an orphaned cgroup could not be removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::payload::Association;

    use super::*;

    #[test]
    fn no_task_takes_the_hosts_processes() {
        assert_eq!(processes(512, 32_768), 4_096);
        assert_eq!(processes(30_720, 32_768), 8_192);
        assert!(host_processes() > 300);
    }

    #[test]
    fn a_task_with_a_gpu_is_refused_by_name() {
        assert!(check_devices(&Task::default()).is_ok());
        let associations = vec![Association::gpu("GPU-1".into(), "app".into())];
        let Failure(reason) = check_devices(&Task { associations, ..Task::default() }).unwrap_err();
        assert_eq!(
            reason,
            "ResourceInitializationError: failed to associate devices: gpu GPU-1 is not supported by this agent"
        );
    }
}
