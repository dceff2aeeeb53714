//! Container definitions: only the fields that Longshore honours exist here, so that none can be kept and ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TaskOverrides;

/// A transport protocol of a port mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl TransportProtocol {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of a container instance, which one task at a time can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// TCP and UDP ports are different ports.
    pub protocol: TransportProtocol,
    /// 1 to 65535.
    pub port: u16,
}

/// A port of a container. In awsvpc and host mode the host port is the container port; in bridge mode 0 means any that
/// the host has free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// 1 to 65535; the first of them, if it is a range.
    pub container_port: u16,
    /// How many ports from there on, where a range is asked for.
    #[serde(default)]
    pub range: Option<u16>,
    /// See above.
    pub host_port: u16,
    /// TCP unless said otherwise.
    pub protocol: TransportProtocol,
    /// Unique within the task definition.
    #[serde(default)]
    pub name: Option<String>,
}

/// The text of a range of ports, `8000-8009`, from its first port and how many there are.
pub fn port_range(first: u16, count: u16) -> String {
    format!("{first}-{}", u32::from(first) + u32::from(count).saturating_sub(1))
}

/// Reads such a text: the first port and how many there are.
pub fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0).then_some((first, last.checked_sub(first)?.checked_add(1)?))
}

/// When a container that depends on another may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DependencyCondition {
    /// The other was started.
    Start,
    /// The other has ended.
    Complete,
    /// The other has ended with exit code 0.
    Success,
    /// The other's health check passed.
    Healthy,
}

impl DependencyCondition {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Success => "SUCCESS",
            Self::Healthy => "HEALTHY",
        }
    }

    /// From the API's text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Start, Self::Complete, Self::Success, Self::Healthy].into_iter().find(|c| c.as_str() == text)
    }
}

/// One entry of `dependsOn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The container waited for.
    pub container_name: String,
    /// What is waited for.
    pub condition: DependencyCondition,
}

/// A container health check. Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `CMD …`, `CMD-SHELL …` or `NONE`.
    pub command: Vec<String>,
    /// 5 to 300.
    pub interval: u32,
    /// 2 to 60.
    pub timeout: u32,
    /// 1 to 10.
    pub retries: u32,
    /// 0 to 300; none unless given.
    #[serde(default)]
    pub start_period: Option<u32>,
}

/// Where a container's lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfiguration {
    /// Such as `awslogs`; one that registration knows.
    pub log_driver: String,
    /// The driver's options, such as `awslogs-group`; checked at registration.
    pub options: BTreeMap<String, String>,
}

/// A resource limit of the container's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, `nproc`, …
    pub name: String,
    /// Soft limit; -1 is none.
    pub soft_limit: i64,
    /// Hard limit; -1 is none.
    pub hard_limit: i64,
}

/// Whether and when the agent starts a container again within its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Whether it does.
    pub enabled: bool,
    /// Exit codes after which it does not.
    #[serde(default)]
    pub ignored_exit_codes: Vec<i32>,
    /// Seconds that the container must have run, 60 to 1800; 300 unless given.
    #[serde(default)]
    pub restart_attempt_period: Option<u32>,
}

/// A container definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDefinition {
    /// Unique within the task definition.
    pub name: String,
    /// With tag or digest.
    pub image: String,
    /// CPU units; 0 when not given.
    pub cpu: u32,
    /// Hard limit in MiB.
    #[serde(default)]
    pub memory: Option<u32>,
    /// Soft limit in MiB.
    #[serde(default)]
    pub memory_reservation: Option<u32>,
    /// Whether the task ends with it.
    pub essential: bool,
    /// Ports.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// In place of the image's; empty means the image's.
    #[serde(default)]
    pub entry_point: Vec<String>,
    /// In place of the image's; empty means the image's.
    #[serde(default)]
    pub command: Vec<String>,
    /// Environment, in the order given.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// In place of the image's.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// In place of the image's.
    #[serde(default)]
    pub user: Option<String>,
    /// Whether the root file system cannot be written to; as given.
    #[serde(default)]
    pub readonly_root_filesystem: Option<bool>,
    /// Containers it waits for.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// Seconds that those that wait for it wait at most.
    #[serde(default)]
    pub start_timeout: Option<u32>,
    /// Seconds from SIGTERM to SIGKILL; 30 unless given, at most 120 on Fargate.
    #[serde(default)]
    pub stop_timeout: Option<u32>,
    /// Labels, shown by the task's metadata endpoint.
    #[serde(default)]
    pub docker_labels: BTreeMap<String, String>,
    /// Resource limits.
    #[serde(default)]
    pub ulimits: Vec<Ulimit>,
    /// Logs; without it lines are dropped.
    #[serde(default)]
    pub log_configuration: Option<LogConfiguration>,
    /// Health check.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// Capabilities taken away, e.g. `NET_RAW`, `ALL`.
    #[serde(default)]
    pub drop_capabilities: Vec<String>,
    /// Capabilities given besides the usual ones.
    #[serde(default)]
    pub add_capabilities: Vec<String>,
    /// Whether an init process reaps its children; as given.
    #[serde(default)]
    pub init_process_enabled: Option<bool>,
    /// Whether `linuxParameters` was given at all, for DescribeTaskDefinition.
    #[serde(default)]
    pub has_linux_parameters: bool,
    /// Containers of the same task that it finds by name, `name` or `name:alias`; in bridge mode only.
    #[serde(default)]
    pub links: Vec<String>,
    /// In place of a generated one.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Resolvers in place of the host's.
    #[serde(default)]
    pub dns_servers: Vec<String>,
    /// Search domains in place of the host's.
    #[serde(default)]
    pub dns_search_domains: Vec<String>,
    /// Names and their addresses, for `/etc/hosts`.
    #[serde(default)]
    pub extra_hosts: Vec<(String, String)>,
    /// Restart policy.
    #[serde(default)]
    pub restart_policy: Option<RestartPolicy>,
    /// Whether a service's tasks all get the image its tag meant first; `None` as if true.
    #[serde(default)]
    pub version_consistency: Option<bool>,
    /// GPUs of the container instance that are its own.
    #[serde(default)]
    pub gpus: u32,
}

impl ContainerDefinition {
    /// Whether it is for ECS to say which digest the image's tag means.
    pub fn is_resolved_by_ecs(&self) -> bool {
        self.version_consistency != Some(false) && !self.image.contains('@')
    }

    /// Its GPUs after overrides.
    pub fn gpus_with(&self, overrides: &TaskOverrides) -> u32 {
        overrides.container(&self.name).and_then(|change| change.gpus).unwrap_or(self.gpus)
    }

    /// A container definition with nothing but what is required.
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            cpu: 0,
            memory: None,
            memory_reservation: None,
            essential: true,
            port_mappings: Vec::new(),
            entry_point: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            working_directory: None,
            user: None,
            readonly_root_filesystem: None,
            depends_on: Vec::new(),
            start_timeout: None,
            stop_timeout: None,
            docker_labels: BTreeMap::new(),
            ulimits: Vec::new(),
            log_configuration: None,
            health_check: None,
            drop_capabilities: Vec::new(),
            add_capabilities: Vec::new(),
            init_process_enabled: None,
            has_linux_parameters: false,
            links: Vec::new(),
            hostname: None,
            dns_servers: Vec::new(),
            dns_search_domains: Vec::new(),
            extra_hosts: Vec::new(),
            restart_policy: None,
            version_consistency: None,
            gpus: 0,
        }
    }
}

/// Finds a cycle among `depends_on`, or a dependency on a container that there is not.
pub fn check_dependencies(containers: &[ContainerDefinition]) -> Result<(), DependencyError> {
    let position: BTreeMap<&str, usize> =
        containers.iter().enumerate().map(|(index, container)| (container.name.as_str(), index)).collect();
    // Kahn's algorithm: take away what waits for nothing, until nothing is left or a cycle is.
    let mut waits: Vec<Vec<usize>> = Vec::with_capacity(containers.len());
    for container in containers {
        let mut on = Vec::new();
        for dependency in &container.depends_on {
            match position.get(dependency.container_name.as_str()) {
                Some(&index) => on.push(index),
                None => {
                    return Err(DependencyError::Unknown {
                        container: container.name.clone(),
                        missing: dependency.container_name.clone(),
                    });
                }
            }
        }
        waits.push(on);
    }
    let mut done = vec![false; containers.len()];
    loop {
        let free: Vec<usize> = (0..waits.len())
            .filter(|&index| !done.get(index).copied().unwrap_or(true))
            .filter(|&index| {
                waits.get(index).is_some_and(|on| on.iter().all(|&other| done.get(other).copied().unwrap_or(false)))
            })
            .collect();
        if free.is_empty() {
            break;
        }
        for index in free {
            if let Some(flag) = done.get_mut(index) {
                *flag = true;
            }
        }
    }
    if done.iter().all(|&flag| flag) { Ok(()) } else { Err(DependencyError::Cycle) }
}

/// What is wrong with `dependsOn`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// A container waits for one that is not in the task definition.
    #[error("Container '{container}' depends on container '{missing}', which is not part of the task definition.")]
    Unknown {
        /// The one that waits.
        container: String,
        /// The one that is missing.
        missing: String,
    },
    /// Containers wait for each other.
    #[error("Invalid 'dependsOn' setting: there is a cycle in the container dependencies.")]
    Cycle,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(edges: &[(&str, &[&str])]) -> Vec<ContainerDefinition> {
        edges
            .iter()
            .map(|(name, on)| {
                let mut container = ContainerDefinition::new(name, "i");
                container.depends_on = on
                    .iter()
                    .map(|on| Dependency { container_name: (*on).into(), condition: DependencyCondition::Start })
                    .collect();
                container
            })
            .collect()
    }

    #[test]
    fn cycles_and_unknown_containers_are_found() {
        let check = |edges: &[(&str, &[&str])]| check_dependencies(&containers(edges));
        assert_eq!(check(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]), Ok(()));
        assert_eq!(check(&[("a", &["a"])]), Err(DependencyError::Cycle));
        assert_eq!(check(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &[])]), Err(DependencyError::Cycle));
        assert!(matches!(check(&[("a", &["x"])]), Err(DependencyError::Unknown { .. })));
    }
}
