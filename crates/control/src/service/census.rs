//! A service's tasks as its reconciler sees them: which count, which are healthy, which must be replaced.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use domain::{
    Arn, Timestamp,
    balancing::{HealthState, ObservedHealth, classic::is_classic},
    ecs::{
        ContainerInstance, ContainerInstanceStatus, DesiredStatus, HealthStatus, LaunchType, Service, ServiceStatus,
        StopCode, Task, TaskStatus,
    },
};
use store::Snapshot;

use super::{STARTED_WELL, Stop};
use crate::{events::balancer, targets};

/// One task that is not STOPPED.
pub(crate) struct Member {
    pub(crate) task: String,
    pub(crate) deployment: String,
    /// Where it is.
    pub(crate) instance: Option<Arn>,
    /// Shall run.
    pub(crate) alive: bool,
    pub(crate) status: TaskStatus,
    pub(crate) created_at: Timestamp,
    /// Runs and passes the checks that there are.
    pub(crate) healthy: bool,
    /// Has run for a while.
    pub(crate) started_well: bool,
    /// Its container instance is DRAINING: it moves to another one, as from an older deployment.
    pub(crate) leaving: bool,
    /// Its container instance is deregistered: it will be found to be lost.
    gone: bool,
    /// Neither scale-in nor a deployment may stop it.
    pub(crate) protected: bool,
    /// Why it must be replaced.
    pub(crate) failed: Option<Stop>,
}

/// All tasks of a service that are not STOPPED.
pub(crate) struct Census {
    pub(crate) members: Vec<Member>,
    /// When time alone will change the picture.
    pub(crate) again_at: Option<Timestamp>,
}

/// What a plan was made from, as far as it matters: the plan is dropped when it no longer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The service's status.
    pub status: ServiceStatus,
    /// The newest deployment's id.
    pub primary: String,
    /// The desired count.
    pub desired: u32,
    /// A digest of the tasks that are not STOPPED: which they are, and of each whether it shall run, is healthy, has failed its
    /// checks, shall run elsewhere, has lost its instance. Their numbers would not do: one may have recovered while another failed, and a plan
    /// to stop the first would take a healthy one too many.
    pub tasks: u64,
}

impl Census {
    pub(crate) fn take(view: &Snapshot, service: &Service, now: Timestamp) -> Self {
        let mut again_at: Option<Timestamp> = None;
        let grace = Duration::from_secs(service.health_check_grace_period_seconds.unwrap_or(0).into());
        let members = view
            .find::<Task>(Task::OF_SERVICE, service.arn.as_str())
            .map(|task| {
                let running = task.last_status == TaskStatus::Running;
                let mut wait_until = |at: Timestamp| again_at = again_at.into_iter().chain([at]).min();
                let well_at = task.started_at.map(|at| at + STARTED_WELL);
                let started_well = running && well_at.is_some_and(|at| now >= at);
                if let Some(at) = well_at.filter(|at| running && now < *at) {
                    wait_until(at);
                }
                let protected = task.is_protected(now);
                if let Some(until) = task.protected_until.filter(|_| protected) {
                    wait_until(until);
                }
                let checks = checks(view, &task);
                let mut failed = checks.failed;
                if failed.is_some() {
                    let grace_ends = task.started_at.unwrap_or(now) + grace;
                    if grace_ends > now {
                        failed = None;
                        wait_until(grace_ends);
                    }
                }
                let alive = task.desired_status == DesiredStatus::Running;
                let host = host_status(view, &task);
                let draining = host == Some(ContainerInstanceStatus::Draining);
                Member {
                    task: task.arn.to_string(),
                    deployment: task.deployment_id.clone().unwrap_or_default(),
                    instance: task.container_instance_arn.clone(),
                    alive,
                    status: task.last_status,
                    created_at: task.created_at,
                    healthy: alive && running && checks.passed,
                    started_well,
                    leaving: draining && task.launch_type != LaunchType::Fargate,
                    gone: matches!(host, None | Some(ContainerInstanceStatus::Inactive)),
                    protected,
                    failed: failed.filter(|_| alive && running),
                }
            })
            .collect();
        Self { members, again_at }
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.alive)
    }

    pub(crate) fn healthy(&self) -> usize {
        self.members.iter().filter(|member| member.healthy).count()
    }

    pub(crate) fn expectation(&self, service: &Service) -> Expectation {
        Expectation {
            status: service.status,
            primary: service.primary().map(|primary| primary.id.clone()).unwrap_or_default(),
            desired: service.desired_count,
            tasks: self.digest(),
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for member in &self.members {
            let state = (member.alive, member.healthy, member.failed.is_some(), member.leaving, member.gone);
            (&member.task, state).hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn host_status(view: &Snapshot, task: &Task) -> Option<ContainerInstanceStatus> {
    let host = view.get::<ContainerInstance>(task.container_instance_arn.as_ref()?.as_str())?;
    Some(host.status)
}

struct Checks {
    passed: bool,
    failed: Option<Stop>,
}

/// What container health checks and load balancers say of a task. No verdict is neither passed nor failed.
fn checks(view: &Snapshot, task: &Task) -> Checks {
    let stop = |reason: String, event: String| Stop {
        task: task.arn.to_string(),
        code: StopCode::ServiceSchedulerInitiated,
        reason,
        event: Some(event),
        rebalanced: None,
    };
    let mut checks = Checks { passed: true, failed: None };
    if task.has_health_check() {
        let health = task.health_status();
        checks.passed &= health == HealthStatus::Healthy;
        if health == HealthStatus::Unhealthy {
            let event = format!("(task {}) failed container health checks.", task.id());
            checks.failed = Some(stop("Task failed container health checks".into(), event));
        }
    }
    let targets = targets::of_task(view, task);
    // A task whose place is not known yet is healthy nowhere.
    checks.passed &= targets.len() == task.load_balancers.len();
    for target in targets {
        let group = &target.group;
        let health = view.get::<ObservedHealth>(&target.key());
        let state = health.as_ref().map(|observed| observed.health.state);
        checks.passed &= state == Some(HealthState::Healthy);
        if let Some(observed) = health.filter(|observed| observed.health.state == HealthState::Unhealthy) {
            let why = observed.health.reason.as_ref().map_or_else(String::new, |reason| reason.description());
            let instance = target.instance_id.as_ref().map_or_else(String::new, |id| format!("(instance {id}) "));
            let balancer = balancer(group);
            // Amazon tells why in the words of each API.
            let (port, why) = if is_classic(group) {
                let text = "Instance has failed at least the UnhealthyThreshold number of health checks consecutively.";
                (String::new(), text.to_owned())
            } else {
                (format!("(port {}) ", target.port), why)
            };
            let event = format!("{instance}{port}is unhealthy in {balancer} due to (reason {why})");
            let reason = format!("Task failed ELB health checks in {balancer}");
            checks.failed.get_or_insert_with(|| stop(reason, event));
        }
    }
    checks
}
