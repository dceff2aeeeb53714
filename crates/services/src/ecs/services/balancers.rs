//! `loadBalancers` of a service: target groups that a listener uses, for ports of its containers. Tasks with an interface
//! of their own are targets by address, others by their EC2 instance and its port.

use std::collections::BTreeSet;

use api::ecs::LoadBalancer;
use domain::{
    Scope,
    balancing::{Listener, Rule, TargetGroup, TargetType},
    ecs::{Compute, LaunchType, NetworkMode, TaskDefinition, TaskLoadBalancer, TaskNetwork},
    network::Subnet,
};
use store::Snapshot;
use wire::ServiceError;

use crate::ecs::common::{Given, invalid, refuse};

/// The most target groups of a service.
const MOST: usize = 5;

/// Checks the load balancers of a request.
pub(super) fn check(
    view: &Snapshot,
    scope: &Scope,
    given: Vec<LoadBalancer>,
    definition: &TaskDefinition,
    network: Option<&TaskNetwork>,
    compute: &Compute,
) -> Result<Vec<TaskLoadBalancer>, ServiceError> {
    // https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-anywhere.html#ecs-anywhere-considerations
    if !given.is_empty() && compute.host_kind() == LaunchType::External {
        return Err(invalid("Load balancers are not supported for services with launch type EXTERNAL."));
    }
    if given.len() > MOST {
        return Err(invalid(format!("load balancers can have at most {MOST} items.")));
    }
    let mut seen = BTreeSet::new();
    given
        .into_iter()
        .map(|given| {
            let checked = one(view, scope, given, definition, network)?;
            if !seen.insert((checked.target_group_arn.to_string(), checked.container_port)) {
                return Err(invalid("load balancers cannot name a target group and port twice."));
            }
            Ok(checked)
        })
        .collect()
}

/// As given, unchecked: for comparing with what a service has.
pub(super) fn as_given(given: &LoadBalancer) -> Option<(String, String, i32)> {
    Some((given.target_group_arn.clone()?, given.container_name.clone()?, given.container_port?))
}

fn one(
    view: &Snapshot,
    scope: &Scope,
    given: LoadBalancer,
    definition: &TaskDefinition,
    network: Option<&TaskNetwork>,
) -> Result<TaskLoadBalancer, ServiceError> {
    let LoadBalancer { target_group_arn, load_balancer_name, container_name, container_port, advanced_configuration } =
        given;
    refuse(&[
        ("loadBalancers.loadBalancerName", load_balancer_name.given()),
        ("loadBalancers.advancedConfiguration", advanced_configuration.is_some()),
    ])?;
    let arn = target_group_arn.unwrap_or_default();
    let group = view
        .get::<TargetGroup>(&arn)
        .filter(|group| group.scope == *scope)
        .ok_or_else(|| invalid(format!("The specified target group does not exist: {arn}")))?;
    let container_name = container_name.unwrap_or_default();
    let container = definition
        .container(&container_name)
        .ok_or_else(|| invalid(format!("The container {container_name} does not exist in the task definition.")))?;
    let port = container_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    if !container.port_mappings.iter().any(|mapping| mapping.container_port == port) {
        return Err(invalid(format!("The container {container_name} did not have a container port {port} defined.")));
    }
    let mode = definition.network_mode;
    let fits = match group.target_type {
        TargetType::Ip => mode == NetworkMode::Awsvpc,
        TargetType::Instance => matches!(mode, NetworkMode::Bridge | NetworkMode::Host),
    };
    if !fits {
        return Err(invalid(format!(
            "The provided target group {arn} has target type {}, which is incompatible with the {} network mode specified in the task definition.",
            group.target_type.as_str(),
            mode.as_str()
        )));
    }
    let vpc = network.and_then(|network| network.subnets.first()).and_then(|id| view.get::<Subnet>(&scope.key(id)));
    if vpc.is_some_and(|subnet| subnet.vpc_id != group.vpc_id) {
        return Err(invalid(format!("The target group {arn} is not in the VPC of the service's subnets.")));
    }
    let used = view.count::<Listener>(Listener::BY_TARGET_GROUP, arn.as_str())
        + view.count::<Rule>(Rule::BY_TARGET_GROUP, arn.as_str());
    if used == 0 {
        return Err(invalid(format!(
            "The target group with targetGroupArn {arn} does not have an associated load balancer."
        )));
    }
    Ok(TaskLoadBalancer { target_group_arn: group.arn.clone(), container_name, container_port: port })
}
