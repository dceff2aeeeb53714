//! Target groups: create, describe, modify, delete.

use api::elbv2::*;
use domain::{
    balancing::{
        self, HealthCheck, HealthCheckProtocol, ProtocolVersion, TargetGroupAttributes, TargetRegistration, TargetType,
        TcpTargetGroup, network::default_health_check,
    },
    network::Vpc,
};
use wire::ServiceError;

use super::{
    find,
    names::{SERVICE, any, arn, check_name, invalid, page, required, tags, unsupported},
};
use crate::Call;

/// The most target groups per region.
pub(super) const MAX_TARGET_GROUPS: usize = 3000;

pub(super) async fn create(call: Call, input: CreateTargetGroupInput) -> Result<CreateTargetGroupOutput, ServiceError> {
    let auth = call.authorise(&[any(&call, "targetgroup")])?;
    let name = required(input.name.clone(), "A target group name")?;
    check_name(&name, "Target group")?;
    let target_type = check_kind(&input)?;
    let tcp = tcp(&input, target_type)?;
    let secure = input.protocol.as_deref() == Some("HTTPS");
    let protocol_version = protocol_version(input.protocol_version.as_deref())?;
    let port = port(required(input.port, "A port")?)?;
    let vpc_id = required(input.vpc_id.clone(), "A VPC ID")?;
    let health_check = health_check(default_check(&input, tcp.is_some()), changes_of_create(&input), tcp.is_some())?;
    let tags = tags(input.tags)?;
    let now = auth.now();
    let group = auth
        .transact(|tx| {
            let existing =
                tx.find::<balancing::TargetGroup>(balancing::TargetGroup::BY_NAME, call.scope.key(&name)).next();
            if let Some(existing) = existing {
                let same = existing.target_type == target_type
                    && existing.tcp.is_some() == tcp.is_some()
                    && existing.secure == secure
                    && existing.protocol_version == protocol_version
                    && existing.port == port
                    && existing.vpc_id == vpc_id
                    && existing.health_check == health_check
                    && (tags.is_empty() || existing.tags == tags);
                return if same {
                    Ok(balancing::TargetGroup::clone(&existing))
                } else {
                    Err(error::duplicate_target_group_name_exception(format!(
                        "A target group with the same name '{name}' exists, but with different settings"
                    )))
                };
            }
            if !tx.contains::<Vpc>(&call.scope.key(&vpc_id)) {
                return Err(invalid(format!("The VPC ID '{vpc_id}' is not found")));
            }
            let count = tx.count::<balancing::TargetGroup>(balancing::TargetGroup::BY_SCOPE, call.scope.prefix());
            if count >= MAX_TARGET_GROUPS {
                return Err(error::too_many_target_groups_exception(format!(
                    "The maximum number of target groups has been reached: {MAX_TARGET_GROUPS}"
                )));
            }
            let id = auth.platform().ids().hex(16);
            let group = balancing::TargetGroup {
                arn: call.arn(SERVICE, &format!("targetgroup/{name}/{id}")),
                scope: call.scope.clone(),
                name,
                target_type,
                protocol_version,
                secure,
                port,
                vpc_id,
                health_check,
                attributes: TargetGroupAttributes::default(),
                tcp,
                tags,
                created_at: now,
            };
            tx.put(group.clone());
            Ok(group)
        })
        .await?;
    let users = find::load_balancers_of(&auth.snapshot(), &group.arn).iter().map(ToString::to_string).collect();
    Ok(CreateTargetGroupOutput { target_groups: Some(vec![shape(&group, users)]) })
}

fn check_kind(input: &CreateTargetGroupInput) -> Result<TargetType, ServiceError> {
    let target_type = match input.target_type.as_deref() {
        Some("ip") => TargetType::Ip,
        None | Some("instance") => TargetType::Instance,
        Some(other) => return Err(unsupported(&format!("TargetType '{other}'"))),
    };
    if input.ip_address_type.as_deref().is_some_and(|kind| kind != "ipv4") {
        return Err(unsupported("IpAddressType other than ipv4"));
    }
    if input.target_control_port.is_some() {
        return Err(unsupported("TargetControlPort"));
    }
    Ok(target_type)
}

/// What a group of protocol TCP has besides; none for protocols HTTP and HTTPS.
fn tcp(input: &CreateTargetGroupInput, targets: TargetType) -> Result<Option<TcpTargetGroup>, ServiceError> {
    match input.protocol.as_deref() {
        Some("HTTP" | "HTTPS") => Ok(None),
        Some("TCP") if input.protocol_version.is_some() => {
            Err(invalid("A protocol version can be specified only for target groups with protocol HTTP or HTTPS"))
        }
        Some("TCP") => Ok(Some(TcpTargetGroup {
            preserve_client_ip: targets == TargetType::Instance,
            ..TcpTargetGroup::default()
        })),
        None => Err(invalid("A protocol must be specified")),
        Some(other) => Err(unsupported(&format!("Protocol '{other}'"))),
    }
}

/// The defaults of health checks.
fn default_check(input: &CreateTargetGroupInput, tcp: bool) -> HealthCheck {
    match (tcp, input.health_check_protocol.as_deref()) {
        (false, _) => HealthCheck::default(),
        (true, Some("HTTP")) => default_health_check(HealthCheckProtocol::Http),
        (true, Some("HTTPS")) => default_health_check(HealthCheckProtocol::Https),
        (true, _) => default_health_check(HealthCheckProtocol::Tcp),
    }
}

fn protocol_version(text: Option<&str>) -> Result<ProtocolVersion, ServiceError> {
    match text {
        None | Some("HTTP1") => Ok(ProtocolVersion::Http1),
        Some("HTTP2") => Ok(ProtocolVersion::Http2),
        Some(other) => Err(unsupported(&format!("ProtocolVersion '{other}'"))),
    }
}

fn port(port: i32) -> Result<u16, ServiceError> {
    let number = u16::try_from(port).ok().filter(|port| *port > 0);
    number.ok_or_else(|| invalid(format!("Port '{port}' must be between 1 and 65535")))
}

/// What a request says of health checks.
#[derive(Default)]
struct Changes {
    enabled: Option<bool>,
    protocol: Option<String>,
    port: Option<String>,
    path: Option<String>,
    interval: Option<i32>,
    timeout: Option<i32>,
    healthy: Option<i32>,
    unhealthy: Option<i32>,
    matcher: Option<Matcher>,
}

fn changes_of_create(input: &CreateTargetGroupInput) -> Changes {
    Changes {
        enabled: input.health_check_enabled,
        protocol: input.health_check_protocol.clone(),
        port: input.health_check_port.clone(),
        path: input.health_check_path.clone(),
        interval: input.health_check_interval_seconds,
        timeout: input.health_check_timeout_seconds,
        healthy: input.healthy_threshold_count,
        unhealthy: input.unhealthy_threshold_count,
        matcher: input.matcher.clone(),
    }
}

/// The settings with what a request changes of them.
fn health_check(mut check: HealthCheck, changes: Changes, tcp: bool) -> Result<HealthCheck, ServiceError> {
    let within = |value: Option<i32>, low: u32, high: u32, name: &str, old: u32| match value {
        None => Ok(old),
        Some(value) => u32::try_from(value)
            .ok()
            .filter(|value| (low..=high).contains(value))
            .ok_or_else(|| invalid(format!("{name} '{value}' must be between {low} and {high}"))),
    };
    if changes.enabled == Some(false) {
        return Err(invalid("Health check enabled must be true for target groups with target type 'instance' or 'ip'"));
    }
    match changes.protocol.as_deref() {
        None => {}
        Some("HTTP") => check.protocol = HealthCheckProtocol::Http,
        Some("HTTPS") => check.protocol = HealthCheckProtocol::Https,
        Some("TCP") if tcp => check.protocol = HealthCheckProtocol::Tcp,
        Some("TCP") => {
            return Err(invalid("Health check protocol 'TCP' is not supported for target groups with protocol HTTP"));
        }
        Some(other) => return Err(unsupported(&format!("HealthCheckProtocol '{other}'"))),
    }
    match changes.port.as_deref() {
        None => {}
        Some("traffic-port") => check.port = None,
        Some(text) => {
            let number = text.parse::<u16>().ok().filter(|port| *port > 0);
            check.port = Some(number.ok_or_else(|| {
                invalid(format!("Health check port '{text}' must be 'traffic-port' or a number between 1 and 65535"))
            })?);
        }
    }
    let of_http = changes.path.is_some() || changes.matcher.is_some();
    if check.protocol == HealthCheckProtocol::Tcp && of_http {
        return Err(invalid("Health check path and matcher cannot be specified for health checks with protocol TCP"));
    }
    if let Some(path) = changes.path {
        if !path.starts_with('/') || path.len() > 1024 || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid(format!("Health check path '{path}' must begin with a '/' character")));
        }
        check.path = path;
    }
    check.interval_seconds = within(changes.interval, 5, 300, "Health check interval", check.interval_seconds)?;
    check.timeout_seconds = within(changes.timeout, 2, 120, "Health check timeout", check.timeout_seconds)?;
    check.healthy_threshold = within(changes.healthy, 2, 10, "Healthy threshold count", check.healthy_threshold)?;
    check.unhealthy_threshold =
        within(changes.unhealthy, 2, 10, "Unhealthy threshold count", check.unhealthy_threshold)?;
    if let Some(matcher) = changes.matcher {
        if matcher.grpc_code.is_some() {
            return Err(unsupported("Matcher.GrpcCode"));
        }
        if let Some(text) = matcher.http_code {
            check.matcher = balancing::Matcher::try_from(text).map_err(|error| invalid(error.to_string()))?;
        }
    }
    // A check over TCP may last until the next one.
    let shortest = check.timeout_seconds + u32::from(!tcp);
    if check.interval_seconds < shortest {
        return Err(invalid(format!(
            "Health check interval '{}' must be greater than the timeout '{}'",
            check.interval_seconds, check.timeout_seconds
        )));
    }
    Ok(check)
}

pub(super) fn describe(
    call: &Call,
    input: DescribeTargetGroupsInput,
) -> Result<DescribeTargetGroupsOutput, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    let users = |group: &balancing::TargetGroup| -> Vec<String> {
        find::load_balancers_of(&view, &group.arn).iter().map(ToString::to_string).collect()
    };
    let (arns, names) = (input.target_group_arns.unwrap_or_default(), input.names.unwrap_or_default());
    let given = [!arns.is_empty(), !names.is_empty(), input.load_balancer_arn.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(invalid(
            "Only one of load balancer ARN, target group names and target group ARNs can be specified",
        ));
    }
    let groups: Vec<_> = if !names.is_empty() {
        let found = names.iter().map(|name| {
            let mut found = view.find::<balancing::TargetGroup>(balancing::TargetGroup::BY_NAME, call.scope.key(name));
            found.next().ok_or_else(|| error::target_group_not_found_exception("One or more target groups not found"))
        });
        found.collect::<Result<_, _>>()?
    } else if !arns.is_empty() {
        let found = arns.iter().map(|text| {
            let arn = arn(call, text, "targetgroup", "target group")?;
            find::target_group(&view, arn.as_str())
        });
        found.collect::<Result<_, _>>()?
    } else if let Some(text) = input.load_balancer_arn {
        let arn = arn(call, &text, "loadbalancer", "load balancer")?;
        find::load_balancer(&view, arn.as_str())?;
        let of_it = find::target_groups_of(&view, &arn);
        of_it.iter().filter_map(|group| view.get::<balancing::TargetGroup>(group)).collect()
    } else {
        view.find::<balancing::TargetGroup>(balancing::TargetGroup::BY_SCOPE, call.scope.prefix()).collect()
    };
    let paged = arns.is_empty() && names.is_empty();
    let (groups, next_marker) = if paged {
        let key = |group: &std::sync::Arc<balancing::TargetGroup>| group.arn.to_string();
        page(&operation::DESCRIBE_TARGET_GROUPS, groups.into_iter(), key, input.marker.as_deref(), input.page_size)?
    } else {
        (groups, None)
    };
    let shapes = groups.iter().map(|group| shape(group, users(group))).collect();
    Ok(DescribeTargetGroupsOutput { target_groups: Some(shapes), next_marker })
}

pub(super) async fn modify(call: Call, input: ModifyTargetGroupInput) -> Result<ModifyTargetGroupOutput, ServiceError> {
    let arn = arn(&call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let changes = Changes {
        enabled: input.health_check_enabled,
        protocol: input.health_check_protocol,
        port: input.health_check_port,
        path: input.health_check_path,
        interval: input.health_check_interval_seconds,
        timeout: input.health_check_timeout_seconds,
        healthy: input.healthy_threshold_count,
        unhealthy: input.unhealthy_threshold_count,
        matcher: input.matcher,
    };
    let (group, users) = auth
        .transact(|tx| {
            let mut group = balancing::TargetGroup::clone(&*find::target_group(tx, arn.as_str())?);
            group.health_check = health_check(group.health_check, changes, group.tcp.is_some())?;
            tx.put(group.clone());
            let users = find::load_balancers_of(tx, &group.arn).iter().map(ToString::to_string).collect();
            Ok((group, users))
        })
        .await?;
    Ok(ModifyTargetGroupOutput { target_groups: Some(vec![shape(&group, users)]) })
}

pub(super) async fn delete(call: Call, input: DeleteTargetGroupInput) -> Result<DeleteTargetGroupOutput, ServiceError> {
    let arn = arn(&call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    auth.transact(|tx| {
        if !find::load_balancers_of(tx, &arn).is_empty() {
            return Err(error::resource_in_use_exception(format!(
                "Target group '{arn}' is currently in use by a listener or a rule"
            )));
        }
        let registered: Vec<_> =
            tx.find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, arn.as_str()).collect();
        for registration in registered {
            let key = domain::Resource::key(&*registration);
            tx.delete::<TargetRegistration>(&key);
            tx.delete::<balancing::ObservedHealth>(&key);
        }
        // Deleting what is not there succeeds.
        tx.delete::<balancing::TargetGroup>(arn.as_str());
        Ok(())
    })
    .await?;
    Ok(DeleteTargetGroupOutput {})
}

fn shape(group: &balancing::TargetGroup, load_balancers: Vec<String>) -> TargetGroup {
    let check = &group.health_check;
    let (tcp, http_check) = (group.tcp.is_some(), check.protocol != HealthCheckProtocol::Tcp);
    let http = if group.secure { "HTTPS" } else { "HTTP" };
    let number = |value: u32| Some(i32::try_from(value).unwrap_or(i32::MAX));
    TargetGroup {
        target_group_arn: Some(group.arn.to_string()),
        target_group_name: Some(group.name.clone()),
        protocol: Some(if tcp { "TCP" } else { http }.into()),
        port: Some(i32::from(group.port)),
        vpc_id: Some(group.vpc_id.clone()),
        health_check_protocol: Some(check.protocol.as_str().into()),
        health_check_port: Some(check.port.map_or_else(|| "traffic-port".into(), |port| port.to_string())),
        health_check_enabled: Some(true),
        health_check_interval_seconds: number(check.interval_seconds),
        health_check_timeout_seconds: number(check.timeout_seconds),
        healthy_threshold_count: number(check.healthy_threshold),
        unhealthy_threshold_count: number(check.unhealthy_threshold),
        health_check_path: http_check.then(|| check.path.clone()),
        matcher: http_check.then(|| Matcher { http_code: Some(check.matcher.as_str().into()), grpc_code: None }),
        load_balancer_arns: Some(load_balancers),
        target_type: Some(group.target_type.as_str().into()),
        protocol_version: (!tcp).then(|| group.protocol_version.as_str().into()),
        ip_address_type: Some("ipv4".into()),
        ..TargetGroup::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_have_amazons_bounds() {
        let check = |changes: Changes| health_check(HealthCheck::default(), changes, false);
        assert_eq!(check(Changes::default()).unwrap(), HealthCheck::default());
        assert!(check(Changes { interval: Some(4), ..Changes::default() }).is_err());
        assert!(check(Changes { interval: Some(5), ..Changes::default() }).is_err(), "not above the timeout");
        assert!(check(Changes { interval: Some(5), timeout: Some(2), ..Changes::default() }).is_ok());
        assert!(check(Changes { path: Some("x".into()), ..Changes::default() }).is_err());
        assert!(check(Changes { port: Some("0".into()), ..Changes::default() }).is_err());
        assert_eq!(check(Changes { port: Some("81".into()), ..Changes::default() }).unwrap().port, Some(81));
        assert!(check(Changes { enabled: Some(false), ..Changes::default() }).is_err());
        assert!(check(Changes { healthy: Some(1), ..Changes::default() }).is_err());
    }
}
