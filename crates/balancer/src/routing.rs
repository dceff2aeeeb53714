//! The slice compiled for serving: listeners with their rules, and target groups with those targets that get requests.
//! Immutable; each change of the slice or of a target's health makes a new one.

use std::{net::IpAddr, time::Instant};

use domain::balancing::{self as nouns, HealthState, LoadBalancerAttributes, slice::SliceItem};

use crate::{
    condition::{Condition, RequestView},
    cookie::Key,
    group::Group,
    redirect::Redirect,
    responses::Fixed,
    sticky::Forward,
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
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Its port.
    pub port: u16,
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
        let mut routing = Self::default();
        for item in items.clone() {
            match item {
                SliceItem::LoadBalancer(item) => routing.attributes = item.attributes.clone(),
                SliceItem::TargetGroup(item) => {
                    routing.groups.push(Group::compile(item, health, known(&item.arn), key, now));
                }
                SliceItem::Listener(_) => {}
            }
        }
        for item in items {
            if let SliceItem::Listener(item) = item {
                let rules = item.rules.iter().map(|rule| {
                    let conditions = rule.conditions.iter().map(Condition::compile).collect();
                    (conditions, routing.action(&rule.action))
                });
                let listener =
                    Listener { port: item.port, rules: rules.collect(), default: routing.action(&item.default_action) };
                routing.listeners.push(listener);
            }
        }
        routing
    }

    /// The listener on a port.
    pub fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.port == port)
    }

    fn action(&self, action: &nouns::Action) -> Action {
        match action {
            nouns::Action::Forward { groups, stickiness } => {
                let weight = |choice: &nouns::WeightedTargetGroup| {
                    let index = self.groups.iter().position(|group| group.arn == choice.target_group)?;
                    Some((index, choice.weight))
                };
                Action::Forward(Forward::new(groups.iter().filter_map(weight), stickiness.duration()))
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
