//! `networkConfiguration` of RunTask and services.

use std::collections::BTreeSet;

use api::ecs::{AwsVpcConfiguration, NetworkConfiguration};
use domain::{
    Scope,
    ecs::{NetworkMode, TaskNetwork},
    network::{SecurityGroup, Subnet},
};
use store::Snapshot;
use wire::ServiceError;

use super::common::invalid;

/// Checks a network configuration: a task definition of mode awsvpc must have one, any other cannot.
pub(super) fn check(
    view: &Snapshot,
    scope: &Scope,
    mode: NetworkMode,
    given: Option<NetworkConfiguration>,
) -> Result<Option<TaskNetwork>, ServiceError> {
    if mode == NetworkMode::Awsvpc {
        return check_awsvpc(view, scope, given).map(Some);
    }
    match given.and_then(|given| given.awsvpc_configuration) {
        None => Ok(None),
        Some(_) => {
            Err(invalid("Network Configuration is not valid for the given networkMode of this task definition."))
        }
    }
}

/// Subnets and security groups must be there, and of one VPC.
fn check_awsvpc(
    view: &Snapshot,
    scope: &Scope,
    given: Option<NetworkConfiguration>,
) -> Result<TaskNetwork, ServiceError> {
    let Some(NetworkConfiguration { awsvpc_configuration: Some(given) }) = given else {
        return Err(invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified."));
    };
    let AwsVpcConfiguration { subnets, security_groups, assign_public_ip } = given;
    let (subnets, security_groups) = (subnets.unwrap_or_default(), security_groups.unwrap_or_default());
    if subnets.is_empty() {
        return Err(invalid("subnets can not be empty."));
    }
    if subnets.len() > 16 {
        return Err(invalid("subnets can have at most 16 items."));
    }
    if security_groups.len() > 5 {
        return Err(invalid("securityGroups can have at most 5 items."));
    }
    let mut vpcs = BTreeSet::new();
    for id in &subnets {
        let subnet = view.get::<Subnet>(&scope.key(id)).ok_or_else(|| {
            invalid(format!("Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"))
        })?;
        vpcs.insert(subnet.vpc_id.clone());
    }
    if vpcs.len() > 1 {
        return Err(invalid("subnets must all be in the same VPC."));
    }
    for id in &security_groups {
        let group = view.get::<SecurityGroup>(&scope.key(id)).ok_or_else(|| {
            invalid(format!(
                "Error retrieving security group information for [{id}]: The security group '{id}' does not exist (ErrorCode: InvalidGroup.NotFound)"
            ))
        })?;
        if !vpcs.contains(&group.vpc_id) {
            return Err(invalid(format!(
                "Security group {id} does not appear to belong to the same VPC as the input subnets."
            )));
        }
    }
    let assign_public_ip = match assign_public_ip.as_deref() {
        None | Some("DISABLED") => false,
        Some("ENABLED") => true,
        Some(other) => return Err(invalid(format!("Invalid assignPublicIp: {other}"))),
    };
    Ok(TaskNetwork { subnets, security_groups, assign_public_ip })
}

/// As responses have it.
pub(super) fn shape(network: &TaskNetwork) -> NetworkConfiguration {
    NetworkConfiguration {
        awsvpc_configuration: Some(AwsVpcConfiguration {
            subnets: Some(network.subnets.clone()),
            security_groups: Some(network.security_groups.clone()),
            assign_public_ip: Some(if network.assign_public_ip { "ENABLED" } else { "DISABLED" }.to_owned()),
        }),
    }
}
