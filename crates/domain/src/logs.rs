//! The nouns of CloudWatch Logs: log groups with their retention, and log streams. The events themselves are kept by
//! `telemetry`, under the numbers given here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// The retention periods that Amazon allows, in days.
pub const RETENTION_DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// A log group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogGroup {
    /// The account and region it lives in.
    pub scope: Scope,
    /// Its name, unique in the scope: 1 to 512 of letters, digits and `_-/.#`.
    pub name: String,
    /// The number its events are kept under; a group of the same name made later has another one.
    pub id: u64,
    /// When it was made.
    pub created: Timestamp,
    /// For how many days events are kept (see [`RETENTION_DAYS`]); forever without.
    #[serde(default)]
    pub retention_in_days: Option<u32>,
    /// Whether it refuses to be deleted.
    #[serde(default)]
    pub deletion_protected: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A log stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogStream {
    /// The account and region it lives in.
    pub scope: Scope,
    /// Its group's name.
    pub group: String,
    /// Its group's number.
    pub group_id: u64,
    /// Its name, unique in the group: 1 to 512 characters, none of `:*`.
    pub name: String,
    /// The number its events are kept under.
    pub id: u64,
    /// When it was made.
    pub created: Timestamp,
}

impl LogGroup {
    /// The store key of a group.
    pub fn key_of(scope: &Scope, name: &str) -> String {
        scope.key(name)
    }

    /// Its ARN, without the `:*` that some operations add.
    pub fn arn(&self) -> Arn {
        Self::arn_of(&self.scope, &self.name)
    }

    /// The ARN that a group of this name has or would have.
    pub fn arn_of(scope: &Scope, name: &str) -> Arn {
        scope.arn("logs", &format!("log-group:{name}"))
    }

    /// Events before this time have expired.
    pub fn expired_before(&self, now: Timestamp) -> Option<Timestamp> {
        self.retention_in_days.map(|days| now - Duration::from_secs(u64::from(days) * 86_400))
    }
}

impl LogStream {
    /// The store key of a stream. A group's name has no colon, so the prefix up to it holds the group's streams.
    pub fn key_of(scope: &Scope, group: &str, name: &str) -> String {
        scope.key(&format!("{group}:{name}"))
    }

    /// Its ARN.
    pub fn arn(&self) -> Arn {
        self.scope.arn("logs", &format!("log-group:{}:log-stream:{}", self.group, self.name))
    }
}

/// How a number is written as an index value.
pub fn index_of(id: u64) -> String {
    format!("{id:016x}")
}

impl Resource for LogGroup {
    const KIND: &'static str = "logs/log-group";
    fn key(&self) -> String {
        Self::key_of(&self.scope, &self.name)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("id", index_of(self.id))]
    }
}

impl Resource for LogStream {
    const KIND: &'static str = "logs/log-stream";
    fn key(&self) -> String {
        Self::key_of(&self.scope, &self.group, &self.name)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("id", index_of(self.id))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(retention_in_days: Option<u32>) -> LogGroup {
        let scope = Scope { account: "123456789012".parse().unwrap(), region: "eu-west-1".parse().unwrap() };
        let (name, created) = ("/ecs/app".to_owned(), Timestamp(5));
        LogGroup { scope, name, id: 7, created, retention_in_days, deletion_protected: false, tags: Tags::default() }
    }

    #[test]
    fn events_expire_after_the_days_given() {
        let now = Timestamp(10 * 86_400_000);
        assert_eq!(group(Some(3)).expired_before(now), Some(Timestamp(7 * 86_400_000)));
        assert_eq!(group(None).expired_before(now), None);
    }

    #[test]
    fn a_groups_streams_share_a_prefix_that_no_other_group_has() {
        let group = group(None);
        let stream = LogStream::key_of(&group.scope, &group.name, "a/b/c");
        assert!(stream.starts_with(&LogStream::key_of(&group.scope, "/ecs/app", "")));
        assert!(!stream.starts_with(&LogStream::key_of(&group.scope, "/ecs/ap", "")));
        assert_eq!(group.arn().as_str(), "arn:aws:logs:eu-west-1:123456789012:log-group:/ecs/app");
    }
}
