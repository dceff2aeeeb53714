//! Services and their events.

use serde::{Deserialize, Serialize};

use super::{
    CircuitBreaker, Deployment, DeploymentStatus, Placement, RolloutState, ServiceDeployment, ServiceRevision,
};
use crate::{Arn, IdSource, Resource, Scope, Tags, Timestamp};

/// How many events DescribeServices gives.
pub const MAX_EVENTS: usize = 100;

/// A service's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceStatus {
    /// Keeps its desired count.
    Active,
    /// Deleted; its tasks are stopping.
    Draining,
    /// Deleted and without tasks.
    Inactive,
}

impl ServiceStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// How a service's tasks are spread over its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SchedulingStrategy {
    /// As many as are desired, where placement puts them.
    #[default]
    Replica,
    /// One on each container instance.
    Daemon,
}

impl SchedulingStrategy {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "REPLICA",
            Self::Daemon => "DAEMON",
        }
    }
}

/// What is known of the move of a service's tasks between availability zones, from when they are found off balance until
/// they are balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalancing {
    /// The desired count that it began with: with another one, tasks beyond it are a scale-in's.
    pub desired_count: u32,
    /// The zones where no task could be started when it was last tried.
    #[serde(default)]
    pub full: Vec<String>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `arn:…:service/{cluster}/{name}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// Its cluster.
    pub cluster_arn: Arn,
    /// Unique within the cluster.
    pub name: String,
    /// Status.
    pub status: ServiceStatus,
    /// How its tasks are spread.
    #[serde(default)]
    pub scheduling_strategy: SchedulingStrategy,
    /// How many tasks it shall have. Of a daemon service: on how many instances its reconciler wants one.
    pub desired_count: u32,
    /// `LATEST`, or the version that was asked for; of Fargate only.
    #[serde(default = "latest")]
    pub platform_version: String,
    /// Where its tasks are placed in the cluster.
    #[serde(default)]
    pub placement: Placement,
    /// Whether its tasks are moved to other availability zones when they are off balance.
    #[serde(default)]
    pub zone_rebalancing: bool,
    /// That they are being moved, or should be.
    #[serde(default)]
    pub rebalancing: Option<Rebalancing>,
    /// Of the desired count, what must run during a deployment.
    pub minimum_healthy_percent: u32,
    /// Of the desired count, what may run or start during a deployment.
    pub maximum_percent: u32,
    /// Seconds after a task's start in which failed health checks do not count.
    #[serde(default)]
    pub health_check_grace_period_seconds: Option<u32>,
    /// Whether tasks get tags of their own about cluster and service.
    #[serde(default)]
    pub enable_ecs_managed_tags: bool,
    /// `TASK_DEFINITION`, `SERVICE` or none.
    #[serde(default)]
    pub propagate_tags: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
    /// The ARN of who made it.
    pub created_by: String,
    /// The idempotency token it was made with.
    #[serde(default)]
    pub client_token: Option<String>,
    /// What ends a deployment whose tasks fail.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,
    /// The newest first.
    pub deployments: Vec<Deployment>,
    /// The ARN of the revision that was deployed last and whole: what a failed deployment goes back to.
    #[serde(default)]
    pub last_completed: Option<Arn>,
    /// Whether the last thing said of it was that it is steady.
    #[serde(default)]
    pub steady: bool,
    /// How many events it has had; the number of the next one.
    #[serde(default)]
    pub events: u64,
}

fn latest() -> String {
    super::fargate::LATEST.to_owned()
}

impl Service {
    /// Finds the services of a cluster that are not INACTIVE, by the cluster's ARN.
    pub const BY_CLUSTER: &str = "cluster";
    /// Finds the services that use a target group and are not INACTIVE, by the target group's ARN.
    pub const BY_TARGET_GROUP: &str = "target-group";
    /// Finds the services with a deployment of a task definition, by its ARN.
    pub const BY_DEFINITION: &str = "definition";

    /// Finds the services that wait for capacity; its only value is `yes`.
    pub const UNPLACED: &str = "unplaced";

    /// The newest deployment.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.status == DeploymentStatus::Primary)
    }

    /// The newest deployment, to be changed.
    pub fn primary_mut(&mut self) -> Option<&mut Deployment> {
        self.deployments.iter_mut().find(|deployment| deployment.status == DeploymentStatus::Primary)
    }

    /// After how many failed tasks in a row the newest deployment has failed. None while that is not watched: without a
    /// circuit breaker, once it is over, and when there is nothing it could be given up for.
    pub fn failure_threshold(&self) -> Option<u32> {
        let primary = self.primary().filter(|primary| primary.rollout_state == RolloutState::InProgress)?;
        let back_already = primary.revision_arn.is_some() && primary.revision_arn == self.last_completed;
        (self.circuit_breaker.enable && !back_already).then(|| self.circuit_breaker.threshold.of(self.desired_count))
    }

    /// Begins to deploy a revision. Returns the record of it.
    pub fn begin(&mut self, revision: &ServiceRevision, ids: &mut IdSource, now: Timestamp) -> ServiceDeployment {
        let begun = ServiceDeployment::begin(self, revision.arn.clone(), ids, now);
        let mut deployment = Deployment::of_revision(revision, ids, now);
        deployment.service_deployment_arn = Some(begun.arn.clone());
        self.deploy(deployment, now);
        begun
    }

    /// Makes a deployment the newest; the others are on their way out.
    fn deploy(&mut self, new: Deployment, now: Timestamp) {
        if let Some(before) = self.primary_mut() {
            before.status = DeploymentStatus::Active;
            before.updated_at = now;
            before.unplaced = false;
        }
        self.deployments.retain(|known| known.id != new.id);
        self.deployments.insert(0, new);
    }

    /// Makes what was deployed last and whole the newest deployment again: as it is where some of it is left, so that its
    /// tasks stay. Returns the deployment's id.
    pub fn roll_back(&mut self, to: &ServiceRevision, why: &str, ids: &mut IdSource, now: Timestamp) -> String {
        let during = self.primary().and_then(|primary| primary.service_deployment_arn.clone());
        let left = self.deployments.iter().find(|known| known.revision_arn.as_ref() == Some(&to.arn));
        let mut again = left.cloned().unwrap_or_else(|| Deployment::of_revision(to, ids, now));
        again.status = DeploymentStatus::Primary;
        again.rollout_state = RolloutState::InProgress;
        again.rollout_state_reason = format!("{why}: rolling back to deploymentId {}.", again.id);
        again.service_deployment_arn = during;
        again.updated_at = now;
        let id = again.id.clone();
        self.deploy(again, now);
        id
    }

    /// The fewest tasks that must run while old ones are stopped: rounded up.
    pub fn minimum_healthy(&self) -> u32 {
        percent(self.desired_count, self.minimum_healthy_percent, 99)
    }

    /// The most tasks that may run or start at once: rounded down.
    pub fn maximum(&self) -> u32 {
        percent(self.desired_count, self.maximum_percent, 0)
    }
}

fn percent(count: u32, percent: u32, round: u64) -> u32 {
    u32::try_from((u64::from(count) * u64::from(percent) + round) / 100).unwrap_or(u32::MAX)
}

impl Resource for Service {
    const KIND: &'static str = "ecs/service";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        if self.status == ServiceStatus::Inactive {
            return Vec::new();
        }
        let mut entries = vec![(Self::BY_CLUSTER, self.cluster_arn.to_string())];
        for deployment in &self.deployments {
            entries.push((Self::BY_DEFINITION, deployment.task_definition_arn.to_string()));
            for balancer in &deployment.load_balancers {
                entries.push((Self::BY_TARGET_GROUP, balancer.target_group_arn.to_string()));
            }
        }
        if self.deployments.iter().any(|deployment| deployment.unplaced) {
            entries.push((Self::UNPLACED, "yes".into()));
        }
        entries.sort();
        entries.dedup();
        entries
    }
}

/// Something that happened to a service. A resource of its own, so that a service is not rewritten with its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    /// The service.
    pub service_arn: Arn,
    /// Its place among the service's events, from 0 on.
    pub number: u64,
    /// A UUID.
    pub id: String,
    /// When.
    pub created_at: Timestamp,
    /// What, in Amazon's words.
    pub message: String,
}

impl ServiceEvent {
    /// The keys of a service's events begin with this and sort by number.
    pub fn prefix(service: &str) -> String {
        format!("{service}#")
    }

    /// The key of the event with that number.
    pub fn key_of(service: &str, number: u64) -> String {
        format!("{service}#{number:020}")
    }
}

impl Resource for ServiceEvent {
    const KIND: &'static str = "ecs/service-event";
    fn key(&self) -> String {
        Self::key_of(self.service_arn.as_str(), self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_rounds_up_and_the_maximum_down() {
        let check = |count, share, up, expect| assert_eq!(percent(count, share, up), expect, "{count} {share}");
        check(3, 50, 99, 2);
        check(3, 50, 0, 1);
        check(1, 150, 0, 1);
        check(4, 200, 0, 8);
        check(0, 100, 99, 0);
        check(u32::MAX, 200, 0, u32::MAX);
    }
}
