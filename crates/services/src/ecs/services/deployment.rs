//! What a service and its deployments are configured with, as far as creating and updating have it in common.

use api::ecs::*;
use domain::ecs::{CircuitBreaker, FailureThreshold};
use wire::ServiceError;

use super::Stored;
use crate::ecs::common::{Given, invalid, number, refuse, unsupported};

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

/// What `deploymentConfiguration` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) shares: Shares,
    pub(super) circuit_breaker: CircuitBreaker,
}

impl Configuration {
    /// That of a service.
    pub(super) fn of(service: &Stored) -> Self {
        Self {
            shares: Shares { minimum: service.minimum_healthy_percent, maximum: service.maximum_percent },
            circuit_breaker: service.circuit_breaker.clone(),
        }
    }

    /// As responses have it.
    pub(super) fn shape(&self) -> DeploymentConfiguration {
        let breaker = &self.circuit_breaker;
        let threshold = ThresholdConfiguration {
            r#type: Some(breaker.threshold.as_str().to_owned()),
            value: Some(number(breaker.threshold.value())),
        };
        DeploymentConfiguration {
            deployment_circuit_breaker: Some(DeploymentCircuitBreaker {
                enable: Some(breaker.enable),
                rollback: Some(breaker.rollback),
                reset_on_healthy_task: Some(breaker.reset_on_healthy_task),
                threshold_configuration: Some(threshold),
            }),
            maximum_percent: Some(number(self.shares.maximum)),
            minimum_healthy_percent: Some(number(self.shares.minimum)),
            strategy: Some("ROLLING".to_owned()),
            bake_time_in_minutes: Some(0),
            ..DeploymentConfiguration::default()
        }
    }
}

/// Checks `deploymentConfiguration`; what is not given stays as it was.
pub(super) fn configuration(
    given: Option<DeploymentConfiguration>,
    before: Configuration,
) -> Result<Configuration, ServiceError> {
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
    let alarmed = alarms.is_some_and(|alarms| alarms.enable == Some(true));
    refuse(&[
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
        minimum: percent(minimum_healthy_percent, before.shares.minimum)?,
        maximum: percent(maximum_percent, before.shares.maximum)?,
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
    let circuit_breaker = match deployment_circuit_breaker {
        Some(given) => circuit_breaker(given)?,
        None => before.circuit_breaker,
    };
    Ok(Configuration { shares, circuit_breaker })
}

/// Checks `deploymentCircuitBreaker`, which is given as a whole.
fn circuit_breaker(given: DeploymentCircuitBreaker) -> Result<CircuitBreaker, ServiceError> {
    let default = CircuitBreaker::default();
    let threshold = match given.threshold_configuration {
        None => default.threshold,
        Some(ThresholdConfiguration { r#type, value }) => {
            let value = value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
            let value = value.ok_or_else(|| invalid("The value of thresholdConfiguration must be at least 1."))?;
            match r#type.as_deref() {
                Some("COUNT") => FailureThreshold::Count(value),
                Some("BOUNDED_PERCENT") => FailureThreshold::BoundedPercent(value),
                Some("UNBOUNDED_PERCENT") => FailureThreshold::UnboundedPercent(value),
                other => {
                    let other = other.unwrap_or_default();
                    return Err(invalid(format!("Invalid type of thresholdConfiguration: {other}")));
                }
            }
        }
    };
    Ok(CircuitBreaker {
        enable: given.enable.unwrap_or_default(),
        rollback: given.rollback.unwrap_or_default(),
        reset_on_healthy_task: given.reset_on_healthy_task.unwrap_or(default.reset_on_healthy_task),
        threshold,
    })
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
            let checked = configuration(Some(given), Configuration::default());
            checked.map(|checked| checked.shares).map_err(|error| error.message().to_owned())
        };
        assert_eq!(check(50, 100), Ok(Shares { minimum: 50, maximum: 100 }));
        assert_eq!(check(0, 200), Ok(Shares { minimum: 0, maximum: 200 }));
        assert_eq!(check(100, 400), Ok(Shares { minimum: 100, maximum: 400 }));
        assert!(check(100, 100).unwrap_err().contains("block deployments"));
        assert!(check(101, 200).is_err() && check(-1, 200).is_err() && check(0, 50).is_err());
        let before = Configuration { shares: Shares { minimum: 1, maximum: 150 }, ..Configuration::default() };
        assert_eq!(configuration(None, before.clone()).unwrap(), before);
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        let given =
            DeploymentConfiguration { strategy: Some("BLUE_GREEN".into()), ..DeploymentConfiguration::default() };
        let refusal = configuration(Some(given), Configuration::default()).unwrap_err();
        assert!(refusal.message().ends_with("strategy other than ROLLING"), "{}", refusal.message());
    }

    #[test]
    fn a_circuit_breaker_is_what_was_given_with_amazons_defaults() {
        let check = |kind: &str, value: i32| {
            let threshold = ThresholdConfiguration { r#type: Some(kind.into()), value: Some(value) };
            let breaker = DeploymentCircuitBreaker {
                enable: Some(true),
                threshold_configuration: Some(threshold),
                ..DeploymentCircuitBreaker::default()
            };
            let given = DeploymentConfiguration {
                deployment_circuit_breaker: Some(breaker),
                ..DeploymentConfiguration::default()
            };
            configuration(Some(given), Configuration::default()).map(|checked| checked.circuit_breaker)
        };
        let expected =
            CircuitBreaker { enable: true, threshold: FailureThreshold::Count(2), ..CircuitBreaker::default() };
        assert_eq!(check("COUNT", 2).unwrap(), expected);
        assert!(check("COUNT", 0).is_err() && check("PERCENT", 50).is_err());
    }
}
