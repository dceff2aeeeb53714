//! Load balancers: create, describe, delete.

use api::elb::*;
use domain::{
    Arn, Resource, Tags,
    balancing::{
        self, Classic, ClassicListener, LoadBalancer, LoadBalancerState, ObservedHealth, Scheme, TargetGroup,
        TargetGroupAttributes, TargetRegistration, TargetType, classic,
    },
    network::SecurityGroup,
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    attributes,
    find::{self, invalid},
    health, listeners, places, tags,
};
use crate::{
    Authorised, Call, ec2,
    elbv2::{
        load_balancers::{HOSTED_ZONE, add_zones, host_address},
        zones,
    },
};

/// The most load balancers per region.
const MAX_LOAD_BALANCERS: usize = 20;

/// The longest page.
const PAGE: usize = 400;

/// What a new load balancer is asked to be.
struct Wanted {
    name: String,
    scheme: Scheme,
    listeners: Vec<ClassicListener>,
    subnets: Vec<String>,
    zones: Vec<String>,
    security_groups: Vec<String>,
    tags: Tags,
}

pub(super) async fn create(call: Call, input: CreateAccessPointInput) -> Result<CreateAccessPointOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name.clone())?;
    let wanted = read(input)?;
    let dns_name = auth.transact(|tx| make(tx, &auth, &call, arn, wanted)).await?;
    Ok(CreateAccessPointOutput { dns_name: Some(dns_name) })
}

fn read(input: CreateAccessPointInput) -> Result<Wanted, ServiceError> {
    let name = input.load_balancer_name.unwrap_or_default();
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if name.is_empty() || name.len() > 32 || !letters || name.starts_with('-') || name.ends_with('-') {
        return Err(invalid(
            "LoadBalancer name must contain only alphanumeric characters or hyphens, at most 32, and not begin or end with a hyphen",
        ));
    }
    let scheme = match input.scheme.as_deref() {
        None | Some("" | "internet-facing") => Scheme::InternetFacing,
        Some("internal") => Scheme::Internal,
        Some(other) => {
            return Err(error::invalid_scheme_exception(format!("The scheme '{other}' is not valid")));
        }
    };
    let mut listening = Classic::default();
    listeners::add(&mut listening, listeners::read(input.listeners)?)?;
    Ok(Wanted {
        name,
        scheme,
        listeners: listening.listeners,
        subnets: input.subnets.unwrap_or_default(),
        zones: input.availability_zones.unwrap_or_default(),
        security_groups: input.security_groups.unwrap_or_default(),
        tags: tags::read(input.tags)?,
    })
}

/// Makes the load balancer and the group of its instances. Gives its DNS name.
fn make(
    tx: &mut Transaction,
    auth: &Authorised,
    call: &Call,
    arn: Arn,
    wanted: Wanted,
) -> Result<String, ServiceError> {
    let subnets = places::requested(tx, &call.scope, &wanted.subnets, &wanted.zones)?;
    if let Ok((existing, classic)) = find::load_balancer(tx, &arn) {
        return same_as(&existing, &classic, &wanted, &subnets);
    }
    if tx.count::<LoadBalancer>(LoadBalancer::CLASSIC_BY_SCOPE, call.scope.prefix()) >= MAX_LOAD_BALANCERS {
        return Err(error::too_many_access_points_exception(format!(
            "The maximum number of load balancers has been reached: {MAX_LOAD_BALANCERS}"
        )));
    }
    let vpc_id = zones::check_subnets(tx, &call.scope, &subnets, true)?;
    zones::check_security_groups(tx, &call.scope, &vpc_id, &wanted.security_groups)?;
    let (now, mut ids) = (auth.now(), auth.platform().ids());
    let first = wanted.listeners.first().map_or(80, |listener| listener.instance_port);
    let mut load_balancer = LoadBalancer {
        arn: arn.clone(),
        scope: call.scope.clone(),
        dns_name: LoadBalancer::dns_name(&wanted.name, &ids.hex(16), &call.scope.region, wanted.scheme),
        name: wanted.name.clone(),
        scheme: wanted.scheme,
        vpc_id: vpc_id.clone(),
        zones: Vec::new(),
        security_groups: wanted.security_groups,
        attributes: attributes::by_default(),
        host_address: None,
        state: LoadBalancerState::Provisioning,
        classic: Some(Classic { listeners: wanted.listeners, draining_timeout_seconds: attributes::DRAINING_TIMEOUT }),
        tags: wanted.tags,
        created_at: now,
    };
    if wanted.scheme == Scheme::InternetFacing {
        load_balancer.host_address = Some(host_address(tx, &auth.platform().options.instance_id, &arn)?);
    }
    add_zones(tx, &mut load_balancer, &subnets, &mut ids, now)?;
    tx.put(TargetGroup {
        arn,
        scope: call.scope.clone(),
        name: wanted.name,
        target_type: TargetType::Instance,
        protocol_version: balancing::ProtocolVersion::Http1,
        port: classic::ANY_PORT,
        vpc_id,
        health_check: health::by_default(first),
        // Connection draining is off until it is asked for.
        attributes: TargetGroupAttributes { deregistration_delay_seconds: 0, ..TargetGroupAttributes::default() },
        tcp: None,
        secure: false,
        tags: Tags::default(),
        created_at: now,
    });
    let dns_name = load_balancer.dns_name.clone();
    tx.put(load_balancer);
    Ok(dns_name)
}

/// Creating what exists already with the same settings gives it back.
fn same_as(
    existing: &LoadBalancer,
    classic: &Classic,
    wanted: &Wanted,
    subnets: &[String],
) -> Result<String, ServiceError> {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let groups = &wanted.security_groups;
    let same = existing.scheme == wanted.scheme
        && classic.listeners == wanted.listeners
        && sorted(&places::subnets_of(existing)) == sorted(subnets)
        && (groups.is_empty() || sorted(groups) == sorted(&existing.security_groups));
    if same {
        return Ok(existing.dns_name.clone());
    }
    Err(error::duplicate_access_point_name_exception(format!(
        "Load Balancer named {} already exists and it is configured with different parameters.",
        existing.name
    )))
}

pub(super) fn describe(
    call: &Call,
    input: DescribeAccessPointsInput,
) -> Result<DescribeAccessPointsOutput, ServiceError> {
    let names = input.load_balancer_names.unwrap_or_default();
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    if !names.is_empty() {
        let one = |name: &String| {
            let (load_balancer, classic) = find::load_balancer(&view, &classic::arn(&call.scope, name))?;
            shape(&view, &load_balancer, &classic)
        };
        let found = names.iter().map(one).collect::<Result<_, ServiceError>>()?;
        return Ok(DescribeAccessPointsOutput { load_balancer_descriptions: Some(found), next_marker: None });
    }
    let operation = &operation::DESCRIBE_LOAD_BALANCERS;
    let read = |marker| wire::page::position(operation, marker).ok_or_else(|| invalid("Invalid Marker"));
    let after = input.marker.as_deref().filter(|marker| !marker.is_empty()).map(read).transpose()?;
    let size = input.page_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let all = view.find::<LoadBalancer>(LoadBalancer::CLASSIC_BY_SCOPE, call.scope.prefix());
    let mut all = all.skip_while(|found| after.as_ref().is_some_and(|after| found.key() <= *after)).peekable();
    let page: Vec<_> = all.by_ref().take(size).collect();
    let next_marker = all.peek().and_then(|_| page.last()).map(|last| wire::page::token(operation, &last.key()));
    let one = |found: &LoadBalancer| shape(&view, found, &found.classic.clone().unwrap_or_default());
    let found = page.iter().map(|found| one(found)).collect::<Result<_, ServiceError>>()?;
    Ok(DescribeAccessPointsOutput { load_balancer_descriptions: Some(found), next_marker })
}

fn shape(
    view: &Snapshot,
    load_balancer: &LoadBalancer,
    classic: &Classic,
) -> Result<LoadBalancerDescription, ServiceError> {
    let group = find::group(view, &load_balancer.arn)?;
    let instances = find::instances(view, &load_balancer.arn);
    let source = load_balancer.security_groups.first();
    let source = source.and_then(|id| view.get::<SecurityGroup>(&load_balancer.scope.key(id)));
    Ok(LoadBalancerDescription {
        load_balancer_name: Some(load_balancer.name.clone()),
        dns_name: Some(load_balancer.dns_name.clone()),
        canonical_hosted_zone_name: (load_balancer.scheme == Scheme::InternetFacing)
            .then(|| load_balancer.dns_name.clone()),
        canonical_hosted_zone_name_id: Some(HOSTED_ZONE.to_owned()),
        listener_descriptions: Some(classic.listeners.iter().map(listeners::shape).collect()),
        policies: Some(Policies {
            app_cookie_stickiness_policies: Some(Vec::new()),
            lb_cookie_stickiness_policies: Some(Vec::new()),
            other_policies: Some(Vec::new()),
        }),
        backend_server_descriptions: Some(Vec::new()),
        availability_zones: Some(places::zones_of(load_balancer)),
        subnets: Some(places::subnets_of(load_balancer)),
        vpc_id: Some(load_balancer.vpc_id.clone()),
        instances: Some(instances.into_iter().map(|id| Instance { instance_id: Some(id) }).collect()),
        health_check: Some(health::shape(&group.health_check)),
        source_security_group: source.map(|group| SourceSecurityGroup {
            owner_alias: Some(load_balancer.scope.account.to_string()),
            group_name: Some(group.name.clone()),
        }),
        security_groups: Some(load_balancer.security_groups.clone()),
        created_time: Some(wire::Timestamp(load_balancer.created_at.millis())),
        scheme: Some(load_balancer.scheme.as_str().to_owned()),
    })
}

pub(super) async fn delete(call: Call, input: DeleteAccessPointInput) -> Result<DeleteAccessPointOutput, ServiceError> {
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    auth.transact(|tx| {
        // Deleting what is not there succeeds.
        let Ok((load_balancer, _)) = find::load_balancer(tx, &arn) else { return Ok(()) };
        for registration in find::registrations(tx, &arn) {
            tx.delete::<TargetRegistration>(&registration.key());
            tx.delete::<ObservedHealth>(&registration.key());
        }
        tx.delete::<TargetGroup>(arn.as_str());
        for zone in &load_balancer.zones {
            ec2::release_network_interface(tx, &load_balancer.scope, &zone.interface_id);
        }
        tx.delete::<LoadBalancer>(arn.as_str());
        Ok(())
    })
    .await?;
    Ok(DeleteAccessPointOutput {})
}
