//! Starts tasks in the availability zones that have too few, and writes down how that goes.

use std::collections::BTreeMap;

use domain::{
    IdSource, Timestamp,
    ecs::{Cluster, Rebalancing, TaskDefinition},
};
use store::Transaction;

use super::Launcher;
use crate::{
    Key,
    events::{self, Edit},
    queue::Queue,
    service::{CAPACITY_PAUSE, Rebalance, new_task},
};

pub(super) fn rebalance(
    tx: &mut Transaction,
    what: &Rebalance,
    launcher: &dyn Launcher,
    edit: &mut Edit,
    queue: &mut Queue,
    ids: &mut IdSource,
    now: Timestamp,
) {
    let (again, zones, counts) = match what {
        Rebalance::GiveUp => {
            edit.service.rebalancing = None;
            return;
        }
        Rebalance::Balanced(counts) => {
            edit.service.rebalancing = None;
            edit.say(&events::balanced(counts));
            return;
        }
        Rebalance::Start { again, zones, counts } => (again, zones, counts),
    };
    let service = edit.service.clone();
    let Some(primary) = service.primary() else { return };
    let cluster = tx.get::<Cluster>(service.cluster_arn.as_str());
    let definition = tx.get::<TaskDefinition>(primary.task_definition_arn.as_str());
    let (Some(cluster), Some(definition)) = (cluster, definition) else { return };
    if service.rebalancing.is_none() {
        edit.say(&events::not_balanced(counts));
    }
    let before = service.rebalancing.clone().unwrap_or_default();
    let mut known = Rebalancing { desired_count: service.desired_count, ..before };
    let mut started: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut refused: BTreeMap<&str, crate::Refusal> = BTreeMap::new();
    for (at, zone) in again.iter().chain(zones).enumerate() {
        if at == again.len() && !started.is_empty() {
            break;
        }
        // One zone that is full says nothing of the others.
        if refused.contains_key(zone.as_str()) {
            continue;
        }
        let new = new_task(&service, primary, &cluster, &definition, None, Some(zone.clone()));
        match launcher.launch(tx, new, primary.network.as_ref(), ids, now) {
            Ok(task) => started.entry(zone).or_default().push(task.id().to_owned()),
            Err(reason) => drop(refused.insert(zone, reason)),
        }
    }
    for (zone, tasks) in &started {
        edit.say(&events::started_to_rebalance(zone, tasks));
        known.full.retain(|full| full != zone);
    }
    for (zone, reason) in &refused {
        if !known.full.iter().any(|full| full == zone) {
            edit.say(&events::zone_is_full(zone, reason));
            known.full.push((*zone).to_owned());
        }
    }
    if !refused.is_empty() {
        queue.push(Key::Service(service.arn.to_string()), now + CAPACITY_PAUSE);
    }
    edit.service.rebalancing = Some(known);
}
