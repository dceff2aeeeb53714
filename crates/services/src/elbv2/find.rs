//! Finding resources by what requests name them with, and what belongs to what.

use std::{collections::BTreeSet, sync::Arc};

use api::elbv2::error;
use domain::{
    Arn,
    balancing::{Listener, LoadBalancer, Rule, TargetGroup},
};
use store::Snapshot;
use wire::ServiceError;

/// A load balancer.
pub fn load_balancer(view: &Snapshot, arn: &str) -> Result<Arc<LoadBalancer>, ServiceError> {
    view.get(arn).ok_or_else(|| error::load_balancer_not_found_exception(format!("Load balancer '{arn}' not found")))
}

/// A target group.
pub fn target_group(view: &Snapshot, arn: &str) -> Result<Arc<TargetGroup>, ServiceError> {
    view.get(arn).ok_or_else(|| error::target_group_not_found_exception("One or more target groups not found"))
}

/// A listener.
pub fn listener(view: &Snapshot, arn: &str) -> Result<Arc<Listener>, ServiceError> {
    view.get(arn).ok_or_else(|| error::listener_not_found_exception("One or more listeners not found"))
}

/// A rule other than a default one.
pub fn rule(view: &Snapshot, arn: &str) -> Result<Arc<Rule>, ServiceError> {
    view.get(arn).ok_or_else(|| error::rule_not_found_exception("One or more rules not found"))
}

/// The listeners of a load balancer.
pub fn listeners_of(view: &Snapshot, load_balancer: &Arn) -> Vec<Arc<Listener>> {
    view.find(Listener::BY_LOAD_BALANCER, load_balancer.as_str()).collect()
}

/// The rules of a listener in the order in which they are tried, without the default.
pub fn rules_of(view: &Snapshot, listener: &Arn) -> Vec<Arc<Rule>> {
    let mut rules: Vec<Arc<Rule>> = view.find(Rule::BY_LISTENER, listener.as_str()).collect();
    rules.sort_by_key(|rule| rule.priority);
    rules
}

/// The load balancers whose listeners or rules forward to a target group: Amazon allows one.
pub fn load_balancers_of(view: &Snapshot, target_group: &Arn) -> BTreeSet<Arn> {
    let by_default = view.find::<Listener>(Listener::BY_TARGET_GROUP, target_group.as_str());
    let by_rule = view
        .find::<Rule>(Rule::BY_TARGET_GROUP, target_group.as_str())
        .filter_map(|rule| view.get::<Listener>(rule.listener.as_str()));
    by_default.chain(by_rule).map(|listener| listener.load_balancer.clone()).collect()
}

/// The target groups that a load balancer's listeners and rules forward to.
pub fn target_groups_of(view: &Snapshot, load_balancer: &Arn) -> BTreeSet<String> {
    let mut groups = BTreeSet::new();
    for listener in listeners_of(view, load_balancer) {
        groups.extend(listener.default_action.target_groups().map(str::to_owned));
        for rule in rules_of(view, &listener.arn) {
            groups.extend(rule.action.target_groups().map(str::to_owned));
        }
    }
    groups
}
