//! Deployments of a service: what is on its way in or out now ([`Deployment`]), and the history of it, which DescribeServices
//! does not show: each configuration that was deployed ([`ServiceRevision`]) and each change to it ([`ServiceDeployment`]).
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Compute, Service, TaskLoadBalancer, TaskNetwork};
use crate::{Arn, IdSource, Resource, Timestamp};

/// How many service deployments and revisions of a service are kept.
pub const MOST_REMEMBERED: usize = 100;

/// A deployment's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentStatus {
    /// The newest.
    Primary,
    /// An older one that still has tasks.
    Active,
}

impl DeploymentStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Active => "ACTIVE",
        }
    }
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    /// Not yet in a steady state.
    InProgress,
    /// Reached a steady state.
    Completed,
    /// Given up.
    Failed,
}

impl RolloutState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// One deployment of a service: a revision on its way in, or on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// `ecs-svc/{19 digits}`.
    pub id: String,
    /// Status.
    pub status: DeploymentStatus,
    /// The configuration that it deploys.
    #[serde(default)]
    pub revision_arn: Option<Arn>,
    /// The record of this change, for the history.
    #[serde(default)]
    pub service_deployment_arn: Option<Arn>,
    /// What its tasks run.
    pub task_definition_arn: Arn,
    /// Its tasks' network, if each has a network interface.
    #[serde(default)]
    pub network: Option<TaskNetwork>,
    /// Its tasks' targets.
    #[serde(default)]
    pub load_balancers: Vec<TaskLoadBalancer>,
    /// What its tasks run on.
    #[serde(flatten)]
    pub compute: Compute,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// How far it is.
    pub rollout_state: RolloutState,
    /// The same in words.
    pub rollout_state_reason: String,
    /// Tasks of it in a row that did not start or failed their checks: the measure of the circuit breaker.
    #[serde(default)]
    pub failed_tasks: u32,
    /// Tasks in a row that did not start: the measure of the back-off.
    #[serde(default)]
    pub start_failures: u32,
    /// No task is started before.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// Whether the last task wanted found no place.
    #[serde(default)]
    pub unplaced: bool,
    /// Whether the percentages leave no room for a next step, and the service has said so.
    #[serde(default)]
    pub blocked: bool,
    /// What the tags of its images meant for its first task, by container: what all further tasks run.
    #[serde(default)]
    pub image_digests: BTreeMap<String, String>,
}

impl Deployment {
    /// A new deployment's id.
    pub fn new_id(ids: &mut IdSource) -> String {
        format!("ecs-svc/{}", digits(ids))
    }

    /// A new deployment of a revision, in progress.
    pub fn of_revision(revision: &ServiceRevision, ids: &mut IdSource, now: Timestamp) -> Self {
        let id = Self::new_id(ids);
        Self {
            status: DeploymentStatus::Primary,
            revision_arn: Some(revision.arn.clone()),
            service_deployment_arn: None,
            task_definition_arn: revision.task_definition_arn.clone(),
            network: revision.network.clone(),
            load_balancers: revision.load_balancers.clone(),
            compute: revision.compute.clone(),
            created_at: now,
            updated_at: now,
            rollout_state: RolloutState::InProgress,
            rollout_state_reason: format!("ECS deployment {id} in progress."),
            failed_tasks: 0,
            start_failures: 0,
            retry_at: None,
            unplaced: false,
            blocked: false,
            image_digests: revision.image_digests.clone(),
            id,
        }
    }
}

/// Nineteen of them, as Amazon's ids have.
fn digits(ids: &mut IdSource) -> String {
    let mut digit = |from: u8, count: usize| char::from(from + u8::try_from(ids.below(count)).unwrap_or(0));
    std::iter::once(digit(b'1', 9)).chain((0..18).map(|_| digit(b'0', 10))).collect()
}

/// How the circuit breaker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", tag = "type", content = "value")]
pub enum FailureThreshold {
    /// So many failed tasks.
    Count(u32),
    /// So many percent of the desired count, but 3 to 200.
    BoundedPercent(u32),
    /// So many percent of the desired count.
    UnboundedPercent(u32),
}

impl FailureThreshold {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count(_) => "COUNT",
            Self::BoundedPercent(_) => "BOUNDED_PERCENT",
            Self::UnboundedPercent(_) => "UNBOUNDED_PERCENT",
        }
    }

    /// The number with it.
    pub fn value(self) -> u32 {
        match self {
            Self::Count(value) | Self::BoundedPercent(value) | Self::UnboundedPercent(value) => value,
        }
    }

    /// How many failed tasks it comes to: rounded up, and at least one.
    pub fn of(self, desired: u32) -> u32 {
        let share =
            |percent: u32| u32::try_from((u64::from(desired) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX);
        match self {
            Self::Count(count) => count.max(1),
            Self::BoundedPercent(percent) => share(percent).clamp(3, 200),
            Self::UnboundedPercent(percent) => share(percent).max(1),
        }
    }
}

/// What ends a deployment whose tasks fail.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    /// Whether it does anything.
    pub enable: bool,
    /// Whether the service goes back to what was deployed last and whole.
    pub rollback: bool,
    /// Whether a healthy task makes what failed before it forgotten.
    pub reset_on_healthy_task: bool,
    /// How many failed tasks in a row are too many.
    pub threshold: FailureThreshold,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            enable: false,
            rollback: false,
            reset_on_healthy_task: true,
            threshold: FailureThreshold::BoundedPercent(50),
        }
    }
}

/// A configuration of a service that was deployed. Never changes, but for the images that its tags turned out to mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRevision {
    /// `arn:…:service-revision/{cluster}/{service}/{19 digits}`.
    pub arn: Arn,
    /// The service.
    pub service_arn: Arn,
    /// Its cluster.
    pub cluster_arn: Arn,
    /// What the tasks run.
    pub task_definition_arn: Arn,
    /// Their network, if each has a network interface.
    pub network: Option<TaskNetwork>,
    /// Their targets.
    pub load_balancers: Vec<TaskLoadBalancer>,
    /// What they run on.
    pub compute: Compute,
    /// What the tags of the images meant, by container.
    pub image_digests: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl ServiceRevision {
    /// The ARNs of a service's revisions begin with this.
    pub fn prefix(service: &Service) -> String {
        service.scope.arn("ecs", &format!("service-revision/{}/", service.arn.resource_path())).to_string()
    }

    /// A new revision's ARN.
    pub fn new_arn(service: &Service, ids: &mut IdSource) -> Arn {
        service.scope.arn("ecs", &format!("service-revision/{}/{}", service.arn.resource_path(), digits(ids)))
    }
}

impl Resource for ServiceRevision {
    const KIND: &'static str = "ecs/service-revision";
    fn key(&self) -> String {
        self.arn.to_string()
    }
}

/// How far a service deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceDeploymentStatus {
    /// Its target is on its way in.
    InProgress,
    /// Its target is all there is.
    Successful,
    /// It failed without a rollback, or something newer took its place.
    Stopped,
    /// It failed, and what was there before is on its way in again.
    RollbackInProgress,
    /// What was there before is all there is again.
    RollbackSuccessful,
    /// There was nothing to go back to, or something newer took the rollback's place.
    RollbackFailed,
}

impl ServiceDeploymentStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Successful => "SUCCESSFUL",
            Self::Stopped => "STOPPED",
            Self::RollbackInProgress => "ROLLBACK_IN_PROGRESS",
            Self::RollbackSuccessful => "ROLLBACK_SUCCESSFUL",
            Self::RollbackFailed => "ROLLBACK_FAILED",
        }
    }

    /// Whether it goes on.
    pub fn is_open(self) -> bool {
        matches!(self, Self::InProgress | Self::RollbackInProgress)
    }
}

/// Whether a service deployment's circuit breaker watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BreakerStatus {
    /// It ended the deployment.
    Triggered,
    /// It counts.
    Monitoring,
    /// The deployment is over.
    MonitoringComplete,
    /// There is none.
    Disabled,
}

impl BreakerStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Triggered => "TRIGGERED",
            Self::Monitoring => "MONITORING",
            Self::MonitoringComplete => "MONITORING_COMPLETE",
            Self::Disabled => "DISABLED",
        }
    }
}

/// The way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Why.
    pub reason: String,
    /// Since when.
    pub started_at: Timestamp,
    /// To which revision.
    pub revision_arn: Arn,
}

/// A change of what a service runs: from which revisions to which, how, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDeployment {
    /// `arn:…:service-deployment/{cluster}/{service}/{id}`.
    pub arn: Arn,
    /// The service.
    pub service_arn: Arn,
    /// Its cluster.
    pub cluster_arn: Arn,
    /// How far it is.
    pub status: ServiceDeploymentStatus,
    /// The same in words.
    pub status_reason: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it was given up.
    pub stopped_at: Option<Timestamp>,
    /// The revisions that were there before.
    pub sources: Vec<Arn>,
    /// The revision that shall be there.
    pub target: Arn,
    /// The percentages and the circuit breaker that it began with.
    pub minimum_healthy_percent: u32,
    /// See there.
    pub maximum_percent: u32,
    /// See there.
    pub circuit_breaker: CircuitBreaker,
    /// Whether the breaker watches.
    pub breaker_status: BreakerStatus,
    /// What it counted, once it is over.
    pub failures: u32,
    /// The way back, if one was begun.
    pub rollback: Option<Rollback>,
}

impl ServiceDeployment {
    /// The ARNs of a service's deployments begin with this.
    pub fn prefix(service: &Service) -> String {
        service.scope.arn("ecs", &format!("service-deployment/{}/", service.arn.resource_path())).to_string()
    }

    /// One from what there is of the service now to a revision.
    pub fn begin(service: &Service, target: Arn, ids: &mut IdSource, now: Timestamp) -> Self {
        let path = service.arn.resource_path();
        let breaker = &service.circuit_breaker;
        Self {
            arn: service.scope.arn("ecs", &format!("service-deployment/{path}/{}", ids.hex(21))),
            service_arn: service.arn.clone(),
            cluster_arn: service.cluster_arn.clone(),
            status: ServiceDeploymentStatus::InProgress,
            status_reason: None,
            created_at: now,
            updated_at: now,
            finished_at: None,
            stopped_at: None,
            sources: service.deployments.iter().filter_map(|known| known.revision_arn.clone()).collect(),
            target,
            minimum_healthy_percent: service.minimum_healthy_percent,
            maximum_percent: service.maximum_percent,
            circuit_breaker: breaker.clone(),
            breaker_status: if breaker.enable { BreakerStatus::Monitoring } else { BreakerStatus::Disabled },
            failures: 0,
            rollback: None,
        }
    }

    /// What was there before comes back.
    pub fn roll_back(&mut self, to: Arn, reason: &str, failures: u32, now: Timestamp) {
        self.status = ServiceDeploymentStatus::RollbackInProgress;
        self.status_reason = Some(reason.to_owned());
        self.rollback = Some(Rollback { reason: reason.to_owned(), started_at: now, revision_arn: to });
        self.failures = failures;
        self.updated_at = now;
    }

    /// It is given up for something else: nothing is said of it later.
    pub fn give_up(&mut self, reason: &str, failures: u32, now: Timestamp) {
        let status = match self.status {
            ServiceDeploymentStatus::RollbackInProgress => ServiceDeploymentStatus::RollbackFailed,
            _ => ServiceDeploymentStatus::Stopped,
        };
        self.finish(status, Some(reason.to_owned()), failures, now);
    }

    /// It is over.
    pub fn finish(&mut self, status: ServiceDeploymentStatus, reason: Option<String>, failures: u32, now: Timestamp) {
        self.status = status;
        self.status_reason = reason.or(self.status_reason.take());
        self.finished_at = Some(now);
        self.stopped_at = (status == ServiceDeploymentStatus::Stopped).then_some(now).or(self.stopped_at);
        self.updated_at = now;
        self.failures = self.failures.max(failures);
        if self.breaker_status == BreakerStatus::Monitoring {
            self.breaker_status = BreakerStatus::MonitoringComplete;
        }
    }
}

impl Resource for ServiceDeployment {
    const KIND: &'static str = "ecs/service-deployment";
    fn key(&self) -> String {
        self.arn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_ids_have_nineteen_digits() {
        let id = Deployment::new_id(&mut IdSource::from_seed(3));
        assert!(id.len() == 27 && id.starts_with("ecs-svc/") && !id.starts_with("ecs-svc/0"), "{id}");
    }

    #[test]
    fn thresholds_are_shares_of_the_desired_count() {
        let default = CircuitBreaker::default().threshold;
        for (desired, failures) in [(0, 3), (1, 3), (6, 3), (7, 4), (25, 13), (400, 200), (5000, 200)] {
            assert_eq!(default.of(desired), failures, "{desired}");
        }
        assert_eq!(FailureThreshold::Count(2).of(900), 2);
        assert_eq!(FailureThreshold::UnboundedPercent(50).of(5000), 2500);
        assert_eq!(FailureThreshold::UnboundedPercent(10).of(3), 1);
    }
}
