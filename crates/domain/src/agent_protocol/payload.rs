//! One task inside an ACS payload: everything a container instance needs to run it.
//!
//! The control plane merges a task's overrides before it fills these; the agent adds what only the instance knows.
//! What a container definition says beyond these members travels in [`super::docker::DockerConfig`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::docker::DockerConfig;

/// A task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    /// The task's ARN, which carries the user's account, region and cluster.
    pub arn: String,
    /// The user's cluster; on a Fargate host another one than the instance's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_cluster_arn: Option<String>,
    /// Family of the task definition.
    pub family: String,
    /// Revision of the task definition.
    pub version: String,
    /// `RUNNING` or `STOPPED`.
    pub desired_status: String,
    /// The containers.
    pub containers: Vec<Container>,
    /// The volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// `bridge`, `host`, `none` or `awsvpc`; empty means bridge.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_mode: String,
    /// CPU of the whole task, in vCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Memory of the whole task, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Credentials of the task role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_credentials: Option<RoleCredentials>,
    /// Credentials of the execution role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_credentials: Option<RoleCredentials>,
    /// The interfaces of an awsvpc task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
    /// `host` or `task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<String>,
    /// `host`, `task` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<String>,
    /// `EC2`, `EXTERNAL` or `FARGATE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_type: Option<String>,
    /// The service it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// The task group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The availability zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Account of the task definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition_account_id: Option<String>,
    /// Other resources of the task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Devices of the instance that are its containers' own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub associations: Vec<Association>,
}

/// A container of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name in the task definition.
    pub name: String,
    /// Its ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_arn: String,
    /// The image to run: as the definition writes it, and where a digest was established for its tag, with that.
    pub image: String,
    /// The image as the definition writes it, where `image` is another; ours, for the task metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defined_image: Option<String>,
    /// Whether its end ends the task.
    pub essential: bool,
    /// CPU shares.
    pub cpu: i64,
    /// Hard limit in MiB; 0 means none.
    pub memory: i64,
    /// Instead of the image's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Instead of the image's entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<Vec<String>>,
    /// Environment, overrides merged in.
    pub environment: BTreeMap<String, String>,
    /// A string holding JSON, in which only `command` is allowed.
    pub overrides: String,
    /// Published ports; none for awsvpc tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Where volumes are mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// Whose mounts it shares.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumeFrom>,
    /// `name:alias` of other containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// What must have happened to other containers before this one starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Everything else, in Docker's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<DockerConfig>,
    /// `docker` if it has a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_type: Option<String>,
    /// How to log in to its registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_authentication: Option<RegistryAuthentication>,
    /// `ExecutionRole` if the log driver uses that role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs_auth_strategy: Option<String>,
    /// Seconds others wait for this container's condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<i64>,
    /// Seconds between the stop signal and the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// When it is restarted in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Kernel-level settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux_parameters: Option<LinuxParameters>,
    /// Secrets to resolve before it starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
}

/// A condition on another container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dependency {
    /// The other container.
    pub container_name: String,
    /// `START`, `COMPLETE`, `SUCCESS` or `HEALTHY`.
    pub condition: String,
}

/// When a container is restarted in place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartPolicy {
    /// Whether at all.
    pub enabled: bool,
    /// Exit codes that count as a wanted end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_exit_codes: Vec<i64>,
    /// Seconds it must have run; 300 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_attempt_period: Option<i64>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// Inside the container.
    pub container_port: i64,
    /// A range of ports instead, such as `8000-8009`; else empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_port_range: String,
    /// On the host; 0 means any.
    pub host_port: i64,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Where a volume is mounted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountPoint {
    /// The volume's name.
    pub source_volume: String,
    /// Inside the container.
    pub container_path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
}

/// Whose mounts are shared.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeFrom {
    /// The other container.
    pub source_container: String,
    /// Whether they cannot be written.
    pub read_only: bool,
}

/// A volume; its kind-specific members come with the issue that mounts them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// `host`, `docker`, `efs`; empty means host.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A secret to resolve before the container starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// The variable or option it becomes.
    pub name: String,
    /// The parameter or secret.
    pub value_from: String,
    /// Its region.
    pub region: String,
    /// `ssm` or `asm`.
    pub provider: String,
}

/// Kernel-level settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxParameters {
    /// Capabilities beyond or below the default set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Whether an init process reaps children and forwards signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_process_enabled: Option<bool>,
    /// Size of `/dev/shm` in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory_size: Option<i64>,
}

/// Capabilities beyond or below the default set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// To add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// To drop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// How to log in to a registry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryAuthentication {
    /// `ecr` or `asm`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For `ecr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecr_auth_data: Option<EcrAuthData>,
}

/// How to log in to ECR.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EcrAuthData {
    /// The registry's account.
    pub registry_id: String,
    /// Its region.
    pub region: String,
    /// Another endpoint than the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_override: Option<String>,
    /// Whether the task's execution role signs, not the instance.
    pub use_execution_role: bool,
}

/// Temporary credentials of a role.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleCredentials {
    /// Names the set for its whole life; part of the credentials URL.
    pub credentials_id: String,
    /// The role.
    pub role_arn: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token.
    pub session_token: String,
    /// RFC 3339, UTC.
    pub expiration: String,
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RoleCredentials")
            .field("credentials_id", &"…")
            .field("role_arn", &self.role_arn)
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// A network interface of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ElasticNetworkInterface {
    /// The ENI's id.
    pub ec2_id: String,
    /// Its MAC address.
    pub mac_address: String,
    /// The attachment's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attachment_arn: String,
    /// Its IPv4 addresses.
    pub ipv4_addresses: Vec<Ipv4Address>,
    /// The subnet's gateway with the subnet's prefix length, `10.0.0.1/24`.
    pub subnet_gateway_ipv4_address: String,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_name: Vec<String>,
    /// Resolvers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domain_name_servers: Vec<String>,
    /// `ip-10-0-0-1.ec2.internal`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_dns_name: String,
}

impl ElasticNetworkInterface {
    /// The primary private IPv4 address, else the first.
    pub fn primary_address(&self) -> Option<&str> {
        let primary = self.ipv4_addresses.iter().find(|address| address.primary);
        primary.or_else(|| self.ipv4_addresses.first()).map(|address| address.private_address.as_str())
    }
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipv4Address {
    /// The address.
    pub private_address: String,
    /// Whether it is the main one.
    pub primary: bool,
}

/// A device of the instance that containers of the task have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Association {
    /// The device's id.
    pub name: String,
    /// `gpu` or `elastic-inference`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The containers; exactly one for a GPU.
    pub containers: Vec<String>,
}

impl Association {
    /// A GPU of a container.
    pub fn gpu(id: String, container: String) -> Association {
        Association { name: id, kind: "gpu".to_owned(), containers: vec![container] }
    }
}

/// Another resource of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attachment {
    /// Its ARN.
    pub attachment_arn: String,
    /// What it is.
    pub attachment_type: String,
    /// Its settings.
    pub attachment_properties: Vec<Property>,
}

/// Our own attachment type, for Fargate tasks only: how much ephemeral storage the definition asks for.
pub const EPHEMERAL_STORAGE: &str = "ephemeralStorage";

impl Attachment {
    /// The ephemeral storage of a Fargate task.
    pub fn ephemeral_storage(gibibytes: i64) -> Attachment {
        Attachment {
            attachment_arn: String::new(),
            attachment_type: EPHEMERAL_STORAGE.to_owned(),
            attachment_properties: vec![Property { name: "sizeInGiB".to_owned(), value: gibibytes.to_string() }],
        }
    }
}

/// A setting of an attachment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}
