//! `availabilityZoneRebalancing` of a service, and what it does not go together with.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>

use domain::{
    balancing::classic::is_classic,
    ecs::{
        LaunchType, Placement, PlacementConstraint, PlacementStrategy, SchedulingStrategy, TaskDefinition,
        TaskLoadBalancer, container_instance::ZONE_ATTRIBUTE,
    },
};
use wire::ServiceError;

use super::Stored;
use crate::ecs::common::invalid;

/// As in the API.
pub(super) fn as_str(enabled: bool) -> &'static str {
    if enabled { "ENABLED" } else { "DISABLED" }
}

/// Reads `availabilityZoneRebalancing`.
pub(super) fn read(given: Option<&str>) -> Result<Option<bool>, ServiceError> {
    match given {
        None | Some("") => Ok(None),
        Some("ENABLED") => Ok(Some(true)),
        Some("DISABLED") => Ok(Some(false)),
        Some(other) => Err(invalid(format!("Invalid availabilityZoneRebalancing: {other}"))),
    }
}

/// What a service is to do that is otherwise as it will be. A new one has it where it can, one that there was keeps what
/// it had.
pub(super) fn choose(
    given: Option<bool>,
    before: Option<bool>,
    service: &Stored,
    launch_type: LaunchType,
    definition: &TaskDefinition,
    load_balancers: &[TaskLoadBalancer],
) -> Result<bool, ServiceError> {
    let clash = clash(service, launch_type, definition, load_balancers);
    match (given.or(before), clash) {
        (Some(true), Some(what)) => Err(invalid(format!("Availability Zone rebalancing does not support {what}."))),
        (Some(chosen), _) => Ok(chosen),
        (None, clash) => Ok(clash.is_none()),
    }
}

fn clash(
    service: &Stored,
    launch_type: LaunchType,
    definition: &TaskDefinition,
    load_balancers: &[TaskLoadBalancer],
) -> Option<&'static str> {
    let Placement { constraints, strategy } = &service.placement;
    let zone = format!("attribute:{ZONE_ATTRIBUTE}");
    let names_zone = |constraint: &PlacementConstraint| match constraint {
        PlacementConstraint::DistinctInstance => false,
        PlacementConstraint::MemberOf(expression) => expression.contains(&zone),
    };
    let spreads = match strategy.first() {
        None => true,
        Some(PlacementStrategy::Spread(field)) => *field == zone,
        Some(PlacementStrategy::Binpack(_) | PlacementStrategy::Random) => false,
    };
    if service.scheduling_strategy == SchedulingStrategy::Daemon {
        Some("the daemon scheduling strategy")
    } else if launch_type == LaunchType::External {
        Some("the EXTERNAL launch type")
    } else if service.maximum_percent <= 100 {
        Some("a maximumPercent of 100 or less")
    } else if load_balancers.iter().any(|balancer| is_classic(&balancer.target_group_arn)) {
        Some("Classic Load Balancers")
    } else if !spreads {
        Some("a placement strategy whose first item is not spread over attribute:ecs.availability-zone")
    } else if constraints.iter().chain(&definition.placement_constraints).any(names_zone) {
        Some("placement constraints on attribute:ecs.availability-zone")
    } else {
        None
    }
}
