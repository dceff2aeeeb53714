//! `requiresAttributes`: what a container instance must be able to do for a task definition.

use domain::ecs::{NetworkMode, TaskDefinition};

use super::logs;
use crate::{Options, ecs::images};

/// The attributes that a task definition requires, each once, in the order of their names.
pub(super) fn of(definition: &TaskDefinition, options: &Options) -> Vec<String> {
    let mut names = vec!["com.amazonaws.ecs.capability.docker-remote-api.1.18"];
    if definition.network_mode == NetworkMode::Awsvpc {
        names.push("ecs.capability.task-eni");
    }
    if definition.task_role_arn.is_some() {
        names.push(match definition.network_mode {
            NetworkMode::Host => "com.amazonaws.ecs.capability.task-iam-role-network-host",
            _ => "com.amazonaws.ecs.capability.task-iam-role",
        });
    }
    for container in &definition.container_definitions {
        if images::ecr_registry(&container.image, options).is_some() {
            names.push("com.amazonaws.ecs.capability.ecr-auth");
            names.push("com.amazonaws.ecs.capability.docker-remote-api.1.19");
            if definition.execution_role_arn.is_some() {
                names.push("ecs.capability.execution-role-ecr-pull");
            }
        }
        if let Some(driver) = logs::driver_of(container) {
            names.extend(driver.attributes);
            if definition.execution_role_arn.is_some() {
                names.extend(driver.execution_role_attribute);
            }
        }
        if !container.depends_on.is_empty() || container.start_timeout.is_some() || container.stop_timeout.is_some() {
            names.push("ecs.capability.container-ordering");
        }
        if container.health_check.is_some() {
            names.push("com.amazonaws.ecs.capability.docker-remote-api.1.29");
            names.push("ecs.capability.container-health-check");
        }
        if container.port_mappings.iter().any(|mapping| mapping.range.is_some()) {
            names.push("ecs.capability.container-port-range");
        }
        if container.restart_policy.is_some() {
            names.push("ecs.capability.container-restart-policy");
        }
        if container.init_process_enabled == Some(true) {
            names.push("com.amazonaws.ecs.capability.docker-remote-api.1.25");
        }
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(str::to_owned).collect()
}
