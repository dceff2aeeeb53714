//! Amazon Resource Names: `arn:{partition}:{service}:{region}:{account}:{resource}`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{AccountId, Scope};

/// The longest ARN we take.
const MAX_LENGTH: usize = 2048;

/// The text is not an ARN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an ARN")]
pub struct ArnError(String);

/// An Amazon Resource Name, kept as text; its six parts are found by their colons.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Arn(String);

impl Arn {
    /// `arn:aws:{service}:{region}:{account}:{resource}`.
    pub fn regional(scope: &Scope, service: &str, resource: &str) -> Self {
        Self(format!("arn:aws:{service}:{}:{}:{resource}", scope.region, scope.account))
    }

    /// `arn:aws:{service}::{account}:{resource}`, as IAM's and STS's are.
    pub fn global(account: &AccountId, service: &str, resource: &str) -> Self {
        Self(format!("arn:aws:{service}::{account}:{resource}"))
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service, e.g. `ecs`.
    pub fn service(&self) -> &str {
        self.part(2)
    }

    /// The region; empty for global services.
    pub fn region(&self) -> &str {
        self.part(3)
    }

    /// The account id; empty where Amazon leaves it out.
    pub fn account(&self) -> &str {
        self.part(4)
    }

    /// Everything after the fifth colon, e.g. `task/default/0123…`.
    pub fn resource(&self) -> &str {
        self.part(5)
    }

    /// The resource's type: what stands before the first `/` or `:` of the resource, e.g. `task`.
    pub fn resource_type(&self) -> &str {
        self.resource().split(['/', ':']).next().unwrap_or_default()
    }

    /// The resource without its type, e.g. `default/0123…`; empty when the resource has no type.
    pub fn resource_path(&self) -> &str {
        self.resource().split_once(['/', ':']).map_or("", |(_, path)| path)
    }

    /// What stands after the last `/` of the resource: a task's id, a cluster's or a role's name.
    pub fn resource_name(&self) -> &str {
        self.resource().rsplit('/').next().unwrap_or_default()
    }

    fn part(&self, index: usize) -> &str {
        self.0.splitn(6, ':').nth(index).unwrap_or_default()
    }
}

impl FromStr for Arn {
    type Err = ArnError;
    fn from_str(text: &str) -> Result<Self, ArnError> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let well_formed = text.len() <= MAX_LENGTH
            && matches!(parts.as_slice(), ["arn", partition, service, _, _, resource]
                if !partition.is_empty() && !service.is_empty() && !resource.is_empty());
        if well_formed { Ok(Self(text.to_owned())) } else { Err(ArnError(text.chars().take(256).collect())) }
    }
}

impl TryFrom<String> for Arn {
    type Error = ArnError;
    fn try_from(text: String) -> Result<Self, ArnError> {
        text.parse()
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> String {
        arn.0
    }
}

impl AsRef<str> for Arn {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_colons() {
        let arn: Arn = "arn:aws:ecs:us-east-1:123456789012:task/default/0af3".parse().unwrap();
        assert_eq!(
            (arn.service(), arn.region(), arn.account(), arn.resource_type(), arn.resource_path(), arn.resource_name()),
            ("ecs", "us-east-1", "123456789012", "task", "default/0af3", "0af3")
        );
        let log: Arn = "arn:aws:logs:us-east-1:123456789012:log-group:/a/b:*".parse().unwrap();
        assert_eq!((log.resource_type(), log.resource_path()), ("log-group", "/a/b:*"));
        let role: Arn = "arn:aws:iam::123456789012:role/path/name".parse().unwrap();
        assert_eq!((role.region(), role.resource_name()), ("", "name"));
    }

    #[test]
    fn what_is_no_arn_is_refused() {
        for wrong in ["", "arn", "arn:aws:ecs", "x:aws:ecs:r:a:b", "arn:aws:ecs:r:a:", "arn::ecs:r:a:b"] {
            assert!(wrong.parse::<Arn>().is_err(), "{wrong}");
        }
    }
}
