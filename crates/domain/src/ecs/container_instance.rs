//! Container instances: hosts whose agent has registered, the hidden Fargate hosts among them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LaunchType;
use crate::{Arn, Clock, Resource, Scope, Tags, Timestamp, agent_protocol::FARGATE_CLUSTER, instances::max_interfaces};

/// A container instance's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerInstanceStatus {
    /// Takes tasks.
    Active,
    /// Keeps its tasks, takes no new ones.
    Draining,
    /// Deregistered: its tasks are lost.
    Inactive,
}

impl ContainerInstanceStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// An attribute: a capability (without a value) or a property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// E.g. `ecs.capability.task-eni`.
    pub name: String,
    /// Empty when the attribute has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A registered host. Its free resources are computed from the tasks on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInstance {
    /// `arn:…:container-instance/{cluster}/{32 hex}`.
    pub arn: Arn,
    /// Account and region of its cluster.
    pub scope: Scope,
    /// The ARN of its cluster.
    pub cluster_arn: Arn,
    /// `i-…`, or `mi-…` for hosts outside EC2; none for a Fargate host.
    #[serde(default)]
    pub ec2_instance_id: Option<String>,
    /// Status.
    pub status: ContainerInstanceStatus,
    /// CPU units: 1024 for each processor.
    pub cpu: u32,
    /// MiB that tasks may have.
    pub memory: u32,
    /// TCP ports that tasks cannot have.
    #[serde(default)]
    pub reserved_ports: Vec<u16>,
    /// UDP ports that tasks cannot have.
    #[serde(default)]
    pub reserved_udp_ports: Vec<u16>,
    /// The ids of its GPUs, each of which one container at a time can have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// What it can do and is.
    #[serde(default)]
    pub attributes: Vec<Attribute>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it registered first.
    pub registered_at: Timestamp,
    /// The agent's version, from its last connection.
    #[serde(default)]
    pub agent_version: String,
    /// The commit that the agent was built from, from its last connection.
    #[serde(default)]
    pub agent_hash: String,
    /// Its container runtime's version in the agent's words, `DockerVersion: 20.10.24`, from its last connection.
    #[serde(default)]
    pub runtime_version: String,
    /// The token it registered with: the same in each attempt, so that a lost answer makes no second instance.
    #[serde(default)]
    pub client_token: Option<String>,
}

impl ContainerInstance {
    /// The index that finds the instances of a cluster that are not INACTIVE, by the cluster's ARN.
    pub const BY_CLUSTER: &str = "cluster";
    /// The index that finds the ACTIVE Fargate hosts; its only value is `yes`.
    pub const FARGATE: &str = "fargate";
    /// The index that finds the instances on an EC2 instance that are not INACTIVE, by its id.
    pub const BY_EC2_INSTANCE: &str = "ec2-instance";

    /// The index that finds the ACTIVE instances of a cluster in an availability zone, by [`Self::in_zone`].
    pub const IN_ZONE: &str = "zone";

    /// The value of [`Self::IN_ZONE`] for the instances of a cluster in a zone.
    pub fn in_zone(cluster: &Arn, zone: &str) -> String {
        format!("{cluster} {zone}")
    }

    /// Which machine it is, if its agent says so.
    pub fn machine(&self) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.name == HOST_ATTRIBUTE)?.value.as_deref()
    }

    /// Its availability zone.
    pub fn zone(&self) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.name == ZONE_ATTRIBUTE)?.value.as_deref()
    }

    /// How many tasks can have a network interface on it: what its type can have beside its own. `None` where no type
    /// is known that says so. Only EC2 and its agents write this attribute.
    pub fn task_interfaces(&self) -> Option<u32> {
        let kind =
            self.attributes.iter().find(|attribute| attribute.name == INSTANCE_TYPE_ATTRIBUTE)?.value.as_deref()?;
        Some(max_interfaces(kind)?.saturating_sub(1))
    }

    /// What kind of host it is.
    pub fn launch_type(&self) -> LaunchType {
        if self.is_fargate() {
            LaunchType::Fargate
        } else if self.attributes.iter().any(|attribute| attribute.name == EXTERNAL_ATTRIBUTE) {
            LaunchType::External
        } else {
            LaunchType::Ec2
        }
    }

    /// Whether it is a Fargate host: a member of the hidden cluster.
    pub fn is_fargate(&self) -> bool {
        self.cluster_arn.resource_name() == FARGATE_CLUSTER
    }
}

impl Resource for ContainerInstance {
    const KIND: &'static str = "ecs/container-instance";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = Vec::new();
        if self.status != ContainerInstanceStatus::Inactive {
            entries.push((Self::BY_CLUSTER, self.cluster_arn.to_string()));
            entries.extend(self.ec2_instance_id.iter().map(|id| (Self::BY_EC2_INSTANCE, id.clone())));
        }
        if self.status == ContainerInstanceStatus::Active {
            entries.extend(self.zone().map(|zone| (Self::IN_ZONE, Self::in_zone(&self.cluster_arn, zone))));
        }
        if self.is_fargate() && self.status == ContainerInstanceStatus::Active {
            entries.push((Self::FARGATE, "yes".into()));
        }
        entries
    }
}

/// What says which machine an instance is, whatever the agent on it remembers; ours alone.
pub const HOST_ATTRIBUTE: &str = "longshore.host";

/// Where the zone of an instance is told.
pub const ZONE_ATTRIBUTE: &str = "ecs.availability-zone";

/// Where the type of an EC2 instance is told.
pub const INSTANCE_TYPE_ATTRIBUTE: &str = "ecs.instance-type";

/// What the agent of a machine outside EC2 registers.
pub const EXTERNAL_ATTRIBUTE: &str = "ecs.capability.external";

/// An agent's connection, for as long as it is open. Volatile: kept in memory only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConnection {
    /// The container instance's ARN.
    pub container_instance_arn: Arn,
    /// Since when.
    pub connected_at: Timestamp,
    /// Tells connections of the same agent from each other.
    pub connection_id: String,
    /// See [`host_patience`].
    pub patience: Duration,
}

impl Resource for AgentConnection {
    const KIND: &'static str = "ecs/agent-connection";
    fn key(&self) -> String {
        self.container_instance_arn.to_string()
    }
}

/// That an agent is not connected. Volatile: after a start of the control plane every agent is absent since then, so
/// that the time in which nobody could connect counts against no one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAbsence {
    /// The container instance's ARN.
    pub container_instance_arn: Arn,
    /// Since when.
    pub since: Timestamp,
    /// See [`host_patience`].
    pub patience: Duration,
    /// When what runs there is given up; `None`: never, as on Amazon.
    pub lost_at: Option<Timestamp>,
}

/// How long a task may wait for its network interface, and for the first word of a host whose agent is not connected,
/// in platform time: hosts work in real time however fast the platform's clock runs.
pub fn host_patience(clock: &Clock) -> Duration {
    Duration::from_secs(300) * clock.rate()
}

impl Resource for AgentAbsence {
    const KIND: &'static str = "ecs/agent-absence";
    fn key(&self) -> String {
        self.container_instance_arn.to_string()
    }
}
