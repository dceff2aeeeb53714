//! The one committer: applies plans to the newest state, each after checking that what it was made from still holds.
//!
//! A plan is applied whole or not at all; what fails alone (no host has room, a subnet is full) is said in a service
//! event and tried again.

mod zones;

use std::collections::BTreeMap;

use domain::{
    IdSource, Timestamp,
    ecs::{
        Cluster, Deployment, DeploymentStatus, NewTask, RolloutState, Service, ServiceStatus, StopCode, Task,
        TaskDefinition, TaskNetwork, TaskStatus,
    },
};
use store::Transaction;

use crate::{
    Key, ServicePlan, Step, TaskStep,
    events::{self, Edit},
    queue::Queue,
    service::{INCONSISTENT, STARTED_WELL, Stop, expectation, has_failed, new_task, outcome, pause},
    targets::{self, Draining, draining},
    task::{is_absent, patience_ends, why_host_is_lost},
};

/// Why a task was not made, with the reason as Amazon gives it in service events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nowhere is room for it.
    NotPlaced(String),
    /// No container instance of the cluster takes it: `was unable to place a task because …`.
    NoInstance(String),
    /// It lacks something that no host can give it.
    NotLaunched(String),
}

/// Makes tasks and takes back what they hold: the same code for RunTask and for services, which lives with the network.
pub trait Launcher: Send + Sync + 'static {
    /// Chooses a host, and a network interface if it has a network, for the task and stores it. Nothing is written when it
    /// fails.
    fn launch(
        &self,
        tx: &mut Transaction,
        new: NewTask<'_>,
        network: Option<&TaskNetwork>,
        ids: &mut IdSource,
        now: Timestamp,
    ) -> Result<Task, Refusal>;

    /// Gives back the task's network interface.
    fn release(&self, tx: &mut Transaction, task: &Task);
}

/// Applies one step. Keys that must be looked at again go to `queue`; what the changes themselves wake is not repeated
/// there, the watch tells.
pub fn commit(
    tx: &mut Transaction,
    step: &Step,
    launcher: &dyn Launcher,
    queue: &mut Queue,
    ids: &mut IdSource,
    now: Timestamp,
) {
    match step {
        Step::Task { arn, step } => {
            commit_task(tx, arn, step, launcher, ids, now);
            if *step == TaskStep::Drain {
                // The task itself may not have changed, so nothing else would wake its key when the drain is over.
                queue.push(Key::Task(arn.clone()), now);
            }
        }
        Step::Service(plan) => {
            if !commit_service(tx, plan, launcher, queue, ids, now) {
                queue.push(Key::Service(plan.service.clone()), now);
            }
        }
    }
}

fn commit_task(
    tx: &mut Transaction,
    arn: &str,
    step: &TaskStep,
    launcher: &dyn Launcher,
    ids: &mut IdSource,
    now: Timestamp,
) {
    let Some(task) = tx.get::<Task>(arn) else { return };
    let mut task = Task::clone(&task);
    let mut edit = task.service_arn.as_ref().and_then(|service| Edit::of(tx, service.as_str()));
    let changed = match step {
        TaskStep::Activate if task.last_status == TaskStatus::Activating => {
            for group in targets::enter(tx, &task, now) {
                edit.iter_mut().for_each(|edit| edit.say(&events::registered(&group)));
            }
            task.activated(now)
        }
        TaskStep::Drain if task.last_status == TaskStatus::Deactivating => {
            let groups = targets::leave(tx, &task, now);
            if let Some(edit) = edit.as_mut().filter(|_| !groups.is_empty()) {
                edit.say(&events::draining(1));
                groups.iter().for_each(|group| edit.say(&events::deregistered(group)));
            }
            // Without a deregistration delay there is nothing to wait for.
            matches!(draining(tx, &task), Draining::Done) && finish_draining(&mut task, edit.as_mut(), now)
        }
        TaskStep::Deactivate if task.last_status == TaskStatus::Deactivating => {
            let over = match draining(tx, &task) {
                Draining::NotYet => false,
                Draining::Until(until) => until <= now,
                Draining::Done => true,
            };
            if over {
                targets::remove(tx, &task);
            }
            over && finish_draining(&mut task, edit.as_mut(), now)
        }
        TaskStep::Deprovision if task.last_status == TaskStatus::Deprovisioning => {
            targets::remove(tx, &task);
            launcher.release(tx, &task);
            if let Some(edit) = edit.as_mut() {
                account_for_failure(edit, &task, now);
            }
            task.deprovisioned(now)
        }
        TaskStep::Lose => why_host_is_lost(tx, &task, now).is_some_and(|why| task.lost(&why, now)),
        TaskStep::GiveUp if task.is_waiting() && patience_ends(tx, &task).is_some_and(|until| until <= now) => {
            let absent = task.container_instance_arn.as_ref().is_some_and(|host| is_absent(tx, host.as_str()));
            task.not_begun(absent, now)
        }
        TaskStep::Forget if task.last_status == TaskStatus::Stopped => {
            tx.delete::<Task>(arn);
            return;
        }
        _ => false,
    };
    if changed {
        tx.put(task);
    }
    if let Some(edit) = edit {
        edit.write(tx, ids, now);
    }
}

fn finish_draining(task: &mut Task, edit: Option<&mut Edit>, now: Timestamp) -> bool {
    if let Some(edit) = edit.filter(|_| task.stop_code == Some(StopCode::ServiceSchedulerInitiated)) {
        edit.say(&events::stopped(&[task.id().to_owned()]));
    }
    task.deactivated(now)
}

/// Counts a task of the service that did not start, or ran only shortly: the next one waits longer.
fn account_for_failure(edit: &mut Edit, task: &Task, now: Timestamp) {
    if !matches!(task.stop_code, Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited)) {
        return;
    }
    let ran_well = task.started_at.is_some_and(|at| task.stopping_at.unwrap_or(now).since(at) >= STARTED_WELL);
    if ran_well {
        return;
    }
    if task.started_at.is_none() {
        count_failure(&mut edit.service, task);
    }
    let deployment = task.deployment_id.as_deref().unwrap_or_default();
    let Some(deployment) = edit.service.deployments.iter_mut().find(|known| known.id == deployment) else { return };
    deployment.start_failures = deployment.start_failures.saturating_add(1);
    deployment.retry_at = Some(now + pause(deployment.start_failures));
    if deployment.start_failures == INCONSISTENT {
        edit.say(&events::unsteady_start());
    }
}

/// Counts a task that did not start, or failed its checks, while its deployment is on its way.
fn count_failure(service: &mut Service, task: &Task) {
    let deployment = task.deployment_id.as_deref().unwrap_or_default();
    let open = |known: &&mut Deployment| known.id == deployment && known.rollout_state == RolloutState::InProgress;
    if let Some(deployment) = service.deployments.iter_mut().find(open) {
        deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    }
}

/// Returns whether the plan's expectations still held.
fn commit_service(
    tx: &mut Transaction,
    plan: &ServicePlan,
    launcher: &dyn Launcher,
    queue: &mut Queue,
    ids: &mut IdSource,
    now: Timestamp,
) -> bool {
    let Some(mut edit) = Edit::of(tx, &plan.service) else { return true };
    if expectation(tx, &edit.service, now) != plan.expected {
        return false;
    }
    // Protected after the plan was made.
    let spared = |stop: &Stop| {
        stop.respects_protection() && tx.get::<Task>(&stop.task).is_some_and(|task| task.is_protected(now))
    };
    if edit.service.status == ServiceStatus::Active && plan.stop.iter().any(spared) {
        return false;
    }
    if let Some(desired) = plan.desired {
        edit.service.desired_count = desired;
    }
    stop_tasks(tx, plan, &mut edit, now);
    if let Some(primary) = edit.service.deployments.iter_mut().find(|known| known.id == plan.expected.primary) {
        for (container, digest) in &plan.images {
            primary.image_digests.entry(container.clone()).or_insert_with(|| digest.clone());
        }
    }
    if plan.start > 0 {
        start_tasks(tx, plan, launcher, &mut edit, queue, ids, now);
    }
    if let Some(what) = &plan.rebalance {
        zones::rebalance(tx, what, launcher, &mut edit, queue, ids, now);
    }
    edit.service.deployments.retain(|deployment| !plan.retire.contains(&deployment.id));
    if let Some(primary) =
        edit.service.deployments.iter_mut().find(|deployment| deployment.status == DeploymentStatus::Primary)
    {
        if plan.recovered {
            (primary.start_failures, primary.retry_at) = (0, None);
        }
        if let Some(blocked) = plan.blocked {
            primary.blocked = blocked;
        }
        if plan.proved {
            primary.failed_tasks = 0;
        }
    }
    if plan.complete {
        outcome::complete(tx, &mut edit, now);
    }
    // What has failed may have been forgotten meanwhile.
    if plan.fail && has_failed(&edit.service) {
        outcome::fail(tx, &mut edit, ids, now);
    }
    if plan.blocked == Some(true) {
        edit.say(events::BLOCKED);
    }
    if let Some(steady) = plan.steady {
        edit.service.steady = steady;
        if steady {
            edit.say(events::STEADY);
        }
    }
    if plan.deactivate {
        edit.service.status = ServiceStatus::Inactive;
        // What it was like is still told of it.
        edit.service.deployments.retain(|deployment| deployment.status == DeploymentStatus::Primary);
    }
    edit.write(tx, ids, now);
    true
}

fn stop_tasks(tx: &mut Transaction, plan: &ServicePlan, edit: &mut Edit, now: Timestamp) {
    let mut stopped = Vec::new();
    let mut moved: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for stop in &plan.stop {
        let Some(task) = tx.get::<Task>(&stop.task) else { continue };
        let mut task = Task::clone(&task);
        if task.request_stop(stop.code, &stop.reason, now) {
            if let Some(event) = &stop.event {
                edit.say(event);
                count_failure(&mut edit.service, &task);
            }
            if let Some(zone) = &stop.rebalanced {
                moved.entry(zone).or_default().push(task.id().to_owned());
                tx.put(task);
                continue;
            }
            // One whose targets drain is said to be stopped when they have.
            if task.last_status != TaskStatus::Deactivating {
                stopped.push(task.id().to_owned());
            }
            tx.put(task);
        }
    }
    if !stopped.is_empty() {
        edit.say(&events::stopped(&stopped));
    }
    for (zone, tasks) in moved {
        edit.say(&events::stopped_to_rebalance(zone, &tasks));
    }
}

fn start_tasks(
    tx: &mut Transaction,
    plan: &ServicePlan,
    launcher: &dyn Launcher,
    edit: &mut Edit,
    queue: &mut Queue,
    ids: &mut IdSource,
    now: Timestamp,
) {
    let service = edit.service.clone();
    let Some(primary) = service.primary() else { return };
    let cluster = tx.get::<Cluster>(service.cluster_arn.as_str());
    let definition = tx.get::<TaskDefinition>(primary.task_definition_arn.as_str());
    let (Some(cluster), Some(definition)) = (cluster, definition) else { return };
    let mut started = Vec::new();
    let mut refused = None;
    for at in 0..plan.start as usize {
        let place = plan.start_on.get(at).cloned();
        let given = place.is_some();
        let new = new_task(&service, primary, &cluster, &definition, place, None);
        match launcher.launch(tx, new, primary.network.as_ref(), ids, now) {
            Ok(task) => started.push(task.id().to_owned()),
            Err(reason) => {
                refused = Some(reason);
                // Elsewhere a daemon may find room.
                if !given {
                    break;
                }
            }
        }
    }
    if !started.is_empty() {
        edit.say(&events::started(&started));
    }
    let again = now + crate::service::CAPACITY_PAUSE;
    let mut first = None;
    if let Some(primary) =
        edit.service.deployments.iter_mut().find(|deployment| deployment.status == DeploymentStatus::Primary)
    {
        if let Some(reason) = &refused {
            first = (!primary.unplaced).then(|| events::refused(reason));
            queue.push(Key::Service(service.arn.to_string()), again);
        }
        primary.unplaced = refused.is_some();
    }
    if let Some(text) = first {
        edit.say(&text);
    }
}
