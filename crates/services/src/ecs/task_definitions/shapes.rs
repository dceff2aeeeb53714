//! Task definitions as responses have them: normalised as Amazon's (empty lists are there, defaults are filled in).

use api::ecs::*;
use domain::ecs::container_definition::port_range;
use domain::ecs::{ContainerDefinition as StoredContainer, PlacementConstraint as StoredConstraint};

use super::{Stored, gpus};
use crate::ecs::{
    common::{number, pair, time},
    compute::constraints_shape,
};

/// A task definition.
pub(super) fn task_definition(stored: &Stored) -> TaskDefinition {
    let platform = stored.cpu_architecture.is_some() || stored.operating_system_family.is_some();
    TaskDefinition {
        task_definition_arn: Some(stored.arn.to_string()),
        container_definitions: Some(stored.container_definitions.iter().map(container).collect()),
        family: Some(stored.family.clone()),
        task_role_arn: stored.task_role_arn.clone(),
        execution_role_arn: stored.execution_role_arn.clone(),
        network_mode: stored.has_network_mode.then(|| stored.network_mode.as_str().to_owned()),
        revision: Some(number(stored.revision)),
        volumes: Some(Vec::new()),
        status: Some(stored.status.as_str().to_owned()),
        requires_attributes: Some(
            stored
                .requires_attributes
                .iter()
                .map(|name| Attribute { name: Some(name.clone()), ..Attribute::default() })
                .collect(),
        ),
        placement_constraints: Some(constraints(&stored.placement_constraints)),
        compatibilities: Some(stored.compatibilities.clone()),
        runtime_platform: platform.then(|| RuntimePlatform {
            cpu_architecture: stored.cpu_architecture.clone(),
            operating_system_family: stored.operating_system_family.clone(),
        }),
        requires_compatibilities: (!stored.requires_compatibilities.is_empty())
            .then(|| stored.requires_compatibilities.clone()),
        cpu: stored.cpu.map(|cpu| cpu.to_string()),
        memory: stored.memory.map(|memory| memory.to_string()),
        registered_at: Some(time(stored.registered_at)),
        deregistered_at: stored.deregistered_at.map(time),
        delete_requested_at: stored.delete_requested_at.map(time),
        registered_by: Some(stored.registered_by.clone()),
        ephemeral_storage: stored.ephemeral_storage.map(|size| EphemeralStorage { size_in_gi_b: Some(number(size)) }),
        ..TaskDefinition::default()
    }
}

fn constraints(stored: &[StoredConstraint]) -> Vec<TaskDefinitionPlacementConstraint> {
    let shape =
        |one: PlacementConstraint| TaskDefinitionPlacementConstraint { r#type: one.r#type, expression: one.expression };
    constraints_shape(stored).into_iter().map(shape).collect()
}

fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn container(stored: &StoredContainer) -> ContainerDefinition {
    let port = |port: &domain::ecs::PortMapping| PortMapping {
        container_port: port.range.is_none().then(|| port.container_port.into()),
        container_port_range: port.range.map(|count| port_range(port.container_port, count)),
        host_port: port.range.is_none().then(|| port.host_port.into()),
        protocol: Some(port.protocol.as_str().to_owned()),
        name: port.name.clone(),
        ..PortMapping::default()
    };
    let extra_host = |(name, address): &(String, String)| HostEntry {
        hostname: Some(name.clone()),
        ip_address: Some(address.clone()),
    };
    let dependency = |dependency: &domain::ecs::Dependency| ContainerDependency {
        container_name: Some(dependency.container_name.clone()),
        condition: Some(dependency.condition.as_str().to_owned()),
    };
    let limit = |value: i64| Some(i32::try_from(value).unwrap_or(i32::MAX));
    let ulimit = |ulimit: &domain::ecs::Ulimit| Ulimit {
        name: Some(ulimit.name.clone()),
        soft_limit: limit(ulimit.soft_limit),
        hard_limit: limit(ulimit.hard_limit),
    };
    ContainerDefinition {
        name: Some(stored.name.clone()),
        image: Some(stored.image.clone()),
        version_consistency: stored
            .version_consistency
            .map(|enabled| if enabled { "enabled" } else { "disabled" }.to_owned()),
        cpu: Some(number(stored.cpu)),
        memory: stored.memory.map(number),
        memory_reservation: stored.memory_reservation.map(number),
        port_mappings: Some(stored.port_mappings.iter().map(port).collect()),
        essential: Some(stored.essential),
        links: filled(&stored.links),
        hostname: stored.hostname.clone(),
        dns_servers: filled(&stored.dns_servers),
        dns_search_domains: filled(&stored.dns_search_domains),
        extra_hosts: (!stored.extra_hosts.is_empty()).then(|| stored.extra_hosts.iter().map(extra_host).collect()),
        restart_policy: stored.restart_policy.as_ref().map(|policy| ContainerRestartPolicy {
            enabled: Some(policy.enabled),
            ignored_exit_codes: filled(&policy.ignored_exit_codes),
            restart_attempt_period: policy.restart_attempt_period.map(number),
        }),
        entry_point: filled(&stored.entry_point),
        command: filled(&stored.command),
        environment: Some(stored.environment.iter().map(|(name, value)| pair(name, value)).collect()),
        mount_points: Some(Vec::new()),
        volumes_from: Some(Vec::new()),
        linux_parameters: stored.has_linux_parameters.then(|| LinuxParameters {
            capabilities: (!stored.add_capabilities.is_empty() || !stored.drop_capabilities.is_empty()).then(|| {
                KernelCapabilities { add: filled(&stored.add_capabilities), drop: filled(&stored.drop_capabilities) }
            }),
            init_process_enabled: stored.init_process_enabled,
            ..LinuxParameters::default()
        }),
        depends_on: (!stored.depends_on.is_empty()).then(|| stored.depends_on.iter().map(dependency).collect()),
        start_timeout: stored.start_timeout.map(number),
        stop_timeout: stored.stop_timeout.map(number),
        user: stored.user.clone(),
        working_directory: stored.working_directory.clone(),
        readonly_root_filesystem: stored.readonly_root_filesystem,
        docker_labels: (!stored.docker_labels.is_empty()).then(|| stored.docker_labels.clone()),
        ulimits: (!stored.ulimits.is_empty()).then(|| stored.ulimits.iter().map(ulimit).collect()),
        log_configuration: stored.log_configuration.as_ref().map(|logs| LogConfiguration {
            log_driver: Some(logs.log_driver.clone()),
            options: Some(logs.options.clone()),
            secret_options: Some(Vec::new()),
        }),
        health_check: stored.health_check.as_ref().map(|check| HealthCheck {
            command: Some(check.command.clone()),
            interval: Some(number(check.interval)),
            timeout: Some(number(check.timeout)),
            retries: Some(number(check.retries)),
            start_period: check.start_period.map(number),
        }),
        system_controls: Some(Vec::new()),
        resource_requirements: (stored.gpus > 0).then(|| gpus::shape(stored.gpus)),
        ..ContainerDefinition::default()
    }
}
