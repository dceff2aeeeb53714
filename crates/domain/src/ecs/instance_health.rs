//! How well the parts of a container instance are, as its agent says.

use serde::{Deserialize, Serialize};

use crate::{Arn, Resource, Timestamp};

/// How well a part of an instance is, or the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceHealthStatus {
    /// It works.
    Ok,
    /// It does not.
    Impaired,
    /// Not known.
    InsufficientData,
    /// Not checked yet.
    Initializing,
}

impl InstanceHealthStatus {
    /// As in the API, and as agents say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Impaired => "IMPAIRED",
            Self::InsufficientData => "INSUFFICIENT_DATA",
            Self::Initializing => "INITIALIZING",
        }
    }

    /// From that text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ok, Self::Impaired, Self::InsufficientData, Self::Initializing]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What the agent last said of its container runtime, the only part that agents check. Volatile: an agent says it again
/// when it has connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeHealth {
    /// The container instance's ARN.
    pub container_instance_arn: Arn,
    /// How well it is.
    pub status: InstanceHealthStatus,
    /// Why.
    pub reason: Option<String>,
    /// When it was checked last.
    pub last_updated: Timestamp,
    /// Since when it is so.
    pub last_status_change: Timestamp,
}

impl Resource for RuntimeHealth {
    const KIND: &'static str = "ecs/runtime-health";
    fn key(&self) -> String {
        self.container_instance_arn.to_string()
    }
}
