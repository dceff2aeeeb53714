//! Attributes of load balancers, target groups and listeners. One that this platform does not act on has its default
//! as its only value, and is refused by name with any other.

use api::elbv2::*;
use domain::balancing::{self, LoadBalancerAttributes, TargetGroupAttributes, XffMode};
use wire::ServiceError;

use super::{
    find,
    names::{arn, invalid, required, unsupported},
    network, target_choice,
};
use crate::Call;

/// Load balancers' attributes that cannot be changed here.
const LOAD_BALANCER_FIXED: &[(&str, &str)] = &[
    ("access_logs.s3.enabled", "false"),
    ("access_logs.s3.bucket", ""),
    ("access_logs.s3.prefix", ""),
    ("connection_logs.s3.enabled", "false"),
    ("connection_logs.s3.bucket", ""),
    ("connection_logs.s3.prefix", ""),
    ("health_check_logs.s3.enabled", "false"),
    ("health_check_logs.s3.bucket", ""),
    ("health_check_logs.s3.prefix", ""),
    ("ipv6.deny_all_igw_traffic", "false"),
    ("load_balancing.cross_zone.enabled", "true"),
    ("routing.http.desync_mitigation_mode", "defensive"),
    ("routing.http.x_amzn_tls_version_and_cipher_suite.enabled", "false"),
    ("waf.fail_open.enabled", "false"),
    ("zonal_shift.config.enabled", "false"),
];

/// Target groups' attributes that cannot be changed here.
const TARGET_GROUP_FIXED: &[(&str, &str)] = &[
    ("load_balancing.algorithm.anomaly_mitigation", "off"),
    ("load_balancing.cross_zone.enabled", "use_load_balancer_configuration"),
    ("target_group_health.dns_failover.minimum_healthy_targets.count", "1"),
    ("target_group_health.dns_failover.minimum_healthy_targets.percentage", "off"),
    ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.count", "1"),
    ("target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage", "off"),
];

/// Listeners' attributes, none of which can be changed here.
const LISTENER_FIXED: &[(&str, &str)] = &[
    ("routing.http.response.server.enabled", "true"),
    ("routing.http.response.strict_transport_security.header_value", ""),
    ("routing.http.response.access_control_allow_origin.header_value", ""),
    ("routing.http.response.access_control_allow_methods.header_value", ""),
    ("routing.http.response.access_control_allow_headers.header_value", ""),
    ("routing.http.response.access_control_allow_credentials.header_value", ""),
    ("routing.http.response.access_control_expose_headers.header_value", ""),
    ("routing.http.response.access_control_max_age.header_value", ""),
    ("routing.http.response.content_security_policy.header_value", ""),
    ("routing.http.response.x_content_type_options.header_value", ""),
    ("routing.http.response.x_frame_options.header_value", ""),
];

/// Takes an attribute that is fixed: its own value changes nothing, another is refused, and so is an unknown name.
pub(super) fn fixed(known: &[(&str, &str)], key: &str, value: &str) -> Result<(), ServiceError> {
    match known.iter().find(|(name, _)| *name == key) {
        Some((_, only)) if *only == value => Ok(()),
        Some((name, _)) => Err(unsupported(&format!("The value '{value}' of the attribute '{name}'"))),
        None => Err(invalid(format!("Attribute key '{key}' is not recognized"))),
    }
}

pub(super) fn boolean(key: &str, value: &str) -> Result<bool, ServiceError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(format!("The value '{value}' of the attribute '{key}' must be 'true' or 'false'"))),
    }
}

pub(super) fn number(key: &str, value: &str, low: u32, high: u32) -> Result<u32, ServiceError> {
    let number = value.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| {
        invalid(format!("The value '{value}' of the attribute '{key}' must be a number between {low} and {high}"))
    })
}

fn change_load_balancer(to: &mut LoadBalancerAttributes, key: &str, value: &str) -> Result<(), ServiceError> {
    match key {
        "deletion_protection.enabled" => to.deletion_protection = boolean(key, value)?,
        "idle_timeout.timeout_seconds" => to.idle_timeout_seconds = number(key, value, 1, 4000)?,
        "client_keep_alive.seconds" => to.client_keep_alive_seconds = number(key, value, 60, 604_800)?,
        "routing.http2.enabled" => to.http2 = boolean(key, value)?,
        "routing.http.drop_invalid_header_fields.enabled" => to.drop_invalid_header_fields = boolean(key, value)?,
        "routing.http.preserve_host_header.enabled" => to.preserve_host_header = boolean(key, value)?,
        "routing.http.xff_client_port.enabled" => to.xff_client_port = boolean(key, value)?,
        "routing.http.xff_header_processing.mode" => {
            to.xff_mode = match value {
                "append" => XffMode::Append,
                "preserve" => XffMode::Preserve,
                "remove" => XffMode::Remove,
                _ => return Err(invalid(format!("The value '{value}' of the attribute '{key}' is not valid"))),
            }
        }
        _ => fixed(LOAD_BALANCER_FIXED, key, value)?,
    }
    Ok(())
}

fn load_balancer_pairs(of: &LoadBalancerAttributes) -> Vec<(&'static str, String)> {
    let mode = match of.xff_mode {
        XffMode::Append => "append",
        XffMode::Preserve => "preserve",
        XffMode::Remove => "remove",
    };
    let mut pairs = vec![
        ("deletion_protection.enabled", of.deletion_protection.to_string()),
        ("idle_timeout.timeout_seconds", of.idle_timeout_seconds.to_string()),
        ("client_keep_alive.seconds", of.client_keep_alive_seconds.to_string()),
        ("routing.http2.enabled", of.http2.to_string()),
        ("routing.http.drop_invalid_header_fields.enabled", of.drop_invalid_header_fields.to_string()),
        ("routing.http.preserve_host_header.enabled", of.preserve_host_header.to_string()),
        ("routing.http.xff_client_port.enabled", of.xff_client_port.to_string()),
        ("routing.http.xff_header_processing.mode", mode.to_owned()),
    ];
    pairs.extend(LOAD_BALANCER_FIXED.iter().map(|(key, value)| (*key, (*value).to_owned())));
    pairs
}

fn load_balancer_shapes(of: &balancing::LoadBalancer) -> Option<Vec<LoadBalancerAttribute>> {
    let shape = |(key, value): (&str, String)| LoadBalancerAttribute { key: Some(key.into()), value: Some(value) };
    let pairs = if of.is_network() { network::load_balancer_pairs } else { load_balancer_pairs };
    Some(pairs(&of.attributes).into_iter().map(shape).collect())
}

pub(super) fn describe_load_balancer(
    call: &Call,
    input: DescribeLoadBalancerAttributesInput,
) -> Result<DescribeLoadBalancerAttributesOutput, ServiceError> {
    let arn = arn(call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    let load_balancer = find::load_balancer(&auth.snapshot(), arn.as_str())?;
    Ok(DescribeLoadBalancerAttributesOutput { attributes: load_balancer_shapes(&load_balancer) })
}

pub(super) async fn modify_load_balancer(
    call: Call,
    input: ModifyLoadBalancerAttributesInput,
) -> Result<ModifyLoadBalancerAttributesOutput, ServiceError> {
    let arn = arn(&call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&arn])?;
    let changes = required(input.attributes, "Attributes")?;
    let changed = auth
        .transact(|tx| {
            let mut load_balancer = balancing::LoadBalancer::clone(&*find::load_balancer(tx, arn.as_str())?);
            for change in changes {
                let (key, value) = (change.key.unwrap_or_default(), change.value.unwrap_or_default());
                let change_one =
                    if load_balancer.is_network() { network::change_load_balancer } else { change_load_balancer };
                change_one(&mut load_balancer.attributes, &key, &value)?;
            }
            tx.put(load_balancer.clone());
            Ok(load_balancer)
        })
        .await?;
    Ok(ModifyLoadBalancerAttributesOutput { attributes: load_balancer_shapes(&changed) })
}

fn change_target_group(to: &mut TargetGroupAttributes, key: &str, value: &str) -> Result<(), ServiceError> {
    match key {
        "deregistration_delay.timeout_seconds" => to.deregistration_delay_seconds = number(key, value, 0, 3600)?,
        _ if target_choice::change(&mut to.choice, key, value)? => {}
        _ => fixed(TARGET_GROUP_FIXED, key, value)?,
    }
    Ok(())
}

fn target_group_shapes(group: &balancing::TargetGroup) -> Option<Vec<TargetGroupAttribute>> {
    let shape = |key: &str, value: String| TargetGroupAttribute { key: Some(key.into()), value: Some(value) };
    let of = &group.attributes;
    if let Some(tcp) = &group.tcp {
        let pairs = network::target_group_pairs(of.deregistration_delay_seconds, tcp);
        return Some(pairs.into_iter().map(|(key, value)| shape(key, value)).collect());
    }
    let delay = shape("deregistration_delay.timeout_seconds", of.deregistration_delay_seconds.to_string());
    let others = TARGET_GROUP_FIXED.iter().map(|(key, value)| shape(key, (*value).to_owned()));
    let choice = target_choice::pairs(&of.choice).into_iter().map(|(key, value)| shape(key, value));
    Some([delay].into_iter().chain(choice).chain(others).collect())
}

pub(super) fn describe_target_group(
    call: &Call,
    input: DescribeTargetGroupAttributesInput,
) -> Result<DescribeTargetGroupAttributesOutput, ServiceError> {
    let arn = arn(call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let group = find::target_group(&auth.snapshot(), arn.as_str())?;
    Ok(DescribeTargetGroupAttributesOutput { attributes: target_group_shapes(&group) })
}

pub(super) async fn modify_target_group(
    call: Call,
    input: ModifyTargetGroupAttributesInput,
) -> Result<ModifyTargetGroupAttributesOutput, ServiceError> {
    let arn = arn(&call, &required(input.target_group_arn, "A target group ARN")?, "targetgroup", "target group")?;
    let auth = call.authorise(&[&arn])?;
    let changes = required(input.attributes, "Attributes")?;
    let changed = auth
        .transact(|tx| {
            let mut group = balancing::TargetGroup::clone(&*find::target_group(tx, arn.as_str())?);
            for change in changes {
                let (key, value) = (change.key.unwrap_or_default(), change.value.unwrap_or_default());
                let attributes = &mut group.attributes;
                match &mut group.tcp {
                    Some(tcp) => {
                        let delay = &mut attributes.deregistration_delay_seconds;
                        network::change_target_group(delay, tcp, &key, &value)?;
                    }
                    None => change_target_group(attributes, &key, &value)?,
                }
            }
            target_choice::check(&group.attributes.choice)?;
            if group.attributes.choice.stickiness.enabled {
                target_choice::check_rules_of(tx, &arn)?;
            }
            tx.put(group.clone());
            Ok(group)
        })
        .await?;
    Ok(ModifyTargetGroupAttributesOutput { attributes: target_group_shapes(&changed) })
}

fn of_listener(network: bool) -> &'static [(&'static str, &'static str)] {
    if network { network::LISTENER_FIXED } else { LISTENER_FIXED }
}

fn listener_shapes(network: bool) -> Option<Vec<ListenerAttribute>> {
    let shape =
        |(key, value): &(&str, &str)| ListenerAttribute { key: Some((*key).into()), value: Some((*value).into()) };
    Some(of_listener(network).iter().map(shape).collect())
}

pub(super) fn describe_listener(
    call: &Call,
    input: DescribeListenerAttributesInput,
) -> Result<DescribeListenerAttributesOutput, ServiceError> {
    let arn = arn(call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let network = network::is_listener(&auth.snapshot(), arn.as_str())?;
    Ok(DescribeListenerAttributesOutput { attributes: listener_shapes(network) })
}

pub(super) fn modify_listener(
    call: &Call,
    input: ModifyListenerAttributesInput,
) -> Result<ModifyListenerAttributesOutput, ServiceError> {
    let arn = arn(call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let network = network::is_listener(&auth.snapshot(), arn.as_str())?;
    for change in required(input.attributes, "Attributes")? {
        fixed(of_listener(network), &change.key.unwrap_or_default(), &change.value.unwrap_or_default())?;
    }
    Ok(ModifyListenerAttributesOutput { attributes: listener_shapes(network) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_set_again() {
        let mut attributes = LoadBalancerAttributes {
            idle_timeout_seconds: 7,
            xff_mode: XffMode::Remove,
            ..LoadBalancerAttributes::default()
        };
        let before = attributes.clone();
        for (key, value) in load_balancer_pairs(&before) {
            change_load_balancer(&mut attributes, key, &value).unwrap();
        }
        assert_eq!(attributes, before);
    }

    #[test]
    fn attributes_that_do_nothing_are_refused_by_name() {
        let mut attributes = TargetGroupAttributes::default();
        let refusal = change_target_group(&mut attributes, "load_balancing.algorithm.anomaly_mitigation", "on");
        let refusal = refusal.unwrap_err();
        assert!(refusal.message().contains("load_balancing.algorithm.anomaly_mitigation"), "{}", refusal.message());
        assert!(change_target_group(&mut attributes, "nothing.like.it", "1").is_err());
        assert!(change_target_group(&mut attributes, "deregistration_delay.timeout_seconds", "3601").is_err());
        change_target_group(&mut attributes, "deregistration_delay.timeout_seconds", "0").unwrap();
        assert_eq!(attributes.deregistration_delay_seconds, 0);
    }
}
