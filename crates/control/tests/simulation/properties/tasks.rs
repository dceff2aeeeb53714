//! Of single tasks.

use std::time::Duration;

use domain::{
    Timestamp,
    balancing::TargetRegistration,
    ecs::{AgentAbsence, ContainerInstance, ContainerInstanceStatus, LaunchType, StopCode, Task, TaskStatus},
    instances::{Instance, Power},
};
use store::Snapshot;

use super::{Checked, ensure};

/// How long a stopped task is remembered.
const HOUR: Duration = Duration::from_secs(3_600);

pub fn moved_forward(old: &Task, new: &Task) -> Checked {
    let arn = &new.arn;
    ensure(new.last_status >= old.last_status, || {
        format!("{arn}: {:?} became {:?}", old.last_status, new.last_status)
    })?;
    ensure(new.desired_status >= old.desired_status, || format!("{arn}: a stop was taken back"))?;
    let fixed = |task: &Task| {
        let place = task.container_instance_arn.clone();
        (place, task.service_arn.clone(), task.deployment_id.clone(), task.cpu, task.memory, task.created_at)
    };
    ensure(fixed(old) == fixed(new), || format!("{arn} became another task"))?;
    ensure(old.stop_code.is_none() || old.stop_code == new.stop_code, || format!("{arn}: another reason to stop"))?;
    let stopped = new.last_status == TaskStatus::Stopped;
    ensure(stopped == new.stopped_at.is_some(), || format!("{arn}: when it stopped is not known"))
}

/// A task is stopped on its host only when its targets have drained.
pub fn kept_its_targets(before: &Snapshot, old: &Task, new: &Task, now: Timestamp) -> Checked {
    if (old.last_status, new.last_status) != (TaskStatus::Deactivating, TaskStatus::Stopping) {
        return Ok(());
    }
    for target in registrations(before, old) {
        let drained = target.draining_until.is_some_and(|until| until <= now);
        // Without a delay a target goes at once.
        let group = before.get::<domain::balancing::TargetGroup>(target.target_group.as_str());
        let at_once = group.is_none_or(|group| group.attributes.deregistration_delay_seconds == 0);
        ensure(drained || at_once, || format!("{}: stopped before its targets have drained", new.arn))?;
    }
    Ok(())
}

fn registrations(view: &Snapshot, task: &Task) -> Vec<TargetRegistration> {
    let keys = task.load_balancers.iter().filter_map(|balancer| {
        let port = match task.launch_type {
            LaunchType::Fargate => balancer.container_port,
            _ => task.host_port(&balancer.container_name, balancer.container_port)?,
        };
        Some(TargetRegistration::key_of(&balancer.target_group_arn, crate::world::address(view, task)?, port))
    });
    let found = keys.filter_map(|key| view.get::<TargetRegistration>(&key));
    found.map(|found| TargetRegistration::clone(&found)).collect()
}

/// Only a host that is gone, or away for longer than its operator lets it, takes its tasks with it.
pub fn was_lost_with_its_host(before: &Snapshot, old: &Task, new: &Task, now: Timestamp) -> Checked {
    if old.stop_code == new.stop_code || new.stop_code != Some(StopCode::TerminationNotice) {
        return Ok(());
    }
    let arn = new.container_instance_arn.as_ref().map(|arn| arn.as_str()).unwrap_or_default();
    let host = before.get::<ContainerInstance>(arn);
    let machine = host.as_ref().and_then(|host| host.ec2_instance_id.clone());
    let off = machine.and_then(|id| before.find::<Instance>(Instance::BY_ID, id).next());
    let off = off.is_some_and(|machine| machine.power == Power::Terminated);
    let given_up = before.get::<AgentAbsence>(arn).and_then(|absence| absence.lost_at).is_some_and(|at| at <= now);
    let gone = host.is_none_or(|host| host.status == ContainerInstanceStatus::Inactive);
    ensure(off || given_up || gone, || format!("{}: given up for lost while its host may come back", new.arn))
}

pub fn was_remembered(old: &Task, now: Timestamp) -> Checked {
    let since = old.stopped_at.filter(|_| old.last_status == TaskStatus::Stopped);
    let long_ago = since.is_some_and(|at| now.since(at) >= HOUR);
    ensure(long_ago, || format!("{}: forgotten at {:?}, before its time", old.arn, old.last_status))
}

/// Who has heard of a task is not given up on.
pub fn had_not_begun(before: &Snapshot, after: &Snapshot, arn: &str, now: Timestamp) -> Checked {
    let (Some(old), Some(new)) = (before.get::<Task>(arn), after.get::<Task>(arn)) else { return Ok(()) };
    if old.desired_status == new.desired_status {
        return Ok(());
    }
    let waited = now.since(old.created_at) >= crate::world::PATIENCE;
    ensure(old.connected_at.is_none() && waited, || format!("{arn}: given up though it had begun, or too early"))
}

pub fn left_nothing(after: &Snapshot, arn: &str) -> Checked {
    let Some(task) = after.get::<Task>(arn).filter(|task| task.last_status == TaskStatus::Stopped) else {
        return Ok(());
    };
    ensure(registrations(after, &task).is_empty(), || format!("{arn} is over and still a target"))
}
