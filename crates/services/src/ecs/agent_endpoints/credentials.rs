//! The credentials of a task's roles, as its agent gets them.
//!
//! A set's id is part of a URL inside the task's containers for as long as they run, so it must be the same after any
//! restart: it is derived from the task and the kind of role. It opens nothing by itself; the agent serves a set only
//! inside its own task's network.

use std::time::Duration;

use domain::Timestamp;
use domain::agent_protocol::acs::{TASK_APPLICATION, TASK_EXECUTION};
use domain::agent_protocol::payload::RoleCredentials;
use domain::ecs::{Task, TaskDefinition};
use iam::Principal;
use store::Snapshot;

use crate::{Platform, ecs::roles};

/// How long a task's credentials work, as on Amazon.
pub const LIFE: Duration = Duration::from_secs(6 * 3600);
/// How long before that an agent gets new ones.
pub const RENEW_BEFORE: Duration = Duration::from_secs(3600);

/// Fresh credentials of a task: the kind of role, the set, and when it stops working.
pub fn issue(platform: &Platform, view: &Snapshot, task: &Task) -> Vec<(&'static str, RoleCredentials, Timestamp)> {
    let Some(definition) = view.get::<TaskDefinition>(task.task_definition_arn.as_str()) else { return Vec::new() };
    let roles =
        [(TASK_APPLICATION, task.task_role_arn(&definition)), (TASK_EXECUTION, task.execution_role_arn(&definition))];
    let mut sets = Vec::new();
    for (kind, arn) in roles {
        let Some(arn) = arn else { continue };
        match issue_one(platform, view, task, kind, arn) {
            Some((credentials, expiration)) => sets.push((kind, credentials, expiration)),
            None => tracing::warn!(task = task.arn.as_str(), role = arn, "a role of a task cannot be assumed"),
        }
    }
    sets
}

fn issue_one(
    platform: &Platform,
    view: &Snapshot,
    task: &Task,
    kind: &str,
    role_arn: &str,
) -> Option<(RoleCredentials, Timestamp)> {
    let role = roles::find(view, &task.scope.account, role_arn)?;
    let principal = Principal::AssumedRole {
        account: role.account.clone(),
        role: role.arn.clone(),
        role_id: role.id.clone(),
        session: task.arn.resource_name().to_owned(),
    };
    let now = platform.clock.now();
    let issued = platform.authority.issue_session(&mut platform.ids(), principal, now, LIFE)?;
    let credentials = RoleCredentials {
        credentials_id: id(task.arn.as_str(), kind),
        role_arn: role.arn.to_string(),
        access_key_id: issued.access_key_id,
        secret_access_key: issued.secret_access_key,
        session_token: issued.session_token,
        expiration: wire::Timestamp(issued.expiration.millis()).to_rfc3339(),
    };
    Some((credentials, issued.expiration))
}

/// A UUID that is the same for the same task and kind of role.
fn id(task: &str, kind: &str) -> String {
    let digest = wire::sigv4::body_sha256(format!("credentials {kind} {task}").as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sets_id_outlives_restarts_and_differs_by_role() {
        let one = id("arn:aws:ecs:us-east-1:1:task/c/0a", TASK_APPLICATION);
        assert_eq!(one, id("arn:aws:ecs:us-east-1:1:task/c/0a", TASK_APPLICATION));
        assert_ne!(one, id("arn:aws:ecs:us-east-1:1:task/c/0a", TASK_EXECUTION));
        assert_ne!(one, id("arn:aws:ecs:us-east-1:1:task/c/0b", TASK_APPLICATION));
        assert_eq!(one.len(), 36);
    }
}
