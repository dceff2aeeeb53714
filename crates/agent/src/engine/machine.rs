//! The task state machine: from what is remembered of a task to what is to be done next.
//!
//! Pure and level-triggered: [`decide`] looks at the record and at what is under way, never at how it came about, so a
//! restarted agent goes on through the same path. Effects belong to the actor in [`super::task`], which tells their
//! results back through the functions here.

use std::collections::BTreeSet;

use domain::Timestamp;

use super::dependency::{self, Readiness};
use super::driver::Started;
use super::health::{Check, Outcome};
use super::record::{ContainerStatus, Desired, TaskRecord, docker_config};
use super::restart;

/// Something to do for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make its network, cgroup, storage and metadata endpoint ready.
    Provision,
    /// Pull the image of a container.
    Pull(usize),
    /// Give up pulling the image of a container.
    AbandonPull(usize),
    /// Create and start a container.
    Start(usize),
    /// Stop a container: its stop signal, its time, the kill.
    Stop(usize),
    /// Remove everything of the task from the host.
    CleanUp,
}

/// What is being done for a task right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Whether it is being provisioned.
    pub provision: bool,
    /// Containers whose image is being pulled.
    pub pull: BTreeSet<usize>,
    /// Containers being created and started.
    pub start: BTreeSet<usize>,
    /// Containers being stopped.
    pub stop: BTreeSet<usize>,
    /// Whether it is being removed.
    pub clean_up: bool,
}

/// What to do next, and when to look again at the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// To do now, at once.
    pub actions: Vec<Action>,
    /// The next deadline.
    pub wake: Option<Timestamp>,
}

/// Why something could not be done, in Amazon's words (`CannotPullContainerError: …`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the tag pointed at.
    pub digest: String,
    /// The manifest for this host's platform: the image itself.
    pub manifest: String,
    /// The image's stop signal.
    pub stop_signal: Option<String>,
}

/// How a container's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Exit code, 128 + signal when killed; `None` when nobody saw it.
    pub exit_code: Option<i32>,
    /// Whether the kernel killed something in it for want of memory.
    pub out_of_memory: bool,
    /// When.
    pub at: Timestamp,
}

/// The reason Amazon gives for a container that was killed for its memory.
pub const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";

/// Looks at a task and says what to do next. Containers that will never start are settled on the way.
pub fn decide(record: &mut TaskRecord, in_flight: &InFlight, now: Timestamp) -> Decision {
    let mut decision;
    loop {
        let before = (record.desired, record.containers.iter().map(|container| container.status).collect::<Vec<_>>());
        decision = Decision::default();
        match record.desired {
            Desired::Running => toward_running(record, in_flight, now, &mut decision),
            Desired::Stopped => toward_stopped(record, in_flight, now, &mut decision),
        }
        essential_ends(record, now);
        let after = (record.desired, record.containers.iter().map(|container| container.status).collect::<Vec<_>>());
        if before == after {
            break;
        }
    }
    if record.all_stopped() {
        record.execution_stopped_at.get_or_insert(now);
        let busy = in_flight.provision || !in_flight.start.is_empty() || in_flight.clean_up;
        if !record.cleaned && !busy {
            decision.actions.push(Action::CleanUp);
        }
    }
    decision
}

fn toward_running(record: &mut TaskRecord, in_flight: &InFlight, now: Timestamp, decision: &mut Decision) {
    if !record.provisioned && !in_flight.provision {
        decision.actions.push(Action::Provision);
    }
    let mut all_pulled = true;
    for index in 0..record.containers.len() {
        let status = record.containers[index].status;
        if status == ContainerStatus::None {
            all_pulled = false;
            if !in_flight.pull.contains(&index) {
                record.pull_started_at.get_or_insert(now);
                decision.actions.push(Action::Pull(index));
            }
        }
    }
    // Fargate has every image of a task on the host before any of its containers starts.
    if !record.provisioned || !all_pulled {
        return;
    }
    for index in 0..record.containers.len() {
        if record.containers[index].status != ContainerStatus::Pulled || in_flight.start.contains(&index) {
            continue;
        }
        if record.containers[index].restart_count > 0 {
            decision.actions.push(Action::Start(index));
            continue;
        }
        match dependency::readiness(record, index, now) {
            Readiness::Ready => decision.actions.push(Action::Start(index)),
            Readiness::Waiting(until) => {
                decision.wake = match (decision.wake, until) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            Readiness::Never(reason) => {
                settle(record, index, Some(reason), now);
            }
        }
    }
}

fn toward_stopped(record: &mut TaskRecord, in_flight: &InFlight, now: Timestamp, decision: &mut Decision) {
    for index in 0..record.containers.len() {
        match record.containers[index].status {
            ContainerStatus::None | ContainerStatus::Pulled if !in_flight.start.contains(&index) => {
                if in_flight.pull.contains(&index) {
                    decision.actions.push(Action::AbandonPull(index));
                }
                settle(record, index, None, now);
            }
            ContainerStatus::Running if !in_flight.stop.contains(&index) && dependency::may_stop(record, index) => {
                decision.actions.push(Action::Stop(index));
            }
            _ => {}
        }
    }
}

/// The end of an essential container is the end of the task.
fn essential_ends(record: &mut TaskRecord, now: Timestamp) {
    let ended = record
        .containers
        .iter()
        .zip(&record.task.containers)
        .find(|(container, definition)| definition.essential && container.status == ContainerStatus::Stopped);
    if let Some((container, _)) = ended {
        let at = container.finished_at.unwrap_or(now);
        record.execution_stopped_at.get_or_insert(at);
        record.desired = Desired::Stopped;
    }
}

fn settle(record: &mut TaskRecord, index: usize, reason: Option<String>, now: Timestamp) {
    let essential = record.task.containers.get(index).is_some_and(|container| container.essential);
    let Some(container) = record.containers.get_mut(index) else { return };
    container.status = ContainerStatus::Stopped;
    if container.started_at.is_some() {
        container.finished_at.get_or_insert(now);
    }
    if let Some(reason) = reason {
        container.reason.get_or_insert(reason);
        if essential && record.told < super::record::TaskStatus::Running {
            record.reason.get_or_insert_with(|| "Task failed to start".to_owned());
        }
    }
}

/// The task is ready for its containers, or never will be.
pub fn provisioned(record: &mut TaskRecord, outcome: Result<(), Failure>) {
    match outcome {
        Ok(()) => record.provisioned = true,
        Err(Failure(reason)) if record.desired == Desired::Running => {
            record.reason.get_or_insert(reason);
            record.desired = Desired::Stopped;
        }
        Err(_) => {}
    }
}

/// What the image of a container resolved to, before its layers are here.
pub fn resolved(record: &mut TaskRecord, index: usize, digest: String) {
    if let Some(container) = record.containers.get_mut(index) {
        container.image_digest = Some(digest);
    }
}

/// The image of a container is here, or cannot be had.
pub fn pulled(record: &mut TaskRecord, index: usize, outcome: Result<Pulled, Failure>, now: Timestamp) {
    let essential = record.task.containers.get(index).is_some_and(|container| container.essential);
    let Some(container) = record.containers.get_mut(index) else { return };
    if container.status != ContainerStatus::None {
        return;
    }
    match outcome {
        Ok(pulled) => {
            container.image_digest = Some(pulled.digest);
            container.manifest_digest = Some(pulled.manifest);
            container.stop_signal = pulled.stop_signal;
            container.status = ContainerStatus::Pulled;
        }
        Err(Failure(reason)) => {
            container.status = ContainerStatus::Stopped;
            // What the task as a whole lacks is the task's reason alone.
            if reason.starts_with("Cannot") {
                container.reason = Some(reason.clone());
            }
            if essential {
                record.reason.get_or_insert(reason);
            }
        }
    }
    if record.containers.iter().all(|container| container.status != ContainerStatus::None) {
        record.pull_stopped_at.get_or_insert(now);
    }
}

/// A container's own process was executed, or cannot be.
pub fn started(record: &mut TaskRecord, index: usize, outcome: Result<Started, Failure>, now: Timestamp) {
    match outcome {
        Ok(Started { at, network, named }) => {
            if let Some(container) = record.containers.get_mut(index) {
                if let Some(named) = named {
                    container.rename(named.id, named.name);
                }
                container.status = ContainerStatus::Running;
                container.created_at.get_or_insert(at);
                container.started_at = Some(at);
                container.network = network;
                container.finished_at = None;
                if let Some(health) = &mut container.health {
                    health.reset(now);
                }
            }
        }
        Err(Failure(reason)) => settle(record, index, Some(reason), now),
    }
}

/// A container's process ended; true if it is to be started again in place.
pub fn ended(record: &mut TaskRecord, index: usize, ended: &Ended) -> bool {
    let policy = record.task.containers.get(index).and_then(|container| container.restart_policy.clone());
    let wanted = record.desired == Desired::Running;
    let Some(container) = record.containers.get_mut(index) else { return false };
    if container.status == ContainerStatus::Stopped {
        return false;
    }
    container.exit_code = ended.exit_code;
    container.finished_at = Some(ended.at);
    container.reason = match (ended.out_of_memory && ended.exit_code != Some(0), ended.exit_code) {
        (true, _) => Some(OUT_OF_MEMORY.to_owned()),
        (false, None) => Some("The exit code of the container is unknown: its supervisor was killed.".to_owned()),
        (false, Some(_)) => None,
    };
    if let Some(health) = &mut container.health {
        health.reset(ended.at);
    }
    let ran = container.started_at.map(|started| ended.at.since(started)).unwrap_or_default();
    if wanted && policy.is_some_and(|policy| restart::wanted(&policy, ended.exit_code, ran)) {
        container.former_ids.extend(container.runtime_id.take());
        container.restart_count += 1;
        container.exit_code = None;
        container.reason = None;
        container.status = ContainerStatus::Pulled;
        return true;
    }
    container.status = ContainerStatus::Stopped;
    false
}

/// A health check ran; true if the container's health changed.
pub fn checked(record: &mut TaskRecord, index: usize, outcome: Outcome, now: Timestamp) -> bool {
    let check = record.task.containers.get(index).and_then(|container| docker_config(container).healthcheck);
    let Some(check) = check.as_ref().and_then(Check::new) else { return false };
    let Some(container) = record.containers.get_mut(index) else { return false };
    if container.status != ContainerStatus::Running {
        return false;
    }
    let started_at = container.started_at.unwrap_or(now);
    container.health.as_mut().is_some_and(|health| health.observe(outcome, &check, started_at, now))
}
