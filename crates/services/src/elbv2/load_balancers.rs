//! Load balancers: create, describe, delete.

use std::net::Ipv4Addr;

use api::elbv2::*;
use domain::{
    Arn, IdSource, Scope, Timestamp,
    balancing::{self, Listener, LoadBalancerAttributes, LoadBalancerState as State, Rule, Scheme, Zone},
    network::NetworkInterface,
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    find,
    names::{SERVICE, any, arn, check_name, invalid, page, required, tags, unsupported},
    network, zones,
};
use crate::{Call, ec2};

/// The most load balancers per region.
pub(super) const MAX_LOAD_BALANCERS: usize = 50;

/// Amazon's hosted zones of load balancers in us-east-1; there is no Route 53 here that would read them.
pub(crate) const HOSTED_ZONE: &str = "Z35SXDOTRQ7X7K";
const NETWORK_HOSTED_ZONE: &str = "Z26RNL4JYFTOTI";

pub(super) async fn create(
    call: Call,
    input: CreateLoadBalancerInput,
) -> Result<CreateLoadBalancerOutput, ServiceError> {
    let family = family(&input)?;
    let auth = call.authorise(&[any(&call, &format!("loadbalancer/{family}"))])?;
    let name = required(input.name.clone(), "A load balancer name")?;
    let scheme = check(&name, &input)?;
    let subnets = zones::requested(input.subnets, input.subnet_mappings)?;
    let groups = input.security_groups.unwrap_or_default();
    let tags = tags(input.tags)?;
    let network = family == "net";
    let (now, instance) = (auth.now(), auth.platform().options.instance_id.clone());
    let load_balancer = auth
        .transact(|tx| {
            let mut ids = auth.platform().ids();
            if let Some(existing) = by_name(tx, &call.scope, &name) {
                return same_as(existing, family, scheme, &subnets, &groups, &tags);
            }
            if tx.count::<balancing::LoadBalancer>(balancing::LoadBalancer::BY_SCOPE, call.scope.prefix())
                >= MAX_LOAD_BALANCERS
            {
                return Err(error::too_many_load_balancers_exception(format!(
                    "The maximum number of load balancers has been reached: {MAX_LOAD_BALANCERS}"
                )));
            }
            let vpc_id = zones::check_subnets(tx, &call.scope, &subnets, network)?;
            zones::check_security_groups(tx, &call.scope, &vpc_id, &groups)?;
            let id = ids.hex(16);
            let mut load_balancer = balancing::LoadBalancer {
                arn: call.arn(SERVICE, &format!("loadbalancer/{family}/{name}/{id}")),
                scope: call.scope.clone(),
                dns_name: if network {
                    balancing::LoadBalancer::network_dns_name(&name, &id, &call.scope.region)
                } else {
                    balancing::LoadBalancer::dns_name(&name, &id, &call.scope.region, scheme)
                },
                name,
                scheme,
                vpc_id,
                zones: Vec::new(),
                security_groups: groups,
                attributes: if network { network::attributes() } else { LoadBalancerAttributes::default() },
                host_address: None,
                state: State::Provisioning,
                classic: None,
                tags,
                created_at: now,
            };
            if scheme == Scheme::InternetFacing {
                load_balancer.host_address = Some(host_address(tx, &instance, &load_balancer.arn)?);
            }
            add_zones(tx, &mut load_balancer, &subnets, &mut ids, now)?;
            tx.put(load_balancer.clone());
            Ok(load_balancer)
        })
        .await?;
    Ok(CreateLoadBalancerOutput { load_balancers: Some(vec![shape(&load_balancer)]) })
}

/// `app` or `net`.
fn family(input: &CreateLoadBalancerInput) -> Result<&'static str, ServiceError> {
    match input.r#type.as_deref() {
        None | Some("application") => Ok("app"),
        Some("network") => Ok("net"),
        Some(other) => Err(unsupported(&format!("A load balancer of type '{other}'"))),
    }
}

/// Refuses what is not supported and what cannot be; gives the scheme.
fn check(name: &str, input: &CreateLoadBalancerInput) -> Result<Scheme, ServiceError> {
    if input.ip_address_type.as_deref().is_some_and(|kind| kind != "ipv4") {
        return Err(unsupported("IpAddressType other than ipv4"));
    }
    let refused = [
        (input.customer_owned_ipv4_pool.is_some(), "CustomerOwnedIpv4Pool"),
        (input.enable_prefix_for_ipv6_source_nat.is_some(), "EnablePrefixForIpv6SourceNat"),
        (input.ipam_pools.is_some(), "IpamPools"),
    ];
    if let Some((_, name)) = refused.iter().find(|(given, _)| *given) {
        return Err(unsupported(name));
    }
    check_name(name, "Load balancer")?;
    if name.starts_with("internal-") {
        return Err(invalid(format!("Load balancer name '{name}' cannot begin with 'internal-'")));
    }
    match input.scheme.as_deref() {
        None | Some("internet-facing") => Ok(Scheme::InternetFacing),
        Some("internal") => Ok(Scheme::Internal),
        Some(other) => Err(error::invalid_scheme_exception(format!("The scheme '{other}' is not valid"))),
    }
}

fn by_name(view: &Snapshot, scope: &Scope, name: &str) -> Option<balancing::LoadBalancer> {
    let mut found = view.find::<balancing::LoadBalancer>(balancing::LoadBalancer::BY_NAME, scope.key(name));
    found.next().map(|existing| balancing::LoadBalancer::clone(&existing))
}

/// Creating what exists already with the same settings gives it back.
fn same_as(
    existing: balancing::LoadBalancer,
    family: &str,
    scheme: Scheme,
    subnets: &[String],
    groups: &[String],
    tags: &domain::Tags,
) -> Result<balancing::LoadBalancer, ServiceError> {
    let sorted = |mut list: Vec<&str>| {
        list.sort_unstable();
        list.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let same_subnets = sorted(existing.zones.iter().map(|zone| zone.subnet_id.as_str()).collect())
        == sorted(subnets.iter().map(String::as_str).collect());
    let same_groups = groups.is_empty()
        || sorted(existing.security_groups.iter().map(String::as_str).collect())
            == sorted(groups.iter().map(String::as_str).collect());
    let same_kind = existing.family() == family && existing.scheme == scheme;
    if same_kind && same_subnets && same_groups && (tags.is_empty() || existing.tags == *tags) {
        return Ok(existing);
    }
    Err(error::duplicate_load_balancer_name_exception(format!(
        "A load balancer with the same name '{}' exists, but with different settings",
        existing.name
    )))
}

/// Makes an interface in each subnet and adds the zones.
pub(crate) fn add_zones(
    tx: &mut Transaction,
    load_balancer: &mut balancing::LoadBalancer,
    subnets: &[String],
    ids: &mut IdSource,
    now: Timestamp,
) -> Result<(), ServiceError> {
    for subnet in subnets {
        let new = ec2::NewInterface {
            subnet_id: subnet.clone(),
            security_groups: load_balancer.security_groups.clone(),
            assign_public_address: false,
            private_address: None,
            description: match load_balancer.classic {
                Some(_) => format!("ELB {}", load_balancer.name),
                None => format!("ELB {}/{}/{}", load_balancer.family(), load_balancer.name, load_balancer.id()),
            },
            owner: domain::network::NetworkInterfaceOwner::LoadBalancer { arn: load_balancer.arn.to_string() },
            requester_managed: true,
            tags: domain::Tags::default(),
        };
        let interface =
            ec2::allocate_network_interface(tx, &load_balancer.scope, new, ids, now).map_err(zones::refused)?;
        // Without groups of its own it has its VPC's default one, as its interfaces; a network load balancer has none.
        if load_balancer.is_network() && load_balancer.security_groups.is_empty() {
            let key = load_balancer.scope.key(&interface.network_interface_id);
            tx.update::<NetworkInterface>(&key, |interface| interface.security_groups.clear());
        } else {
            load_balancer.security_groups = interface.security_groups.clone();
        }
        load_balancer.zones.push(Zone {
            zone_name: interface.availability_zone,
            subnet_id: interface.subnet_id,
            interface_id: interface.network_interface_id,
            address: interface.private_address,
        });
    }
    load_balancer.zones.sort_by(|a, b| a.zone_name.cmp(&b.zone_name));
    Ok(())
}

/// A host address that follows from the platform and the load balancer, and that no other load balancer here has:
/// within 127.64.0.0/10, away from what people use themselves.
pub(crate) fn host_address(view: &Snapshot, instance: &str, arn: &Arn) -> Result<Ipv4Addr, ServiceError> {
    (0..64u32)
        .map(|attempt| {
            let hash = format!("{instance}/{arn}/{attempt}")
                .bytes()
                .fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            Ipv4Addr::from_bits(0x7f40_0000 | (hash >> 10 & 0x003f_ffff))
        })
        .filter(|address| !matches!(address.octets()[3], 0 | 255))
        .find(|address| {
            view.count::<balancing::LoadBalancer>(balancing::LoadBalancer::BY_HOST_ADDRESS, address.to_string()) == 0
        })
        .ok_or_else(|| ServiceError::internal("no host address is free for the load balancer"))
}

pub(super) fn describe(
    call: &Call,
    input: DescribeLoadBalancersInput,
) -> Result<DescribeLoadBalancersOutput, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    let (arns, names) = (input.load_balancer_arns.unwrap_or_default(), input.names.unwrap_or_default());
    if !arns.is_empty() && !names.is_empty() {
        return Err(invalid("Load balancer names and load balancer ARNs cannot be specified at the same time"));
    }
    if !names.is_empty() {
        let found = names.iter().map(|name| {
            by_name(&view, &call.scope, name)
                .map(|found| shape(&found))
                .ok_or_else(|| error::load_balancer_not_found_exception(format!("Load balancers '[{name}]' not found")))
        });
        return Ok(DescribeLoadBalancersOutput {
            load_balancers: Some(found.collect::<Result<_, _>>()?),
            next_marker: None,
        });
    }
    if !arns.is_empty() {
        let not_found = || error::load_balancer_not_found_exception("One or more load balancers not found");
        let found = arns.iter().map(|text| {
            let arn = arn(call, text, "loadbalancer", "load balancer")?;
            view.get::<balancing::LoadBalancer>(arn.as_str()).map(|found| shape(&found)).ok_or_else(not_found)
        });
        return Ok(DescribeLoadBalancersOutput {
            load_balancers: Some(found.collect::<Result<_, _>>()?),
            next_marker: None,
        });
    }
    let all = view.find::<balancing::LoadBalancer>(balancing::LoadBalancer::BY_SCOPE, call.scope.prefix());
    let (found, next_marker) = page(
        &operation::DESCRIBE_LOAD_BALANCERS,
        all,
        |found| found.arn.to_string(),
        input.marker.as_deref(),
        input.page_size,
    )?;
    let shapes = found.iter().map(|found| shape(found)).collect();
    Ok(DescribeLoadBalancersOutput { load_balancers: Some(shapes), next_marker })
}

pub(super) async fn delete(
    call: Call,
    input: DeleteLoadBalancerInput,
) -> Result<DeleteLoadBalancerOutput, ServiceError> {
    let arn = arn(&call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    auth.transact(|tx| {
        // Deleting what is not there succeeds.
        let Some(load_balancer) = tx.get::<balancing::LoadBalancer>(arn.as_str()) else { return Ok(()) };
        if load_balancer.attributes.deletion_protection {
            return Err(error::operation_not_permitted_exception(format!(
                "Load balancer '{arn}' cannot be deleted because deletion protection is enabled"
            )));
        }
        for listener in find::listeners_of(tx, &arn) {
            for rule in find::rules_of(tx, &listener.arn) {
                tx.delete::<Rule>(rule.arn.as_str());
            }
            tx.delete::<Listener>(listener.arn.as_str());
        }
        for zone in &load_balancer.zones {
            ec2::release_network_interface(tx, &load_balancer.scope, &zone.interface_id);
        }
        tx.delete::<balancing::LoadBalancer>(arn.as_str());
        Ok(())
    })
    .await?;
    Ok(DeleteLoadBalancerOutput {})
}

pub(super) fn set_ip_address_type(
    call: &Call,
    input: SetIpAddressTypeInput,
) -> Result<SetIpAddressTypeOutput, ServiceError> {
    let arn = arn(call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    find::load_balancer(&auth.snapshot(), arn.as_str())?;
    match input.ip_address_type.as_deref() {
        Some("ipv4") => Ok(SetIpAddressTypeOutput { ip_address_type: Some("ipv4".into()) }),
        _ => Err(unsupported("IpAddressType other than ipv4")),
    }
}

fn shape(load_balancer: &balancing::LoadBalancer) -> LoadBalancer {
    let network = load_balancer.is_network();
    let reason = match &load_balancer.state {
        State::ActiveImpaired { reason } => Some(reason.clone()),
        _ => None,
    };
    LoadBalancer {
        load_balancer_arn: Some(load_balancer.arn.to_string()),
        dns_name: Some(load_balancer.dns_name.clone()),
        canonical_hosted_zone_id: Some(if network { NETWORK_HOSTED_ZONE } else { HOSTED_ZONE }.into()),
        created_time: Some(wire::Timestamp(load_balancer.created_at.millis())),
        load_balancer_name: Some(load_balancer.name.clone()),
        scheme: Some(load_balancer.scheme.as_str().into()),
        vpc_id: Some(load_balancer.vpc_id.clone()),
        state: Some(LoadBalancerState { code: Some(load_balancer.state.code().into()), reason }),
        r#type: Some(if network { "network" } else { "application" }.into()),
        availability_zones: Some(zones::shapes(load_balancer)),
        security_groups: Some(load_balancer.security_groups.clone()),
        ip_address_type: Some("ipv4".into()),
        ..LoadBalancer::default()
    }
}
