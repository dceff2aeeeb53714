//! Tasks. What a task is stays as it was made; what is wanted of it and what is known of it are different fields, and
//! each changes only through the functions in [`lifecycle`](self::lifecycle), which move statuses forward only.

mod lifecycle;

use std::{borrow::Cow, collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    Cluster, Compute, DesiredStatus, HealthStatus, HostPort, LaunchType, NetworkBinding, NetworkMode, Placement,
    StopCode, TaskDefinition, TaskStatus, TransportProtocol, names,
};
use crate::{Arn, IdSource, Resource, Scope, Tags, Timestamp};

/// Where in the network a task or a service's tasks shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNetwork {
    /// One of these is taken for each task (`subnet-…`).
    pub subnets: Vec<String>,
    /// Security groups as given; empty means the VPC's default one.
    pub security_groups: Vec<String>,
    /// Whether the task gets a public address.
    pub assign_public_ip: bool,
}

/// A task's network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInterface {
    /// A UUID, as in DescribeTasks.
    pub attachment_id: String,
    /// `eni-…`.
    pub network_interface_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its subnet's zone.
    pub availability_zone: String,
    /// Its MAC address.
    pub mac_address: String,
    /// Its address.
    pub private_address: Ipv4Addr,
    /// `ip-….ec2.internal`.
    pub private_dns_name: String,
    /// Whether the host or the agent has reported it as attached.
    #[serde(default)]
    pub attached: bool,
}

/// A target group that the task's address and port are registered in while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLoadBalancer {
    /// The target group's ARN, or that of a Classic Load Balancer.
    pub target_group_arn: Arn,
    /// The container.
    pub container_name: String,
    /// Its port.
    pub container_port: u16,
}

/// What RunTask changes in one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOverride {
    /// The container.
    pub name: String,
    /// In place of the definition's.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Over the definition's.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// CPU units.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// Hard limit in MiB.
    #[serde(default)]
    pub memory: Option<u32>,
    /// Soft limit in MiB.
    #[serde(default)]
    pub memory_reservation: Option<u32>,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// What RunTask changes in the task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskOverrides {
    /// Per container, in the order given.
    #[serde(default)]
    pub containers: Vec<ContainerOverride>,
    /// CPU units of the task.
    #[serde(default)]
    pub cpu: Option<u32>,
    /// MiB of the task.
    #[serde(default)]
    pub memory: Option<u32>,
    /// In place of the definition's.
    #[serde(default)]
    pub task_role_arn: Option<String>,
    /// In place of the definition's.
    #[serde(default)]
    pub execution_role_arn: Option<String>,
}

impl TaskOverrides {
    /// What is changed in the container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerOverride> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// A container of a task: what it is, and what its agent has reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskContainer {
    /// `arn:…:container/{cluster}/{task}/{uuid}`.
    pub arn: Arn,
    /// Its name in the task definition.
    pub name: String,
    /// Its image as the task definition names it.
    pub image: String,
    /// The digest that its deployment has established for that image: this is what runs.
    #[serde(default)]
    pub pinned_digest: Option<String>,
    /// Whether the task ends with it.
    pub essential: bool,
    /// Whether it has a health check.
    pub has_health_check: bool,
    /// CPU units after overrides.
    pub cpu: u32,
    /// Hard limit in MiB after overrides.
    #[serde(default)]
    pub memory: Option<u32>,
    /// Soft limit in MiB after overrides.
    #[serde(default)]
    pub memory_reservation: Option<u32>,
    /// PENDING, RUNNING or STOPPED.
    pub last_status: TaskStatus,
    /// The runtime's id.
    #[serde(default)]
    pub runtime_id: Option<String>,
    /// `sha256:…`.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// Exit code.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Why it ended or did not start.
    #[serde(default)]
    pub reason: Option<String>,
    /// Ports on the host.
    #[serde(default)]
    pub network_bindings: Vec<NetworkBinding>,
    /// What its health check says.
    #[serde(default)]
    pub health_status: HealthStatus,
    /// The GPUs of its container instance that are its own, until its task is STOPPED.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_ids: Vec<String>,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// `arn:…:task/{cluster}/{32 hex}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// Its cluster.
    pub cluster_arn: Arn,
    /// Its task definition.
    pub task_definition_arn: Arn,
    /// The task definition's family.
    pub family: String,
    /// What kind of host it is on.
    pub launch_type: LaunchType,
    /// `FARGATE`, when a capacity provider strategy chose it.
    #[serde(default)]
    pub capacity_provider: Option<String>,
    /// E.g. `1.4.0`; of Fargate only.
    #[serde(default)]
    pub platform_version: Option<String>,
    /// `family:{family}`, `service:{name}` or what RunTask was given.
    pub group: String,
    /// Who started it: free text, or the deployment's id.
    #[serde(default)]
    pub started_by: Option<String>,
    /// The service that it is part of.
    #[serde(default)]
    pub service_arn: Option<Arn>,
    /// The deployment that it is part of (`ecs-svc/…`).
    #[serde(default)]
    pub deployment_id: Option<String>,
    /// CPU units after overrides.
    pub cpu: u32,
    /// MiB after overrides.
    pub memory: u32,
    /// The ports of its container instance that its definition asks for by number.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// What RunTask changed.
    #[serde(default)]
    pub overrides: TaskOverrides,
    /// Its network interface.
    #[serde(default)]
    pub interface: Option<TaskInterface>,
    /// Where it is a target while it runs.
    #[serde(default)]
    pub load_balancers: Vec<TaskLoadBalancer>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
    /// The idempotency token of the RunTask that made it.
    #[serde(default)]
    pub client_token: Option<String>,

    /// The host it was placed on.
    #[serde(default)]
    pub container_instance_arn: Option<Arn>,

    /// Until when neither scale-in nor a deployment stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<Timestamp>,

    /// What is wanted.
    pub desired_status: DesiredStatus,
    /// Why it was stopped.
    #[serde(default)]
    pub stop_code: Option<StopCode>,
    /// Why it was stopped, in words.
    #[serde(default)]
    pub stopped_reason: Option<String>,
    /// When stopping began.
    #[serde(default)]
    pub stopping_at: Option<Timestamp>,

    /// What is known.
    pub last_status: TaskStatus,
    /// Its containers.
    pub containers: Vec<TaskContainer>,
    /// When its agent reported it first.
    #[serde(default)]
    pub connected_at: Option<Timestamp>,
    /// When the first pull began.
    #[serde(default)]
    pub pull_started_at: Option<Timestamp>,
    /// When the last pull ended.
    #[serde(default)]
    pub pull_stopped_at: Option<Timestamp>,
    /// When it became RUNNING.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When its essential container ended.
    #[serde(default)]
    pub execution_stopped_at: Option<Timestamp>,
    /// When it became STOPPED.
    #[serde(default)]
    pub stopped_at: Option<Timestamp>,
    /// Counts its changes, from 1 on.
    pub version: u64,
}

/// What a task is made of.
#[derive(Clone, Debug)]
pub struct NewTask<'a> {
    /// An active cluster.
    pub cluster: &'a Cluster,
    /// What to run.
    pub definition: &'a TaskDefinition,
    /// CPU units after overrides.
    pub cpu: u32,
    /// MiB after overrides.
    pub memory: u32,
    /// Changes.
    pub overrides: TaskOverrides,
    /// What it runs on.
    pub compute: &'a Compute,
    /// Where in the cluster.
    pub placement: &'a Placement,
    /// Empty for `family:{family}`.
    pub group: String,
    /// Free text.
    pub started_by: Option<String>,
    /// Its service and deployment.
    pub service: Option<(Arn, String)>,
    /// Its host.
    pub container_instance_arn: Option<Arn>,
    /// The only availability zone that it may be in, if only one is wanted.
    pub zone: Option<String>,
    /// The GPUs of its host that are its own, as many as its containers ask for.
    pub gpu_ids: Vec<String>,
    /// Targets to register.
    pub load_balancers: Vec<TaskLoadBalancer>,
    /// Digests that its deployment has established, by container.
    pub image_digests: BTreeMap<String, String>,
    /// Tags.
    pub tags: Tags,
}

impl NewTask<'_> {
    /// The group that it will be in.
    pub fn group(&self) -> Cow<'_, str> {
        if self.group.is_empty() {
            Cow::Owned(format!("family:{}", self.definition.family))
        } else {
            Cow::Borrowed(&self.group)
        }
    }
}

impl Task {
    /// Finds tasks by `{cluster arn} {desired status}`.
    pub const BY_CLUSTER: &str = "cluster";
    /// Finds tasks by `{service arn} {desired status}`.
    pub const BY_SERVICE: &str = "service";
    /// Finds tasks by `{cluster arn} {family} {desired status}`.
    pub const BY_FAMILY: &str = "family";
    /// Finds tasks by `{container instance arn} {desired status}`.
    pub const BY_CONTAINER_INSTANCE: &str = "container-instance";
    /// Finds tasks by `{cluster arn} {started by} {desired status}`.
    pub const BY_STARTED_BY: &str = "started-by";
    /// Counts tasks by [`Self::cluster_status`], without the stopped ones.
    pub const CLUSTER_STATUS: &str = "cluster-status";
    /// Finds the tasks of a container instance that are not STOPPED, by its ARN: they hold its resources.
    pub const ON_INSTANCE: &str = "on-instance";
    /// Finds the tasks of a service that are not STOPPED, by its ARN.
    pub const OF_SERVICE: &str = "of-service";
    /// Finds the tasks of a task definition that are not STOPPED, by its ARN.
    pub const OF_DEFINITION: &str = "of-definition";
    /// Finds the task of a network interface, by the interface's id, until it is STOPPED.
    pub const BY_INTERFACE: &str = "interface";

    /// Finds the tasks that RunTask made with a token, by [`Scope::key`] of the token.
    pub const BY_CLIENT_TOKEN: &str = "client-token";

    /// A task at its beginning, without its network interface.
    pub fn new(mut new: NewTask<'_>, ids: &mut IdSource, now: Timestamp) -> Self {
        let scope = new.cluster.scope.clone();
        let arn = names::new_task(&scope, &new.cluster.name, ids);
        let mut gpu_ids = std::mem::take(&mut new.gpu_ids).into_iter();
        let containers = new
            .definition
            .container_definitions
            .iter()
            .map(|definition| {
                let change = new.overrides.container(&definition.name);
                TaskContainer {
                    arn: names::new_container(&scope, &new.cluster.name, arn.resource_name(), ids),
                    name: definition.name.clone(),
                    image: definition.image.clone(),
                    pinned_digest: new.image_digests.get(&definition.name).cloned(),
                    essential: definition.essential,
                    has_health_check: definition
                        .health_check
                        .as_ref()
                        .is_some_and(|check| check.command.first().is_some_and(|word| word != "NONE")),
                    cpu: change.and_then(|change| change.cpu).unwrap_or(definition.cpu),
                    memory: change.and_then(|change| change.memory).or(definition.memory),
                    memory_reservation: change
                        .and_then(|change| change.memory_reservation)
                        .or(definition.memory_reservation),
                    last_status: TaskStatus::Pending,
                    runtime_id: None,
                    image_digest: None,
                    exit_code: None,
                    reason: None,
                    network_bindings: Vec::new(),
                    health_status: HealthStatus::Unknown,
                    gpu_ids: gpu_ids.by_ref().take(definition.gpus_with(&new.overrides) as usize).collect(),
                }
            })
            .collect();
        let group = new.group().into_owned();
        let (service_arn, deployment_id) = new.service.unzip();
        Self {
            arn,
            scope,
            cluster_arn: new.cluster.arn.clone(),
            task_definition_arn: new.definition.arn.clone(),
            family: new.definition.family.clone(),
            launch_type: new.compute.host_kind(),
            capacity_provider: new.compute.capacity_provider.as_ref().map(|choice| choice.name.clone()),
            platform_version: new.compute.platform_version.clone(),
            group,
            started_by: new.started_by,
            service_arn,
            deployment_id,
            cpu: new.cpu,
            memory: new.memory,
            host_ports: new.definition.host_ports(),
            overrides: new.overrides,
            interface: None,
            load_balancers: new.load_balancers,
            tags: new.tags,
            created_at: now,
            client_token: None,
            container_instance_arn: new.container_instance_arn,
            protected_until: None,
            desired_status: DesiredStatus::Running,
            stop_code: None,
            stopped_reason: None,
            stopping_at: None,
            last_status: match new.definition.network_mode {
                NetworkMode::Awsvpc => TaskStatus::Provisioning,
                // There is nothing to make before its host begins.
                NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => TaskStatus::Pending,
            },
            containers,
            connected_at: None,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            execution_stopped_at: None,
            stopped_at: None,
            version: 1,
        }
    }

    /// Whether scale-in and deployments must leave it alone for now.
    pub fn is_protected(&self, now: Timestamp) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// The value of [`Self::CLUSTER_STATUS`].
    pub fn cluster_status(cluster: &str, launch_type: LaunchType, status: TaskStatus) -> String {
        format!("{cluster} {} {}", launch_type.as_str(), status.as_str())
    }

    /// The name of its cluster.
    pub fn cluster_name(&self) -> &str {
        self.cluster_arn.resource_name()
    }

    /// Its id: 32 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.arn.resource_name()
    }

    /// Its health, from the health checks of its essential containers: UNKNOWN without any.
    pub fn health_status(&self) -> HealthStatus {
        let mut checked = self.containers.iter().filter(|container| container.essential && container.has_health_check);
        let mut health = HealthStatus::Unknown;
        for container in &mut checked {
            match container.health_status {
                HealthStatus::Unhealthy => return HealthStatus::Unhealthy,
                HealthStatus::Unknown => return HealthStatus::Unknown,
                HealthStatus::Healthy => health = HealthStatus::Healthy,
            }
        }
        health
    }

    /// Whether any of its essential containers has a health check.
    pub fn has_health_check(&self) -> bool {
        self.containers.iter().any(|container| container.essential && container.has_health_check)
    }

    /// The ports of its container instance that nobody else can have: those it asks for by number, and those its agent
    /// has found for it.
    pub fn held_ports(&self) -> impl Iterator<Item = HostPort> + '_ {
        let bindings = self.containers.iter().flat_map(|container| &container.network_bindings);
        let found = bindings.flat_map(|binding| {
            let protocol = if binding.protocol == "udp" { TransportProtocol::Udp } else { TransportProtocol::Tcp };
            let ports = (0..binding.range.unwrap_or(1)).map(|offset| binding.host_port.saturating_add(offset));
            ports.map(move |port| HostPort { protocol, port })
        });
        self.host_ports.iter().copied().chain(found)
    }

    /// The port of its host that a container's port is bound to, as its agent reported it. In network mode host they are
    /// the same.
    pub fn host_port(&self, container: &str, port: u16) -> Option<u16> {
        let container = self.containers.iter().find(|known| known.name == container)?;
        container.network_bindings.iter().find_map(|binding| {
            let offset = port.checked_sub(binding.container_port)?;
            let bound = binding.protocol != "udp" && offset < binding.range.unwrap_or(1);
            bound.then(|| binding.host_port.checked_add(offset)).flatten()
        })
    }

    /// The GPUs of its container instance that are its own.
    pub fn held_gpus(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().flat_map(|container| container.gpu_ids.iter().map(String::as_str))
    }

    /// The role of its own calls, after overrides.
    pub fn task_role_arn<'a>(&'a self, definition: &'a TaskDefinition) -> Option<&'a str> {
        self.overrides.task_role_arn.as_deref().or(definition.task_role_arn.as_deref())
    }

    /// The attachment of its network interface, as agents name it.
    pub fn attachment_arn(&self) -> Option<Arn> {
        let interface = self.interface.as_ref()?;
        Some(self.scope.arn("ecs", &format!("attachment/{}", interface.attachment_id)))
    }

    /// The role with which its host pulls images and sends lines, after overrides.
    pub fn execution_role_arn<'a>(&'a self, definition: &'a TaskDefinition) -> Option<&'a str> {
        self.overrides.execution_role_arn.as_deref().or(definition.execution_role_arn.as_deref())
    }
}

impl Resource for Task {
    const KIND: &'static str = "ecs/task";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let desired = self.desired_status.as_str();
        let cluster = &self.cluster_arn;
        let mut entries = vec![
            (Self::BY_CLUSTER, format!("{cluster} {desired}")),
            (Self::BY_FAMILY, format!("{cluster} {} {desired}", self.family)),
        ];
        if let Some(service) = &self.service_arn {
            entries.push((Self::BY_SERVICE, format!("{service} {desired}")));
        }
        if let Some(instance) = &self.container_instance_arn {
            entries.push((Self::BY_CONTAINER_INSTANCE, format!("{instance} {desired}")));
        }
        if let Some(started_by) = &self.started_by {
            entries.push((Self::BY_STARTED_BY, format!("{cluster} {started_by} {desired}")));
        }
        if let Some(token) = &self.client_token {
            entries.push((Self::BY_CLIENT_TOKEN, self.scope.key(token)));
        }
        if self.last_status != TaskStatus::Stopped {
            let status = Self::cluster_status(cluster.as_str(), self.launch_type, self.last_status);
            entries.push((Self::CLUSTER_STATUS, status));
            entries.push((Self::OF_DEFINITION, self.task_definition_arn.to_string()));
            entries.extend(self.container_instance_arn.iter().map(|arn| (Self::ON_INSTANCE, arn.to_string())));
            entries.extend(self.service_arn.iter().map(|arn| (Self::OF_SERVICE, arn.to_string())));
            entries.extend(
                self.interface.iter().map(|interface| (Self::BY_INTERFACE, interface.network_interface_id.clone())),
            );
        }
        entries
    }
}
