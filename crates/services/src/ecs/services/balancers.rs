//! `loadBalancers` of a service: target groups that a listener uses, or a Classic Load Balancer, for ports of its containers.
//! Tasks with an interface of their own are targets by address, others by their EC2 instance and its port; to a Classic Load
//! Balancer a task is its instance.

use std::collections::BTreeSet;

use api::ecs::LoadBalancer;
use domain::{
    Scope,
    balancing::{self, Listener, Rule, TargetGroup, TargetType, classic},
    ecs::{Compute, LaunchType, NetworkMode, PortMapping, TaskDefinition, TaskLoadBalancer, TaskNetwork},
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
    if given.len() > 1 && given.iter().any(|given| given.load_balancer_name.given()) {
        return Err(invalid("A service that uses a Classic Load Balancer can have one load balancer only."));
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
pub(super) fn as_given(scope: &Scope, given: &LoadBalancer) -> Option<(String, String, i32)> {
    let name = given.load_balancer_name.as_ref().filter(|name| !name.is_empty());
    let classic = name.map(|name| classic::arn(scope, name).to_string());
    Some((given.target_group_arn.clone().or(classic)?, given.container_name.clone()?, given.container_port?))
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
    refuse(&[("loadBalancers.advancedConfiguration", advanced_configuration.is_some())])?;
    let container_name = container_name.unwrap_or_default();
    let port = container_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    if let Some(name) = load_balancer_name.filter(|name| !name.is_empty()) {
        if target_group_arn.given() {
            return Err(invalid("A load balancer can have a loadBalancerName or a targetGroupArn, not both."));
        }
        return of_classic(view, scope, &name, definition, &container_name, port);
    }
    let arn = target_group_arn.unwrap_or_default();
    let group = view
        .get::<TargetGroup>(&arn)
        .filter(|group| group.scope == *scope && !classic::is_classic(&group.arn))
        .ok_or_else(|| invalid(format!("The specified target group does not exist: {arn}")))?;
    mapping(definition, &container_name, port)?;
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

/// The port mapping of a container.
fn mapping<'a>(definition: &'a TaskDefinition, container: &str, port: u16) -> Result<&'a PortMapping, ServiceError> {
    let found = definition
        .container(container)
        .ok_or_else(|| invalid(format!("The container {container} does not exist in the task definition.")))?;
    found
        .port_mappings
        .iter()
        .find(|mapping| mapping.container_port == port)
        .ok_or_else(|| invalid(format!("The container {container} did not have a container port {port} defined.")))
}

/// A Classic Load Balancer sends to one port of an instance, so the task must have that one and no other.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LoadBalancer.html>
fn of_classic(
    view: &Snapshot,
    scope: &Scope,
    name: &str,
    definition: &TaskDefinition,
    container: &str,
    port: u16,
) -> Result<TaskLoadBalancer, ServiceError> {
    let arn = classic::arn(scope, name);
    if !view.contains::<balancing::LoadBalancer>(arn.as_str()) {
        return Err(invalid(format!("Unable to find a Classic Load Balancer named {name}.")));
    }
    check_classic(definition, container, port)?;
    Ok(TaskLoadBalancer { target_group_arn: arn, container_name: container.to_owned(), container_port: port })
}

/// Refuses a task definition whose tasks a Classic Load Balancer cannot reach.
pub(super) fn check_classic(definition: &TaskDefinition, container: &str, port: u16) -> Result<(), ServiceError> {
    let mapping = mapping(definition, container, port)?;
    match definition.network_mode {
        NetworkMode::Bridge if mapping.host_port == 0 => Err(invalid(format!(
            "Classic Load Balancers do not support dynamic port mapping: the container port {port} must have a hostPort."
        ))),
        NetworkMode::Bridge | NetworkMode::Host => Ok(()),
        mode @ (NetworkMode::Awsvpc | NetworkMode::None) => {
            Err(invalid(format!("Classic Load Balancers are not supported for the {} network mode.", mode.as_str())))
        }
    }
}
