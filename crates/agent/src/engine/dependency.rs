//! `dependsOn`: when a container may start, when it never will, and in which order containers are stopped.
//!
//! Mirrors the dependency graph of Amazon's agent: `START` holds once the other container was started, `COMPLETE` once
//! it ended, `SUCCESS` once it ended with 0, `HEALTHY` while its health check says so. A `startTimeout` counts from the
//! other container's own start.

use std::time::Duration;

use domain::Timestamp;
use domain::agent_protocol::payload::{Dependency, Task};

use super::health::HealthStatus;
use super::record::{ContainerRecord, ContainerStatus, TaskRecord};

/// Whether a container may start.
#[derive(Debug, Clone, PartialEq)]
pub enum Readiness {
    /// Now.
    Ready,
    /// Not yet; look again then at the latest, if there is a deadline.
    Waiting(Option<Timestamp>),
    /// Never, and why.
    Never(String),
}

/// Makes a container depend on those it is linked to, as Amazon's agent does: it must know their addresses.
pub fn with_links(task: &mut Task) {
    for container in &mut task.containers {
        for link in &container.links {
            let name = link.split(':').next().unwrap_or(link);
            if !container.depends_on.iter().any(|on| on.container_name == name) {
                let (container_name, condition) = (name.to_owned(), "START".to_owned());
                container.depends_on.push(Dependency { container_name, condition });
            }
        }
    }
}

/// An order in which every container comes after those it depends on; `None` if there is no such order, because of a
/// cycle or a name nobody has.
pub fn start_order(task: &Task) -> Option<Vec<usize>> {
    let count = task.containers.len();
    let mut waits_for: Vec<Vec<usize>> = Vec::with_capacity(count);
    for container in &task.containers {
        let place = |name: &String| task.containers.iter().position(|other| &other.name == name);
        waits_for.push(container.depends_on.iter().map(|on| place(&on.container_name)).collect::<Option<_>>()?);
    }
    let mut order = Vec::with_capacity(count);
    while order.len() < count {
        let before = order.len();
        for (index, needed) in waits_for.iter().enumerate() {
            if !order.contains(&index) && needed.iter().all(|other| order.contains(other)) {
                order.push(index);
            }
        }
        if order.len() == before {
            return None;
        }
    }
    Some(order)
}

/// Whether the container at `index` may start.
pub fn readiness(record: &TaskRecord, index: usize, now: Timestamp) -> Readiness {
    let Some((target, definition)) = record.pair(index) else { return Readiness::Waiting(None) };
    let mut wake = None;
    let mut waiting = false;
    for on in &definition.depends_on {
        let Some(place) = record.containers.iter().position(|other| other.name == on.container_name) else {
            return Readiness::Never(never(target, &on.container_name, "because dependency will never start"));
        };
        let Some((other, other_definition)) = record.pair(place) else { continue };
        if holds(other, &on.condition) {
            continue;
        }
        if let Some(why) = impossible(other, &on.condition) {
            return Readiness::Never(never(target, &other.name, why));
        }
        waiting = true;
        let deadline = deadline(other, other_definition.start_timeout, &on.condition);
        if let Some(deadline) = deadline {
            if now >= deadline {
                return Readiness::Never(format!(
                    "dependency graph: container ordering dependency [{}] for target [{}] has timed out.",
                    other.name, target.name
                ));
            }
            wake = Some(wake.map_or(deadline, |earlier: Timestamp| earlier.min(deadline)));
        }
    }
    if waiting { Readiness::Waiting(wake) } else { Readiness::Ready }
}

fn never(target: &ContainerRecord, other: &str, why: &str) -> String {
    format!(
        "dependency graph: failed to resolve container ordering dependency [{other}] for target [{}] {why}",
        target.name
    )
}

fn holds(other: &ContainerRecord, condition: &str) -> bool {
    let ended = other.status == ContainerStatus::Stopped && other.started_at.is_some();
    match condition {
        "COMPLETE" => ended,
        "SUCCESS" => ended && other.exit_code == Some(0),
        "HEALTHY" => {
            other.status == ContainerStatus::Running
                && other.health.as_ref().is_some_and(|health| health.status == HealthStatus::Healthy)
        }
        _ => other.started_at.is_some(),
    }
}

fn impossible(other: &ContainerRecord, condition: &str) -> Option<&'static str> {
    if other.status != ContainerStatus::Stopped {
        return None;
    }
    match (other.started_at, condition) {
        (None, _) => Some("because dependency will never start"),
        (Some(_), "SUCCESS") => Some("as dependency did not exit successfully."),
        (Some(_), "HEALTHY") => Some("as dependency exited before it was healthy."),
        _ => None,
    }
}

fn deadline(other: &ContainerRecord, start_timeout: Option<i64>, condition: &str) -> Option<Timestamp> {
    let timeout = u64::try_from(start_timeout.filter(|seconds| *seconds > 0)?).ok()?;
    let counts = matches!(condition, "COMPLETE" | "SUCCESS" | "HEALTHY") && other.status != ContainerStatus::Stopped;
    other.started_at.filter(|_| counts).map(|started| started + Duration::from_secs(timeout))
}

/// Whether the container at `index` may be stopped: nothing that depends on it still runs.
pub fn may_stop(record: &TaskRecord, index: usize) -> bool {
    let Some(target) = record.containers.get(index) else { return false };
    record.task.containers.iter().zip(&record.containers).all(|(definition, container)| {
        let depends = definition.depends_on.iter().any(|on| on.container_name == target.name);
        !depends || container.status != ContainerStatus::Running
    })
}
