//! Of what is done about a service in one commit.

use std::sync::Arc;

use domain::{
    Timestamp,
    balancing::{ObservedHealth, TargetHealth, TargetRegistration},
    ecs::{
        ContainerInstance, ContainerInstanceStatus, DesiredStatus, HealthStatus, LaunchType, RolloutState,
        SchedulingStrategy, Service, ServiceEvent, ServiceStatus, Task, TaskStatus,
    },
};
use store::Snapshot;

use super::{Checked, ensure};

/// What a service's tasks were and are.
struct Change<'a> {
    before: &'a Snapshot,
    was: Arc<Service>,
    is: Arc<Service>,
    /// Tasks that were made.
    started: Vec<Arc<Task>>,
    /// Tasks that are to stop since, as they were.
    stopped: Vec<Arc<Task>>,
    now: Timestamp,
}

pub fn kept_the_promise(before: &Snapshot, after: &Snapshot, arn: &str, now: Timestamp) -> Checked {
    let (Some(was), Some(is)) = (before.get::<Service>(arn), after.get::<Service>(arn)) else { return Ok(()) };
    let (mut started, mut stopped) = (Vec::new(), Vec::new());
    for (old, new) in after.changes_since::<Task>(before) {
        let task = old.clone().or(new.clone()).ok_or("no task")?;
        let own = task.service_arn.as_ref().is_some_and(|own| own.as_str() == arn);
        ensure(own, || format!("{} changed, which is not of {arn}", task.arn))?;
        match (old, new) {
            (None, Some(new)) => started.push(new),
            (Some(old), Some(new)) if old.desired_status != new.desired_status => stopped.push(old),
            _ => {}
        }
    }
    let change = Change { before, was, is, started, stopped, now };
    let checked = change
        .starts(after)
        .and_then(|()| change.spares())
        .and_then(|()| change.daemons_leave_last())
        .and_then(|()| change.minimum(after))
        .and_then(|()| change.maximum(after))
        .and_then(|()| change.outcome(after));
    checked.map_err(|what| format!("{}: {what}", change.is.name))
}

impl Change<'_> {
    /// What is started is of the newest deployment, and due.
    fn starts(&self, after: &Snapshot) -> Checked {
        if self.started.is_empty() {
            return Ok(());
        }
        let primary = self.was.primary().ok_or("started without a deployment")?;
        ensure(self.was.status == ServiceStatus::Active, || "started for a service that is deleted".into())?;
        ensure(primary.rollout_state != RolloutState::Failed, || "started for a deployment that has failed".into())?;
        for task in &self.started {
            let own = task.deployment_id.as_ref() == Some(&primary.id)
                && task.task_definition_arn == primary.task_definition_arn;
            ensure(own, || format!("{} is not of the newest deployment", task.arn))?;
            let pinned = |container: &domain::ecs::TaskContainer| {
                let known = primary.image_digests.get(&container.name);
                known.is_none() || container.pinned_digest.as_ref() == known
            };
            ensure(task.containers.iter().all(pinned), || format!("{} runs another image", task.arn))?;
        }
        let again = self.is.deployments.iter().find(|one| one.id == primary.id);
        let waits = primary.retry_at.is_some_and(|at| at > self.now);
        ensure(!waits || again.is_some_and(|one| one.start_failures == 0), || "started in the pause".into())?;
        if self.is.scheduling_strategy == SchedulingStrategy::Daemon {
            for task in &self.started {
                let place = task.container_instance_arn.as_ref().map(|arn| arn.as_str()).unwrap_or_default();
                let on = after.find::<Task>(Task::ON_INSTANCE, place);
                let beside = on.filter(|other| other.service_arn == task.service_arn).count();
                ensure(beside == 1, || format!("{beside} daemons on {place}"))?;
            }
        } else {
            ensure(self.is.desired_count > 0, || "started though none is wanted".into())?;
        }
        Ok(())
    }

    /// Protected tasks stay, unless they failed their checks or their service is deleted.
    fn spares(&self) -> Checked {
        for task in &self.stopped {
            let protected = task.protected_until.is_some_and(|until| until > self.now);
            let excused = self.was.status != ServiceStatus::Active || fails(self.before, task);
            ensure(!protected || excused, || format!("{} was stopped, which is protected", task.arn))?;
        }
        Ok(())
    }

    /// A daemon leaves a draining instance when only daemons are left there.
    fn daemons_leave_last(&self) -> Checked {
        if self.is.scheduling_strategy == SchedulingStrategy::Replica || self.was.status != ServiceStatus::Active {
            return Ok(());
        }
        for task in self.stopped.iter().filter(|task| !fails(self.before, task)) {
            let place = task.container_instance_arn.as_ref().map(|arn| arn.as_str()).unwrap_or_default();
            let draining = self.before.get::<ContainerInstance>(place);
            let draining = draining.is_some_and(|one| one.status == ContainerInstanceStatus::Draining);
            let beside = self.before.find::<Task>(Task::ON_INSTANCE, place);
            let others = beside.filter(|other| other.service_arn != task.service_arn).count();
            ensure(!draining || others == 0, || format!("{} left before {others} others", task.arn))?;
        }
        Ok(())
    }

    /// Our own stops leave the minimum, rounded up.
    fn minimum(&self, after: &Snapshot) -> Checked {
        if self.was.status != ServiceStatus::Active {
            return Ok(());
        }
        let counts = |view: &Snapshot, task: &Task| {
            // A daemon goes with its instance, whatever the minimum.
            self.is.scheduling_strategy == SchedulingStrategy::Replica || on_active(view, task)
        };
        if !self.stopped.iter().any(|task| healthy(self.before, task) && counts(self.before, task)) {
            return Ok(());
        }
        let left = after.find::<Task>(Task::OF_SERVICE, self.is.arn.as_str());
        let left = left.filter(|task| healthy(after, task) && counts(after, task)).count() as u64;
        let share = u64::from(self.is.desired_count) * u64::from(self.is.minimum_healthy_percent);
        ensure(left * 100 >= share, || format!("our own stops left {left} healthy, {share} hundredths are wanted"))
    }

    /// Running and starting tasks stay within the maximum, rounded down.
    fn maximum(&self, after: &Snapshot) -> Checked {
        if self.is.scheduling_strategy == SchedulingStrategy::Daemon || self.started.is_empty() {
            return Ok(());
        }
        let alive = after.find::<Task>(Task::OF_SERVICE, self.is.arn.as_str());
        let alive = alive.filter(|task| task.desired_status == DesiredStatus::Running).count() as u64;
        let share = u64::from(self.is.desired_count) * u64::from(self.is.maximum_percent);
        ensure(alive * 100 <= share, || format!("{alive} tasks, where {share} hundredths may be"))
    }

    /// Complete and steady mean what they say, and the way back leads to what was complete.
    fn outcome(&self, after: &Snapshot) -> Checked {
        let primary = self.is.primary().ok_or("no deployment")?;
        let before = self.was.primary().ok_or("no deployment")?;
        if before.id != primary.id {
            ensure(before.revision_arn != primary.revision_arn, || "went back to what failed".into())?;
            ensure(primary.revision_arn == self.was.last_completed, || "went back to what was never complete".into())?;
        }
        let completed = before.rollout_state != RolloutState::Completed
            && before.id == primary.id
            && primary.rollout_state == RolloutState::Completed;
        let steadied = self.is.steady && !self.was.steady;
        if !completed && !steadied {
            return Ok(());
        }
        let all: Vec<_> = after.find::<Task>(Task::OF_SERVICE, self.is.arn.as_str()).collect();
        let new = |task: &Arc<Task>| task.deployment_id.as_ref() == Some(&primary.id) && healthy(after, task);
        ensure(all.iter().all(new) && all.len() == self.is.desired_count as usize, || {
            format!("complete or steady with {} tasks, not all of them new and healthy", all.len())
        })?;
        let prefix = ServiceEvent::prefix(self.is.arn.as_str());
        let mut said = after.list_before::<ServiceEvent>(&prefix, None).take(3);
        ensure(!steadied || said.any(|event| event.message.contains("steady state")), || "steady without a word".into())
    }
}

fn on_active(view: &Snapshot, task: &Task) -> bool {
    let instance = task.container_instance_arn.as_ref().and_then(|arn| view.get::<ContainerInstance>(arn.as_str()));
    instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Active)
}

/// What the balancers say of a task, once for each of its targets; none for one that is not found yet.
fn verdicts(view: &Snapshot, task: &Task) -> Vec<Option<TargetHealth>> {
    let verdict = |balancer: &domain::ecs::TaskLoadBalancer| {
        let port = match task.launch_type {
            LaunchType::Fargate => balancer.container_port,
            _ => task.host_port(&balancer.container_name, balancer.container_port)?,
        };
        let key = TargetRegistration::key_of(&balancer.target_group_arn, crate::world::address(view, task)?, port);
        Some(view.get::<ObservedHealth>(&key)?.health.clone())
    };
    task.load_balancers.iter().map(verdict).collect()
}

/// Wanted, running, and passes all checks that there are.
fn healthy(view: &Snapshot, task: &Task) -> bool {
    task.desired_status == DesiredStatus::Running
        && task.last_status == TaskStatus::Running
        && task.containers.iter().all(|one| !one.has_health_check || one.health_status == HealthStatus::Healthy)
        && verdicts(view, task).iter().all(|verdict| *verdict == Some(TargetHealth::HEALTHY))
}

/// Fails a check.
fn fails(view: &Snapshot, task: &Task) -> bool {
    let unhealthy = domain::balancing::HealthState::Unhealthy;
    task.containers.iter().any(|one| one.has_health_check && one.health_status == HealthStatus::Unhealthy)
        || verdicts(view, task).iter().flatten().any(|health| health.state == unhealthy)
}
