//! Registered targets and their health.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use api::elbv2::*;
use domain::{
    Arn, Resource,
    balancing::{self, LoadBalancer, ObservedHealth, TargetRegistration, deregister as drain, register as renew},
    network::{Subnet, Vpc},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    find,
    names::{arn, invalid, required, unsupported},
};
use crate::Call;

/// The most targets of a target group.
pub(super) const MAX_TARGETS: usize = 1000;

/// The zone of targets outside the VPC.
const ALL: &str = "all";

pub(super) async fn register(call: Call, input: RegisterTargetsInput) -> Result<RegisterTargetsOutput, ServiceError> {
    let arn = arn(&call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let targets = required(input.targets, "Targets")?;
    let now = auth.now();
    auth.transact(|tx| {
        let group = find::target_group(tx, arn.as_str())?;
        for target in targets {
            let (address, port) = address_of(&target, group.port)?;
            let key = TargetRegistration::key_of(&arn, address, port);
            let existing = tx.get::<TargetRegistration>(&key).map(|existing| TargetRegistration::clone(&existing));
            let new = TargetRegistration {
                target_group: arn.clone(),
                address,
                port,
                availability_zone: Some(zone(tx, &group, address, target.availability_zone.as_deref())?),
                registered_at: now,
                draining_until: None,
            };
            tx.put(renew(existing, new));
        }
        if tx.count::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, arn.as_str()) > MAX_TARGETS {
            return Err(error::too_many_targets_exception(format!(
                "The maximum number of targets of a target group is {MAX_TARGETS}"
            )));
        }
        Ok(())
    })
    .await?;
    Ok(RegisterTargetsOutput {})
}

/// The address and port a request means; without a port it is the group's.
fn address_of(target: &TargetDescription, default: u16) -> Result<(IpAddr, u16), ServiceError> {
    if target.quic_server_id.is_some() {
        return Err(unsupported("QuicServerId"));
    }
    let id = target.id.as_deref().unwrap_or_default();
    let address: std::net::Ipv4Addr =
        id.parse().map_err(|_| invalid(format!("The IP address '{id}' is not a valid IPv4 address")))?;
    let port = match target.port {
        None => default,
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| invalid(format!("Port '{port}' must be between 1 and 65535")))?,
    };
    Ok((address.into(), port))
}

/// The zone of a target: found from its subnet within the VPC, `all` for other private addresses.
fn zone(
    view: &Snapshot,
    group: &balancing::TargetGroup,
    address: IpAddr,
    given: Option<&str>,
) -> Result<String, ServiceError> {
    let IpAddr::V4(address) = address else {
        return Err(invalid(format!("The IP address '{address}' is not a valid IPv4 address")));
    };
    let invalid_target = |message: String| Err(error::invalid_target_exception(message));
    let within = view.get::<Vpc>(&group.scope.key(&group.vpc_id)).is_some_and(|vpc| vpc.cidr.contains(address));
    if within {
        let subnet = view.find::<Subnet>("vpc", group.vpc_id.clone()).find(|subnet| subnet.cidr.contains(address));
        return match (subnet, given) {
            (_, Some(ALL)) => Ok(ALL.into()),
            (Some(subnet), None) => Ok(subnet.availability_zone.clone()),
            (Some(subnet), Some(given)) if given == subnet.availability_zone => Ok(subnet.availability_zone.clone()),
            (_, Some(given)) => {
                invalid_target(format!("The Availability Zone '{given}' is not that of the IP address '{address}'"))
            }
            (None, None) => invalid_target(format!("The IP address '{address}' is not in a subnet of the VPC")),
        };
    }
    let shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
    if !address.is_private() && !shared {
        return invalid_target(format!("The IP address '{address}' is not within a range allowed by the VPC"));
    }
    if given != Some(ALL) {
        return invalid_target(format!(
            "You must specify an Availability Zone of 'all' for the IP address '{address}', which is outside the VPC"
        ));
    }
    Ok(ALL.into())
}

pub(super) async fn deregister(
    call: Call,
    input: DeregisterTargetsInput,
) -> Result<DeregisterTargetsOutput, ServiceError> {
    let arn = arn(&call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let targets = required(input.targets, "Targets")?;
    let now = auth.now();
    auth.transact(|tx| {
        let group = find::target_group(tx, arn.as_str())?;
        // Nothing flows to the targets of a group without a load balancer, so there is nothing to wait for.
        let in_use = !find::load_balancers_of(tx, &arn).is_empty();
        let delay = if in_use { group.attributes.deregistration_delay_seconds } else { 0 };
        for target in targets {
            let (address, _) = address_of(&target, group.port)?;
            // Without a port, all ports of the address are meant.
            let port = target.port.and_then(|port| u16::try_from(port).ok());
            let meant: Vec<_> = tx
                .find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, arn.as_str())
                .filter(|found| found.address == address && port.is_none_or(|port| found.port == port))
                .collect();
            // Deregistering what is not registered succeeds.
            for found in meant {
                let key = found.key();
                match drain(TargetRegistration::clone(&found), Duration::from_secs(delay.into()), now) {
                    Some(draining) => tx.put(draining),
                    None => tx.delete::<TargetRegistration>(&key),
                }
            }
        }
        Ok(())
    })
    .await?;
    Ok(DeregisterTargetsOutput {})
}

/// Whether a load balancer sends requests to a target: its zone must be one of the load balancer's, or none in particular.
pub(super) fn in_zone(registration: &TargetRegistration, load_balancer: &LoadBalancer) -> bool {
    match registration.availability_zone.as_deref() {
        None | Some(ALL) => true,
        Some(zone) => load_balancer.zones.iter().any(|enabled| enabled.zone_name == zone),
    }
}

/// A target's health as DescribeTargetHealth tells it.
pub fn target_health(view: &Snapshot, registration: &TargetRegistration) -> balancing::TargetHealth {
    health(view, registration, &find::load_balancers_of(view, &registration.target_group))
}

fn health(view: &Snapshot, registration: &TargetRegistration, users: &BTreeSet<Arn>) -> balancing::TargetHealth {
    if registration.draining_until.is_some() {
        return balancing::TargetHealth::DRAINING;
    }
    let served = users
        .iter()
        .filter_map(|arn| view.get::<LoadBalancer>(arn.as_str()))
        .any(|load_balancer| in_zone(registration, &load_balancer));
    if !served {
        return balancing::TargetHealth::NOT_IN_USE;
    }
    match view.get::<ObservedHealth>(&registration.key()) {
        Some(observed) => observed.health.clone(),
        None => balancing::TargetHealth::REGISTERING,
    }
}

pub(super) fn describe_health(
    call: &Call,
    input: DescribeTargetHealthInput,
) -> Result<DescribeTargetHealthOutput, ServiceError> {
    let arn = arn(call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let include = input.include.unwrap_or_default();
    if !include.is_empty() {
        return Err(unsupported("Include"));
    }
    let view = auth.snapshot();
    let group = find::target_group(&view, arn.as_str())?;
    let users = find::load_balancers_of(&view, &arn);
    let registered: Vec<Arc<TargetRegistration>> =
        view.find(TargetRegistration::BY_TARGET_GROUP, arn.as_str()).collect();
    let known = |registration: &TargetRegistration| {
        let health = health(&view, registration, &users);
        description(&group, registration.address, registration.port, registration.availability_zone.clone(), &health)
    };
    let descriptions = match input.targets.filter(|targets| !targets.is_empty()) {
        None => registered.iter().map(|registration| known(registration)).collect(),
        Some(targets) => targets
            .iter()
            .map(|target| {
                let (address, port) = address_of(target, group.port)?;
                let found = registered.iter().find(|found| found.address == address && found.port == port);
                Ok(match found {
                    Some(registration) => known(registration),
                    None => description(&group, address, port, None, &balancing::TargetHealth::NOT_REGISTERED),
                })
            })
            .collect::<Result<_, ServiceError>>()?,
    };
    Ok(DescribeTargetHealthOutput { target_health_descriptions: Some(descriptions) })
}

fn description(
    group: &balancing::TargetGroup,
    address: IpAddr,
    port: u16,
    zone: Option<String>,
    health: &balancing::TargetHealth,
) -> TargetHealthDescription {
    TargetHealthDescription {
        target: Some(TargetDescription {
            id: Some(address.to_string()),
            port: Some(i32::from(port)),
            availability_zone: zone,
            ..TargetDescription::default()
        }),
        health_check_port: Some(group.health_check.port.unwrap_or(port).to_string()),
        target_health: Some(TargetHealth {
            state: Some(health.state.as_str().into()),
            reason: health.reason.as_ref().map(|reason| reason.code().into()),
            description: health.reason.as_ref().map(|reason| reason.description()),
        }),
        ..TargetHealthDescription::default()
    }
}
