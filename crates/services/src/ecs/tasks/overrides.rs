//! `overrides` of RunTask.

use api::ecs as shapes;
use domain::ecs::{Compute, ContainerOverride, TaskDefinition, TaskOverrides, fargate};
use wire::ServiceError;

use crate::ecs::{
    common::{Given, client, invalid, refuse},
    task_definitions::{Size, Wanted, check_fit, check_size, gpus, memory_of, role},
};

/// Checks overrides against the task definition they change.
pub(super) fn check(
    given: Option<shapes::TaskOverride>,
    definition: &TaskDefinition,
    compute: &Compute,
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
    let mut containers: Vec<ContainerOverride> = Vec::new();
    for given in container_overrides.unwrap_or_default() {
        let checked = container(given, definition)?;
        if checked.gpus.is_some() && compute.is_fargate() {
            return Err(client(gpus::NOT_ON_FARGATE));
        }
        if containers.iter().any(|known| known.name == checked.name) {
            return Err(invalid(format!("There is more than one override for container {}.", checked.name)));
        }
        containers.push(checked);
    }
    let overrides = TaskOverrides {
        containers,
        cpu: size(cpu, fargate::parse_cpu, "cpu")?,
        memory: size(memory, fargate::parse_memory, "memory")?,
        task_role_arn: role(task_role_arn)?,
        execution_role_arn: role(execution_role_arn)?,
    };
    let size = Size { cpu: overrides.cpu.or(definition.cpu), memory: overrides.memory.or(definition.memory) };
    check_size(size, compute.is_fargate())?;
    check_fits(&overrides, definition, size)?;
    Ok(overrides)
}

/// With the overrides, containers must still fit into their task.
fn check_fits(overrides: &TaskOverrides, definition: &TaskDefinition, size: Size) -> Result<(), ServiceError> {
    let wanted = definition.container_definitions.iter().map(|container| {
        let change = overrides.container(&container.name);
        Wanted {
            name: &container.name,
            cpu: change.and_then(|change| change.cpu).unwrap_or(container.cpu),
            memory: change.and_then(|change| change.memory).or(container.memory),
            memory_reservation: change.and_then(|change| change.memory_reservation).or(container.memory_reservation),
        }
    });
    check_fit(wanted, size).map_err(invalid)
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
    refuse(&[("overrides.containerOverrides.environmentFiles", environment_files.given())])?;
    let name = name.unwrap_or_default();
    if definition.container(&name).is_none() {
        return Err(invalid(format!("Override for container named {name} is not a container in the TaskDefinition.")));
    }
    let cpu = cpu
        .map(|cpu| u32::try_from(cpu).map_err(|_| invalid(format!("Invalid cpu in container override: {cpu}"))))
        .transpose()?;
    Ok(ContainerOverride {
        // An empty command is none: what the task definition says stays.
        command: command.filter(|command| !command.is_empty()),
        environment: super::environment(environment)?,
        cpu,
        memory: memory_of(memory, "memory", &name)?,
        memory_reservation: memory_of(memory_reservation, "memoryReservation", &name)?,
        gpus: gpus::read(resource_requirements, "overrides.containerOverrides.resourceRequirements", &name)?,
        name,
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
            resource_requirements: change.and_then(|change| change.gpus).map(gpus::shape),
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
