//! What the control plane is told of a task: PENDING when every image is resolved, RUNNING when every container runs
//! or ran, STOPPED at the end, and changes of single containers in between with the task's current status.
//!
//! Amazon's agent keeps these in order per task and repeats each until it is taken; so does the outbox of a record.

use super::record::{
    ContainerChange, ContainerRecord, ContainerStatus, StateChange, TaskRecord, TaskStatus, ToldContainer,
};

/// Longest reason Amazon takes, in bytes.
const REASON_LIMIT: usize = 1024;

/// Puts what the control plane does not know yet into the task's outbox. `settled` says that a STOPPED may go out now
/// and that changes of single containers have waited long enough to go as one.
pub fn collect(record: &mut TaskRecord, settled: bool) {
    let status = record.status();
    if status > record.told && (status != TaskStatus::Stopped || settled) {
        push(record, status);
    } else if settled && record.told > TaskStatus::Pending && record.told < TaskStatus::Stopped && changed(record) {
        let told = record.told;
        push(record, told);
    }
}

/// Whether containers changed in a way no state change has told yet.
pub fn changed(record: &TaskRecord) -> bool {
    record.containers.iter().any(untold)
}

fn untold(container: &ContainerRecord) -> bool {
    match &container.told {
        Some(told) => told.status != container.status || told.exit_code != container.exit_code,
        None => container.status >= ContainerStatus::Running,
    }
}

fn push(record: &mut TaskRecord, status: TaskStatus) {
    let mut containers = Vec::new();
    for container in &mut record.containers {
        if status == TaskStatus::Stopped || status == TaskStatus::Pending || untold(container) {
            containers.push(change(container));
        }
        container.told = Some(ToldContainer { status: container.status, exit_code: container.exit_code });
    }
    let reason = match status {
        TaskStatus::Stopped => record.reason.clone().unwrap_or_default(),
        _ => String::new(),
    };
    record.told = status;
    record.outbox.push_back(StateChange {
        status: status.as_str().to_owned(),
        reason: bounded(reason),
        containers,
        pull_started_at: record.pull_started_at,
        pull_stopped_at: record.pull_stopped_at,
        execution_stopped_at: record.execution_stopped_at.filter(|_| status == TaskStatus::Stopped),
    });
}

fn change(container: &ContainerRecord) -> ContainerChange {
    let status = match container.status {
        ContainerStatus::None | ContainerStatus::Pulled => TaskStatus::Pending,
        ContainerStatus::Running => TaskStatus::Running,
        ContainerStatus::Stopped => TaskStatus::Stopped,
    };
    ContainerChange {
        container_name: container.name.clone(),
        status: status.as_str().to_owned(),
        runtime_id: container.runtime_id.clone().filter(|_| container.status >= ContainerStatus::Running),
        image_digest: container.image_digest.clone(),
        exit_code: container.exit_code,
        reason: container.reason.clone().map(bounded),
        network_bindings: container.network.bindings.clone(),
    }
}

fn bounded(mut reason: String) -> String {
    if reason.len() > REASON_LIMIT {
        let mut end = REASON_LIMIT;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
    }
    reason
}
