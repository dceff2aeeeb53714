//! TCS, the Telemetry Communication Service: metrics and container health from the agent, and their acknowledgements.
//!
//! Every frame of the agent is a block of HTTP-like headers (a signature over the body among them), a blank line, and
//! the envelope; frames of the control plane are plain envelopes.

use serde::{Deserialize, Serialize};

use super::ProtocolError;
use super::envelope::messages;

messages! {
    /// From the agent to the control plane; each is to be acknowledged, else the agent reconnects.
    ToServer {
        /// Metrics of the instance and its tasks.
        PublishMetrics(PublishMetrics) = "PublishMetricsRequest",
        /// Health of containers that have a check.
        PublishHealth(PublishHealth) = "PublishHealthRequest",
        /// Health of the instance itself.
        PublishInstanceStatus(PublishInstanceStatus) = "PublishInstanceStatusRequest",
    }
}

messages! {
    /// From the control plane to the agent.
    ToAgent {
        /// Metrics arrived.
        AckPublishMetric(AckPublish) = "AckPublishMetric",
        /// Health arrived.
        AckPublishHealth(AckPublish) = "AckPublishHealth",
        /// Instance status arrived.
        AckPublishInstanceStatus(AckPublish) = "AckPublishInstanceStatus",
        /// Keeps the connection alive; no answer.
        Heartbeat(Heartbeat) = "HeartbeatMessage",
        /// A message was not understood; only logged.
        BadRequest(AckPublish) = "BadRequestException",
        /// Stop sending.
        StopTelemetrySession(AckPublish) = "StopTelemetrySessionMessage",
    }
}

/// Joins headers and an envelope into one frame.
pub fn frame(headers: &[(String, String)], body: &str) -> String {
    let mut text = String::with_capacity(body.len() + 512);
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    text
}

/// Names and values of a frame's header block, in its order.
pub type Headers<'a> = Vec<(&'a str, &'a str)>;

/// Takes a frame apart into its headers and the envelope.
pub fn unframe(text: &str) -> Result<(Headers<'_>, &str), ProtocolError> {
    let (block, body) = text.split_once("\r\n\r\n").ok_or(ProtocolError::NoHeaderBlock)?;
    let headers = block
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    Ok((headers, body))
}

/// An acknowledgement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AckPublish {
    /// A text for the agent's log.
    pub message: String,
}

/// Keeps the connection alive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    /// Always true.
    pub healthy: bool,
}

/// Which publication a page belongs to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The instance's cluster.
    pub cluster: String,
    /// The instance.
    pub container_instance: String,
    /// The same on all pages of one publication.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message_id: String,
    /// Instead of the above for instance status.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// True when no task runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
    /// True on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fin: Option<bool>,
}

/// Health of containers that have a check.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishHealth {
    /// Which publication.
    pub metadata: Metadata,
    /// Epoch seconds.
    pub timestamp: f64,
    /// At most ten tasks.
    pub tasks: Vec<TaskHealth>,
}

/// Health of one task's containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskHealth {
    /// The task.
    pub task_arn: String,
    /// Its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_arn: Option<String>,
    /// Family of its definition.
    pub task_definition_family: String,
    /// Revision of its definition.
    pub task_definition_version: String,
    /// Its containers with a check.
    pub containers: Vec<ContainerHealth>,
}

/// Health of one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerHealth {
    /// Its name.
    pub container_name: String,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`.
    pub health_status: String,
    /// Epoch seconds.
    pub status_since: f64,
    /// What the check printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_message: Option<String>,
}

/// Metrics of the instance and its tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishMetrics {
    /// Which publication.
    pub metadata: Metadata,
    /// Epoch seconds.
    pub timestamp: f64,
    /// At most ten tasks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub task_metrics: Vec<TaskMetric>,
}

/// Metrics of one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskMetric {
    /// The task.
    pub task_arn: String,
    /// Its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_arn: Option<String>,
    /// Family of its definition.
    pub task_definition_family: String,
    /// Revision of its definition.
    pub task_definition_version: String,
    /// Its containers.
    pub container_metrics: Vec<ContainerMetric>,
    /// Use of its ephemeral storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage_metrics: Option<EphemeralStorageMetrics>,
}

/// Use of a task's ephemeral storage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EphemeralStorageMetrics {
    /// Bytes in use.
    pub bytes_utilized: u64,
}

/// Metrics of one container since the last publication.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerMetric {
    /// Its name.
    pub container_name: String,
    /// CPU, in percent of the whole host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stats_set: Option<StatsSet>,
    /// Memory, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stats_set: Option<StatsSet>,
    /// Block input and output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_stats_set: Option<StorageStatsSet>,
    /// Restarts in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_stats_set: Option<RestartStatsSet>,
}

/// Samples of one quantity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsSet {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Sum.
    pub sum: f64,
    /// How many.
    pub sample_count: i64,
}

impl StatsSet {
    /// Takes one more sample in.
    pub fn add(&mut self, value: f64) {
        if self.sample_count == 0 {
            self.min = value;
            self.max = value;
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.sample_count += 1;
    }
}

/// Samples of a counter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CounterStatsSet {
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Sum.
    pub sum: u64,
    /// How many.
    pub sample_count: i64,
}

impl CounterStatsSet {
    /// Takes one more sample in.
    pub fn add(&mut self, value: u64) {
        if self.sample_count == 0 {
            self.min = value;
            self.max = value;
        }
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
        self.sample_count += 1;
    }
}

/// Block input and output, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageStatsSet {
    /// Read.
    pub read_size_bytes: CounterStatsSet,
    /// Written.
    pub write_size_bytes: CounterStatsSet,
}

/// Restarts in place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartStatsSet {
    /// How often since it was created.
    pub restart_count: i64,
}

/// Health of the instance itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishInstanceStatus {
    /// Which publication.
    pub metadata: Metadata,
    /// Epoch seconds.
    pub timestamp: f64,
    /// One per checked part.
    pub statuses: Vec<InstanceStatus>,
}

/// Health of one part of the instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    /// `ContainerRuntime`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `OK`, `IMPAIRED`, `INSUFFICIENT_DATA` or `INITIALIZING`.
    pub status: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Epoch seconds.
    pub last_updated: f64,
    /// Epoch seconds.
    pub last_status_change: f64,
}
