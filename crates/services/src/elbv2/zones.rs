//! Where a load balancer has its nodes, and which security groups they have.

use std::collections::BTreeMap;

use api::elbv2::*;
use domain::{
    Scope,
    balancing::{self, LoadBalancer},
    network::{NetworkInterface, SecurityGroup, Subnet},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    find,
    load_balancers::add_zones,
    names::{arn, invalid, required, unsupported},
};
use crate::{
    Call,
    ec2::{self, NetworkError},
};

/// The most security groups of a load balancer.
const MAX_GROUPS: usize = 5;

/// The subnets of a request, which names them in one of two ways.
pub(super) fn requested(
    subnets: Option<Vec<String>>,
    mappings: Option<Vec<SubnetMapping>>,
) -> Result<Vec<String>, ServiceError> {
    let (subnets, mappings) = (subnets.unwrap_or_default(), mappings.unwrap_or_default());
    if !subnets.is_empty() && !mappings.is_empty() {
        return Err(invalid("Subnets and SubnetMappings cannot be specified at the same time"));
    }
    let mapped = mappings.into_iter().map(|mapping| {
        let refused = [
            (mapping.allocation_id.is_some(), "SubnetMappings.AllocationId"),
            (mapping.private_ipv4_address.is_some(), "SubnetMappings.PrivateIPv4Address"),
            (mapping.ipv6_address.is_some(), "SubnetMappings.IPv6Address"),
            (mapping.source_nat_ipv6_prefix.is_some(), "SubnetMappings.SourceNatIpv6Prefix"),
        ];
        match refused.iter().find(|(given, _)| *given) {
            Some((_, name)) => Err(unsupported(name)),
            None => required(mapping.subnet_id, "SubnetMappings.SubnetId"),
        }
    });
    if subnets.is_empty() { mapped.collect() } else { Ok(subnets) }
}

/// Two or more subnets of one VPC, one or more for a network or classic load balancer, each in a zone of its own. Gives the VPC.
pub(crate) fn check_subnets(
    view: &Snapshot,
    scope: &Scope,
    subnets: &[String],
    network: bool,
) -> Result<String, ServiceError> {
    let mut zones: BTreeMap<String, &str> = BTreeMap::new();
    let mut vpc: Option<String> = None;
    for id in subnets {
        let subnet = view
            .get::<Subnet>(&scope.key(id))
            .ok_or_else(|| error::subnet_not_found_exception(format!("The subnet ID '{id}' does not exist")))?;
        if vpc.as_ref().is_some_and(|vpc| *vpc != subnet.vpc_id) {
            return Err(error::invalid_configuration_request_exception("All subnets must belong to the same VPC"));
        }
        vpc = Some(subnet.vpc_id.clone());
        if zones.insert(subnet.availability_zone.clone(), id).is_some() {
            return Err(error::invalid_configuration_request_exception(
                "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
            ));
        }
    }
    match vpc {
        Some(vpc) if network || zones.len() >= 2 => Ok(vpc),
        _ if network => Err(invalid("At least one subnet must be specified")),
        _ => Err(invalid("At least two subnets in two different Availability Zones must be specified")),
    }
}

/// Existing groups of the load balancer's VPC, at most five.
pub(crate) fn check_security_groups(
    view: &Snapshot,
    scope: &Scope,
    vpc_id: &str,
    groups: &[String],
) -> Result<(), ServiceError> {
    if groups.len() > MAX_GROUPS {
        return Err(error::invalid_configuration_request_exception(format!(
            "The maximum number of security groups is {MAX_GROUPS}"
        )));
    }
    for id in groups {
        let group = view.get::<SecurityGroup>(&scope.key(id)).ok_or_else(|| {
            error::invalid_security_group_exception(format!("The security group '{id}' does not exist"))
        })?;
        if group.vpc_id != vpc_id {
            return Err(error::invalid_configuration_request_exception(
                "One or more security groups are invalid: they belong to another VPC",
            ));
        }
    }
    Ok(())
}

/// EC2's refusal of an interface under this service's codes.
pub(super) fn refused(reason: NetworkError) -> ServiceError {
    let message = reason.to_string();
    match reason {
        NetworkError::SubnetNotFound(_) => error::subnet_not_found_exception(message),
        NetworkError::GroupNotFound(_) => error::invalid_security_group_exception(message),
        NetworkError::SubnetFull => error::invalid_subnet_exception(message),
        NetworkError::NoSettings | NetworkError::NoPublicAddress(_) => ServiceError::internal(message),
        _ => error::invalid_configuration_request_exception(message),
    }
}

pub(super) async fn set_subnets(call: Call, input: SetSubnetsInput) -> Result<SetSubnetsOutput, ServiceError> {
    let arn = arn(&call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    if input.ip_address_type.as_deref().is_some_and(|kind| kind != "ipv4") {
        return Err(unsupported("IpAddressType other than ipv4"));
    }
    if input.enable_prefix_for_ipv6_source_nat.is_some() {
        return Err(unsupported("EnablePrefixForIpv6SourceNat"));
    }
    let subnets = requested(input.subnets, input.subnet_mappings)?;
    let now = auth.now();
    let load_balancer = auth
        .transact(|tx| {
            let mut load_balancer = LoadBalancer::clone(&*find::load_balancer(tx, arn.as_str())?);
            let vpc = check_subnets(tx, &call.scope, &subnets, load_balancer.is_network())?;
            if vpc != load_balancer.vpc_id {
                return Err(error::invalid_configuration_request_exception("All subnets must belong to the same VPC"));
            }
            let (kept, dropped): (Vec<_>, Vec<_>) =
                load_balancer.zones.drain(..).partition(|zone| subnets.contains(&zone.subnet_id));
            for zone in dropped {
                ec2::release_network_interface(tx, &load_balancer.scope, &zone.interface_id);
            }
            let added: Vec<String> =
                subnets.iter().filter(|subnet| !kept.iter().any(|zone| zone.subnet_id == **subnet)).cloned().collect();
            load_balancer.zones = kept;
            add_zones(tx, &mut load_balancer, &added, &mut auth.platform().ids(), now)?;
            tx.put(load_balancer.clone());
            Ok(load_balancer)
        })
        .await?;
    Ok(SetSubnetsOutput {
        availability_zones: Some(shapes(&load_balancer)),
        ip_address_type: Some("ipv4".into()),
        ..SetSubnetsOutput::default()
    })
}

pub(super) async fn set_security_groups(
    call: Call,
    input: SetSecurityGroupsInput,
) -> Result<SetSecurityGroupsOutput, ServiceError> {
    let arn = arn(&call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    if input.enforce_security_group_inbound_rules_on_private_link_traffic.is_some() {
        return Err(unsupported("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic"));
    }
    let groups = required(input.security_groups, "Security groups").and_then(|groups| {
        if groups.is_empty() { Err(invalid("At least one security group must be specified")) } else { Ok(groups) }
    })?;
    auth.transact(|tx| {
        let load_balancer = find::load_balancer(tx, arn.as_str())?;
        if load_balancer.security_groups.is_empty() {
            return Err(error::invalid_configuration_request_exception(format!(
                "The load balancer '{arn}' was created without security groups: none can be associated with it"
            )));
        }
        check_security_groups(tx, &call.scope, &load_balancer.vpc_id, &groups)?;
        for zone in &load_balancer.zones {
            tx.update::<NetworkInterface>(&load_balancer.scope.key(&zone.interface_id), |interface| {
                interface.security_groups.clone_from(&groups);
            });
        }
        tx.update::<LoadBalancer>(arn.as_str(), |load_balancer| load_balancer.security_groups.clone_from(&groups));
        Ok(())
    })
    .await?;
    Ok(SetSecurityGroupsOutput { security_group_ids: Some(groups), ..SetSecurityGroupsOutput::default() })
}

pub(super) fn shapes(load_balancer: &balancing::LoadBalancer) -> Vec<AvailabilityZone> {
    let shape = |zone: &balancing::Zone| AvailabilityZone {
        zone_name: Some(zone.zone_name.clone()),
        subnet_id: Some(zone.subnet_id.clone()),
        load_balancer_addresses: Some(Vec::new()),
        ..AvailabilityZone::default()
    };
    load_balancer.zones.iter().map(shape).collect()
}
