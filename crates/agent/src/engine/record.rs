//! What the agent remembers of a task: enough to find it again after `kill -9`, and nothing secret.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use domain::Timestamp;
use domain::agent_protocol::docker::{Config, HostConfig};
use domain::agent_protocol::payload::{Container, RoleCredentials, Task};
use serde::{Deserialize, Serialize};

use super::health::Health;

/// What the control plane wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// To run.
    Running,
    /// To end.
    Stopped,
}

/// How far a container is. Only ever grows, except that a restart in place goes back to [`ContainerStatus::Pulled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ContainerStatus {
    /// Nothing happened yet.
    None,
    /// Its image is here.
    Pulled,
    /// Its own process was executed.
    Running,
    /// It ended, or it will never start.
    Stopped,
}

/// How far a task is, as the control plane is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskStatus {
    /// Nothing to tell yet.
    None,
    /// Every image is resolved.
    Pending,
    /// Every container runs, or ran.
    Running,
    /// Every container ended.
    Stopped,
}

impl TaskStatus {
    /// Amazon's word.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStatus::None | TaskStatus::Pending => "PENDING",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Stopped => "STOPPED",
        }
    }
}

/// A task on this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task as it was received, without keys.
    pub task: Task,
    /// What the control plane wants, or what the end of an essential container asks for.
    pub desired: Desired,
    /// Whether its network, cgroup, storage and metadata endpoint are there.
    pub provisioned: bool,
    /// Its ephemeral storage, once it has one.
    pub volume: Option<String>,
    /// Its containers, in the payload's order.
    pub containers: Vec<ContainerRecord>,
    /// When the first pull began.
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// When the first essential container, or the last one, ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// Why it never ran.
    pub reason: Option<String>,
    /// The last status put into the outbox.
    pub told: TaskStatus,
    /// State changes the control plane has not taken yet, oldest first.
    pub outbox: VecDeque<StateChange>,
    /// Whether everything on the host is gone.
    pub cleaned: bool,
}

/// A container of a task on this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its name in the task definition.
    pub name: String,
    /// How far it is.
    pub status: ContainerStatus,
    /// Its id in the runtime, set before it is created there.
    pub runtime_id: Option<String>,
    /// Its name in the runtime, where that is another than its own.
    #[serde(default)]
    pub runtime_name: Option<String>,
    /// Ids it had before it was restarted in place, and that it was asked for by before the runtime gave it one of its
    /// own; their directories go with the task, and its metadata is still found by them.
    pub former_ids: Vec<String>,
    /// What the image's tag pointed at.
    pub image_digest: Option<String>,
    /// The manifest it runs, once its image is here.
    #[serde(default)]
    pub manifest_digest: Option<String>,
    /// The image's stop signal.
    pub stop_signal: Option<String>,
    /// Set once it ended by itself.
    pub exit_code: Option<i32>,
    /// Why it ended or never started.
    pub reason: Option<String>,
    /// When the runtime made it.
    pub created_at: Option<Timestamp>,
    /// When its own process was executed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Restarts in place.
    pub restart_count: i64,
    /// Its health check's result, if it has one.
    pub health: Option<Health>,
    /// What it was given of the instance's network, once it was started.
    #[serde(default)]
    pub network: ContainerNetwork,
    /// What the last state change said of it.
    pub told: Option<ToldContainer>,
}

/// What a container has of the instance's network; nothing in awsvpc mode, where the task has an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerNetwork {
    /// Its address on the instance's bridge.
    pub address: Option<Ipv4Addr>,
    /// Its published ports.
    pub bindings: Vec<NetworkBinding>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkBinding {
    /// Address of the instance, `0.0.0.0` for each of them.
    #[serde(rename = "bindIP")]
    pub bind_ip: String,
    /// In the container.
    pub container_port: u16,
    /// On the instance.
    pub host_port: u16,
    /// How many ports from there on, where a range was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// What a state change said of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToldContainer {
    /// How far it was.
    pub status: ContainerStatus,
    /// Its exit code.
    pub exit_code: Option<i32>,
}

/// One `SubmitTaskStateChange`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub status: String,
    /// Empty when there is none.
    pub reason: String,
    /// Containers that changed.
    pub containers: Vec<ContainerChange>,
    /// See [`TaskRecord::pull_started_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    /// See [`TaskRecord::pull_stopped_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    /// See [`TaskRecord::execution_stopped_at`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
}

/// One container of a [`StateChange`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerChange {
    /// Its name.
    pub container_name: String,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub status: String,
    /// The runtime's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    /// What the image's tag pointed at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Set once it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why it ended or never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_bindings: Vec<NetworkBinding>,
}

impl TaskRecord {
    /// A task that was just received. Keys are taken out: they live in memory only, and the control plane sends them
    /// again to an agent that was restarted.
    pub fn new(mut task: Task) -> TaskRecord {
        for credentials in [&mut task.role_credentials, &mut task.execution_role_credentials].into_iter().flatten() {
            *credentials = RoleCredentials {
                credentials_id: std::mem::take(&mut credentials.credentials_id),
                role_arn: std::mem::take(&mut credentials.role_arn),
                ..RoleCredentials::default()
            };
        }
        let containers = task.containers.iter().map(ContainerRecord::new).collect();
        TaskRecord {
            task,
            desired: Desired::Running,
            provisioned: false,
            volume: None,
            containers,
            pull_started_at: None,
            pull_stopped_at: None,
            execution_stopped_at: None,
            reason: None,
            told: TaskStatus::None,
            outbox: VecDeque::new(),
            cleaned: false,
        }
    }

    /// Everything of the task was removed from the host from outside; what is left is to tell the control plane.
    pub fn stopped_with_host(&mut self, now: Timestamp) {
        for container in self.containers.iter_mut().filter(|one| one.status != ContainerStatus::Stopped) {
            container.status = ContainerStatus::Stopped;
            container.finished_at = container.started_at.map(|_| now);
        }
        self.desired = Desired::Stopped;
        self.execution_stopped_at.get_or_insert(now);
        self.cleaned = true;
    }

    /// The last part of the task's ARN.
    pub fn id(&self) -> &str {
        task_id(&self.task.arn)
    }

    /// Whether every container ended or will never start.
    pub fn all_stopped(&self) -> bool {
        self.containers.iter().all(|container| container.status == ContainerStatus::Stopped)
    }

    /// How far the task is. One that has a reason why it never ran does not become RUNNING on its way to the end.
    pub fn status(&self) -> TaskStatus {
        if self.all_stopped() {
            TaskStatus::Stopped
        } else if self.told == TaskStatus::Running || (self.reason.is_none() && self.runs()) {
            TaskStatus::Running
        } else if self.containers.iter().all(|container| container.image_digest.is_some()) {
            TaskStatus::Pending
        } else {
            TaskStatus::None
        }
    }

    /// Whether every container runs or ran. A task whose essential container is over before that never runs.
    fn runs(&self) -> bool {
        let pairs = || self.containers.iter().zip(&self.task.containers);
        pairs().all(|(container, _)| container.status >= ContainerStatus::Running)
            && !pairs()
                .any(|(container, definition)| definition.essential && container.status == ContainerStatus::Stopped)
    }

    /// A container with its definition, by its place.
    pub fn pair(&self, index: usize) -> Option<(&ContainerRecord, &Container)> {
        Some((self.containers.get(index)?, self.task.containers.get(index)?))
    }
}

impl ContainerRecord {
    /// The runtime calls it by this id and name. It may be the one that it had before a restart in place.
    pub fn rename(&mut self, id: String, name: String) {
        self.former_ids.retain(|former| *former != id);
        let before = self.runtime_id.replace(id.clone());
        self.former_ids.extend(before.filter(|before| *before != id));
        self.runtime_name = Some(name);
    }

    fn new(container: &Container) -> ContainerRecord {
        ContainerRecord {
            name: container.name.clone(),
            status: ContainerStatus::None,
            runtime_id: None,
            runtime_name: None,
            former_ids: Vec::new(),
            image_digest: None,
            manifest_digest: None,
            stop_signal: None,
            exit_code: None,
            reason: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            network: ContainerNetwork::default(),
            health: (container.health_check_type.as_deref() == Some("docker")).then(Health::default),
            told: None,
        }
    }
}

/// The last part of a task's ARN.
pub fn task_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// The region of an ARN.
pub fn region(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

/// Docker's `Config` of a container; the payload was checked when it was received.
pub fn docker_config(container: &Container) -> Config {
    container.docker_config.as_ref().and_then(|docker| docker.config().ok()).unwrap_or_default()
}

/// Docker's `HostConfig` of a container; the payload was checked when it was received.
pub fn docker_host_config(container: &Container) -> HostConfig {
    container.docker_config.as_ref().and_then(|docker| docker.host_config().ok()).unwrap_or_default()
}
