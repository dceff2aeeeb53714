//! Listeners: create, describe, modify, delete.

use api::elbv2::*;
use domain::{
    Arn,
    balancing::{self, Rule},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    actions,
    certificates::Asked,
    find,
    names::{SERVICE, arn, invalid, page, required, tags},
    network,
};
use crate::Call;

/// The most listeners of a load balancer.
pub(super) const MAX_LISTENERS: usize = 50;

pub(super) async fn create(call: Call, input: CreateListenerInput) -> Result<CreateListenerOutput, ServiceError> {
    let load_balancer =
        arn(&call, &required(input.load_balancer_arn, "A load balancer ARN")?, "loadbalancer", "load balancer")?;
    let auth = call.authorise(&[&load_balancer])?;
    let network = balancing::network::is_network(load_balancer.as_str());
    let protocol = required(input.protocol.as_deref(), "A listener protocol")?;
    network::check_listener_protocol(network, Some(protocol))?;
    let asked = Asked {
        policy: input.ssl_policy,
        certificates: input.certificates,
        alpn: input.alpn_policy,
        mutual: input.mutual_authentication,
    };
    asked.check()?;
    let secure = protocol == "HTTPS";
    let port = port(required(input.port, "A port")?)?;
    let default_action = actions::parse(&call, input.default_actions)?;
    let tags = tags(input.tags)?;
    let now = auth.now();
    let listener = auth
        .transact(|tx| {
            let owner = find::load_balancer(tx, load_balancer.as_str())?;
            let tls = asked.apply(tx, &call.scope, None, secure, now)?;
            let existing = find::listeners_of(tx, &load_balancer);
            // Creating what exists already with the same settings gives it back.
            let same = |known: &balancing::Listener| {
                let same = known.port == port && known.tls == tls && known.default_action == default_action;
                same && (tags.is_empty() || known.tags == tags)
            };
            if let Some(known) = existing.iter().find(|known| same(known)) {
                return Ok(balancing::Listener::clone(known));
            }
            check_port(&existing, port, &load_balancer)?;
            if existing.len() >= MAX_LISTENERS {
                return Err(error::too_many_listeners_exception(format!(
                    "The maximum number of listeners per load balancer is {MAX_LISTENERS}"
                )));
            }
            actions::check_target_groups(tx, &owner, &default_action)?;
            let mut ids = auth.platform().ids();
            let path = format!("{}/{}/{}/{}", owner.family(), owner.name, owner.id(), ids.hex(16));
            let listener = balancing::Listener {
                arn: call.arn(SERVICE, &format!("listener/{path}")),
                scope: call.scope.clone(),
                load_balancer: load_balancer.clone(),
                port,
                tls,
                default_action,
                default_rule: call.arn(SERVICE, &format!("listener-rule/{path}/{}", ids.hex(16))),
                tags,
                created_at: now,
            };
            tx.put(listener.clone());
            Ok(listener)
        })
        .await?;
    Ok(CreateListenerOutput { listeners: Some(vec![shape(&listener)]) })
}

fn port(port: i32) -> Result<u16, ServiceError> {
    let number = u16::try_from(port).ok().filter(|port| *port > 0);
    number.ok_or_else(|| invalid(format!("Listener port '{port}' must be between 1 and 65535")))
}

fn check_port(existing: &[std::sync::Arc<balancing::Listener>], port: u16, owner: &Arn) -> Result<(), ServiceError> {
    if existing.iter().any(|listener| listener.port == port) {
        return Err(error::duplicate_listener_exception(format!(
            "A listener already exists on this port for this load balancer '{owner}'"
        )));
    }
    Ok(())
}

pub(super) fn describe(call: &Call, input: DescribeListenersInput) -> Result<DescribeListenersOutput, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    let arns = input.listener_arns.unwrap_or_default();
    match (input.load_balancer_arn, arns.is_empty()) {
        (None, true) => Err(invalid("You must specify either listener ARNs or a load balancer ARN")),
        (Some(_), false) => Err(invalid("Listener ARNs and a load balancer ARN cannot be specified at the same time")),
        (None, false) => {
            let found = arns.iter().map(|text| {
                let arn = arn(call, text, "listener", "listener")?;
                Ok(shape(&*find::listener(&view, arn.as_str())?))
            });
            Ok(DescribeListenersOutput {
                listeners: Some(found.collect::<Result<_, ServiceError>>()?),
                next_marker: None,
            })
        }
        (Some(text), true) => {
            let owner = arn(call, &text, "loadbalancer", "load balancer")?;
            find::load_balancer(&view, owner.as_str())?;
            let all = find::listeners_of(&view, &owner).into_iter();
            let (found, next_marker) = page(
                &operation::DESCRIBE_LISTENERS,
                all,
                |found| found.arn.to_string(),
                input.marker.as_deref(),
                input.page_size,
            )?;
            let shapes = found.iter().map(|found| shape(found)).collect();
            Ok(DescribeListenersOutput { listeners: Some(shapes), next_marker })
        }
    }
}

pub(super) async fn modify(call: Call, input: ModifyListenerInput) -> Result<ModifyListenerOutput, ServiceError> {
    let arn = arn(&call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let network = balancing::network::is_network(arn.as_str());
    network::check_listener_protocol(network, input.protocol.as_deref())?;
    let asked = Asked {
        policy: input.ssl_policy,
        certificates: input.certificates,
        alpn: input.alpn_policy,
        mutual: input.mutual_authentication,
    };
    asked.check()?;
    let secure = input.protocol.map(|protocol| protocol == "HTTPS");
    let now = auth.now();
    let port = input.port.map(port).transpose()?;
    let action = match input.default_actions {
        Some(actions) => Some(actions::parse(&call, Some(actions))?),
        None => None,
    };
    let listener = auth
        .transact(|tx| {
            let mut listener = balancing::Listener::clone(&*find::listener(tx, arn.as_str())?);
            let owner = find::load_balancer(tx, listener.load_balancer.as_str())?;
            if let Some(port) = port.filter(|port| *port != listener.port) {
                check_port(&find::listeners_of(tx, &owner.arn), port, &owner.arn)?;
                listener.port = port;
            }
            let secure = secure.unwrap_or(listener.tls.is_some());
            listener.tls = asked.apply(tx, &call.scope, listener.tls.take(), secure, now)?;
            if let Some(action) = action {
                actions::check_target_groups(tx, &owner, &action)?;
                listener.default_action = action;
            }
            tx.put(listener.clone());
            Ok(listener)
        })
        .await?;
    Ok(ModifyListenerOutput { listeners: Some(vec![shape(&listener)]) })
}

pub(super) async fn delete(call: Call, input: DeleteListenerInput) -> Result<DeleteListenerOutput, ServiceError> {
    let arn = arn(&call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    auth.transact(|tx| {
        find::listener(tx, arn.as_str())?;
        for rule in find::rules_of(tx, &arn) {
            tx.delete::<Rule>(rule.arn.as_str());
        }
        tx.delete::<balancing::Listener>(arn.as_str());
        Ok(())
    })
    .await?;
    Ok(DeleteListenerOutput {})
}

fn shape(listener: &balancing::Listener) -> Listener {
    let network = balancing::network::is_network(listener.arn.as_str());
    let mut action = actions::shape(&listener.default_action);
    if network {
        // Target groups of one client for good are an application load balancer's.
        action.forward_config.iter_mut().for_each(|config| config.target_group_stickiness_config = None);
    }
    let tls = listener.tls.as_ref();
    let protocol = match (network, tls) {
        (true, _) => "TCP",
        (false, Some(_)) => "HTTPS",
        (false, None) => "HTTP",
    };
    Listener {
        listener_arn: Some(listener.arn.to_string()),
        load_balancer_arn: Some(listener.load_balancer.to_string()),
        port: Some(i32::from(listener.port)),
        protocol: Some(protocol.into()),
        ssl_policy: tls.map(|tls| tls.ssl_policy.clone()),
        certificates: tls.map(|tls| {
            // The others are in DescribeListenerCertificates.
            vec![Certificate { certificate_arn: Some(tls.default_certificate.clone()), is_default: None }]
        }),
        mutual_authentication: tls.map(|_| MutualAuthenticationAttributes {
            mode: Some("off".into()),
            ..MutualAuthenticationAttributes::default()
        }),
        default_actions: Some(vec![action]),
        ..Listener::default()
    }
}

/// The listener whose default rule this is.
pub(super) fn of_default_rule(view: &Snapshot, rule: &Arn) -> Option<std::sync::Arc<balancing::Listener>> {
    // The default rule's ARN is the listener's with one more part.
    let (path, _) = rule.resource_path().rsplit_once('/')?;
    let listener: Arn = Arn::regional(
        &domain::Scope { account: rule.account().parse().ok()?, region: rule.region().parse().ok()? },
        SERVICE,
        &format!("listener/{path}"),
    );
    view.get::<balancing::Listener>(listener.as_str()).filter(|listener| listener.default_rule == *rule)
}
