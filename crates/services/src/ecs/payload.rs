//! A task as its agent gets it in an ACS PayloadMessage: the definition with the task's overrides merged in. The
//! credentials of its roles are added by who sends it.

use std::collections::BTreeMap;

use domain::ecs::container_definition::port_range;
use domain::{
    agent_protocol::{docker, payload},
    ecs::{
        ContainerDefinition, ContainerOverride, HealthCheck, LaunchType, NetworkMode, PortMapping, Task, TaskContainer,
        TaskDefinition,
    },
    network::{Subnet, Vpc, names},
};
use store::Snapshot;

use super::{images, task_definitions::log_driver_of};
use crate::Options;

/// The task without credentials; `None` when its definition or interface is gone.
pub fn task(view: &Snapshot, task: &Task, options: &Options) -> Option<payload::Task> {
    let definition = view.get::<TaskDefinition>(task.task_definition_arn.as_str())?;
    let containers = task.containers.iter().filter_map(|known| container(task, known, &definition, options)).collect();
    Some(payload::Task {
        arn: task.arn.to_string(),
        task_cluster_arn: Some(task.cluster_arn.to_string()),
        family: definition.family.clone(),
        version: definition.revision.to_string(),
        desired_status: task.wanted_on_host()?.as_str().to_owned(),
        containers,
        network_mode: definition.network_mode.as_str().to_owned(),
        // Without a size of its own a task has no limits of its own.
        cpu: task.overrides.cpu.or(definition.cpu).map(|units| f64::from(units) / 1024.0),
        memory: task.overrides.memory.or(definition.memory).map(i64::from),
        elastic_network_interfaces: match definition.network_mode {
            NetworkMode::Awsvpc => vec![interface(view, task)?],
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => Vec::new(),
        },
        launch_type: Some(task.launch_type.as_str().to_owned()),
        service_name: task.service_arn.as_ref().map(|arn| arn.resource_name().to_owned()),
        group: Some(task.group.clone()),
        zone: task.interface.as_ref().map(|interface| interface.availability_zone.clone()),
        task_definition_account_id: Some(definition.scope.account.to_string()),
        associations: associations(task),
        attachments: definition
            .ephemeral_storage
            .iter()
            .map(|size| payload::Attachment::ephemeral_storage(i64::from(*size)))
            .collect(),
        ..payload::Task::default()
    })
}

/// The GPUs of its containers. Amazon's agent takes each as that of exactly one container, and tells the container by
/// `NVIDIA_VISIBLE_DEVICES` itself.
fn associations(task: &Task) -> Vec<payload::Association> {
    let of = |container: &TaskContainer| {
        let name = container.name.clone();
        let each = container.gpu_ids.clone().into_iter();
        each.map(move |id| payload::Association::gpu(id, name.clone()))
    };
    task.containers.iter().flat_map(of).collect()
}

fn interface(view: &Snapshot, task: &Task) -> Option<payload::ElasticNetworkInterface> {
    let interface = task.interface.as_ref()?;
    let subnet = view.get::<Subnet>(&task.scope.key(&interface.subnet_id))?;
    let vpc = view.get::<Vpc>(&task.scope.key(&subnet.vpc_id))?;
    Some(payload::ElasticNetworkInterface {
        ec2_id: interface.network_interface_id.clone(),
        mac_address: interface.mac_address.clone(),
        attachment_arn: task.attachment_arn()?.to_string(),
        ipv4_addresses: vec![payload::Ipv4Address {
            private_address: interface.private_address.to_string(),
            primary: true,
        }],
        subnet_gateway_ipv4_address: format!("{}/{}", subnet.gateway(), subnet.cidr.prefix()),
        domain_name: vec![names::dns_domain(&task.scope.region)],
        domain_name_servers: vec![vpc.resolver_address().to_string()],
        private_dns_name: interface.private_dns_name.clone(),
    })
}

fn container(task: &Task, known: &TaskContainer, of: &TaskDefinition, options: &Options) -> Option<payload::Container> {
    let definition = of.container(&known.name)?;
    let change = task.overrides.container(&known.name);
    let command = change.and_then(|change| change.command.clone()).unwrap_or_else(|| definition.command.clone());
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let health = definition.health_check.as_ref().filter(|_| known.has_health_check);
    // Without one the instance's own role pulls images and sends lines, where there is one.
    let has_execution_role = task.execution_role_arn(of).is_some();
    Some(payload::Container {
        name: known.name.clone(),
        container_arn: known.arn.to_string(),
        image: match &known.pinned_digest {
            Some(digest) => format!("{}@{digest}", known.image),
            None => known.image.clone(),
        },
        defined_image: known.pinned_digest.as_ref().map(|_| known.image.clone()),
        essential: known.essential,
        cpu: known.cpu.into(),
        memory: known.memory.unwrap_or_default().into(),
        command: list(&command),
        entry_point: list(&definition.entry_point),
        environment: environment(task, definition, change),
        // The ports of a task with a network interface are its own: there is nothing to map.
        port_mappings: match of.network_mode {
            NetworkMode::Awsvpc => Vec::new(),
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => {
                definition.port_mappings.iter().map(port_mapping).collect()
            }
        },
        links: definition.links.clone(),
        overrides: "{}".to_owned(),
        depends_on: definition
            .depends_on
            .iter()
            .map(|dependency| payload::Dependency {
                container_name: dependency.container_name.clone(),
                condition: dependency.condition.as_str().to_owned(),
            })
            .collect(),
        docker_config: Some(docker::DockerConfig::new(
            &docker_config(definition, health),
            &host_config(of, definition, known),
        )),
        health_check_type: health.map(|_| "docker".to_owned()),
        registry_authentication: images::ecr_registry(&known.image, options).map(|(account, region)| {
            payload::RegistryAuthentication {
                kind: "ecr".to_owned(),
                ecr_auth_data: Some(payload::EcrAuthData {
                    registry_id: account.to_string(),
                    region: region.to_string(),
                    endpoint_override: None,
                    use_execution_role: has_execution_role,
                }),
            }
        }),
        logs_auth_strategy: log_driver_of(definition)
            .filter(|driver| driver.needs_execution_role && has_execution_role)
            .map(|_| "ExecutionRole".to_owned()),
        start_timeout: definition.start_timeout.map(i64::from),
        stop_timeout: definition.stop_timeout.map(i64::from),
        restart_policy: definition.restart_policy.as_ref().map(|policy| payload::RestartPolicy {
            enabled: policy.enabled,
            ignored_exit_codes: policy.ignored_exit_codes.iter().map(|code| i64::from(*code)).collect(),
            restart_attempt_period: policy.restart_attempt_period.map(i64::from),
        }),
        linux_parameters: definition.has_linux_parameters.then(|| payload::LinuxParameters {
            capabilities: Some(payload::Capabilities {
                add: definition.add_capabilities.clone(),
                drop: definition.drop_capabilities.clone(),
            }),
            init_process_enabled: definition.init_process_enabled,
            shared_memory_size: None,
        }),
        ..payload::Container::default()
    })
}

fn port_mapping(mapping: &PortMapping) -> payload::PortMapping {
    payload::PortMapping {
        // A range goes without single ports.
        container_port: mapping.range.map_or(mapping.container_port.into(), |_| 0),
        container_port_range: mapping.range.map(|count| port_range(mapping.container_port, count)).unwrap_or_default(),
        host_port: mapping.range.map_or(mapping.host_port.into(), |_| 0),
        protocol: mapping.protocol.as_str().to_owned(),
    }
}

/// The definition's environment with the override's over it. Amazon's agent leaves it to ECS to tell a container where it
/// runs.
fn environment(
    task: &Task,
    definition: &ContainerDefinition,
    change: Option<&ContainerOverride>,
) -> BTreeMap<String, String> {
    let place = match task.launch_type {
        LaunchType::Ec2 | LaunchType::External => Some("AWS_ECS_EC2"),
        LaunchType::Fargate => None,
    };
    let own = place.map(|place| ("AWS_EXECUTION_ENV".to_owned(), place.to_owned()));
    let changed = change.into_iter().flat_map(|change| change.environment.iter());
    own.into_iter().chain(definition.environment.iter().chain(changed).cloned()).collect()
}

/// What Docker calls the container's configuration.
fn docker_config(definition: &ContainerDefinition, health: Option<&HealthCheck>) -> docker::Config {
    let nanoseconds = |seconds: u32| i64::from(seconds) * 1_000_000_000;
    docker::Config {
        labels: definition.docker_labels.clone(),
        healthcheck: health.map(|check| docker::HealthCheck {
            test: check.command.clone(),
            interval: nanoseconds(check.interval),
            timeout: nanoseconds(check.timeout),
            retries: check.retries.into(),
            start_period: nanoseconds(check.start_period.unwrap_or_default()),
        }),
        user: definition.user.clone().unwrap_or_default(),
        working_dir: definition.working_directory.clone().unwrap_or_default(),
        hostname: definition.hostname.clone().unwrap_or_default(),
        ..docker::Config::default()
    }
}

/// What Docker calls the host's part of it.
fn host_config(of: &TaskDefinition, definition: &ContainerDefinition, known: &TaskContainer) -> docker::HostConfig {
    docker::HostConfig {
        network_mode: match of.network_mode {
            // Amazon's agent joins the containers of such a task itself.
            NetworkMode::Awsvpc => String::new(),
            mode => mode.as_str().to_owned(),
        },
        log_config: definition
            .log_configuration
            .as_ref()
            .map(|logs| docker::LogConfig { kind: logs.log_driver.clone(), config: logs.options.clone() }),
        cap_add: definition.add_capabilities.clone(),
        cap_drop: definition.drop_capabilities.clone(),
        readonly_rootfs: definition.readonly_root_filesystem.unwrap_or_default(),
        ulimits: definition
            .ulimits
            .iter()
            .map(|limit| docker::Ulimit { name: limit.name.clone(), soft: limit.soft_limit, hard: limit.hard_limit })
            .collect(),
        init: definition.init_process_enabled,
        dns: definition.dns_servers.clone(),
        dns_search: definition.dns_search_domains.clone(),
        extra_hosts: definition.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect(),
        memory_reservation: known.memory_reservation.map_or(0, |mebibytes| i64::from(mebibytes) << 20),
        ..docker::HostConfig::default()
    }
}
