//! Actions between the API's shapes and the nouns.

use api::elbv2::*;
use domain::balancing::{self, WeightedTargetGroup};
use store::Snapshot;
use wire::ServiceError;

use super::{
    find,
    names::{arn, invalid, required, unsupported},
    network, target_choice,
};
use crate::Call;

/// The most target groups of one forward action.
const MAX_GROUPS: usize = 5;

/// The content types of fixed responses.
const CONTENT_TYPES: [&str; 5] = ["text/plain", "text/css", "text/html", "application/javascript", "application/json"];

/// The one action of a rule or listener.
pub(super) fn parse(call: &Call, actions: Option<Vec<Action>>) -> Result<balancing::Action, ServiceError> {
    let mut actions = required(actions, "Actions")?.into_iter();
    let action = required(actions.next(), "An action")?;
    let refused = [
        (action.authenticate_oidc_config.is_some(), "AuthenticateOidcConfig"),
        (action.authenticate_cognito_config.is_some(), "AuthenticateCognitoConfig"),
        (action.jwt_validation_config.is_some(), "JwtValidationConfig"),
    ];
    if let Some((_, name)) = refused.iter().find(|(given, _)| *given) {
        return Err(unsupported(name));
    }
    let parsed = match action.r#type.as_deref() {
        Some("forward") => forward(call, action)?,
        Some("redirect") => redirect(required(action.redirect_config, "RedirectConfig")?)?,
        Some("fixed-response") => fixed_response(required(action.fixed_response_config, "FixedResponseConfig")?)?,
        Some(other) => return Err(unsupported(&format!("An action of type '{other}'"))),
        None => return Err(invalid("An action type must be specified")),
    };
    match actions.next() {
        None => Ok(parsed),
        Some(_) => Err(error::too_many_actions_exception(
            "There can be only one action of type forward, redirect or fixed-response",
        )),
    }
}

fn forward(call: &Call, action: Action) -> Result<balancing::Action, ServiceError> {
    let config = action.forward_config.unwrap_or_default();
    let stickiness = config.target_group_stickiness_config.unwrap_or_default();
    let stickiness = target_choice::group_stickiness(stickiness.enabled, stickiness.duration_seconds)?;
    let mut groups = Vec::new();
    for tuple in config.target_groups.unwrap_or_default() {
        let target_group = required(tuple.target_group_arn, "A target group ARN")?;
        let weight = tuple.weight.unwrap_or(1);
        let weight = u16::try_from(weight).ok().filter(|weight| *weight <= 999);
        let weight = weight.ok_or_else(|| invalid("The weight of a target group must be between 0 and 999"))?;
        groups.push(WeightedTargetGroup { target_group, weight });
    }
    if let Some(single) = action.target_group_arn {
        match groups.as_slice() {
            [] => groups.push(WeightedTargetGroup { target_group: single, weight: 1 }),
            [only] if only.target_group == single => {}
            _ => {
                return Err(invalid(
                    "You cannot specify both a target group ARN and a target group list with other target groups",
                ));
            }
        }
    }
    if groups.is_empty() {
        return Err(invalid("A target group ARN must be specified"));
    }
    if groups.len() > MAX_GROUPS {
        return Err(error::too_many_target_groups_exception(format!(
            "The maximum number of target groups per action is {MAX_GROUPS}"
        )));
    }
    for (index, group) in groups.iter().enumerate() {
        arn(call, &group.target_group, "targetgroup", "target group")?;
        if groups.iter().take(index).any(|other| other.target_group == group.target_group) {
            return Err(invalid("Each target group can be specified only once"));
        }
    }
    Ok(balancing::Action::Forward { groups, stickiness })
}

fn redirect(config: RedirectActionConfig) -> Result<balancing::Action, ServiceError> {
    let protocol = config.protocol.unwrap_or_else(|| "#{protocol}".into());
    let host = config.host.unwrap_or_else(|| "#{host}".into());
    let port = config.port.unwrap_or_else(|| "#{port}".into());
    let path = config.path.unwrap_or_else(|| "/#{path}".into());
    let query = config.query.unwrap_or_else(|| "#{query}".into());
    let status_code = match config.status_code.as_deref() {
        Some("HTTP_301") => 301,
        Some("HTTP_302") => 302,
        _ => return Err(invalid("The redirect status code must be HTTP_301 or HTTP_302")),
    };
    if !["HTTP", "HTTPS", "#{protocol}"].contains(&protocol.as_str()) {
        return Err(invalid(format!("The redirect protocol '{protocol}' is not valid")));
    }
    let number = port.parse::<u16>().is_ok_and(|number| number > 0);
    if port != "#{port}" && !number {
        return Err(invalid(format!("The redirect port '{port}' is not valid")));
    }
    if !path.starts_with('/') || path.chars().count() > 128 {
        return Err(invalid(format!("The redirect path '{path}' is not valid: it must start with '/'")));
    }
    if host.is_empty() || host.chars().count() > 128 || query.chars().count() > 128 || query.starts_with('?') {
        return Err(invalid("The redirect host or query is not valid"));
    }
    if protocol == "#{protocol}" && host == "#{host}" && port == "#{port}" && path == "/#{path}" {
        return Err(error::invalid_load_balancer_action_exception(
            "The redirect configuration is not valid because it creates a loop",
        ));
    }
    Ok(balancing::Action::Redirect { protocol, host, port, path, query, status_code })
}

fn fixed_response(config: FixedResponseActionConfig) -> Result<balancing::Action, ServiceError> {
    let status = required(config.status_code, "A status code")?;
    let status_code = status.parse::<u16>().ok().filter(|code| matches!(code / 100, 2 | 4 | 5));
    let status_code =
        status_code.ok_or_else(|| invalid(format!("The status code '{status}' must be 2XX, 4XX or 5XX")))?;
    if config.content_type.as_deref().is_some_and(|kind| !CONTENT_TYPES.contains(&kind)) {
        return Err(invalid("The content type of a fixed response is not valid"));
    }
    if config.message_body.as_ref().is_some_and(|body| body.len() > 1024) {
        return Err(invalid("The message body of a fixed response cannot be longer than 1024 characters"));
    }
    Ok(balancing::Action::FixedResponse { status_code, content_type: config.content_type, body: config.message_body })
}

/// Refuses target groups that are not there, of another VPC, or of another load balancer.
pub(super) fn check_target_groups(
    view: &Snapshot,
    load_balancer: &balancing::LoadBalancer,
    action: &balancing::Action,
) -> Result<(), ServiceError> {
    if load_balancer.is_network() {
        network::check_action(action)?;
    }
    for text in action.target_groups() {
        let group = find::target_group(view, text)?;
        network::check_group(load_balancer, &group)?;
        if group.vpc_id != load_balancer.vpc_id {
            return Err(error::invalid_configuration_request_exception(format!(
                "The target group '{text}' and the load balancer '{}' are in different VPCs",
                load_balancer.arn
            )));
        }
        if find::load_balancers_of(view, &group.arn).iter().any(|other| *other != load_balancer.arn) {
            return Err(error::target_group_association_limit_exception(format!(
                "The following target groups cannot be associated with more than one load balancer: {text}"
            )));
        }
    }
    target_choice::check_action(view, action)
}

/// An action as the API shows it.
pub(super) fn shape(action: &balancing::Action) -> Action {
    match action {
        balancing::Action::Forward { groups, stickiness } => {
            let tuple = |group: &WeightedTargetGroup| TargetGroupTuple {
                target_group_arn: Some(group.target_group.clone()),
                weight: Some(i32::from(group.weight)),
            };
            let single = match groups.as_slice() {
                [only] => Some(only.target_group.clone()),
                _ => None,
            };
            Action {
                r#type: Some("forward".into()),
                target_group_arn: single,
                forward_config: Some(ForwardActionConfig {
                    target_groups: Some(groups.iter().map(tuple).collect()),
                    target_group_stickiness_config: Some(TargetGroupStickinessConfig {
                        enabled: Some(stickiness.enabled),
                        duration_seconds: stickiness.duration_seconds.and_then(|seconds| seconds.try_into().ok()),
                    }),
                }),
                ..Action::default()
            }
        }
        balancing::Action::Redirect { protocol, host, port, path, query, status_code } => Action {
            r#type: Some("redirect".into()),
            redirect_config: Some(RedirectActionConfig {
                protocol: Some(protocol.clone()),
                port: Some(port.clone()),
                host: Some(host.clone()),
                path: Some(path.clone()),
                query: Some(query.clone()),
                status_code: Some(format!("HTTP_{status_code}")),
            }),
            ..Action::default()
        },
        balancing::Action::FixedResponse { status_code, content_type, body } => Action {
            r#type: Some("fixed-response".into()),
            fixed_response_config: Some(FixedResponseActionConfig {
                message_body: body.clone(),
                status_code: Some(status_code.to_string()),
                content_type: content_type.clone(),
            }),
            ..Action::default()
        },
    }
}
