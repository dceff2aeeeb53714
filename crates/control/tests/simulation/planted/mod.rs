//! Bugs that are planted to see that the simulation would find them. None of them is in the source: each changes, in the
//! simulation, what a part of the control plane is shown, or what comes of it.
//!
//! - *seen*: the reconciler plans on a view that is altered (in a transaction that is then refused, so nothing is written);
//! - *planned*: its plan is altered;
//! - *committed*: the committer is shown something else, or what it wrote is altered ([`commits`]);
//! - *placed*: another placement chooses ([`places`]);
//! - *heard*: reports, changes or times do not arrive as they should.

mod commits;
mod places;

pub use commits::{commit, observe};
pub use places::choose;

use control::{Key, Plan, Step, TaskStep};
use domain::{
    Resource, Timestamp,
    ecs::{
        AgentAbsence, ContainerInstance, ContainerInstanceStatus, DesiredStatus, RolloutState, Service, Task,
        TaskStatus,
    },
};
use store::{Change, Snapshot, Store, TransactError, Transaction};

/// What is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Seen: the minimum of healthy tasks is rounded down.
    MinimumRoundedDown,
    /// Seen: the maximum of tasks is rounded up.
    MaximumRoundedUp,
    /// Seen: a task that is being stopped counts as running.
    StoppingCountsAsRunning,
    /// Seen: health checks say nothing.
    HealthUnseen,
    /// Seen: no pause after tasks that did not start.
    PauseUnseen,
    /// Seen: a DRAINING instance is like any other.
    DrainingUnseen,
    /// Seen and committed: protected tasks are like any other.
    ProtectionUnseen,
    /// Seen: scaled to zero, one is kept.
    ZeroKeepsOne,
    /// Planned: one task more than the maximum leaves room for.
    OneTooMany,
    /// Planned: a daemon is placed twice on an instance.
    DaemonTwice,
    /// Planned: a deployment is complete before all of it is there.
    CompleteTooEarly,
    /// Committed: what a plan was made from is not checked again.
    StalePlan,
    /// Committed: the deregistration delay is not waited for.
    DelayNotWaitedFor,
    /// Committed: a failed deployment is rolled back to itself.
    BackToWhatFailed,
    /// Committed: a task is lost as soon as its agent is away.
    AwayIsLost,
    /// Placed: on an instance that drains.
    PlacedOnDraining,
    /// Placed: whatever memory is left.
    MemoryPromisedTwice,
    /// Placed: a task that is over still holds its memory.
    MemoryNotReleased,
    /// Placed: constraints are forgotten.
    ConstraintsForgotten,
    /// Heard: a repeated report of a failure counts again.
    RepeatedFailureCounts,
    /// Heard: a late report turns a status back.
    LateReportTurnsBack,
    /// Heard: nobody is woken by what changes about tasks.
    TasksWakeNobody,
    /// Heard: nothing is looked at again at its time.
    NothingAgain,
    /// Heard: after a restart only what changes is looked at.
    RestartForgets,
}

impl Bug {
    pub const ALL: [Self; 24] = [
        Self::MinimumRoundedDown,
        Self::MaximumRoundedUp,
        Self::StoppingCountsAsRunning,
        Self::HealthUnseen,
        Self::PauseUnseen,
        Self::DrainingUnseen,
        Self::ProtectionUnseen,
        Self::ZeroKeepsOne,
        Self::OneTooMany,
        Self::DaemonTwice,
        Self::CompleteTooEarly,
        Self::StalePlan,
        Self::DelayNotWaitedFor,
        Self::BackToWhatFailed,
        Self::AwayIsLost,
        Self::PlacedOnDraining,
        Self::MemoryPromisedTwice,
        Self::MemoryNotReleased,
        Self::ConstraintsForgotten,
        Self::RepeatedFailureCounts,
        Self::LateReportTurnsBack,
        Self::TasksWakeNobody,
        Self::NothingAgain,
        Self::RestartForgets,
    ];
}

/// Whether a restart forgets what there is.
pub fn forgets(bug: Option<Bug>) -> bool {
    bug == Some(Bug::RestartForgets)
}

/// Whether what is to be looked at again is not.
pub fn oversleeps(bug: Option<Bug>) -> bool {
    bug == Some(Bug::NothingAgain)
}

/// Whether a change wakes anybody.
pub fn hears(bug: Option<Bug>, change: &Change) -> bool {
    bug != Some(Bug::TasksWakeNobody) || change.kind != Task::KIND
}

/// What the reconciler plans with the bug.
pub fn plan(
    bug: Bug,
    store: &Store,
    runtime: &tokio::runtime::Runtime,
    view: &Snapshot,
    key: &Key,
    now: Timestamp,
) -> Plan {
    let plain = || control::reconcile(view, key, now);
    let mut plan = match key {
        Key::Task(arn) => return task_plan(bug, view, arn, now).unwrap_or_else(plain),
        Key::Service(arn) if alters(bug) => {
            // What is written here is undone, because the transaction is refused.
            let altered = store.transact(|tx| {
                alter(bug, tx, arn);
                Err::<(), _>(Box::new(control::reconcile(tx, key, now)))
            });
            match runtime.block_on(altered) {
                Err(TransactError::Refused(plan)) => *plan,
                _ => plain(),
            }
        }
        Key::Service(_) => plain(),
    };
    if let Some(Step::Service(service)) = &mut plan.step {
        // The committer would otherwise see at once that the plan was made from something else.
        if let Some(known) = view.get::<Service>(&service.service) {
            service.expected = control::service::expectation(view, &known, now);
        }
        let rollout = view.get::<Service>(&service.service).and_then(|known| Some(known.primary()?.rollout_state));
        match bug {
            Bug::OneTooMany if service.start > 0 && service.start_on.is_empty() => service.start += 1,
            Bug::DaemonTwice => {
                let twice = service.start_on.first().cloned();
                service.start += u32::from(twice.is_some());
                service.start_on.extend(twice);
            }
            Bug::CompleteTooEarly if rollout == Some(RolloutState::InProgress) => service.complete = true,
            _ => {}
        }
    }
    plan
}

fn task_plan(bug: Bug, view: &Snapshot, arn: &str, now: Timestamp) -> Option<Plan> {
    let task = view.get::<Task>(arn)?;
    match bug {
        Bug::DelayNotWaitedFor if task.last_status == TaskStatus::Deactivating => {
            Some(control::reconcile(view, &Key::Task(arn.to_owned()), now + commits::LATER))
        }
        Bug::AwayIsLost if task.last_status < TaskStatus::Deprovisioning => {
            view.get::<AgentAbsence>(task.container_instance_arn.as_ref()?.as_str())?;
            Some(Plan { step: Some(Step::Task { arn: arn.to_owned(), step: TaskStep::Lose }), again_at: None })
        }
        _ => None,
    }
}

/// Whether it is a bug of what is seen.
fn alters(bug: Bug) -> bool {
    use Bug::*;
    matches!(
        bug,
        MinimumRoundedDown
            | MaximumRoundedUp
            | StoppingCountsAsRunning
            | HealthUnseen
            | PauseUnseen
            | DrainingUnseen
            | ProtectionUnseen
            | ZeroKeepsOne
    )
}

/// Changes what the reconciler of a service sees.
fn alter(bug: Bug, tx: &mut Transaction, arn: &str) {
    let change_service = |tx: &mut Transaction, change: fn(&mut Service)| {
        tx.update::<Service>(arn, change);
    };
    let tasks: Vec<_> = tx.find::<Task>(Task::OF_SERVICE, arn).collect();
    let change_tasks = |tx: &mut Transaction, change: &dyn Fn(&mut Task)| {
        for task in &tasks {
            tx.update::<Task>(task.arn.as_str(), |task| change(task));
        }
    };
    match bug {
        Bug::MinimumRoundedDown => change_service(tx, |service| {
            // The share whose minimum, rounded up, is what rounding down would give.
            let desired = service.desired_count.max(1);
            let least = service.desired_count * service.minimum_healthy_percent / 100;
            service.minimum_healthy_percent = least * 100 / desired;
        }),
        Bug::MaximumRoundedUp => change_service(tx, |service| {
            let desired = service.desired_count.max(1);
            let most = (service.desired_count * service.maximum_percent).div_ceil(100);
            service.maximum_percent = (most * 100).div_ceil(desired);
        }),
        Bug::ZeroKeepsOne => change_service(tx, |service| service.desired_count = service.desired_count.max(1)),
        Bug::PauseUnseen => change_service(tx, |service| {
            service.primary_mut().into_iter().for_each(|primary| primary.retry_at = None);
        }),
        Bug::StoppingCountsAsRunning => change_tasks(tx, &|task| {
            if task.desired_status == DesiredStatus::Stopped {
                (task.desired_status, task.last_status) = (DesiredStatus::Running, TaskStatus::Running);
            }
        }),
        Bug::HealthUnseen => change_tasks(tx, &|task| {
            task.load_balancers.clear();
            task.containers.iter_mut().for_each(|container| container.has_health_check = false);
        }),
        Bug::ProtectionUnseen => change_tasks(tx, &|task| task.protected_until = None),
        Bug::DrainingUnseen => {
            let draining = |one: &std::sync::Arc<ContainerInstance>| one.status == ContainerInstanceStatus::Draining;
            let all: Vec<_> = tx.list::<ContainerInstance>("").filter(draining).collect();
            for instance in all {
                let status = ContainerInstanceStatus::Active;
                tx.put(ContainerInstance { status, ..(*instance).clone() });
            }
        }
        _ => {}
    }
}
