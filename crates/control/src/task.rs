//! The reconciler of tasks: what a task needs from the platform on its way from PROVISIONING to STOPPED. What it needs
//! from its host, the host's agent sees for itself.

use std::{sync::Arc, time::Duration};

use domain::{
    Timestamp,
    ecs::{
        AgentAbsence, AgentConnection, ContainerInstance, ContainerInstanceStatus, Task, TaskStatus, status::reason,
    },
    instances::Instance,
};
use store::Snapshot;

use crate::{
    Plan, Step,
    targets::{Draining, draining},
};

/// How long DescribeTasks knows a stopped task.
pub const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is done about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStep {
    /// Registers its targets: ACTIVATING becomes RUNNING.
    Activate,
    /// Deregisters its targets, which then drain.
    Drain,
    /// Its targets have drained: DEACTIVATING becomes STOPPING.
    Deactivate,
    /// Releases its network interface: DEPROVISIONING becomes STOPPED.
    Deprovision,
    /// Its host is gone.
    Lose,
    /// It was not begun in time.
    GiveUp,
    /// It stopped long ago and is removed.
    Forget,
}

/// What to do about the task now.
pub fn reconcile(view: &Snapshot, arn: &str, now: Timestamp) -> Plan {
    let Some(task) = view.get::<Task>(arn) else { return Plan::default() };
    let step = |step: TaskStep| Plan { step: Some(Step::Task { arn: arn.to_owned(), step }), again_at: None };
    // Looked at again at the latest when its host would be given up.
    let given_up_at = given_up_at(view, &task);
    let wait = |at: Timestamp| Plan { step: None, again_at: Some(given_up_at.map_or(at, |other| other.min(at))) };
    let nothing = || Plan { step: None, again_at: given_up_at };
    match task.last_status {
        TaskStatus::Stopped => {
            let until = task.stopped_at.unwrap_or(task.created_at) + REMEMBERED;
            if now >= until { step(TaskStep::Forget) } else { wait(until) }
        }
        TaskStatus::Deprovisioning => step(TaskStep::Deprovision),
        _ if why_host_is_lost(view, &task, now).is_some() => step(TaskStep::Lose),
        _ if task.is_waiting() => match patience_ends(view, &task) {
            Some(until) if until <= now => step(TaskStep::GiveUp),
            Some(until) => wait(until),
            None => nothing(),
        },
        TaskStatus::Activating => step(TaskStep::Activate),
        TaskStatus::Deactivating => match draining(view, &task) {
            Draining::NotYet => step(TaskStep::Drain),
            Draining::Until(until) if until > now => wait(until),
            Draining::Until(_) | Draining::Done => step(TaskStep::Deactivate),
        },
        _ => nothing(),
    }
}

/// When a task that nobody has begun is given up. What counts is the time in which it could have been: neither a
/// control plane nor an agent that was away for a while ends a task.
pub(crate) fn patience_ends(view: &Snapshot, task: &Task) -> Option<Timestamp> {
    let host = task.container_instance_arn.as_ref()?;
    let (since, patience) = match agent(view, host.as_str()) {
        Agent::Absent(absence) => (absence.since, absence.patience),
        // It acknowledged the task, or told that it cannot run it; only the network can still be missing.
        Agent::Connected(_) if task.is_attached() => return None,
        Agent::Connected(connection) => (connection.connected_at, connection.patience),
        Agent::Unknown => return None,
    };
    Some(task.created_at.max(since) + patience)
}

enum Agent {
    Connected(Arc<AgentConnection>),
    Absent(Arc<AgentAbsence>),
    Unknown,
}

/// Whether nobody is there to confirm a task's end.
pub(crate) fn is_absent(view: &Snapshot, instance: &str) -> bool {
    matches!(agent(view, instance), Agent::Absent(_))
}

fn agent(view: &Snapshot, instance: &str) -> Agent {
    if let Some(connection) = view.get::<AgentConnection>(instance) {
        return Agent::Connected(connection);
    }
    view.get::<AgentAbsence>(instance).map_or(Agent::Unknown, Agent::Absent)
}

/// Why the host that the task was placed on is lost: it was deregistered, its EC2 instance is off, or its agent has been
/// away for longer than the operator lets it. Otherwise an agent that is not connected may come back.
pub(crate) fn why_host_is_lost(view: &Snapshot, task: &Task, now: Timestamp) -> Option<String> {
    let arn = task.container_instance_arn.as_ref()?;
    let Some(instance) = view.get::<ContainerInstance>(arn.as_str()) else { return Some(reason::HOST_LOST.to_owned()) };
    if let Some(id) = &instance.ec2_instance_id
        && view.find::<Instance>(Instance::BY_ID, id.as_str()).next().is_none_or(|machine| machine.is_off())
    {
        return Some(reason::ec2_instance_ended(id));
    }
    if instance.status == ContainerInstanceStatus::Inactive {
        return Some(reason::HOST_LOST.to_owned());
    }
    given_up_at(view, task).filter(|at| *at <= now).map(|_| reason::HOST_SILENT.to_owned())
}

/// When a task is given up whose host's agent is away.
fn given_up_at(view: &Snapshot, task: &Task) -> Option<Timestamp> {
    let alive = task.last_status < TaskStatus::Deprovisioning;
    let host = task.container_instance_arn.as_ref().filter(|_| alive)?;
    view.get::<AgentAbsence>(host.as_str())?.lost_at
}
