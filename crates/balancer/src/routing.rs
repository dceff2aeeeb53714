//! The slice compiled for serving: listeners with their rules, and target groups with those targets that get requests.
//! Immutable; each change of the slice or of a target's health makes a new one.

use std::net::{IpAddr, SocketAddr};

use domain::balancing::{
    self as nouns, HealthState, LoadBalancerAttributes, ProtocolVersion,
    slice::{SliceItem, TargetGroupItem, TargetItem},
};

use crate::{
    choice::{RoundRobin, Weighted},
    condition::{Condition, RequestView},
    redirect::Redirect,
    responses::Fixed,
    tcp,
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
    /// Of a network load balancer: where its connections go. It has no use for the rest.
    pub tcp: Option<tcp::Table>,
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
    Forward(Weighted),
    /// To somewhere else.
    Redirect(Redirect),
    /// A response of our own.
    Fixed(Fixed),
}

/// A target group.
#[derive(Debug)]
pub struct Group {
    /// Its ARN.
    pub arn: String,
    /// What its targets speak.
    pub version: ProtocolVersion,
    /// All its targets, draining ones too.
    pub targets: Vec<SocketAddr>,
    /// Indexes of those that get requests.
    eligible: Vec<usize>,
    turn: RoundRobin,
}

impl Group {
    fn compile(item: &TargetGroupItem, health: &dyn Fn(&str, IpAddr, u16) -> HealthState, turn: RoundRobin) -> Self {
        let state = |target: &TargetItem| health(&item.arn, target.address, target.port);
        let active = || item.targets.iter().enumerate().filter(|(_, target)| !target.draining);
        let mut eligible: Vec<usize> =
            active().filter(|(_, target)| state(target) == HealthState::Healthy).map(|(index, _)| index).collect();
        if eligible.is_empty() {
            // Fail open: without a single healthy target all of them get requests.
            eligible = active().map(|(index, _)| index).collect();
        }
        Self {
            arn: item.arn.clone(),
            version: item.protocol_version,
            targets: item.targets.iter().map(|target| SocketAddr::new(target.address, target.port)).collect(),
            eligible,
            turn,
        }
    }

    /// The index of the target whose turn it is; none if there is none.
    pub fn choose(&self) -> Option<usize> {
        self.turn.next(&self.eligible).copied()
    }
}

impl Routing {
    /// Compiles a slice. `health` tells the state of a target; `previous` lends its turns, so that a change does not
    /// start the round robin anew.
    pub fn compile<'a>(
        items: impl Iterator<Item = &'a SliceItem> + Clone,
        health: &dyn Fn(&str, IpAddr, u16) -> HealthState,
        previous: Option<&Routing>,
    ) -> Self {
        let turn_of = |arn: &str| {
            previous
                .and_then(|routing| routing.groups.iter().find(|group| group.arn == arn))
                .map(|group| group.turn.clone())
                .unwrap_or_default()
        };
        let mut routing = Self { tcp: tcp::Table::compile(items.clone(), health), ..Self::default() };
        for item in items.clone() {
            match item {
                SliceItem::LoadBalancer(item) => routing.attributes = item.attributes.clone(),
                SliceItem::TargetGroup(item) => {
                    routing.groups.push(Group::compile(item, health, turn_of(&item.arn)));
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
            nouns::Action::Forward { groups } => Action::Forward(Weighted::new(groups.iter().filter_map(|choice| {
                let index = self.groups.iter().position(|group| group.arn == choice.target_group)?;
                Some((index, choice.weight))
            }))),
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
    use std::collections::BTreeSet;

    use domain::balancing::HealthCheck;
    use proptest::prelude::*;

    use super::*;

    fn group(states: &[(HealthState, bool)]) -> Group {
        let target = |(index, (_, draining)): (usize, &(HealthState, bool))| TargetItem {
            address: IpAddr::from([10, 0, 0, 1]),
            port: u16::try_from(index).unwrap(),
            draining: *draining,
        };
        let item = TargetGroupItem {
            arn: "group".into(),
            protocol_version: ProtocolVersion::Http1,
            tcp: None,
            health_check: HealthCheck::default(),
            targets: states.iter().enumerate().map(target).collect(),
        };
        Group::compile(&item, &|_, _, port| states[usize::from(port)].0, RoundRobin::default())
    }

    fn state() -> impl Strategy<Value = (HealthState, bool)> {
        let states = [HealthState::Initial, HealthState::Healthy, HealthState::Unhealthy];
        (prop::sample::select(states.to_vec()), any::<bool>())
    }

    proptest! {
        #[test]
        fn requests_go_to_healthy_targets_or_to_all_that_do_not_drain(states in prop::collection::vec(state(), 0..8)) {
            let group = group(&states);
            let chosen: BTreeSet<usize> = (0..32).filter_map(|_| group.choose()).collect();
            let active = |index: &usize| !states[*index].1;
            let healthy: BTreeSet<usize> =
                (0..states.len()).filter(active).filter(|index| states[*index].0 == HealthState::Healthy).collect();
            let expected = if healthy.is_empty() { (0..states.len()).filter(active).collect() } else { healthy };
            prop_assert_eq!(chosen, expected);
        }
    }
}
