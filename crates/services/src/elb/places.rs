//! Where a load balancer has its nodes, and which security groups they have.

use api::elb::*;
use domain::{
    Arn, Scope,
    balancing::LoadBalancer,
    network::{NetworkInterface, Subnet, Vpc},
};
use store::Snapshot;
use wire::ServiceError;

use super::find::{self, invalid};
use crate::{
    Authorised, Call,
    elbv2::{load_balancers::add_zones, zones},
};

/// The subnets that a request names itself, or by zones: those are the default ones of the default VPC.
pub(super) fn requested(
    view: &Snapshot,
    scope: &Scope,
    subnets: &[String],
    zones: &[String],
) -> Result<Vec<String>, ServiceError> {
    match (subnets, zones) {
        ([], []) => Err(invalid("Either AvailabilityZones or SubnetIds must be specified")),
        (subnets, []) => Ok(subnets.to_vec()),
        ([], zones) => zones.iter().map(|zone| of_zone(view, scope, zone)).collect(),
        _ => Err(invalid("Only one of SubnetIds or AvailabilityZones may be specified")),
    }
}

fn of_zone(view: &Snapshot, scope: &Scope, zone: &str) -> Result<String, ServiceError> {
    let is_default = |subnet: &Subnet| {
        let vpc = view.get::<Vpc>(&scope.key(&subnet.vpc_id));
        subnet.default_for_az && subnet.availability_zone == zone && vpc.is_some_and(|vpc| vpc.is_default)
    };
    let prefix = scope.key("");
    let mut subnets = view.list::<Subnet>(&prefix);
    let found = subnets.find(|subnet| is_default(subnet)).map(|subnet| subnet.subnet_id.clone());
    found.ok_or_else(|| {
        invalid(format!("The requested Availability Zone {zone} is not valid: it has no default subnet"))
    })
}

/// Adds nodes in subnets, each in a zone of its own. One that is there already is no error.
async fn add(
    auth: &Authorised,
    call: &Call,
    arn: &Arn,
    which: impl FnOnce(&Snapshot) -> Result<Vec<String>, ServiceError>,
) -> Result<LoadBalancer, ServiceError> {
    let now = auth.now();
    auth.transact(|tx| {
        let (mut load_balancer, _) = find::load_balancer(tx, arn)?;
        let has: Vec<String> = load_balancer.zones.iter().map(|zone| zone.subnet_id.clone()).collect();
        let added: Vec<String> = which(tx)?.into_iter().filter(|subnet| !has.contains(subnet)).collect();
        let all: Vec<String> = has.into_iter().chain(added.iter().cloned()).collect();
        let vpc = zones::check_subnets(tx, &call.scope, &all, true)?;
        if vpc != load_balancer.vpc_id {
            return Err(error::invalid_configuration_request_exception("All subnets must belong to the same VPC"));
        }
        add_zones(tx, &mut load_balancer, &added, &mut auth.platform().ids(), now)?;
        tx.put(load_balancer.clone());
        Ok(load_balancer)
    })
    .await
}

pub(super) async fn attach(
    call: Call,
    input: AttachLoadBalancerToSubnetsInput,
) -> Result<AttachLoadBalancerToSubnetsOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let subnets = input.subnets.unwrap_or_default();
    let load_balancer = add(&auth, &call, &arn, |_| Ok(subnets)).await?;
    Ok(AttachLoadBalancerToSubnetsOutput { subnets: Some(subnets_of(&load_balancer)) })
}

pub(super) async fn enable_zones(
    call: Call,
    input: AddAvailabilityZonesInput,
) -> Result<AddAvailabilityZonesOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let zones = input.availability_zones.unwrap_or_default();
    let load_balancer = add(&auth, &call, &arn, |view| {
        let (load_balancer, _) = find::load_balancer(view, &arn)?;
        let has = |zone: &&String| load_balancer.zones.iter().any(|known| known.zone_name == **zone);
        zones.iter().filter(|zone| !has(zone)).map(|zone| of_zone(view, &call.scope, zone)).collect()
    })
    .await?;
    Ok(AddAvailabilityZonesOutput { availability_zones: Some(zones_of(&load_balancer)) })
}

pub(super) async fn apply_security_groups(
    call: Call,
    input: ApplySecurityGroupsToLoadBalancerInput,
) -> Result<ApplySecurityGroupsToLoadBalancerOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let groups = input.security_groups.unwrap_or_default();
    if groups.is_empty() {
        return Err(invalid("At least one security group must be specified"));
    }
    auth.transact(|tx| {
        let (load_balancer, _) = find::load_balancer(tx, &arn)?;
        zones::check_security_groups(tx, &call.scope, &load_balancer.vpc_id, &groups)?;
        for zone in &load_balancer.zones {
            tx.update::<NetworkInterface>(&load_balancer.scope.key(&zone.interface_id), |interface| {
                interface.security_groups.clone_from(&groups);
            });
        }
        tx.put(LoadBalancer { security_groups: groups.clone(), ..load_balancer });
        Ok(())
    })
    .await?;
    Ok(ApplySecurityGroupsToLoadBalancerOutput { security_groups: Some(groups) })
}

pub(super) fn subnets_of(load_balancer: &LoadBalancer) -> Vec<String> {
    load_balancer.zones.iter().map(|zone| zone.subnet_id.clone()).collect()
}

pub(super) fn zones_of(load_balancer: &LoadBalancer) -> Vec<String> {
    load_balancer.zones.iter().map(|zone| zone.zone_name.clone()).collect()
}
