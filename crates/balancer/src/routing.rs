//! The slice compiled for serving: listeners with their rules, and target groups with those targets that get requests.
//! Immutable; each change of the slice or of a target's health makes a new one.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use domain::balancing::{self as nouns, HealthState, LoadBalancerAttributes, slice::SliceItem};

use crate::{
    choice::Step,
    condition::{Condition, RequestView},
    cookie::Key,
    group::Group,
    redirect::Redirect,
    responses::Fixed,
    sticky::Forward,
    tcp,
    tls::Tls,
};

/// Everything that serving a request needs.
#[derive(Debug, Default)]
pub struct Routing {
    /// The load balancer's attributes.
    pub attributes: LoadBalancerAttributes,
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// The target groups; actions name them by index.
    pub groups: Vec<Group>,
    /// Where choices between target groups are, by the groups' numbers.
    steps: HashMap<Vec<u64>, Step>,
    /// Where the connections of TCP listeners go. A network load balancer has no use for the rest.
    pub tcp: Option<tcp::Table>,
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Its port.
    pub port: u16,
    /// What it offers clients, if its protocol is HTTPS.
    pub tls: Option<Arc<Tls>>,
    rules: Vec<(Vec<Condition>, Action)>,
    default: Action,
}

/// A compiled action.
#[derive(Debug)]
pub enum Action {
    /// To one of these groups, by index.
    Forward(Forward),
    /// To somewhere else.
    Redirect(Redirect),
    /// A response of our own.
    Fixed(Fixed),
}

impl Routing {
    /// Compiles a slice. `health` tells the state of a target; `previous` lends its turns, and what it knows of
    /// targets, so that a change does not start them anew.
    pub fn compile<'a>(
        items: impl Iterator<Item = &'a SliceItem> + Clone,
        health: &dyn Fn(&str, IpAddr, u16) -> HealthState,
        previous: Option<&Routing>,
        key: &Key,
        now: Instant,
    ) -> Self {
        let known = |arn: &str| previous?.groups.iter().find(|group| group.arn == arn);
        let mut routing = Self { tcp: tcp::Table::compile(items.clone(), health), ..Self::default() };
        for item in items.clone() {
            match item {
                SliceItem::LoadBalancer(item) => routing.attributes = item.attributes.clone(),
                SliceItem::TargetGroup(item) => {
                    routing.groups.push(Group::compile(item, health, known(&item.arn), key, now));
                }
                SliceItem::Listener(_) | SliceItem::Certificate(_) => {}
            }
        }
        let certificate = |arn: &str| {
            items.clone().find_map(|item| match item {
                SliceItem::Certificate(item) if item.arn == arn => Some(item.clone()),
                _ => None,
            })
        };
        let mut steps = HashMap::new();
        for item in items.clone() {
            if let SliceItem::Listener(item) = item {
                let mut action = |action| routing.action(action, previous, &mut steps);
                let rules = item.rules.iter().map(|rule| {
                    let conditions = rule.conditions.iter().map(Condition::compile).collect();
                    (conditions, action(&rule.action))
                });
                let rules = rules.collect();
                let default = action(&item.default_action);
                let tls = item.tls.as_ref().map(|tls| {
                    let previous = previous.and_then(|routing| routing.listener(item.port)?.tls.as_ref());
                    Tls::compile(tls, &certificate, routing.attributes.http2, previous)
                });
                let listener = Listener { port: item.port, tls, rules, default };
                routing.listeners.push(listener);
            }
        }
        routing.steps = steps;
        routing
    }

    /// The listener on a port.
    pub fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.port == port)
    }

    /// Compiles an action; `steps` takes where its choice is, as `previous` has it if that knows the same groups.
    fn action(
        &self,
        action: &nouns::Action,
        previous: Option<&Routing>,
        steps: &mut HashMap<Vec<u64>, Step>,
    ) -> Action {
        match action {
            nouns::Action::Forward { groups, stickiness } => {
                let weight = |choice: &nouns::WeightedTargetGroup| {
                    let index = self.groups.iter().position(|group| group.arn == choice.target_group)?;
                    Some((index, choice.weight))
                };
                let weights: Vec<(usize, u16)> = groups.iter().filter_map(weight).collect();
                let numbers = weights.iter().filter_map(|(index, _)| Some(self.groups.get(*index)?.number)).collect();
                let known = |numbers| previous.and_then(|routing| routing.steps.get(numbers)).cloned();
                let step = known(&numbers).unwrap_or_default();
                let step = steps.entry(numbers).or_insert(step).clone();
                Action::Forward(Forward::new(weights, step, stickiness.duration()))
            }
            nouns::Action::FixedResponse { status_code, content_type, body } => {
                Action::Fixed(Fixed::new(*status_code, content_type.as_deref(), body.as_deref()))
            }
            nouns::Action::Redirect { .. } => match Redirect::compile(action) {
                Some(redirect) => Action::Redirect(redirect),
                None => Action::Fixed(Fixed::new(500, None, None)),
            },
        }
    }
}

impl Listener {
    /// The action of the first rule whose conditions all hold, else the default one.
    pub fn action(&self, request: &RequestView<'_>) -> &Action {
        self.rules
            .iter()
            .find(|(conditions, _)| conditions.iter().all(|condition| condition.holds(request)))
            .map_or(&self.default, |(_, action)| action)
    }

    /// Whether any rule besides the default must be looked at.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The default action.
    pub fn default_action(&self) -> &Action {
        &self.default
    }
}

#[cfg(test)]
mod tests {
    use domain::balancing::{
        GroupStickiness, HealthCheck, ProtocolVersion, TargetChoice, WeightedTargetGroup,
        slice::{ListenerItem, TargetGroupItem, TargetItem},
    };
    use http::HeaderMap;

    use super::*;

    #[test]
    fn weights_hold_when_every_request_meets_a_new_routing() {
        let group = |name: &str| {
            SliceItem::TargetGroup(TargetGroupItem {
                fail_closed: false,
                arn: name.into(),
                protocol_version: ProtocolVersion::Http1,
                secure: false,
                tcp: None,
                health_check: HealthCheck::default(),
                choice: TargetChoice::default(),
                targets: vec![TargetItem { address: [10, 0, 0, 1].into(), port: 80, draining: false }],
            })
        };
        let weighted = |name: &str, weight| WeightedTargetGroup { target_group: name.into(), weight };
        let listener = SliceItem::Listener(ListenerItem {
            arn: "listener".into(),
            port: 80,
            places: Vec::new(),
            tls: None,
            rules: Vec::new(),
            default_action: nouns::Action::Forward {
                groups: vec![weighted("one", 3), weighted("two", 1)],
                stickiness: GroupStickiness::default(),
            },
        });
        let items = [group("one"), group("two"), listener];
        let key = Key::new(&[1; crate::cookie::SECRET]);
        let mut routing = None;
        let mut counts = [0; 2];
        for _ in 0..100 {
            let health = |_: &str, _, _| HealthState::Healthy;
            let next = Routing::compile(items.iter(), &health, routing.as_ref(), &key, Instant::now());
            let Action::Forward(forward) = next.listener(80).unwrap().default_action() else { panic!("{next:?}") };
            counts[forward.choose(&next.groups, &HeaderMap::new(), &key, || 0).unwrap().group] += 1;
            routing = Some(next);
        }
        assert!((73..=77).contains(&counts[0]), "{counts:?}");
    }
}
