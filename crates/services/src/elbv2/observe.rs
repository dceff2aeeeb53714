//! What load balancers' processes report: their own state, which is kept, and their targets' health, which is volatile.

use std::collections::BTreeMap;

use domain::{
    Resource,
    balancing::{
        LoadBalancer, LoadBalancerState, ObservedHealth, TargetRegistration, classic::ANY_PORT, slice::BalancerReport,
    },
};
use store::{Snapshot, Transaction};

use super::find;

/// Takes what a load balancer's process reports into account. Idempotent: a report that says nothing new writes nothing,
/// and one that this version does not understand is nothing to it.
pub fn observe_balancer(tx: &mut Transaction, load_balancer: &str, report: &serde_json::Value) {
    if let Ok(report) = serde_json::from_value(report.clone()) {
        observe(tx, load_balancer, &report);
    }
}

fn observe(tx: &mut Transaction, load_balancer: &str, report: &BalancerReport) {
    let changes = changes(tx, load_balancer, report);
    if let Some(state) = changes.state {
        tx.update::<LoadBalancer>(load_balancer, |load_balancer| load_balancer.state = state);
    }
    for observed in changes.observed {
        tx.put(observed);
    }
    for key in changes.forgotten {
        tx.delete::<ObservedHealth>(&key);
    }
}

#[derive(Default)]
struct Changes {
    state: Option<LoadBalancerState>,
    observed: Vec<ObservedHealth>,
    forgotten: Vec<String>,
}

fn changes(view: &Snapshot, load_balancer: &str, report: &BalancerReport) -> Changes {
    let Some(known) = view.get::<LoadBalancer>(load_balancer) else { return Changes::default() };
    let mut changes = Changes::default();
    let state = state(&known.state, report);
    if state != known.state {
        changes.state = Some(state);
    }
    let mut reported = BTreeMap::new();
    for target in &report.targets {
        // An instance of a Classic Load Balancer is registered once, whatever ports listeners use; its checks are all the same.
        let (target_group, port) = match &known.classic {
            Some(_) => (known.arn.clone(), ANY_PORT),
            None => match target.target_group.parse() {
                Ok(target_group) => (target_group, target.port),
                Err(_) => continue,
            },
        };
        let key = TargetRegistration::key_of(&target_group, target.address, port);
        // A report may be older than a deregistration.
        if view.get::<TargetRegistration>(&key).is_none_or(|known| known.draining_until.is_some()) {
            continue;
        }
        let observed = ObservedHealth { target_group, address: target.address, port, health: target.health.clone() };
        reported.insert(key, observed);
    }
    let mut groups = find::target_groups_of(view, &known.arn);
    if known.classic.is_some() {
        groups.insert(known.arn.to_string());
    }
    for group in groups {
        for old in view.list::<ObservedHealth>(&format!("{group}/")) {
            if !reported.contains_key(&old.key()) {
                changes.forgotten.push(old.key());
            }
        }
    }
    changes.observed = reported
        .into_iter()
        .filter(|(key, observed)| view.get::<ObservedHealth>(key).is_none_or(|old| *old != *observed))
        .map(|(_, observed)| observed)
        .collect();
    changes
}

/// The state that a report means. While a socket is still being asked for, a new load balancer is provisioning.
fn state(known: &LoadBalancerState, report: &BalancerReport) -> LoadBalancerState {
    match report.refused.iter().find(|refused| !refused.pending) {
        Some(refused) => LoadBalancerState::ActiveImpaired {
            reason: format!("The load balancer cannot listen at {}: {}", refused.address, refused.reason),
        },
        None if report.refused.is_empty() => LoadBalancerState::Active,
        None => known.clone(),
    }
}
