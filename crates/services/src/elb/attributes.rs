//! Attributes: connection draining and the idle timeout. Those that this platform does not act on have one value only, and are
//! refused by name with any other.

use api::elb::*;
use domain::balancing::{self, Classic, LoadBalancer, TargetGroup};
use wire::ServiceError;

use super::find::{self, invalid, unsupported};
use crate::Call;

/// The attributes that are known by name only, with the value of each.
const FIXED: &[(&str, &str)] = &[("elb.http.desyncmitigationmode", "defensive")];

/// The attributes of a new load balancer's process: it speaks HTTP/1.1 and leaves the Host header as it came.
pub(super) fn by_default() -> balancing::LoadBalancerAttributes {
    balancing::LoadBalancerAttributes {
        http2: false,
        preserve_host_header: true,
        // Nothing but the idle timeout ends a connection.
        client_keep_alive_seconds: 604_800,
        ..balancing::LoadBalancerAttributes::default()
    }
}

/// The timeout of connection draining where nothing is said.
pub(super) const DRAINING_TIMEOUT: u32 = 300;

fn shape(load_balancer: &LoadBalancer, classic: &Classic, group: &TargetGroup) -> LoadBalancerAttributes {
    let additional = FIXED
        .iter()
        .map(|(key, value)| AdditionalAttribute { key: Some((*key).to_owned()), value: Some((*value).to_owned()) });
    LoadBalancerAttributes {
        // Its nodes are one process, which sends requests to the instances of all its zones.
        cross_zone_load_balancing: Some(CrossZoneLoadBalancing { enabled: Some(true) }),
        access_log: Some(AccessLog { enabled: Some(false), ..AccessLog::default() }),
        connection_draining: Some(ConnectionDraining {
            enabled: Some(group.attributes.deregistration_delay_seconds > 0),
            timeout: i32::try_from(classic.draining_timeout_seconds).ok(),
        }),
        connection_settings: Some(ConnectionSettings {
            idle_timeout: i32::try_from(load_balancer.attributes.idle_timeout_seconds).ok(),
        }),
        additional_attributes: Some(additional.collect()),
    }
}

pub(super) fn describe(
    call: &Call,
    input: DescribeLoadBalancerAttributesInput,
) -> Result<DescribeLoadBalancerAttributesOutput, ServiceError> {
    let (auth, arn) = find::authorise(call, input.load_balancer_name)?;
    let view = auth.snapshot();
    let (load_balancer, classic) = find::load_balancer(&view, &arn)?;
    let shape = shape(&load_balancer, &classic, &*find::group(&view, &arn)?);
    Ok(DescribeLoadBalancerAttributesOutput { load_balancer_attributes: Some(shape) })
}

pub(super) async fn modify(
    call: Call,
    input: ModifyLoadBalancerAttributesInput,
) -> Result<ModifyLoadBalancerAttributesOutput, ServiceError> {
    let name = input.load_balancer_name.clone();
    let (auth, arn) = find::authorise(&call, input.load_balancer_name)?;
    let LoadBalancerAttributes {
        cross_zone_load_balancing,
        access_log,
        connection_draining,
        connection_settings,
        additional_attributes,
    } = input.load_balancer_attributes.unwrap_or_default();
    if cross_zone_load_balancing.is_some_and(|given| given.enabled != Some(true)) {
        return Err(unsupported("CrossZoneLoadBalancing.Enabled other than true"));
    }
    if access_log.is_some_and(|given| given.enabled != Some(false)) {
        return Err(unsupported("AccessLog"));
    }
    for AdditionalAttribute { key, value } in additional_attributes.unwrap_or_default() {
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        match FIXED.iter().find(|(known, _)| *known == key) {
            Some((_, only)) if *only == value => {}
            Some(_) => return Err(unsupported(&format!("The value '{value}' of the attribute '{key}'"))),
            None => return Err(invalid(format!("Attribute key '{key}' is not recognized"))),
        }
    }
    let number = |given: Option<i32>, name: &str| {
        let number = given.and_then(|given| u32::try_from(given).ok()).filter(|given| (1..=3600).contains(given));
        number.ok_or_else(|| invalid(format!("{name} must be between 1 and 3600")))
    };
    let idle =
        connection_settings.map(|given| number(given.idle_timeout, "ConnectionSettings.IdleTimeout")).transpose()?;
    let draining = connection_draining
        .map(|given| {
            let timeout =
                given.timeout.map(|timeout| number(Some(timeout), "ConnectionDraining.Timeout")).transpose()?;
            Ok::<_, ServiceError>((given.enabled.unwrap_or_default(), timeout))
        })
        .transpose()?;
    let shape = auth
        .transact(|tx| {
            let (mut load_balancer, mut classic) = find::load_balancer(tx, &arn)?;
            let mut group = TargetGroup::clone(&*find::group(tx, &arn)?);
            if let Some(seconds) = idle {
                load_balancer.attributes.idle_timeout_seconds = seconds;
            }
            if let Some((enabled, timeout)) = draining {
                classic.draining_timeout_seconds = timeout.unwrap_or(classic.draining_timeout_seconds);
                group.attributes.deregistration_delay_seconds =
                    if enabled { classic.draining_timeout_seconds } else { 0 };
            }
            let shape = shape(&load_balancer, &classic, &group);
            tx.put(group);
            tx.put(LoadBalancer { classic: Some(classic), ..load_balancer });
            Ok(shape)
        })
        .await?;
    Ok(ModifyLoadBalancerAttributesOutput { load_balancer_name: name, load_balancer_attributes: Some(shape) })
}
