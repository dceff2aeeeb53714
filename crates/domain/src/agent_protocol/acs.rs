//! ACS, the Agent Communication Service: what the control plane tells a container instance, and its answers.

use serde::{Deserialize, Serialize};

use super::envelope::messages;
use super::payload::{ElasticNetworkInterface, RoleCredentials, Task};

messages! {
    /// From the control plane to the agent.
    ToAgent {
        /// Keeps the connection alive; answered with [`HeartbeatAck`].
        Heartbeat(Heartbeat) = "HeartbeatMessage",
        /// Tasks to run or to stop; answered with [`Ack`] and one [`CredentialsAck`] per credential set of a new task.
        Payload(Payload) = "PayloadMessage",
        /// Fresh credentials of a running task; answered with [`CredentialsAck`].
        Credentials(Credentials) = "IAMRoleCredentialsMessage",
        /// A network interface on its way to this instance; answered with [`Ack`].
        AttachTaskInterfaces(AttachTaskInterfaces) = "AttachTaskNetworkInterfacesMessage",
        /// All tasks the control plane wants on this instance.
        Manifest(Manifest) = "TaskManifestMessage",
        /// Which of the offered tasks really are to be stopped.
        StopVerificationAck(StopVerificationAck) = "TaskStopVerificationAck",
        /// The control plane is about to close the connection.
        Close(Notice) = "CloseMessage",
        /// Something went wrong; only logged.
        Error(Notice) = "ErrorMessage",
    }
}

messages! {
    /// From the agent to the control plane. Nothing is sent unasked.
    FromAgent {
        /// The message was taken.
        Ack(Ack) = "AckRequest",
        /// The message was refused.
        Nack(Nack) = "NackRequest",
        /// Answer to a heartbeat.
        HeartbeatAck(HeartbeatAck) = "HeartbeatAckRequest",
        /// A task's credentials were taken.
        CredentialsAck(CredentialsAck) = "IAMRoleCredentialsAckRequest",
        /// Tasks that run here and that a manifest lacks.
        StopVerification(StopVerification) = "TaskStopVerificationMessage",
    }
}

/// Keeps the connection alive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// Echoed in the answer.
    pub message_id: String,
    /// Always true: a control plane that is not healthy does not get to send one.
    pub healthy: bool,
}

/// Tasks to run or to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// Echoed in the answers.
    pub message_id: String,
    /// The instance's cluster.
    pub cluster_arn: String,
    /// The instance.
    pub container_instance_arn: String,
    /// When it was made, epoch milliseconds.
    #[serde(default)]
    pub generated_at: i64,
    /// Grows with every payload of this instance.
    #[serde(default)]
    pub seq_num: i64,
    /// Orders payloads and manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i64>,
    /// The tasks; only `arn` and `desiredStatus` matter for one that is to be stopped.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// Which role of a task credentials belong to.
pub const TASK_APPLICATION: &str = "TaskApplication";
/// The role that pulls images and sends logs.
pub const TASK_EXECUTION: &str = "TaskExecution";

/// Fresh credentials of a running task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Echoed in the answer.
    pub message_id: String,
    /// The task.
    pub task_arn: String,
    /// The task's cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_cluster_arn: Option<String>,
    /// [`TASK_APPLICATION`] or [`TASK_EXECUTION`].
    pub role_type: String,
    /// The same credentials id as before, with new keys.
    pub role_credentials: RoleCredentials,
}

/// A network interface on its way to this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachTaskInterfaces {
    /// Echoed in the answer.
    pub message_id: String,
    /// The instance's cluster.
    pub cluster_arn: String,
    /// The instance.
    pub container_instance_arn: String,
    /// The task it is for.
    pub task_arn: String,
    /// The task's cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_cluster_arn: Option<String>,
    /// How long the interface is waited for.
    pub wait_timeout_ms: i64,
    /// The interfaces.
    pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
}

/// A task by name, as manifests and stop verifications list it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskIdentifier {
    /// The task.
    pub task_arn: String,
    /// The task's cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_cluster_arn: Option<String>,
    /// `RUNNING` or `STOPPED`.
    pub desired_status: String,
}

/// All tasks the control plane wants on this instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// Echoed in the answers.
    pub message_id: String,
    /// The instance's cluster.
    pub cluster_arn: String,
    /// The instance.
    pub container_instance_arn: String,
    /// When it was made, epoch milliseconds.
    pub generated_at: i64,
    /// Ignored by the agent unless above every number it has seen.
    pub timeline: i64,
    /// The tasks.
    pub tasks: Vec<TaskIdentifier>,
}

/// Which of the offered tasks really are to be stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StopVerificationAck {
    /// The manifest's id.
    pub message_id: String,
    /// When it was made, epoch milliseconds.
    pub generated_at: i64,
    /// The tasks to stop.
    pub stop_tasks: Vec<TaskIdentifier>,
}

/// A text for the agent's log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notice {
    /// The text.
    pub message: String,
}

/// The message was taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ack {
    /// The cluster as the agent knows it: a name or an ARN.
    pub cluster: String,
    /// The instance's ARN.
    pub container_instance: String,
    /// The message.
    pub message_id: String,
}

/// The message was refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nack {
    /// The cluster as the agent knows it: a name or an ARN.
    pub cluster: String,
    /// The instance's ARN.
    pub container_instance: String,
    /// The message.
    pub message_id: String,
    /// Why.
    pub reason: String,
}

/// Answer to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatAck {
    /// The heartbeat.
    pub message_id: String,
}

/// A task's credentials were taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialsAck {
    /// The message that brought them.
    pub message_id: String,
    /// Which set.
    pub credentials_id: String,
    /// The expiration, verbatim.
    pub expiration: String,
}

/// Tasks that run here and that a manifest lacks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StopVerification {
    /// The manifest's id.
    pub message_id: String,
    /// The tasks.
    pub stop_candidates: Vec<TaskIdentifier>,
}
