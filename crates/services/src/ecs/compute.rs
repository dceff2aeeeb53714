//! What RunTask, CreateService and UpdateService ask of where tasks run: launch type or capacity provider strategy,
//! platform version, placement constraints and strategy. Checked here for all three.

use api::ecs::*;
use domain::ecs::{CapacityProviderChoice, Cluster as StoredCluster, ContainerInstance, fargate};
use store::Snapshot;
use wire::ServiceError;

use super::{
    clusters::FARGATE_PROVIDERS,
    common::{invalid, unsupported},
};

/// What a request chose to run on: always Fargate, by launch type or by a capacity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ecs) struct LaunchChoice {
    /// `FARGATE`, when a strategy chose it.
    pub(in crate::ecs) capacity_provider: Option<CapacityProviderChoice>,
}

/// Checks `launchType` and `capacityProviderStrategy`.
pub(in crate::ecs) fn launch_choice(
    view: &Snapshot,
    cluster: &StoredCluster,
    launch_type: Option<&str>,
    strategy: Option<Vec<CapacityProviderStrategyItem>>,
) -> Result<LaunchChoice, ServiceError> {
    let strategy = strategy.unwrap_or_default();
    if strategy.is_empty() {
        return match launch_type {
            Some("FARGATE") => Ok(LaunchChoice { capacity_provider: None }),
            None | Some("EC2") => {
                if view.count::<ContainerInstance>(ContainerInstance::BY_CLUSTER, cluster.arn.as_str()) == 0 {
                    return Err(invalid("No Container Instances were found in your cluster."));
                }
                Err(unsupported("launchType EC2"))
            }
            Some(other) => Err(unsupported(&format!("launchType {other}"))),
        };
    }
    if launch_type.is_some() {
        return Err(invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        ));
    }
    let mut chosen: Option<CapacityProviderChoice> = None;
    for item in &strategy {
        let name = item.capacity_provider.as_deref().unwrap_or_default();
        if !FARGATE_PROVIDERS.contains(&name) {
            return Err(invalid(format!(
                "The specified capacity provider '{name}' was not found. Specify a valid name or ARN and try again."
            )));
        }
        if !cluster.capacity_providers.iter().any(|associated| associated == name) {
            return Err(invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster and try again.",
            ));
        }
        if name != "FARGATE" {
            return Err(unsupported(&format!("capacityProviderStrategy {name}")));
        }
        let number = |given: Option<i32>| given.and_then(|value| u32::try_from(value).ok()).unwrap_or_default();
        let choice =
            CapacityProviderChoice { name: name.to_owned(), weight: number(item.weight), base: number(item.base) };
        if chosen.replace(choice).is_some() {
            return Err(invalid("The specified capacity provider strategy cannot name a capacity provider twice."));
        }
    }
    if strategy.iter().all(|item| item.weight == Some(0) && item.base.unwrap_or(0) == 0) {
        return Err(invalid(
            "The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.",
        ));
    }
    Ok(LaunchChoice { capacity_provider: chosen })
}

/// Checks `platformVersion`: there is one. Gives it as services show it.
pub(in crate::ecs) fn platform_version(given: Option<&str>) -> Result<&'static str, ServiceError> {
    match given {
        None | Some("" | fargate::LATEST) => Ok(fargate::LATEST),
        Some(fargate::PLATFORM_VERSION) => Ok(fargate::PLATFORM_VERSION),
        Some("1.0.0" | "1.1.0" | "1.2.0" | "1.3.0") => Err(unsupported("platformVersion before 1.4.0")),
        Some(_) => Err(error::platform_unknown_exception("The specified platform does not exist.")),
    }
}

/// Checks `placementConstraints` and `placementStrategy`: Fargate takes neither.
pub(in crate::ecs) fn check_placement(
    constraints: Option<&[PlacementConstraint]>,
    strategy: Option<&[PlacementStrategy]>,
) -> Result<(), ServiceError> {
    if constraints.is_some_and(|constraints| !constraints.is_empty()) {
        return Err(invalid("Placement constraints are not supported with FARGATE launch type."));
    }
    if strategy.is_some_and(|strategy| !strategy.is_empty()) {
        return Err(invalid("Placement strategies are not supported with FARGATE launch type."));
    }
    Ok(())
}
