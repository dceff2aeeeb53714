//! Bugs of placement: another one chooses.

use std::sync::Arc;

use control::Refusal;
use domain::{
    Arn,
    ecs::{AgentConnection, ContainerInstance, ContainerInstanceStatus, NewTask, Placement, Task},
};
use store::Snapshot;

use super::Bug;
use crate::properties::places;

/// What is chosen with the bug; `None` where the bug says nothing.
pub fn choose(bug: Bug, view: &Snapshot, new: &NewTask<'_>) -> Option<Result<Arn, Refusal>> {
    if new.compute.is_fargate() || new.container_instance_arn.is_some() {
        return None;
    }
    let find = |fits: &dyn Fn(&ContainerInstance) -> bool| {
        let mut all = view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, new.cluster.arn.as_str());
        all.find(|one: &Arc<ContainerInstance>| fits(one)).map(|one| one.arn.clone())
    };
    match bug {
        Bug::PlacedOnDraining => find(&|one| one.status == ContainerInstanceStatus::Draining).map(Ok),
        Bug::MemoryPromisedTwice => find(&|one| {
            one.status == ContainerInstanceStatus::Active && view.contains::<AgentConnection>(one.arn.as_str())
        })
        .map(Ok),
        Bug::MemoryNotReleased => {
            // All that were ever there.
            let held = |arn: &str| -> u32 {
                let desired = ["RUNNING", "STOPPED"].map(|desired| format!("{arn} {desired}"));
                let tasks = desired.into_iter().flat_map(|value| view.find::<Task>(Task::BY_CONTAINER_INSTANCE, value));
                tasks.map(|task| task.memory).sum()
            };
            let chosen =
                find(&|one| places::could_have(view, new, one) && held(one.arn.as_str()) + new.memory <= one.memory);
            Some(chosen.ok_or_else(|| Refusal::NoInstance("no memory".into())))
        }
        Bug::ConstraintsForgotten => {
            let anywhere = NewTask { placement: &Placement::default(), ..new.clone() };
            places::on_instances(view, &anywhere).map(Ok)
        }
        _ => None,
    }
}
