//! What agents report of tasks and containers (SubmitTaskStateChange and its siblings), freed of its wire shape.
//! What a report does to a task is in [`super::task::Task::observe`].

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The statuses that an agent knows. The order is the order of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReportedStatus {
    /// Images are there, containers are being started.
    Pending,
    /// Every container that should has run.
    Running,
    /// Over.
    Stopped,
}

impl ReportedStatus {
    /// From the API's text.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "PENDING" => Some(Self::Pending),
            "RUNNING" => Some(Self::Running),
            "STOPPED" => Some(Self::Stopped),
            _ => None,
        }
    }
}

/// A port of a container as seen on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    /// The host's address.
    pub bind_ip: String,
    /// The container's port; the first of them, if it is a range.
    pub container_port: u16,
    /// The host's port; the first of them, if it is a range.
    pub host_port: u16,
    /// How many ports from there on, where a range was asked for.
    #[serde(default)]
    pub range: Option<u16>,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// One container in a report. What is `None` says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerReport {
    /// The container's name in the task definition.
    pub name: String,
    /// Its status.
    pub status: Option<ReportedStatus>,
    /// The runtime's id of it.
    pub runtime_id: Option<String>,
    /// `sha256:…` of its image.
    pub image_digest: Option<String>,
    /// Its exit code, once it ended.
    pub exit_code: Option<i32>,
    /// Why it ended or did not start, e.g. `CannotPullContainerError: …`.
    pub reason: Option<String>,
    /// Its ports on the host; empty says nothing.
    pub network_bindings: Vec<NetworkBinding>,
}

/// A report about one task. What is `None` says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskReport {
    /// The task's status on its host.
    pub status: Option<ReportedStatus>,
    /// Why it stopped; an empty text says nothing.
    pub reason: Option<String>,
    /// Its containers, some or all.
    pub containers: Vec<ContainerReport>,
    /// Whether the network interface was reported as attached.
    pub attached: bool,
    /// When the first pull began.
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull ended.
    pub pull_stopped_at: Option<Timestamp>,
    /// When the essential container ended.
    pub execution_stopped_at: Option<Timestamp>,
}
