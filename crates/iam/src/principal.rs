//! Principals: the identities a request can carry.

use domain::{AccountId, Arn};
use serde::{Deserialize, Serialize};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Principal {
    /// The account's own root identity, which no policy limits.
    Root {
        /// The account.
        account: AccountId,
    },
    /// A session of a role, made by `sts:AssumeRole` or by the platform for a task or an instance.
    AssumedRole {
        /// The account.
        account: AccountId,
        /// The role's ARN, with its path.
        role: Arn,
        /// The role's unique id, `AROA…`.
        role_id: String,
        /// The name that whoever assumed the role gave: for a task its id.
        session: String,
    },
    /// A part of the platform acting for an account: what Amazon shows as a service principal.
    Service {
        /// The account it acts for.
        account: AccountId,
        /// E.g. `ecs.amazonaws.com`.
        name: String,
    },
}

impl Principal {
    /// The account the principal belongs to.
    pub fn account(&self) -> &AccountId {
        match self {
            Self::Root { account } | Self::AssumedRole { account, .. } | Self::Service { account, .. } => account,
        }
    }

    /// The ARN that `sts:GetCallerIdentity` shows and that refusals name. A role's path is left out of a session's.
    pub fn arn(&self) -> Arn {
        match self {
            Self::Root { account } => Arn::global(account, "iam", "root"),
            Self::AssumedRole { account, role, session, .. } => {
                Arn::global(account, "sts", &format!("assumed-role/{}/{session}", role.resource_name()))
            }
            Self::Service { account, name } => Arn::global(account, "iam", &format!("service/{name}")),
        }
    }

    /// The unique id that `sts:GetCallerIdentity` shows: the account, or `AROA…:session`.
    pub fn user_id(&self) -> String {
        match self {
            Self::Root { account } => account.to_string(),
            Self::AssumedRole { role_id, session, .. } => format!("{role_id}:{session}"),
            Self::Service { name, .. } => name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_arn_leaves_the_roles_path_out() {
        let account: AccountId = "123456789012".parse().unwrap();
        let principal = Principal::AssumedRole {
            role: Arn::global(&account, "iam", "role/service/web"),
            account,
            role_id: "AROAEXAMPLE".into(),
            session: "task-1".into(),
        };
        assert_eq!(principal.arn().as_str(), "arn:aws:sts::123456789012:assumed-role/web/task-1");
        assert_eq!(principal.user_id(), "AROAEXAMPLE:task-1");
    }
}
