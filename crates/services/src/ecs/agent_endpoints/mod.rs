//! The control plane's side of Amazon's ECS agent protocol: registration, the ACS and TCS sessions, and the reports of
//! agents. Any agent that speaks the protocol may come, Amazon's own included; nothing here knows how ours works.
//!
//! Sessions are driven by the store alone: what an agent is to do is read from the tasks placed on it, so a restart of
//! the control plane, of the agent or of a connection all come to the same.

pub mod acs;
pub(super) mod credentials;
mod identity;
mod query;
mod register;
mod reports;
mod socket;
pub mod tcs;
mod wake;
mod work;

use std::time::Duration;

use domain::agent_protocol::FARGATE_CLUSTER;
use domain::ecs::container_instance::host_patience;
use domain::ecs::{AgentAbsence, AgentConnection, ContainerInstance, ContainerInstanceStatus, names};
use domain::{Arn, Clock, Scope, Timestamp};
use iam::Principal;
use store::{Snapshot, Transaction};
use wire::ServiceError;

use crate::Platform;

pub(crate) use identity::retire_ec2_instance;
pub(super) use register::{discover_poll_endpoint, register};
pub(super) use reports::{submit_attachments, submit_container, submit_task};
pub use wake::Wakeups;

/// Wakes the agents' sessions when something changes for them, for as long as the platform's store is there.
pub fn wake_agents(platform: &Platform) -> impl Future<Output = ()> + Send + use<> {
    platform.wakeups.clone().follow(&platform.store)
}

/// How many Fargate hosts are connected and take tasks.
pub fn fargate_hosts_connected(view: &Snapshot) -> usize {
    view.find::<ContainerInstance>(ContainerInstance::FARGATE, "yes")
        .filter(|instance| view.contains::<AgentConnection>(instance.arn.as_str()))
        .count()
}

/// At the start of the control plane nobody is connected yet.
pub fn await_agents(tx: &mut Transaction, clock: &Clock, lost_after: Option<Duration>) {
    let (since, patience) = (clock.now(), host_patience(clock));
    let instances = tx.list::<ContainerInstance>("");
    let there = instances.filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
    let absences: Vec<AgentAbsence> = there.map(|instance| absence(&instance, since, patience, lost_after)).collect();
    absences.into_iter().for_each(|absence| tx.put(absence));
}

/// That an instance's agent is away. The platform's own host is never given up: it is where the platform is.
fn absence(
    instance: &ContainerInstance,
    since: Timestamp,
    patience: Duration,
    lost_after: Option<Duration>,
) -> AgentAbsence {
    let lost_at = lost_after.filter(|_| !instance.is_fargate()).map(|after| since + after);
    AgentAbsence { container_instance_arn: instance.arn.clone(), since, patience, lost_at }
}

/// Whether this is the platform's own Fargate host, the only one that may name the hidden cluster.
fn is_fargate_host(principal: &Principal) -> bool {
    matches!(principal, Principal::Service { name, .. } if name == iam::FARGATE_HOST)
}

/// The ARN of the cluster an agent names: one of its account, or the hidden one for the platform's own host.
fn agents_cluster(
    view: &Snapshot,
    principal: &Principal,
    scope: &Scope,
    text: Option<&str>,
) -> Result<Arn, ServiceError> {
    let hidden = names::cluster(scope, FARGATE_CLUSTER);
    let named_hidden = text.is_some_and(|text| text == FARGATE_CLUSTER || text == hidden.as_str());
    if named_hidden && is_fargate_host(principal) {
        return Ok(hidden);
    }
    super::common::cluster(view, scope, text).map(|cluster| cluster.arn.clone())
}

/// The instance an agent says it is, if the caller may be it and it is not deregistered.
fn agents_instance(
    view: &Snapshot,
    principal: &Principal,
    arn: &str,
) -> Result<std::sync::Arc<ContainerInstance>, ServiceError> {
    let instance = view.get::<ContainerInstance>(arn).filter(|instance| {
        instance.is_fargate() == is_fargate_host(principal) && &instance.scope.account == principal.account()
    });
    instance.filter(|instance| instance.status != ContainerInstanceStatus::Inactive).ok_or_else(|| {
        ServiceError::new("InactiveInstanceException", "The container instance is not registered with this cluster.")
    })
}

/// The instance that opens a session. What names no instance of this account and region, or not this cluster's, is a
/// mistake that the agent tries again after a while; InactiveInstanceException tells it that it was deregistered.
fn sessions_instance(
    view: &Snapshot,
    principal: &Principal,
    scope: &Scope,
    cluster: &str,
    arn: &str,
) -> Result<std::sync::Arc<ContainerInstance>, ServiceError> {
    let is_ours = arn.starts_with("arn:") && names::name_after(scope, arn, "container-instance").is_some();
    if !is_ours {
        let text = "The container instance is not one of this account and region.";
        return Err(ServiceError::new("InvalidInstanceException", text));
    }
    let instance = agents_instance(view, principal, arn)?;
    let named = agents_cluster(view, principal, scope, Some(cluster).filter(|cluster| !cluster.is_empty()));
    let wrong = |text: &str| ServiceError::new("InvalidClusterException", text);
    match named {
        Ok(cluster) if cluster == instance.cluster_arn => Ok(instance),
        Ok(_) => Err(wrong("The container instance is not in this cluster.")),
        Err(_) => Err(wrong("Cluster not found.")),
    }
}

#[cfg(test)]
mod identity_tests;
