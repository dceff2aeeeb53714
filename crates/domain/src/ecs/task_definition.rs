//! Task definitions: families of numbered revisions.

use serde::{Deserialize, Serialize};

use super::{ContainerDefinition, HostPort, PlacementConstraint, TaskOverrides, names};
use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// A revision's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskDefinitionStatus {
    /// Can be run.
    Active,
    /// Deregistered: services go on with it, nothing new starts.
    Inactive,
    /// To be removed once nothing uses it.
    DeleteInProgress,
}

impl TaskDefinitionStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::DeleteInProgress => "DELETE_IN_PROGRESS",
        }
    }
}

/// How the containers of a task are connected.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The task has a network interface of its own.
    Awsvpc,
    /// Each container has a network of its own behind the host's address.
    Bridge,
    /// The host's own network.
    Host,
    /// None at all.
    None,
}

impl NetworkMode {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Awsvpc => "awsvpc",
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }

    /// From the API.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Awsvpc, Self::Bridge, Self::Host, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

fn given() -> bool {
    true
}

/// A revision of a task definition. Only its status and tags ever change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// `arn:…:task-definition/{family}:{revision}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// The family.
    pub family: String,
    /// From 1 on, never used twice.
    pub revision: u32,
    /// Status.
    pub status: TaskDefinitionStatus,
    /// The role of the task's own calls.
    #[serde(default)]
    pub task_role_arn: Option<String>,
    /// The role with which images are pulled and lines sent.
    #[serde(default)]
    pub execution_role_arn: Option<String>,
    /// `awsvpc`, `bridge`, `host` or `none`; bridge when it was not given.
    pub network_mode: NetworkMode,
    /// Whether the mode was given, for DescribeTaskDefinition.
    #[serde(default = "given")]
    pub has_network_mode: bool,
    /// CPU units of the whole task.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// MiB of the whole task.
    #[serde(default)]
    pub memory: Option<u32>,
    /// As given: `FARGATE`, `EC2`.
    #[serde(default)]
    pub requires_compatibilities: Vec<String>,
    /// What it can run on.
    pub compatibilities: Vec<String>,
    /// Capabilities that a container instance needs for it.
    #[serde(default)]
    pub requires_attributes: Vec<String>,
    /// `X86_64` or `ARM64`, as given.
    #[serde(default)]
    pub cpu_architecture: Option<String>,
    /// `LINUX`, as given.
    #[serde(default)]
    pub operating_system_family: Option<String>,
    /// GiB of the task's own disk, 21 to 200; 20 when not given.
    #[serde(default)]
    pub ephemeral_storage: Option<u32>,
    /// Expressions that must select the container instance that runs it.
    #[serde(default)]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// Its containers, 1 to 10.
    pub container_definitions: Vec<ContainerDefinition>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// The ARN of who registered it.
    pub registered_by: String,
    /// When it was deregistered.
    #[serde(default)]
    pub deregistered_at: Option<Timestamp>,
    /// When its deletion was asked for.
    #[serde(default)]
    pub delete_requested_at: Option<Timestamp>,
}

impl TaskDefinition {
    /// The index that finds the revisions of a family, by `{scope.key(family)} {status}`.
    pub const BY_FAMILY: &str = "family";
    /// The index that finds all of a scope, by `{scope.prefix()} {status}`.
    pub const BY_SCOPE: &str = "scope";

    /// The value of [`Self::BY_FAMILY`].
    pub fn family_index(scope: &Scope, family: &str, status: TaskDefinitionStatus) -> String {
        format!("{} {}", scope.key(family), status.as_str())
    }

    /// The value of [`Self::BY_SCOPE`].
    pub fn scope_index(scope: &Scope, status: TaskDefinitionStatus) -> String {
        format!("{} {}", scope.prefix(), status.as_str())
    }

    /// `{family}:{revision}`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.family, self.revision)
    }

    /// The ports of a container instance that it asks for by number: a task with a network interface asks for none.
    pub fn host_ports(&self) -> Vec<HostPort> {
        if self.network_mode == NetworkMode::Awsvpc {
            return Vec::new();
        }
        let mappings = self.container_definitions.iter().flat_map(|container| &container.port_mappings);
        let ports = mappings.map(|mapping| HostPort { protocol: mapping.protocol, port: mapping.host_port });
        ports.filter(|port| port.port != 0).collect()
    }

    /// CPU units and MiB that a task of it holds on its host: those of the task, or else what its containers reserve.
    pub fn size_with(&self, overrides: &TaskOverrides) -> (u32, u32) {
        let (mut cpu, mut memory) = (0u32, 0u32);
        for container in &self.container_definitions {
            let change = overrides.container(&container.name);
            let soft = change.and_then(|change| change.memory_reservation).or(container.memory_reservation);
            let hard = change.and_then(|change| change.memory).or(container.memory);
            cpu = cpu.saturating_add(change.and_then(|change| change.cpu).unwrap_or(container.cpu));
            memory = memory.saturating_add(soft.or(hard).unwrap_or_default());
        }
        (overrides.cpu.or(self.cpu).unwrap_or(cpu), overrides.memory.or(self.memory).unwrap_or(memory))
    }

    /// GPUs that a task of it holds, those of all its containers.
    pub fn gpus_with(&self, overrides: &TaskOverrides) -> u32 {
        let of_each = self.container_definitions.iter().map(|container| container.gpus_with(overrides));
        of_each.fold(0, u32::saturating_add)
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerDefinition> {
        self.container_definitions.iter().find(|container| container.name == name)
    }
}

impl Resource for TaskDefinition {
    const KIND: &'static str = "ecs/task-definition";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![
            (Self::BY_FAMILY, Self::family_index(&self.scope, &self.family, self.status)),
            (Self::BY_SCOPE, Self::scope_index(&self.scope, self.status)),
        ]
    }
}

/// A family: remembers the last revision number, so that none is used twice even after deletions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefinitionFamily {
    /// Account and region.
    pub scope: Scope,
    /// Its name.
    pub family: String,
    /// The last revision.
    pub last_revision: u32,
    /// How the family is listed: ACTIVE while it has an active revision, else INACTIVE; `None` when all are deleted.
    #[serde(default)]
    pub status: Option<TaskDefinitionStatus>,
    /// The newest active revision, which the bare family name means.
    #[serde(default)]
    pub latest_active: Option<u32>,
}

impl TaskDefinitionFamily {
    /// The index that finds the families of a scope, by `{scope.prefix()} {ACTIVE | INACTIVE}`.
    pub const BY_SCOPE: &str = "scope";

    /// The newest active revision's ARN.
    pub fn latest_arn(&self) -> Option<Arn> {
        Some(names::task_definition(&self.scope, &self.family, self.latest_active?))
    }
}

impl Resource for TaskDefinitionFamily {
    const KIND: &'static str = "ecs/task-definition-family";
    fn key(&self) -> String {
        self.scope.key(&self.family)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        self.status.iter().map(|status| (Self::BY_SCOPE, TaskDefinition::scope_index(&self.scope, *status))).collect()
    }
}
