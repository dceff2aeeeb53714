//! Registered targets and their health.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api::elbv2::*;
use domain::{
    Arn, Resource,
    balancing::{
        self, LoadBalancer, ObservedHealth, TargetRegistration, TargetType, deregister as drain, register as renew,
    },
    instances::{Instance, InstanceState},
    network::{NetworkInterface, Subnet, Vpc},
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
        let named: Vec<Named> = targets.iter().map(|target| Named::read(target, &group)).collect::<Result<_, _>>()?;
        let places = match group.target_type {
            TargetType::Ip => named.iter().map(|target| address(tx, &group, target)).collect::<Result<_, _>>()?,
            TargetType::Instance => instances(tx, &group, &named)?,
        };
        for (target, place) in named.into_iter().zip(places) {
            let key = TargetRegistration::key_of(&arn, place.address, target.port);
            let existing = tx.get::<TargetRegistration>(&key).map(|existing| TargetRegistration::clone(&existing));
            let new = TargetRegistration {
                target_group: arn.clone(),
                address: place.address,
                port: target.port,
                instance_id: place.instance_id,
                availability_zone: Some(place.zone),
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

/// A target as a request names it.
struct Named {
    /// An IPv4 address or an instance's id.
    id: String,
    /// Without one in the request it is the group's.
    port: u16,
    zone: Option<String>,
}

impl Named {
    fn read(target: &TargetDescription, group: &balancing::TargetGroup) -> Result<Self, ServiceError> {
        if target.quic_server_id.is_some() {
            return Err(unsupported("QuicServerId"));
        }
        let id = target.id.clone().unwrap_or_default();
        match group.target_type {
            TargetType::Ip if id.parse::<Ipv4Addr>().is_err() => {
                return Err(invalid(format!("The IP address '{id}' is not a valid IPv4 address")));
            }
            TargetType::Instance if !is_instance_id(&id) => {
                return Err(invalid(format!("Instance ID '{id}' is not valid")));
            }
            TargetType::Instance if target.availability_zone.is_some() => {
                return Err(invalid("You cannot specify an Availability Zone for a target group of instances"));
            }
            TargetType::Ip | TargetType::Instance => {}
        }
        let port = match target.port {
            None => group.port,
            Some(port) => u16::try_from(port)
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| invalid(format!("Port '{port}' must be between 1 and 65535")))?,
        };
        Ok(Self { id, port, zone: target.availability_zone.clone() })
    }

    fn names(&self, registration: &TargetRegistration) -> bool {
        shown_id(registration) == self.id
    }
}

fn is_instance_id(text: &str) -> bool {
    let digits = text.strip_prefix("i-").unwrap_or_default();
    matches!(digits.len(), 8 | 17) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a registered target is named by.
fn shown_id(registration: &TargetRegistration) -> String {
    registration.instance_id.clone().unwrap_or_else(|| registration.address.to_string())
}

/// Where a target is.
struct Place {
    address: IpAddr,
    instance_id: Option<String>,
    zone: String,
}

/// The place of an address. Its zone is found from its subnet within the VPC; it is `all` for other private addresses.
fn address(view: &Snapshot, group: &balancing::TargetGroup, target: &Named) -> Result<Place, ServiceError> {
    let (id, given) = (&target.id, target.zone.as_deref());
    let address: Ipv4Addr =
        id.parse().map_err(|_| invalid(format!("The IP address '{id}' is not a valid IPv4 address")))?;
    let in_zone = |zone: &str| Ok(Place { address: address.into(), instance_id: None, zone: zone.to_owned() });
    let invalid_target = |message: String| Err(error::invalid_target_exception(message));
    let within = view.get::<Vpc>(&group.scope.key(&group.vpc_id)).is_some_and(|vpc| vpc.cidr.contains(address));
    if within {
        let subnet = view.find::<Subnet>("vpc", group.vpc_id.clone()).find(|subnet| subnet.cidr.contains(address));
        return match (subnet, given) {
            (_, Some(ALL)) => in_zone(ALL),
            (Some(subnet), None) => in_zone(&subnet.availability_zone),
            (Some(subnet), Some(given)) if given == subnet.availability_zone => in_zone(given),
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
    in_zone(ALL)
}

/// The places of instances, which must run, in the VPC of the group.
fn instances(view: &Snapshot, group: &balancing::TargetGroup, targets: &[Named]) -> Result<Vec<Place>, ServiceError> {
    let find = |target: &Named| view.get::<Instance>(&group.scope.key(&target.id));
    let those = |wrong: &dyn Fn(&Instance) -> bool| -> String {
        let ids = targets.iter().filter(|target| find(target).is_none_or(|instance| wrong(&instance)));
        ids.map(|target| format!("'{}'", target.id)).collect::<Vec<_>>().join(", ")
    };
    let unknown = those(&|_| false);
    if !unknown.is_empty() {
        return Err(error::invalid_target_exception(format!("The following targets do not exist: {unknown}")));
    }
    let elsewhere = those(&|instance| instance.vpc_id != group.vpc_id);
    if !elsewhere.is_empty() {
        return Err(error::invalid_target_exception(format!(
            "The following targets are not in the target group VPC '{}': {elsewhere}",
            group.vpc_id
        )));
    }
    let off = those(&|instance| instance.state() != InstanceState::Running);
    if !off.is_empty() {
        return Err(error::invalid_target_exception(format!(
            "The following targets are not in a running state and cannot be registered: {off}"
        )));
    }
    let place = |target: &Named| {
        let instance = find(target)?;
        let interface = view.get::<NetworkInterface>(&group.scope.key(&instance.interface_id))?;
        Some(Place {
            address: interface.private_address.into(),
            instance_id: Some(instance.instance_id.clone()),
            zone: instance.availability_zone.clone(),
        })
    };
    let lost = |target: &Named| error::invalid_target_exception(format!("'{}' has no network interface", target.id));
    targets.iter().map(|target| place(target).ok_or_else(|| lost(target))).collect()
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
            let named = Named::read(&target, &group)?;
            // Without a port, all its ports are meant.
            let port = target.port.map(|_| named.port);
            let meant: Vec<_> = tx
                .find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, arn.as_str())
                .filter(|found| named.names(found) && port.is_none_or(|port| found.port == port))
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
pub(crate) fn in_zone(registration: &TargetRegistration, load_balancer: &LoadBalancer) -> bool {
    match registration.availability_zone.as_deref() {
        None | Some(ALL) => true,
        Some(zone) => load_balancer.zones.iter().any(|enabled| enabled.zone_name == zone),
    }
}

/// Whether a target is no EC2 instance, or one that runs.
pub(crate) fn is_on(view: &Snapshot, registration: &TargetRegistration) -> bool {
    let Some(id) = &registration.instance_id else { return true };
    view.find::<Instance>(Instance::BY_ID, id.as_str())
        .any(|instance| matches!(instance.state(), InstanceState::Pending | InstanceState::Running))
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
    if !is_on(view, registration) {
        return balancing::TargetHealth::STOPPED;
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
        description(&group, shown_id(registration), registration.port, registration.availability_zone.clone(), &health)
    };
    let descriptions = match input.targets.filter(|targets| !targets.is_empty()) {
        None => registered.iter().map(|registration| known(registration)).collect(),
        Some(targets) => targets
            .iter()
            .map(|target| {
                let named = Named::read(target, &group)?;
                let found = registered.iter().find(|found| named.names(found) && found.port == named.port);
                Ok(match found {
                    Some(registration) => known(registration),
                    None => {
                        let unknown = &balancing::TargetHealth::NOT_REGISTERED;
                        description(&group, named.id, named.port, None, unknown)
                    }
                })
            })
            .collect::<Result<_, ServiceError>>()?,
    };
    Ok(DescribeTargetHealthOutput { target_health_descriptions: Some(descriptions) })
}

fn description(
    group: &balancing::TargetGroup,
    id: String,
    port: u16,
    zone: Option<String>,
    health: &balancing::TargetHealth,
) -> TargetHealthDescription {
    TargetHealthDescription {
        target: Some(TargetDescription {
            id: Some(id),
            port: Some(i32::from(port)),
            availability_zone: zone.filter(|_| group.target_type == TargetType::Ip),
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
