//! Which of a service's tasks go when it is to have fewer.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
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
    let mut may_go: Vec<(usize, &Member, &str)> = members
        .iter()
        .zip(&zones)
        .enumerate()
        .filter(|(_, (member, _))| !member.protected)
        .map(|(at, (member, zone))| (at, *member, zone.as_str()))
        .collect();
    let mut going = Vec::new();
    while going.len() < count {
        let first = may_go.iter().enumerate().min_by_key(|(_, (at, member, zone))| {
            let tasks = left.get(zone).copied().unwrap_or(0);
            (member.status >= TaskStatus::Running, member.healthy, Reverse(tasks), *at)
        });
        let Some(first) = first.map(|(index, _)| index) else { break };
        let (at, _, zone) = may_go.remove(first);
        left.entry(zone).and_modify(|tasks| *tasks = tasks.saturating_sub(1));
        going.push(at);
    }
    going
}
