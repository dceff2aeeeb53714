//! Which of a service's tasks go when it is to have fewer.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use domain::{
    Arn, IdSource, Timestamp,
    ecs::{ContainerInstance, ContainerInstanceStatus, Service, Task, TaskStatus},
};
use placement::{Candidate, Instance};
use store::Snapshot;

use super::{Member, rebalance::zone_of};

/// The positions of those that go, at most `count`. `members` are in the order in which they would go if they were all
/// alike; those that do not run or are not healthy go first in any case, protected ones never.
pub(super) fn first_to_stop(
    view: &Snapshot,
    service: &Service,
    members: &[&Member],
    count: usize,
    now: Timestamp,
) -> Vec<usize> {
    let on_instances = service.primary().is_some_and(|primary| !primary.compute.is_fargate());
    if count == 0 {
        return Vec::new();
    }
    if !on_instances {
        return from_fullest_zones(view, members, count);
    }
    let tasks: Vec<_> = members.iter().map(|member| view.get::<Task>(&member.task)).collect();
    // Of the cluster's instances only those are read that have one of the tasks, each once.
    let places: BTreeSet<&str> =
        tasks.iter().flatten().filter_map(|task| Some(task.container_instance_arn.as_ref()?.as_str())).collect();
    let known = places.into_iter().filter_map(|arn| view.get::<ContainerInstance>(arn));
    let instances: BTreeMap<Arn, Instance> = known
        .filter(|stored| stored.status != ContainerInstanceStatus::Inactive)
        .map(|stored| (stored.arn.clone(), placement::instance(view, stored)))
        .collect();
    let candidate = |(member, task): (&&Member, &Option<Arc<Task>>)| {
        let arn = task.as_ref().and_then(|task| task.container_instance_arn.as_ref());
        Candidate {
            instance: arn.and_then(|arn| instances.get(arn)),
            cpu: task.as_ref().map_or(0, |task| task.cpu),
            memory: task.as_ref().map_or(0, |task| task.memory),
            rank: usize::from(member.status >= TaskStatus::Running) + usize::from(member.healthy),
            protected: member.protected,
        }
    };
    let candidates: Vec<Candidate<'_>> = members.iter().zip(&tasks).map(candidate).collect();
    let by_default = placement::create_service_default();
    let strategy = if service.placement.strategy.is_empty() { &by_default } else { &service.placement.strategy };
    // Time is all the chance that there is here: what is decided again at the same moment is decided alike.
    let mut random = IdSource::from_seed(now.millis().unsigned_abs());
    placement::first_to_stop(&candidates, strategy, count, &mut random)
}

/// On Fargate nothing but the zones is to be kept in balance.
fn from_fullest_zones(view: &Snapshot, members: &[&Member], count: usize) -> Vec<usize> {
    let zones: Vec<String> = members.iter().map(|member| zone_of(view, member).unwrap_or_default()).collect();
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    zones.iter().for_each(|zone| *left.entry(zone).or_default() += 1);
    // By rank and zone those that may go, in their order.
    let mut ranks: BTreeMap<(bool, bool), BTreeMap<&str, VecDeque<usize>>> = BTreeMap::new();
    for (at, (member, zone)) in members.iter().zip(&zones).enumerate().filter(|(_, (member, _))| !member.protected) {
        let rank = (member.status >= TaskStatus::Running, member.healthy);
        ranks.entry(rank).or_default().entry(zone).or_default().push_back(at);
    }
    let mut going = Vec::new();
    for mut waiting in ranks.into_values() {
        while going.len() < count {
            let first = |(zone, queue): (&&str, &VecDeque<usize>)| {
                queue.front().map(|at| (Reverse(left.get(zone).copied()), *at))
            };
            let Some((_, at)) = waiting.iter().filter_map(first).min() else { break };
            let zone = zones.get(at).map_or("", String::as_str);
            waiting.get_mut(zone).and_then(VecDeque::pop_front);
            left.entry(zone).and_modify(|tasks| *tasks = tasks.saturating_sub(1));
            going.push(at);
        }
    }
    going
}
