//! `overrides` of RunTask.

use api::ecs as shapes;
use domain::ecs::{ContainerOverride, TaskDefinition, TaskOverrides, fargate};
use wire::ServiceError;

use crate::ecs::common::{Given, client, invalid, refuse};

/// Checks overrides against the task definition they change.
pub(super) fn check(
    given: Option<shapes::TaskOverride>,
    definition: &TaskDefinition,
) -> Result<TaskOverrides, ServiceError> {
    let shapes::TaskOverride {
        container_overrides,
        cpu,
        inference_accelerator_overrides,
        execution_role_arn,
        memory,
        task_role_arn,
        ephemeral_storage,
    } = given.unwrap_or_default();
    refuse(&[
        ("overrides.inferenceAcceleratorOverrides", inference_accelerator_overrides.given()),
        ("overrides.ephemeralStorage", ephemeral_storage.is_some()),
    ])?;
    let size = |text: Option<String>, parse: fn(&str) -> Option<u32>, field: &str| {
        text.map(|text| parse(&text).ok_or_else(|| client(format!("Invalid '{field}' setting for task: {text}"))))
            .transpose()
    };
    let containers = container_overrides
        .unwrap_or_default()
        .into_iter()
        .map(|given| container(given, definition))
        .collect::<Result<_, _>>()?;
    Ok(TaskOverrides {
        containers,
        cpu: size(cpu, fargate::parse_cpu, "cpu")?,
        memory: size(memory, fargate::parse_memory, "memory")?,
        task_role_arn: task_role_arn.filter(|role| !role.is_empty()),
        execution_role_arn: execution_role_arn.filter(|role| !role.is_empty()),
    })
}

fn container(given: shapes::ContainerOverride, definition: &TaskDefinition) -> Result<ContainerOverride, ServiceError> {
    let shapes::ContainerOverride {
        name,
        command,
        environment,
        environment_files,
        cpu,
        memory,
        memory_reservation,
        resource_requirements,
    } = given;
    refuse(&[
        ("overrides.containerOverrides.environmentFiles", environment_files.given()),
        ("overrides.containerOverrides.resourceRequirements", resource_requirements.given()),
    ])?;
    let name = name.unwrap_or_default();
    if definition.container(&name).is_none() {
        return Err(invalid(format!("Override for container named {name} is not a container in the TaskDefinition.")));
    }
    let number = |value: Option<i32>, field: &str| {
        value
            .map(|value| {
                u32::try_from(value).map_err(|_| invalid(format!("Invalid {field} in container override: {value}")))
            })
            .transpose()
    };
    Ok(ContainerOverride {
        name,
        command,
        environment: super::environment(environment)?,
        cpu: number(cpu, "cpu")?,
        memory: number(memory, "memory")?,
        memory_reservation: number(memory_reservation, "memoryReservation")?,
    })
}

/// Overrides as responses have them: every container is named, as Amazon does.
pub(super) fn shape(overrides: &TaskOverrides, containers: impl Iterator<Item = String>) -> shapes::TaskOverride {
    let one = |name: String| {
        let change = overrides.container(&name);
        shapes::ContainerOverride {
            command: change.and_then(|change| change.command.clone()),
            environment: change.filter(|change| !change.environment.is_empty()).map(|change| {
                change.environment.iter().map(|(name, value)| crate::ecs::common::pair(name, value)).collect()
            }),
            cpu: change.and_then(|change| change.cpu).map(crate::ecs::common::number),
            memory: change.and_then(|change| change.memory).map(crate::ecs::common::number),
            memory_reservation: change.and_then(|change| change.memory_reservation).map(crate::ecs::common::number),
            name: Some(name),
            ..shapes::ContainerOverride::default()
        }
    };
    shapes::TaskOverride {
        container_overrides: Some(containers.map(one).collect()),
        cpu: overrides.cpu.map(|cpu| cpu.to_string()),
        memory: overrides.memory.map(|memory| memory.to_string()),
        task_role_arn: overrides.task_role_arn.clone(),
        execution_role_arn: overrides.execution_role_arn.clone(),
        inference_accelerator_overrides: Some(Vec::new()),
        ..shapes::TaskOverride::default()
    }
}
