//! What RunTask, CreateService and UpdateService ask of where tasks run: launch type or capacity provider strategy,
//! platform version, placement constraints and strategy. Checked here for all three, kept as [`Compute`] and [`Placement`].

use api::ecs::*;
use domain::{
    Timestamp,
    ecs::{
        BinpackField, CapacityProviderChoice, Cluster as StoredCluster, Compute, LaunchType, Placement,
        PlacementConstraint as StoredConstraint, PlacementStrategy as StoredStrategy, fargate,
    },
};
use placement::query::Query;
use wire::ServiceError;

use super::{
    clusters::FARGATE_PROVIDERS,
    common::{invalid, unsupported},
};

/// The most constraints of a task or service, and of a task definition.
const MOST_CONSTRAINTS: usize = 10;
/// The most strategies of a task or service.
const MOST_STRATEGIES: usize = 5;

/// Checks `launchType`, `capacityProviderStrategy` and `platformVersion` against each other and the task definition.
pub(in crate::ecs) fn compute(
    cluster: &StoredCluster,
    definition: &domain::ecs::TaskDefinition,
    launch_type: Option<&str>,
    strategy: Option<&[CapacityProviderStrategyItem]>,
    platform_version: Option<&str>,
) -> Result<Compute, ServiceError> {
    let launch_type = launch_type.filter(|text| !text.is_empty());
    let compute = match strategy.unwrap_or_default() {
        [] => match launch_type.map(|text| (text, LaunchType::parse(text))) {
            None => Compute::by_launch_type(LaunchType::Ec2),
            Some((_, Some(launch_type))) => Compute::by_launch_type(launch_type),
            Some((other, None)) => return Err(unsupported(&format!("launchType {other}"))),
        },
        _ if launch_type.is_some() => {
            return Err(invalid(
                "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
            ));
        }
        strategy => Compute::by_fargate_provider(provider(cluster, strategy)?),
    };
    let kind = compute.host_kind().as_str();
    if compute.is_fargate() {
        check_platform_version(platform_version)?;
    } else if platform_version.is_some_and(|version| !version.is_empty()) {
        return Err(invalid(format!("The platform version must be null when specifying an {kind} launch type.")));
    }
    if !definition.compatibilities.iter().any(|known| known == kind) {
        return Err(invalid(format!("Task definition does not support launch_type {kind}.")));
    }
    Ok(compute)
}

/// The one capacity provider of a strategy.
fn provider(
    cluster: &StoredCluster,
    strategy: &[CapacityProviderStrategyItem],
) -> Result<CapacityProviderChoice, ServiceError> {
    let mut chosen: Option<CapacityProviderChoice> = None;
    for item in strategy {
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
    chosen.filter(|chosen| strategy.iter().any(|item| item.weight != Some(0)) || chosen.base > 0).ok_or_else(|| {
        invalid(
            "The specified capacity provider strategy must contain at least one capacity provider with a weight greater than 0.",
        )
    })
}

/// Checks `platformVersion`: there is one.
fn check_platform_version(given: Option<&str>) -> Result<(), ServiceError> {
    match given {
        None | Some("" | fargate::LATEST | fargate::PLATFORM_VERSION) => Ok(()),
        Some("1.0.0" | "1.1.0" | "1.2.0" | "1.3.0") => Err(unsupported("platformVersion before 1.4.0")),
        Some(_) => Err(error::platform_unknown_exception("The specified platform does not exist.")),
    }
}

/// The platform version as services show it: as it was asked for.
pub(in crate::ecs) fn shown_platform_version(given: Option<&str>) -> String {
    given.filter(|version| !version.is_empty()).unwrap_or(fargate::LATEST).to_owned()
}

/// Checks `placementConstraints` and `placementStrategy`: Fargate takes neither.
pub(in crate::ecs) fn placement(
    compute: &Compute,
    constraints: Option<&[PlacementConstraint]>,
    strategy: Option<&[PlacementStrategy]>,
) -> Result<Placement, ServiceError> {
    let (constraints, strategy) = (constraints.unwrap_or_default(), strategy.unwrap_or_default());
    if compute.is_fargate() {
        if !constraints.is_empty() {
            return Err(invalid("Placement constraints are not supported with FARGATE launch type."));
        }
        if !strategy.is_empty() {
            return Err(invalid("Placement strategies are not supported with FARGATE launch type."));
        }
    }
    if constraints.len() > MOST_CONSTRAINTS {
        return Err(invalid(format!("placementConstraints can have at most {MOST_CONSTRAINTS} items.")));
    }
    if strategy.len() > MOST_STRATEGIES {
        return Err(invalid(format!("placementStrategy can have at most {MOST_STRATEGIES} items.")));
    }
    let constraint =
        |given: &PlacementConstraint| check_constraint(given.r#type.as_deref(), given.expression.as_deref());
    Ok(Placement {
        constraints: constraints.iter().map(constraint).collect::<Result<_, _>>()?,
        strategy: strategy.iter().map(check_strategy).collect::<Result<_, _>>()?,
    })
}

/// Checks the `placementConstraints` of a task definition: only `memberOf` can be one's.
pub(in crate::ecs) fn definition_constraints(
    given: &[TaskDefinitionPlacementConstraint],
) -> Result<Vec<StoredConstraint>, ServiceError> {
    if given.len() > MOST_CONSTRAINTS {
        return Err(invalid(format!("placementConstraints can have at most {MOST_CONSTRAINTS} items.")));
    }
    let one = |given: &TaskDefinitionPlacementConstraint| match given.r#type.as_deref() {
        Some("memberOf") => check_constraint(Some("memberOf"), given.expression.as_deref()),
        other => Err(invalid(format!("Invalid placement constraint type of a task definition: {}", shown(other)))),
    };
    given.iter().map(one).collect()
}

fn check_constraint(kind: Option<&str>, expression: Option<&str>) -> Result<StoredConstraint, ServiceError> {
    let expression = expression.filter(|expression| !expression.trim().is_empty());
    match (kind, expression) {
        (Some("distinctInstance"), None) => Ok(StoredConstraint::DistinctInstance),
        (Some("distinctInstance"), Some(_)) => {
            Err(invalid("A placement constraint of type distinctInstance cannot have an expression."))
        }
        (Some("memberOf"), None) => Err(invalid("A placement constraint of type memberOf must have an expression.")),
        (Some("memberOf"), Some(expression)) => match query(expression) {
            Ok(_) => Ok(StoredConstraint::MemberOf(expression.to_owned())),
            Err(error) => Err(invalid(format!("Invalid placement constraint expression: {error}."))),
        },
        (other, _) => Err(invalid(format!("Invalid placement constraint type: {}", shown(other)))),
    }
}

fn check_strategy(given: &PlacementStrategy) -> Result<StoredStrategy, ServiceError> {
    let field = given.field.as_deref().filter(|field| !field.is_empty());
    match (given.r#type.as_deref(), field) {
        (Some("random"), None) => Ok(StoredStrategy::Random),
        (Some("random"), Some(_)) => Err(invalid("A placement strategy of type random cannot have a field.")),
        (Some("binpack"), Some(field)) if field.eq_ignore_ascii_case("cpu") => {
            Ok(StoredStrategy::Binpack(BinpackField::Cpu))
        }
        (Some("binpack"), Some(field)) if field.eq_ignore_ascii_case("memory") => {
            Ok(StoredStrategy::Binpack(BinpackField::Memory))
        }
        (Some("spread"), Some(field)) if placement::check_spread_field(field) => {
            Ok(StoredStrategy::Spread(field.to_owned()))
        }
        (Some(kind @ ("binpack" | "spread")), field) => {
            Err(invalid(format!("Invalid field of a placement strategy of type {kind}: {}", shown(field))))
        }
        (other, _) => Err(invalid(format!("Invalid placement strategy type: {}", shown(other)))),
    }
}

fn shown(text: Option<&str>) -> &str {
    text.unwrap_or("none")
}

/// Reads an expression of the cluster query language.
pub(in crate::ecs) fn query(expression: &str) -> Result<Query, placement::query::QueryError> {
    Query::parse(expression, read_time)
}

/// Reads an ISO 8601 time of an expression.
pub(in crate::ecs) fn read_time(text: &str) -> Option<Timestamp> {
    wire::timestamp::Timestamp::parse(text).map(|time| Timestamp(time.millis()))
}

/// Constraints as responses have them.
pub(in crate::ecs) fn constraints_shape(stored: &[StoredConstraint]) -> Vec<PlacementConstraint> {
    let one = |stored: &StoredConstraint| match stored {
        StoredConstraint::DistinctInstance => {
            PlacementConstraint { r#type: Some("distinctInstance".to_owned()), expression: None }
        }
        StoredConstraint::MemberOf(expression) => {
            PlacementConstraint { r#type: Some("memberOf".to_owned()), expression: Some(expression.clone()) }
        }
    };
    stored.iter().map(one).collect()
}

/// Strategies as responses have them.
pub(in crate::ecs) fn strategy_shape(stored: &[StoredStrategy]) -> Vec<PlacementStrategy> {
    let one = |stored: &StoredStrategy| {
        let (kind, field) = match stored {
            StoredStrategy::Random => ("random", None),
            StoredStrategy::Binpack(field) => ("binpack", Some(field.as_str().to_owned())),
            StoredStrategy::Spread(field) => ("spread", Some(field.clone())),
        };
        PlacementStrategy { r#type: Some(kind.to_owned()), field }
    };
    stored.iter().map(one).collect()
}
