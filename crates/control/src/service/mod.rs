//! The reconciler of services: keeps the desired count of the newest deployment, moves from older deployments to it
//! within the service's percentages, replaces what failed, and says when a steady state is reached.
//!
//! The deployment strategy is the rolling update; [`rolling`] is the one place that knows it for replicas, and [`daemon`] for
//! daemon services, which have one task on each container instance. [`rebalance`] moves tasks between availability zones
//! when nothing else is to be done.

mod census;
mod daemon;
mod images;
mod iso_time;
pub(crate) mod outcome;
mod rebalance;
mod rolling;
mod scale_in;

use std::{collections::BTreeMap, time::Duration};

use domain::{
    Arn, Tags, Timestamp,
    ecs::{
        Cluster, Deployment, NewTask, RolloutState, SchedulingStrategy, Service, ServiceStatus, StopCode,
        TaskDefinition, TaskOverrides,
    },
};
use store::Snapshot;

pub use census::Expectation;
pub(crate) use census::{Census, Member};
pub use rebalance::Rebalance;

pub(crate) use rolling::CAPACITY_PAUSE;

use crate::{Plan, Step};

/// A task that ran this long has started well: the back-off begins anew.
pub const STARTED_WELL: Duration = Duration::from_secs(10);

/// The longest pause between two attempts to start tasks.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// After so many failures in a row the service says so.
pub const INCONSISTENT: u32 = 5;

/// How long to wait before a task is started after `failures` in a row that did not start or ran only shortly.
pub fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => Duration::from_secs(1 << (failures - 1).min(16)).min(LONGEST_PAUSE),
    }
}

/// A task to stop and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The task's ARN.
    pub task: String,
    /// The code for DescribeTasks.
    pub code: StopCode,
    /// The text for DescribeTasks.
    pub reason: String,
    /// What the service says about it, before it says that it stopped the task.
    pub event: Option<String>,
    /// The availability zone that it leaves because others have fewer tasks.
    pub rebalanced: Option<String>,
}

impl Stop {
    /// Whether it is ours to choose when: what failed its checks is replaced in any case.
    pub(crate) fn respects_protection(&self) -> bool {
        self.event.is_none()
    }
}

/// What to do about a service. All of it, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// The service's ARN.
    pub service: String,
    /// What must still hold when the plan is applied.
    pub expected: Expectation,
    /// Image digests that the newest deployment is to keep to, by container.
    pub images: BTreeMap<String, String>,
    /// Tasks to start for the newest deployment.
    pub start: u32,
    /// The container instances that they are for, of a daemon service; empty for wherever placement puts them.
    pub start_on: Vec<Arn>,
    /// How many tasks a daemon service is found to want, if it is another number than before.
    pub desired: Option<u32>,
    /// Tasks to stop.
    pub stop: Vec<Stop>,
    /// Old deployments without tasks, to be removed.
    pub retire: Vec<String>,
    /// The newest deployment is complete.
    pub complete: bool,
    /// Too many tasks of the newest deployment failed.
    pub fail: bool,
    /// A task of the newest deployment is healthy: what failed before it need not count.
    pub proved: bool,
    /// The steady state is reached, or lost.
    pub steady: Option<bool>,
    /// The newest deployment starts tasks well again: forget its failures.
    pub recovered: bool,
    /// The percentages leave no room for a next step, or do again.
    pub blocked: Option<bool>,
    /// What is done about availability zones.
    pub rebalance: Option<Rebalance>,
    /// DRAINING becomes INACTIVE.
    pub deactivate: bool,
}

impl ServicePlan {
    fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.start == 0
            && self.desired.is_none()
            && self.stop.is_empty()
            && self.retire.is_empty()
            && !self.complete
            && !self.fail
            && !self.proved
            && self.steady.is_none()
            && !self.recovered
            && self.blocked.is_none()
            && self.rebalance.is_none()
            && !self.deactivate
    }
}

/// What to do about the service now.
pub fn reconcile(view: &Snapshot, arn: &str, now: Timestamp) -> Plan {
    let Some(service) = view.get::<Service>(arn) else { return Plan::default() };
    if service.status == ServiceStatus::Inactive {
        return Plan::default();
    }
    let census = Census::take(view, &service, now);
    let mut plan = ServicePlan {
        service: arn.to_owned(),
        expected: census.expectation(&service),
        images: BTreeMap::new(),
        start: 0,
        start_on: Vec::new(),
        desired: None,
        stop: Vec::new(),
        retire: Vec::new(),
        complete: false,
        fail: false,
        proved: false,
        steady: None,
        recovered: false,
        blocked: None,
        rebalance: None,
        deactivate: false,
    };
    let mut again_at = census.again_at;
    if service.status == ServiceStatus::Draining {
        plan.stop = census.alive().map(|member| scaling(&service, member)).collect();
        plan.deactivate = census.members.is_empty();
    } else if has_failed(&service) {
        plan.fail = true;
    } else {
        let images = images::Images::look(view, &service);
        plan.images = images.found;
        let step = match service.scheduling_strategy {
            SchedulingStrategy::Replica => rolling::step,
            SchedulingStrategy::Daemon => daemon::step,
        };
        again_at = step(view, &service, &census, images.first_only, now, &mut plan).into_iter().chain(again_at).min();
        settle(&service, &census, &mut plan);
        again_at = rebalance::step(view, &service, &census, now, &mut plan).into_iter().chain(again_at).min();
    }
    let step = (!plan.is_empty()).then(|| Step::Service(Box::new(plan)));
    Plan { step, again_at }
}

/// What a plan that is made now relies on.
pub fn expectation(view: &Snapshot, service: &Service, now: Timestamp) -> Expectation {
    Census::take(view, service, now).expectation(service)
}

/// A task of a deployment of the service, as the launcher makes it: on a container instance of its own choice if none is given,
/// in any availability zone if none is given.
pub(crate) fn new_task<'a>(
    service: &'a Service,
    deployment: &'a Deployment,
    cluster: &'a Cluster,
    definition: &'a TaskDefinition,
    place: Option<Arn>,
    zone: Option<String>,
) -> NewTask<'a> {
    let (cpu, memory) = definition.size_with(&TaskOverrides::default());
    NewTask {
        cluster,
        definition,
        cpu,
        memory,
        overrides: TaskOverrides::default(),
        compute: &deployment.compute,
        placement: &service.placement,
        group: format!("service:{}", service.name),
        started_by: Some(deployment.id.clone()),
        service: Some((service.arn.clone(), deployment.id.clone())),
        container_instance_arn: place,
        zone,
        gpu_ids: Vec::new(),
        load_balancers: deployment.load_balancers.clone(),
        image_digests: deployment.image_digests.clone(),
        tags: task_tags(service, definition),
    }
}

/// The tags of a service's task.
fn task_tags(service: &Service, definition: &TaskDefinition) -> Tags {
    let mut tags = match service.propagate_tags.as_deref() {
        Some("SERVICE") => service.tags.clone(),
        Some("TASK_DEFINITION") => definition.tags.clone(),
        _ => Tags::default(),
    };
    if service.enable_ecs_managed_tags {
        tags.set_unchecked("aws:ecs:clusterName".into(), service.cluster_arn.resource_name().to_owned());
        tags.set_unchecked("aws:ecs:serviceName".into(), service.name.clone());
    }
    tags
}

/// Whether too many tasks of the newest deployment have failed.
pub(crate) fn has_failed(service: &Service) -> bool {
    let failed = service.primary().map_or(0, |primary| primary.failed_tasks);
    service.failure_threshold().is_some_and(|threshold| failed >= threshold)
}

/// Deployments that are over, and the steady state.
fn settle(service: &Service, census: &Census, plan: &mut ServicePlan) {
    let Some(primary) = service.primary() else { return };
    plan.retire = service
        .deployments
        .iter()
        .filter(|deployment| deployment.id != primary.id)
        .filter(|deployment| !census.members.iter().any(|member| member.deployment == deployment.id))
        .map(|deployment| deployment.id.clone())
        .collect();
    let desired = service.desired_count as usize;
    let all_new = census.members.iter().all(|member| member.alive && member.deployment == primary.id);
    let as_wanted = plan.start == 0
        && plan.desired.is_none()
        && plan.stop.is_empty()
        && all_new
        && census.members.len() == desired
        && plan.retire.len() + 1 == service.deployments.len();
    if as_wanted && census.healthy() == desired {
        plan.complete = primary.rollout_state == RolloutState::InProgress;
        plan.steady = (!service.steady).then_some(true);
    } else if service.steady && !as_wanted {
        plan.steady = Some(false);
    }
}

fn scaling(service: &Service, member: &Member) -> Stop {
    let deployment = service.primary().map_or("", |primary| primary.id.as_str());
    Stop {
        task: member.task.clone(),
        code: StopCode::ServiceSchedulerInitiated,
        reason: format!("Scaling activity initiated by (deployment {deployment})"),
        event: None,
        rebalanced: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_quarter_of_an_hour() {
        let seconds: Vec<u64> = (0..5).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
