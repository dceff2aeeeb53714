//! What is different about network load balancers and target groups of protocol TCP: their attributes, and what cannot be
//! mixed with application load balancers.
//!
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/edit-target-group-attributes.html>

use api::elbv2::error;
use domain::balancing::{
    Action, LoadBalancer, LoadBalancerAttributes, TargetGroup, TargetRegistration, TcpTargetGroup,
    network::{TcpForwarding, ZoneTargets},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    attributes::{boolean, fixed, number},
    find,
    names::{invalid, unsupported},
    targets::in_zone,
};

/// A connection without a byte ends after so many seconds, as at Amazon.
const IDLE_SECONDS: u32 = 350;

/// Network load balancers' attributes that cannot be changed here.
const LOAD_BALANCER_FIXED: &[(&str, &str)] = &[
    ("access_logs.s3.enabled", "false"),
    ("access_logs.s3.bucket", ""),
    ("access_logs.s3.prefix", ""),
    ("dns_record.client_routing_policy", "any_availability_zone"),
    ("ipv6.deny_all_igw_traffic", "false"),
    ("secondary_ips.auto_assigned.per_subnet", "0"),
    ("zonal_shift.config.enabled", "false"),
];

/// Attributes of target groups of protocol TCP that cannot be changed here.
const TARGET_GROUP_FIXED: &[(&str, &str)] = &[
    ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration"),
    ("stickiness.type", "source_ip"),
    ("target_health_state.unhealthy.draining_interval_seconds", "0"),
    ("target_group_health.dns_failover.minimum_healthy_targets.count", "1"),
    ("target_group_health.dns_failover.minimum_healthy_targets.percentage", "off"),
    ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "1"),
    ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off"),
];

/// TCP listeners' attributes, none of which can be changed here.
pub(super) const LISTENER_FIXED: &[(&str, &str)] = &[("tcp.idle_timeout.seconds", "350")];

/// The attributes of a new network load balancer.
pub(super) fn attributes() -> LoadBalancerAttributes {
    LoadBalancerAttributes {
        idle_timeout_seconds: IDLE_SECONDS,
        cross_zone: false,
        ..LoadBalancerAttributes::default()
    }
}

pub(super) fn change_load_balancer(
    to: &mut LoadBalancerAttributes,
    key: &str,
    value: &str,
) -> Result<(), ServiceError> {
    match key {
        "deletion_protection.enabled" => to.deletion_protection = boolean(key, value)?,
        "load_balancing.cross_zone.enabled" => to.cross_zone = boolean(key, value)?,
        _ => fixed(LOAD_BALANCER_FIXED, key, value)?,
    }
    Ok(())
}

pub(super) fn load_balancer_pairs(of: &LoadBalancerAttributes) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("deletion_protection.enabled", of.deletion_protection.to_string()),
        ("load_balancing.cross_zone.enabled", of.cross_zone.to_string()),
    ];
    pairs.extend(LOAD_BALANCER_FIXED.iter().map(|(key, value)| (*key, (*value).to_owned())));
    pairs
}

/// Changes an attribute of a target group of protocol TCP.
pub(super) fn change_target_group(
    delay: &mut u32,
    tcp: &mut TcpTargetGroup,
    key: &str,
    value: &str,
) -> Result<(), ServiceError> {
    match key {
        "deregistration_delay.timeout_seconds" => *delay = number(key, value, 0, 3600)?,
        "deregistration_delay.connection_termination.enabled" => {
            tcp.deregistration_termination = boolean(key, value)?;
        }
        "target_health_state.unhealthy.connection_termination.enabled" => {
            tcp.unhealthy_termination = boolean(key, value)?;
        }
        "proxy_protocol_v2.enabled" => tcp.proxy_protocol = boolean(key, value)?,
        "preserve_client_ip.enabled" => tcp.preserve_client_ip = boolean(key, value)?,
        "stickiness.enabled" => tcp.source_ip_stickiness = boolean(key, value)?,
        _ => fixed(TARGET_GROUP_FIXED, key, value)?,
    }
    Ok(())
}

pub(super) fn target_group_pairs(delay: u32, tcp: &TcpTargetGroup) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("deregistration_delay.timeout_seconds", delay.to_string()),
        ("deregistration_delay.connection_termination.enabled", tcp.deregistration_termination.to_string()),
        ("target_health_state.unhealthy.connection_termination.enabled", tcp.unhealthy_termination.to_string()),
        ("proxy_protocol_v2.enabled", tcp.proxy_protocol.to_string()),
        ("preserve_client_ip.enabled", tcp.preserve_client_ip.to_string()),
        ("stickiness.enabled", tcp.source_ip_stickiness.to_string()),
    ];
    pairs.extend(TARGET_GROUP_FIXED.iter().map(|(key, value)| (*key, (*value).to_owned())));
    pairs
}

/// A listener of a network load balancer forwards to one target group, and does nothing else.
pub(super) fn check_action(action: &Action) -> Result<(), ServiceError> {
    match action {
        Action::Forward { groups, stickiness } if groups.len() == 1 && !stickiness.enabled => Ok(()),
        Action::Forward { .. } => Err(unsupported(
            "An action of a network load balancer with several target groups, or with their stickiness,",
        )),
        _ => Err(error::invalid_load_balancer_action_exception(
            "Network load balancers support only actions of type 'forward'",
        )),
    }
}

/// Refuses target groups whose protocol is not that of the load balancer's listeners.
pub(super) fn check_group(load_balancer: &LoadBalancer, group: &TargetGroup) -> Result<(), ServiceError> {
    if load_balancer.is_network() == group.tcp.is_some() {
        return Ok(());
    }
    let (listener, target) = if load_balancer.is_network() { ("TCP", "HTTP") } else { ("HTTP", "TCP") };
    Err(error::incompatible_protocols_exception(format!(
        "The protocol of the target group '{}', {target}, is not compatible with the listener protocol {listener}",
        group.arn
    )))
}

/// The protocol of a listener, checked against the kind of its load balancer.
pub(super) fn check_listener_protocol(network: bool, protocol: Option<&str>) -> Result<(), ServiceError> {
    let kind = if network { "network" } else { "application" };
    match (network, protocol) {
        (_, None) | (false, Some("HTTP" | "HTTPS")) | (true, Some("TCP")) => Ok(()),
        (true, Some("TLS" | "UDP" | "TCP_UDP" | "QUIC" | "TCP_QUIC")) => {
            Err(unsupported(&format!("A listener with protocol '{}'", protocol.unwrap_or_default())))
        }
        (_, Some(other)) => Err(error::unsupported_protocol_exception(format!(
            "Listener protocol '{other}' is not supported by load balancers of type '{kind}'"
        ))),
    }
}

/// Rules exist on application load balancers only.
pub(super) fn refuse_rules(load_balancer: &LoadBalancer) -> Result<(), ServiceError> {
    if load_balancer.is_network() {
        return Err(invalid("Rules are not supported for listeners of network load balancers"));
    }
    Ok(())
}

/// How the process of a load balancer forwards connections to a group, if it is of protocol TCP.
pub(super) fn forwarding(view: &Snapshot, group: &TargetGroup, load_balancer: &LoadBalancer) -> Option<TcpForwarding> {
    let settings = group.tcp.clone()?;
    if load_balancer.attributes.cross_zone {
        return Some(TcpForwarding { settings, zones: Vec::new() });
    }
    let registered: Vec<_> =
        view.find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, group.arn.as_str()).collect();
    let zones = load_balancer.zones.iter().map(|zone| {
        let within = LoadBalancer { zones: vec![zone.clone()], ..load_balancer.clone() };
        let targets = registered.iter().filter(|target| in_zone(target, &within));
        ZoneTargets { node: zone.address, targets: targets.map(|target| (target.address, target.port)).collect() }
    });
    Some(TcpForwarding { settings, zones: zones.collect() })
}

/// Whether an ARN is one of a network load balancer's listeners.
pub(super) fn is_listener(view: &Snapshot, arn: &str) -> Result<bool, ServiceError> {
    find::listener(view, arn).map(|listener| domain::balancing::network::is_network(listener.arn.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set_again_and_the_rest_is_refused_by_name() {
        let mut of = attributes();
        for (key, value) in load_balancer_pairs(&attributes()) {
            change_load_balancer(&mut of, key, &value).unwrap();
        }
        assert_eq!(of, attributes());
        assert!(change_load_balancer(&mut of, "idle_timeout.timeout_seconds", "7").is_err());
        let (mut delay, mut tcp) = (300, TcpTargetGroup::default());
        for (key, value) in target_group_pairs(300, &TcpTargetGroup::default()) {
            change_target_group(&mut delay, &mut tcp, key, &value).unwrap();
        }
        assert_eq!((delay, &tcp), (300, &TcpTargetGroup::default()));
        let refusal = change_target_group(&mut delay, &mut tcp, "stickiness.type", "lb_cookie").unwrap_err();
        assert!(refusal.message().contains("stickiness.type"), "{}", refusal.message());
        for key in ["proxy_protocol_v2.enabled", "preserve_client_ip.enabled"] {
            assert!(change_target_group(&mut delay, &mut tcp, key, "yes").is_err());
            change_target_group(&mut delay, &mut tcp, key, "true").unwrap();
        }
        assert!(tcp.proxy_protocol && tcp.preserve_client_ip);
    }
}
