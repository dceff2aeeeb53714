//! Clusters.

use serde::{Deserialize, Serialize};

use super::names;
use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// A cluster's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClusterStatus {
    /// Takes tasks.
    Active,
    /// Deleted; shown by DescribeClusters for a while, not listed.
    Inactive,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// `arn:…:cluster/{name}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// Unique within the region.
    pub name: String,
    /// Status.
    pub status: ClusterStatus,
    /// Capacity providers associated with it: `FARGATE`, `FARGATE_SPOT`.
    #[serde(default)]
    pub capacity_providers: Vec<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Cluster {
    /// The index that finds the active clusters of a scope, by [`Scope::prefix`].
    pub const BY_SCOPE: &str = "scope";

    /// A new active cluster.
    pub fn new(scope: &Scope, name: &str, tags: Tags, now: Timestamp) -> Self {
        Self {
            arn: names::cluster(scope, name),
            scope: scope.clone(),
            name: name.to_owned(),
            status: ClusterStatus::Active,
            capacity_providers: Vec::new(),
            tags,
            created_at: now,
        }
    }

    /// Whether it takes tasks.
    pub fn is_active(&self) -> bool {
        self.status == ClusterStatus::Active
    }
}

impl Resource for Cluster {
    const KIND: &'static str = "ecs/cluster";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        if self.is_active() { vec![(Self::BY_SCOPE, self.scope.prefix())] } else { Vec::new() }
    }
}
