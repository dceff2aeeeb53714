//! What a scheduling strategy goes together with. Daemon services have as many tasks as there are container instances for
//! them, and update by stopping first.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_services.html>

use domain::ecs::{Compute, Placement, SchedulingStrategy};
use wire::ServiceError;

use super::deployment::{Configuration, Shares};
use crate::ecs::common::invalid;

/// Reads `schedulingStrategy`.
pub(super) fn strategy(given: Option<&str>) -> Result<SchedulingStrategy, ServiceError> {
    match given {
        None | Some("" | "REPLICA") => Ok(SchedulingStrategy::Replica),
        Some("DAEMON") => Ok(SchedulingStrategy::Daemon),
        Some(other) => Err(invalid(format!("Invalid schedulingStrategy: {other}"))),
    }
}

/// What a deployment is configured with where a request says nothing.
pub(super) fn default_configuration(strategy: SchedulingStrategy) -> Configuration {
    match strategy {
        SchedulingStrategy::Replica => Configuration::default(),
        SchedulingStrategy::Daemon => {
            Configuration { shares: Shares { minimum: 0, maximum: 100 }, ..Configuration::default() }
        }
    }
}

/// Refuses what a daemon service cannot have.
pub(super) fn check(
    strategy: SchedulingStrategy,
    desired_count: Option<i32>,
    configuration: &Configuration,
) -> Result<(), ServiceError> {
    if strategy == SchedulingStrategy::Replica {
        return Ok(());
    }
    if desired_count.is_some() {
        return Err(invalid(
            "The daemon scheduling strategy does not support a desired count for services. Remove the desired count value and try again",
        ));
    }
    if configuration.shares.maximum != 100 {
        return Err(invalid(
            "The daemon scheduling strategy does not support values above 100 for maximumPercent on the deployment configuration.",
        ));
    }
    Ok(())
}

/// Refuses where a daemon service's tasks cannot be.
pub(super) fn check_place(
    strategy: SchedulingStrategy,
    compute: &Compute,
    placement: &Placement,
) -> Result<(), ServiceError> {
    if strategy == SchedulingStrategy::Replica {
        return Ok(());
    }
    if compute.is_fargate() {
        return Err(invalid("The daemon scheduling strategy is not supported with the FARGATE launch type."));
    }
    if !placement.strategy.is_empty() {
        return Err(invalid(
            "The daemon scheduling strategy does not support placement strategies. Remove the placement strategies and try again.",
        ));
    }
    Ok(())
}
