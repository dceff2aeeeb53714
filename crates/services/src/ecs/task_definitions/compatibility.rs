//! `compatibilities`: which launch types can run a task definition.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

use domain::ecs::{NetworkMode, fargate};
use wire::ServiceError;

use super::{Stored, gpus, logs, size};
use crate::{
    Options,
    ecs::{common::client, images},
};

/// The longest start and stop timeouts on Fargate, in seconds.
const LONGEST_TIMEOUT: u32 = 120;

/// Whether Fargate could run it; if not, why.
pub(super) fn with_fargate(definition: &Stored, options: &Options) -> Result<(), ServiceError> {
    if definition.network_mode != NetworkMode::Awsvpc {
        return Err(client("Fargate only supports network mode \u{2018}awsvpc\u{2019}."));
    }
    size::check(size::Size { cpu: definition.cpu, memory: definition.memory }, true)?;
    if !definition.placement_constraints.is_empty() {
        return Err(client("Placement constraints are not supported with FARGATE launch type."));
    }
    for container in &definition.container_definitions {
        if container.gpus > 0 {
            return Err(client(gpus::NOT_ON_FARGATE));
        }
        for (given, field) in [(container.start_timeout, "startTimeout"), (container.stop_timeout, "stopTimeout")] {
            if given.is_some_and(|seconds| seconds > LONGEST_TIMEOUT) {
                return Err(client(format!(
                    "Invalid '{field}' setting: it must be at most {LONGEST_TIMEOUT} seconds on Fargate."
                )));
            }
        }
        if let Some(other) = container.add_capabilities.iter().find(|name| *name != fargate::ADDABLE_CAPABILITY) {
            return Err(client(format!("Fargate does not support linuxParameters.capabilities.add {other}.")));
        }
    }
    if definition.execution_role_arn.is_none() {
        needs_no_execution_role(definition, options)?;
    }
    Ok(())
}

fn needs_no_execution_role(definition: &Stored, options: &Options) -> Result<(), ServiceError> {
    for container in &definition.container_definitions {
        if images::ecr_registry(&container.image, options).is_some() {
            return Err(client("Fargate requires task definition to have execution role ARN to support ECR images."));
        }
        if let Some(driver) = logs::driver_of(container).filter(|driver| driver.needs_execution_role) {
            return Err(client(format!(
                "Fargate requires task definition to have execution role ARN to support log driver {}.",
                driver.name
            )));
        }
    }
    Ok(())
}

/// What can run it, in the order in which Amazon lists them. A machine outside EC2 has no network interfaces to give.
pub(super) fn of(definition: &Stored, fargate: bool) -> Vec<String> {
    let external = definition.network_mode != NetworkMode::Awsvpc;
    [("EXTERNAL", external), ("EC2", true), ("FARGATE", fargate)]
        .into_iter()
        .filter(|(_, can)| *can)
        .map(|(name, _)| name.to_owned())
        .collect()
}
