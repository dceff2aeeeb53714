//! What a service and its deployments are configured with, as far as creating and updating have it in common.

use api::ecs::*;
use domain::{
    IdSource, Timestamp,
    ecs::{Compute, Deployment as Stored, DeploymentStatus, RolloutState, TaskLoadBalancer, TaskNetwork},
};
use wire::ServiceError;

use crate::ecs::common::{Given, invalid, refuse, unsupported};

/// The shares of the desired count that bound a rolling update: minimum and maximum percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) minimum: u32,
    pub(super) maximum: u32,
}

impl Default for Shares {
    fn default() -> Self {
        Self { minimum: 100, maximum: 200 }
    }
}

/// Checks `deploymentConfiguration`; what is not given stays as it was.
pub(super) fn shares(given: Option<DeploymentConfiguration>, before: Shares) -> Result<Shares, ServiceError> {
    let DeploymentConfiguration {
        deployment_circuit_breaker,
        maximum_percent,
        minimum_healthy_percent,
        alarms,
        strategy,
        bake_time_in_minutes,
        lifecycle_hooks,
        linear_configuration,
        canary_configuration,
        early_success_criteria,
    } = given.unwrap_or_default();
    let breaker = deployment_circuit_breaker
        .is_some_and(|breaker| breaker.enable == Some(true) || breaker.rollback == Some(true));
    let alarmed = alarms.is_some_and(|alarms| alarms.enable == Some(true));
    refuse(&[
        ("deploymentConfiguration.deploymentCircuitBreaker", breaker),
        ("deploymentConfiguration.alarms", alarmed),
        ("deploymentConfiguration.strategy other than ROLLING", strategy.is_some_and(|name| name != "ROLLING")),
        ("deploymentConfiguration.bakeTimeInMinutes", bake_time_in_minutes.is_some_and(|minutes| minutes != 0)),
        ("deploymentConfiguration.lifecycleHooks", lifecycle_hooks.given()),
        ("deploymentConfiguration.linearConfiguration", linear_configuration.is_some()),
        ("deploymentConfiguration.canaryConfiguration", canary_configuration.is_some()),
        ("deploymentConfiguration.earlySuccessCriteria", early_success_criteria.is_some()),
    ])?;
    let percent = |given: Option<i32>, before: u32| {
        given.map_or(Ok(before), |value| u32::try_from(value).map_err(|_| invalid(format!("Invalid percent: {value}"))))
    };
    let shares = Shares {
        minimum: percent(minimum_healthy_percent, before.minimum)?,
        maximum: percent(maximum_percent, before.maximum)?,
    };
    if shares.minimum > 100 {
        return Err(invalid("minimumHealthyPercent cannot be more than 100."));
    }
    if shares.maximum < 100 {
        return Err(invalid("maximumPercent cannot be less than 100."));
    }
    if shares == (Shares { minimum: 100, maximum: 100 }) {
        return Err(invalid(
            "Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.",
        ));
    }
    Ok(shares)
}

/// Checks `healthCheckGracePeriodSeconds`.
pub(super) fn grace_period(given: Option<i32>, load_balanced: bool) -> Result<Option<u32>, ServiceError> {
    let Some(seconds) = given else { return Ok(None) };
    if !load_balanced {
        return Err(invalid("Health check grace period is only valid for services configured to use load balancers"));
    }
    u32::try_from(seconds).map(Some).map_err(|_| invalid("healthCheckGracePeriodSeconds cannot be negative."))
}

/// Checks `propagateTags`.
pub(super) fn propagate_tags(given: Option<String>) -> Result<Option<String>, ServiceError> {
    match given.as_deref() {
        None | Some("" | "NONE") => Ok(None),
        Some("SERVICE" | "TASK_DEFINITION") => Ok(given),
        Some(other) => Err(invalid(format!("Invalid propagateTags: {other}"))),
    }
}

/// Checks `availabilityZoneRebalancing`.
pub(super) fn zone_rebalancing(given: Option<&str>) -> Result<(), ServiceError> {
    match given {
        None | Some("DISABLED") => Ok(()),
        Some(_) => Err(unsupported("availabilityZoneRebalancing ENABLED")),
    }
}

/// Checks `deploymentController`.
pub(super) fn controller(given: Option<DeploymentController>) -> Result<(), ServiceError> {
    match given.and_then(|controller| controller.r#type).as_deref() {
        None | Some("ECS") => Ok(()),
        Some(other) => Err(unsupported(&format!("deploymentController {other}"))),
    }
}

/// Checks `desiredCount`.
pub(super) fn desired_count(given: i32) -> Result<u32, ServiceError> {
    u32::try_from(given)
        .ok()
        .filter(|count| *count <= 5000)
        .ok_or_else(|| invalid("desiredCount must be between 0 and 5000."))
}

/// A new deployment, in progress.
pub(super) fn new(
    task_definition_arn: domain::Arn,
    network: Option<TaskNetwork>,
    load_balancers: Vec<TaskLoadBalancer>,
    compute: Compute,
    ids: &mut IdSource,
    now: Timestamp,
) -> Stored {
    let id = Stored::new_id(ids);
    Stored {
        status: DeploymentStatus::Primary,
        task_definition_arn,
        network,
        load_balancers,
        compute,
        created_at: now,
        updated_at: now,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: format!("ECS deployment {id} in progress."),
        failed_tasks: 0,
        start_failures: 0,
        retry_at: None,
        unplaced: false,
        blocked: false,
        image_digests: Default::default(),
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_block_deployments_are_refused() {
        let check = |minimum: i32, maximum: i32| {
            let given = DeploymentConfiguration {
                minimum_healthy_percent: Some(minimum),
                maximum_percent: Some(maximum),
                ..DeploymentConfiguration::default()
            };
            shares(Some(given), Shares::default()).map_err(|error| error.message().to_owned())
        };
        assert_eq!(check(50, 100), Ok(Shares { minimum: 50, maximum: 100 }));
        assert_eq!(check(0, 200), Ok(Shares { minimum: 0, maximum: 200 }));
        assert_eq!(check(100, 400), Ok(Shares { minimum: 100, maximum: 400 }));
        assert!(check(100, 100).unwrap_err().contains("block deployments"));
        assert!(check(101, 200).is_err() && check(-1, 200).is_err() && check(0, 50).is_err());
        assert_eq!(shares(None, Shares { minimum: 1, maximum: 150 }).unwrap().maximum, 150);
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        let breaker = DeploymentCircuitBreaker { enable: Some(true), ..DeploymentCircuitBreaker::default() };
        let given =
            DeploymentConfiguration { deployment_circuit_breaker: Some(breaker), ..DeploymentConfiguration::default() };
        let refusal = shares(Some(given), Shares::default()).unwrap_err();
        assert!(refusal.message().ends_with("deploymentCircuitBreaker"), "{}", refusal.message());
        let off = DeploymentCircuitBreaker { enable: Some(false), ..DeploymentCircuitBreaker::default() };
        let given =
            DeploymentConfiguration { deployment_circuit_breaker: Some(off), ..DeploymentConfiguration::default() };
        assert!(shares(Some(given), Shares::default()).is_ok());
    }
}
