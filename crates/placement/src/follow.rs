//! Fleets that follow the store: the one place where instances, tasks and connections become what placement works on.
//!
//! A fleet is read whole once, when a cluster is first asked about. From then on, whatever a view has changed since the
//! one before is found by comparing the two, which costs what has changed: an instance that changed is read again, of one
//! whose tasks changed those are counted otherwise. So the view that is given decides alone: what a transaction has written before in itself counts, and what a
//! transaction wrote that failed is undone by the next comparison like any other change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    Arn,
    ecs::{AgentConnection, ContainerInstance, ContainerInstanceStatus, Task, TaskStatus},
};
use store::Snapshot;

use crate::{Fleet, Instance, instance};

/// The fleets of the clusters that tasks were placed in.
#[derive(Default)]
pub struct Fleets(Mutex<Option<Followed>>);

struct Followed {
    /// What the fleets show.
    seen: Snapshot,
    /// By the ARN of the cluster.
    fleets: BTreeMap<Arn, Fleet>,
}

impl Fleets {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the fleet of a cluster as this view shows it.
    pub fn ask<R>(&self, view: &Snapshot, cluster: &Arn, question: impl FnOnce(&Fleet) -> R) -> R {
        // After a panic nothing of what is there counts: it is read anew.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut followed = known.take().unwrap_or_else(|| Followed { seen: view.clone(), fleets: BTreeMap::new() });
        followed.follow(view);
        let fleet = followed.fleets.entry(cluster.clone()).or_insert_with(|| read(view, cluster));
        let answer = question(fleet);
        // Clusters that are gone or empty are not kept, whoever asks about them.
        if fleet.is_empty() {
            followed.fleets.remove(cluster);
        }
        *known = Some(followed);
        answer
    }
}

/// The tasks of one instance that are counted no more, as they were, and those that are counted now.
#[derive(Default)]
struct Moves {
    left: Vec<Arc<Task>>,
    came: Vec<Arc<Task>>,
}

impl Followed {
    fn follow(&mut self, view: &Snapshot) {
        let anew = self.changed_instances(view);
        for arn in &anew {
            let now = current(view, arn);
            for (cluster, fleet) in &mut self.fleets {
                match &now {
                    Some(instance) if instance.stored.cluster_arn == *cluster => fleet.put(instance.clone()),
                    _ => fleet.remove(arn),
                }
            }
        }
        // An instance has many tasks: those that are as they were are not read again.
        for (arn, moves) in self.changed_tasks(view) {
            let stored = view.get::<ContainerInstance>(arn.as_str()).filter(|_| !anew.contains(&arn));
            let Some(fleet) = stored.and_then(|stored| self.fleets.get_mut(&stored.cluster_arn)) else { continue };
            fleet.recount(&arn, &moves.left, &moves.came);
        }
        self.fleets.retain(|_, fleet| !fleet.is_empty());
        self.seen = view.clone();
    }

    /// The instances that came, went, or say something else of themselves.
    fn changed_instances(&self, view: &Snapshot) -> BTreeSet<Arn> {
        let connections = view.changes_since::<AgentConnection>(&self.seen);
        let connections = connections.filter_map(|(old, new)| Some(old.or(new)?.container_instance_arn.clone()));
        let stored = view.changes_since::<ContainerInstance>(&self.seen);
        connections.chain(stored.filter_map(|(old, new)| Some(old.or(new)?.arn.clone()))).collect()
    }

    /// By instance, what its tasks hold otherwise than they did.
    fn changed_tasks(&self, view: &Snapshot) -> BTreeMap<Arn, Moves> {
        let mut changed = BTreeMap::<Arn, Moves>::new();
        for (old, new) in view.changes_since::<Task>(&self.seen) {
            let [old, new] = [old, new].map(|task| task.filter(|task| task.last_status != TaskStatus::Stopped));
            if let (Some(old), Some(new)) = (&old, &new)
                && old.container_instance_arn == new.container_instance_arn
                && Instance::holds_alike(old, new)
            {
                continue;
            }
            let place = |task: &Task| task.container_instance_arn.clone();
            if let Some((place, old)) = old.and_then(|old| Some((place(&old)?, old))) {
                changed.entry(place).or_default().left.push(old);
            }
            if let Some((place, new)) = new.and_then(|new| Some((place(&new)?, new))) {
                changed.entry(place).or_default().came.push(new);
            }
        }
        changed
    }
}

/// The instance as it is, if it is one that clusters show.
fn current(view: &Snapshot, arn: &Arn) -> Option<Instance> {
    let stored = view.get::<ContainerInstance>(arn.as_str())?;
    (stored.status != ContainerInstanceStatus::Inactive).then(|| instance(view, stored))
}

/// The instances of a cluster that are not INACTIVE.
fn read(view: &Snapshot, cluster: &Arn) -> Fleet {
    let mut fleet = Fleet::default();
    let stored = view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, cluster.as_str());
    stored.for_each(|stored| fleet.put(instance(view, stored)));
    fleet
}
