//! How a task's statuses move. Pure and forward only: late, repeated and reordered reports do no harm.
//!
//! ```text
//! PROVISIONING ─▶ PENDING ─▶ (ACTIVATING ─▶) RUNNING ─▶ (DEACTIVATING ─▶) STOPPING ─▶ DEPROVISIONING ─▶ STOPPED
//!   interface      agent       targets                    targets drain     agent        interface
//! ```

use super::Task;
use crate::{
    Timestamp,
    ecs::{
        ContainerReport, DesiredStatus, HealthStatus, ReportedStatus, StopCode, TaskReport, TaskStatus, status::reason,
    },
};

/// How long a reason can be; longer ones are cut.
const MAX_REASON: usize = 1024;

impl Task {
    /// What its host shall do with it now: run it, stop it, or nothing (`None`). A task whose targets still drain is
    /// kept running.
    pub fn wanted_on_host(&self) -> Option<DesiredStatus> {
        self.container_instance_arn.as_ref()?;
        match self.last_status {
            TaskStatus::Stopping => Some(DesiredStatus::Stopped),
            TaskStatus::Deprovisioning | TaskStatus::Stopped => None,
            _ => Some(DesiredStatus::Running),
        }
    }

    /// Whether nobody has begun it: its host has said nothing of it yet.
    pub fn is_waiting(&self) -> bool {
        self.desired_status == DesiredStatus::Running && self.last_status.is_starting() && self.connected_at.is_none()
    }

    /// Whether its network interface is there.
    pub fn is_attached(&self) -> bool {
        self.interface.as_ref().is_none_or(|interface| interface.attached)
    }

    /// Asks for the end of the task. The first one who asks names the reason. Returns whether anything changed.
    pub fn request_stop(&mut self, code: StopCode, reason: &str, now: Timestamp) -> bool {
        if self.desired_status == DesiredStatus::Stopped {
            return false;
        }
        self.desired_status = DesiredStatus::Stopped;
        self.stop_code = Some(code);
        self.stopped_reason = Some(cut(reason));
        self.stopping_at = Some(now);
        let next = if self.container_instance_arn.is_none() {
            TaskStatus::Deprovisioning
        } else if !self.load_balancers.is_empty()
            && matches!(self.last_status, TaskStatus::Activating | TaskStatus::Running)
        {
            TaskStatus::Deactivating
        } else {
            TaskStatus::Stopping
        };
        self.forward(next, now);
        self.version += 1;
        true
    }

    /// Its targets are registered: ACTIVATING becomes RUNNING.
    pub fn activated(&mut self, now: Timestamp) -> bool {
        self.last_status == TaskStatus::Activating && self.forward(TaskStatus::Running, now) && self.changed()
    }

    /// Its targets have drained: DEACTIVATING becomes STOPPING.
    pub fn deactivated(&mut self, now: Timestamp) -> bool {
        self.last_status == TaskStatus::Deactivating && self.forward(TaskStatus::Stopping, now) && self.changed()
    }

    /// Its network interface is released: DEPROVISIONING becomes STOPPED.
    pub fn deprovisioned(&mut self, now: Timestamp) -> bool {
        self.last_status == TaskStatus::Deprovisioning && self.forward(TaskStatus::Stopped, now) && self.changed()
    }

    /// Its host is gone, and its containers with it.
    pub fn lost(&mut self, why: &str, now: Timestamp) -> bool {
        self.request_stop(StopCode::TerminationNotice, why, now);
        self.ended(now) && self.changed()
    }

    /// It was not begun in time: its interface is not there, or its host never spoke of it. `host_absent` says that
    /// nobody is there to confirm its end.
    pub fn not_begun(&mut self, host_absent: bool, now: Timestamp) -> bool {
        let why = if self.is_attached() { reason::FAILED_TO_START } else { reason::NETWORK_TIMEOUT };
        let stopped = self.request_stop(StopCode::TaskFailedToStart, why, now);
        (host_absent && self.ended(now) && self.changed()) || stopped
    }

    /// Takes in what was reported. Returns whether anything changed; a repeated report changes nothing.
    pub fn observe(&mut self, report: &TaskReport, now: Timestamp) -> bool {
        if self.last_status == TaskStatus::Stopped {
            return false;
        }
        let mut changed = false;
        for container in &report.containers {
            changed |= self.observe_container(container);
        }
        changed |= fill(&mut self.pull_started_at, report.pull_started_at);
        changed |= fill(&mut self.pull_stopped_at, report.pull_stopped_at);
        changed |= fill(&mut self.execution_stopped_at, report.execution_stopped_at);
        if report.status.is_some() {
            changed |= fill(&mut self.connected_at, Some(now));
        }
        if report.attached || report.status == Some(ReportedStatus::Running) {
            if let Some(interface) = self.interface.as_mut().filter(|interface| !interface.attached) {
                interface.attached = true;
                changed = true;
            }
            changed |= self.forward(TaskStatus::Pending, now);
        }
        match report.status {
            None => {}
            Some(ReportedStatus::Pending) => changed |= self.forward(TaskStatus::Pending, now),
            // A task that shall stop is past RUNNING: the report is late.
            Some(ReportedStatus::Running)
                if self.desired_status == DesiredStatus::Running && self.last_status < TaskStatus::Activating =>
            {
                let next = if self.load_balancers.is_empty() { TaskStatus::Running } else { TaskStatus::Activating };
                changed |= self.forward(next, now);
            }
            Some(ReportedStatus::Running) => {}
            Some(ReportedStatus::Stopped) => {
                if self.desired_status == DesiredStatus::Running {
                    let (code, reason) = self.why_it_stopped(report.reason.as_deref());
                    changed |= self.request_stop(code, &reason, now);
                }
                changed |= self.ended(now);
            }
        }
        changed && self.changed()
    }

    /// Takes in what a container's health check says.
    pub fn observe_health(&mut self, container: &str, health: HealthStatus) -> bool {
        let stopped = self.last_status >= TaskStatus::Deprovisioning;
        let Some(container) = self.containers.iter_mut().find(|known| known.name == container) else { return false };
        if stopped || !container.has_health_check || container.health_status == health {
            return false;
        }
        container.health_status = health;
        self.changed()
    }

    fn observe_container(&mut self, report: &ContainerReport) -> bool {
        let Some(container) = self.containers.iter_mut().find(|known| known.name == report.name) else { return false };
        let mut changed = false;
        // A container that its restart policy starts again ends more than once: its last exit code counts.
        if container.last_status != TaskStatus::Stopped && report.exit_code.is_some() {
            changed |= container.exit_code != report.exit_code;
            container.exit_code = report.exit_code;
        }
        let status = match report.status {
            Some(ReportedStatus::Running) => TaskStatus::Running,
            Some(ReportedStatus::Stopped) => TaskStatus::Stopped,
            _ => TaskStatus::Pending,
        };
        if status > container.last_status {
            container.last_status = status;
            changed = true;
        }
        if report.runtime_id.is_some() && container.runtime_id != report.runtime_id {
            container.runtime_id.clone_from(&report.runtime_id);
            changed = true;
        }
        changed |= fill(&mut container.image_digest, report.image_digest.clone());
        changed |= fill(&mut container.exit_code, report.exit_code);
        let text = report.reason.as_deref().filter(|text| !text.is_empty()).map(cut);
        changed |= fill(&mut container.reason, text);
        if !report.network_bindings.is_empty() && container.network_bindings != report.network_bindings {
            container.network_bindings.clone_from(&report.network_bindings);
            changed = true;
        }
        changed
    }

    /// Why a task that nobody stopped is over.
    fn why_it_stopped(&self, reported: Option<&str>) -> (StopCode, String) {
        let ran = self.started_at.is_some();
        if let Some(text) = reported.filter(|text| !text.is_empty() && !ran) {
            return (StopCode::TaskFailedToStart, text.to_owned());
        }
        if ran || self.containers.iter().any(|container| container.essential && container.exit_code.is_some()) {
            return (StopCode::EssentialContainerExited, reason::ESSENTIAL_CONTAINER.to_owned());
        }
        let text = self.containers.iter().find_map(|container| container.reason.as_deref());
        (StopCode::TaskFailedToStart, text.unwrap_or(reason::FAILED_TO_START).to_owned())
    }

    /// No container runs any more.
    fn ended(&mut self, now: Timestamp) -> bool {
        let mut changed = false;
        for container in &mut self.containers {
            changed |= container.last_status != TaskStatus::Stopped;
            container.last_status = TaskStatus::Stopped;
        }
        if self.started_at.is_some() {
            changed |= fill(&mut self.execution_stopped_at, Some(now));
        }
        self.forward(TaskStatus::Deprovisioning, now) || changed
    }

    fn forward(&mut self, to: TaskStatus, now: Timestamp) -> bool {
        if to <= self.last_status {
            return false;
        }
        self.last_status = to;
        match to {
            TaskStatus::Running => drop(fill(&mut self.started_at, Some(now))),
            TaskStatus::Stopped => drop(fill(&mut self.stopped_at, Some(now))),
            _ => {}
        }
        true
    }

    fn changed(&mut self) -> bool {
        self.version += 1;
        true
    }
}

/// Sets what is not set yet.
fn fill<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    if field.is_none() && value.is_some() {
        *field = value;
        return true;
    }
    false
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests;
