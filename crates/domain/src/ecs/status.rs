//! The statuses of tasks and why tasks stop, in Amazon's words.

use serde::{Deserialize, Serialize};

/// A task's or container's status. The order of the variants is the order of life: a status only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    /// Its network interface is being attached.
    Provisioning,
    /// Its host is pulling images and starting containers.
    Pending,
    /// Its containers run; its targets are being registered.
    Activating,
    /// It runs.
    Running,
    /// Its targets drain.
    Deactivating,
    /// Its host stops the containers.
    Stopping,
    /// Its network interface is being released.
    Deprovisioning,
    /// It is over.
    Stopped,
}

impl TaskStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Activating => "ACTIVATING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }

    /// Whether the task has still to reach RUNNING.
    pub fn is_starting(self) -> bool {
        self < Self::Running
    }
}

/// What ECS wants of a task. Moves from RUNNING to STOPPED once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DesiredStatus {
    /// It shall run.
    Running,
    /// It shall stop, or has.
    Stopped,
}

impl DesiredStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// Why a task was stopped, as a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCode {
    /// It never ran.
    TaskFailedToStart,
    /// An essential container ended.
    EssentialContainerExited,
    /// StopTask.
    UserInitiated,
    /// Its service's scheduler: scale-in, a deployment, failed health checks.
    ServiceSchedulerInitiated,
    /// Its host went away.
    TerminationNotice,
}

impl StopCode {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            Self::TerminationNotice => "TerminationNotice",
        }
    }
}

/// What the container health checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthStatus {
    /// No health check, or no verdict yet.
    #[default]
    Unknown,
    /// Passed.
    Healthy,
    /// Failed.
    Unhealthy,
}

impl HealthStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

/// `stoppedReason` texts that are the same for every task.
pub mod reason {
    /// An essential container ended.
    pub const ESSENTIAL_CONTAINER: &str = "Essential container in task exited";
    /// StopTask without a reason.
    pub const USER: &str = "Task stopped by user";
    /// The host is gone.
    pub const HOST_LOST: &str = "ECS is performing maintenance on the underlying infrastructure hosting the task.";
    /// The host's agent was away for longer than the operator lets it.
    pub const HOST_SILENT: &str = "The container instance's agent has not been connected for too long.";
    /// The EC2 instance is stopped, terminated or dead.
    pub fn ec2_instance_ended(instance_id: &str) -> String {
        format!("Host EC2 (instance {instance_id}) terminated.")
    }
    /// Its network interface was not there in time.
    pub const NETWORK_TIMEOUT: &str = "Timeout waiting for network interface provisioning to complete.";
    /// The agent said nothing more precise.
    pub const FAILED_TO_START: &str = "Task failed to start";
}

/// Reasons in `failures` of RunTask, as Amazon writes them.
pub mod failure {
    /// Unknown resource.
    pub const MISSING: &str = "MISSING";
    /// No host has that much memory free.
    pub const MEMORY: &str = "RESOURCE:MEMORY";
    /// No host has that much CPU.
    pub const CPU: &str = "RESOURCE:CPU";
    /// No Fargate host has room.
    pub const CAPACITY: &str =
        "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    /// No host is connected.
    pub const AGENT: &str = "AGENT";
    /// A task that cannot be protected: it is no service's, or is to stop.
    pub const TASK_NOT_VALID: &str = "TASK_NOT_VALID";
    /// Protected tasks hold up their service's deployment.
    pub const DEPLOYMENT_BLOCKED: &str = "DEPLOYMENT_BLOCKED";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_order_of_life() {
        use TaskStatus::*;
        let life = [Provisioning, Pending, Activating, Running, Deactivating, Stopping, Deprovisioning, Stopped];
        assert!(life.is_sorted());
        assert_eq!(serde_json::to_string(&Deprovisioning).unwrap(), "\"DEPROVISIONING\"");
    }
}
