//! Identities that IAM keeps: roles with their policies, and instance profiles. Stored here, decided in `iam`.
//!
//! IAM is global within an account: keys are ARNs without a region.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Arn, Resource, Tags, Timestamp};

/// The path under which service-linked and ordinary roles are told apart; the default is `/`.
pub const DEFAULT_PATH: &str = "/";

/// An IAM role: an identity that services and people take on for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// `arn:aws:iam::{account}:role{path}{name}`.
    pub arn: Arn,
    /// The account it belongs to.
    pub account: AccountId,
    /// Up to 64 characters, unique in the account whatever the path and the case.
    pub name: String,
    /// Begins and ends with `/`.
    pub path: String,
    /// `AROA…`, 21 characters, never used again.
    pub id: String,
    /// Who may take it on: a policy document as JSON text.
    pub trust_policy: String,
    /// Free text.
    pub description: Option<String>,
    /// The longest session, in seconds: 3,600 to 43,200.
    pub max_session_duration: u32,
    /// Policies embedded in the role: name → document as JSON text.
    pub inline_policies: BTreeMap<String, String>,
    /// ARNs of managed policies attached to it.
    pub attached_policies: Vec<Arn>,
    /// ARN of the managed policy that bounds its permissions.
    #[serde(default)]
    pub permissions_boundary: Option<Arn>,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A container for the role of an EC2 instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceProfile {
    /// `arn:aws:iam::{account}:instance-profile{path}{name}`.
    pub arn: Arn,
    /// The account it belongs to.
    pub account: AccountId,
    /// Up to 128 characters, unique in the account.
    pub name: String,
    /// Begins and ends with `/`.
    pub path: String,
    /// `AIPA…`, 21 characters.
    pub id: String,
    /// The name of its one role, if it has one.
    pub role: Option<String>,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The key of a role: IAM looks roles up by name, whatever their path and case.
pub fn role_key(account: &AccountId, name: &str) -> String {
    format!("{account}/{}", name.to_lowercase())
}

impl Resource for Role {
    const KIND: &'static str = "iam/role";
    fn key(&self) -> String {
        role_key(&self.account, &self.name)
    }
}

impl Resource for InstanceProfile {
    const KIND: &'static str = "iam/instance-profile";
    fn key(&self) -> String {
        role_key(&self.account, &self.name)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        self.role.iter().map(|role| ("role", role_key(&self.account, role))).collect()
    }
}

/// The trust policy that lets an AWS service take on a role, e.g. `ecs-tasks.amazonaws.com`.
pub fn service_trust_policy(service: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Service":"{service}"}},"Action":"sts:AssumeRole"}}]}}"#
    )
}
