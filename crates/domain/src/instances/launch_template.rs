//! Launch templates and their versions.

use serde::{Deserialize, Serialize};

use super::LaunchData;
use crate::{Resource, Scope, Tags, Timestamp};

/// A launch template. Its versions are records of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    /// Account and region.
    pub scope: Scope,
    /// `lt-…`.
    pub launch_template_id: String,
    /// 3 to 128 characters, unique in account and region.
    pub name: String,
    /// The version that counts when none is named.
    pub default_version: u64,
    /// The number last given; numbers are not given twice.
    pub latest_version: u64,
    /// The ARN of who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The token of the request that made it: the same request again makes no other.
    pub client_token: Option<String>,
    /// User's tags.
    pub tags: Tags,
}

impl LaunchTemplate {
    /// The index that finds a template by its name.
    pub const BY_NAME: &str = "name";
}

impl Resource for LaunchTemplate {
    const KIND: &'static str = "ec2/launch-template";
    fn key(&self) -> String {
        self.scope.key(&self.launch_template_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![(Self::BY_NAME, self.scope.key(&self.name))]
    }
}

/// One version of a launch template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplateVersion {
    /// Account and region.
    pub scope: Scope,
    /// `lt-…`.
    pub launch_template_id: String,
    /// Counted from 1.
    pub number: u64,
    /// Free text.
    pub description: Option<String>,
    /// What instances are launched with.
    pub data: LaunchData,
    /// The ARN of who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The token of the request that made it: the same request again makes no other.
    pub client_token: Option<String>,
}

impl LaunchTemplateVersion {
    /// The key of a template's version; keys are in the order of the numbers.
    pub fn key_of(scope: &Scope, launch_template_id: &str, number: u64) -> String {
        scope.key(&format!("{launch_template_id}/{number:020}"))
    }

    /// What the keys of all versions of a template begin with.
    pub fn prefix_of(scope: &Scope, launch_template_id: &str) -> String {
        scope.key(&format!("{launch_template_id}/"))
    }
}

impl Resource for LaunchTemplateVersion {
    const KIND: &'static str = "ec2/launch-template-version";
    fn key(&self) -> String {
        Self::key_of(&self.scope, &self.launch_template_id, self.number)
    }
}
