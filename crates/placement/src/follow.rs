//! Fleets that follow the store: the one place where instances, tasks and connections become what placement works on.
//!
//! A fleet is read whole once, when a cluster is first asked about. From then on, whatever a view has changed since the
//! one before is found by comparing the two, which costs what has changed, and the instances that it concerns are read
//! again. So the view that is given decides alone: what a transaction has written before in itself counts, and what a
//! transaction wrote that failed is undone by the next comparison like any other change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use domain::{
    Arn,
    ecs::{AgentConnection, ContainerInstance, ContainerInstanceStatus, Task},
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

impl Followed {
    fn follow(&mut self, view: &Snapshot) {
        let mut changed = BTreeSet::new();
        for (old, new) in view.changes_since::<Task>(&self.seen) {
            let places = old.into_iter().chain(new).filter_map(|task| task.container_instance_arn.clone());
            changed.extend(places);
        }
        for (old, new) in view.changes_since::<AgentConnection>(&self.seen) {
            changed.extend(old.or(new).map(|connection| connection.container_instance_arn.clone()));
        }
        for (old, new) in view.changes_since::<ContainerInstance>(&self.seen) {
            changed.extend(old.or(new).map(|stored| stored.arn.clone()));
        }
        for arn in changed {
            let now = current(view, &arn);
            for (cluster, fleet) in &mut self.fleets {
                match &now {
                    Some(instance) if instance.stored.cluster_arn == *cluster => fleet.put(instance.clone()),
                    _ => fleet.remove(&arn),
                }
            }
        }
        self.fleets.retain(|_, fleet| !fleet.is_empty());
        self.seen = view.clone();
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
