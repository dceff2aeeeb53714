//! The role credentials of this instance's tasks. In memory only: after a restart the ids are known from disk, and the
//! control plane sends the keys again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::agent_protocol::acs::{TASK_APPLICATION, TASK_EXECUTION};
use domain::agent_protocol::payload::{RoleCredentials, Task};
use tokio::sync::watch;

/// How long keys may be on their way after a restart.
const KEYS_PATIENCE: Duration = Duration::from_secs(60);

/// What is known under a credentials id.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// Nothing.
    Unknown,
    /// The id is known, its keys are not here yet.
    Uninitialised,
    /// The keys.
    Known(RoleCredentials),
}

#[derive(Debug)]
struct Entry {
    task: String,
    role: &'static str,
    credentials: RoleCredentials,
}

/// All role credentials.
#[derive(Debug)]
pub struct Roles {
    entries: Mutex<HashMap<String, Entry>>,
    changed: watch::Sender<u64>,
}

impl Default for Roles {
    fn default() -> Roles {
        Roles { entries: Mutex::new(HashMap::new()), changed: watch::Sender::new(0) }
    }
}

impl Roles {
    /// Takes a task's credentials in, with or without keys; existing keys are kept where there are no new ones.
    pub fn learn(&self, task: &Task) {
        let sets = [(TASK_APPLICATION, &task.role_credentials), (TASK_EXECUTION, &task.execution_role_credentials)];
        for (role, credentials) in sets {
            if let Some(credentials) = credentials {
                self.put(&task.arn, role, credentials.clone());
            }
        }
    }

    /// Takes fresh credentials of a running task in; false if the type of role is none we know.
    pub fn refresh(&self, task: &str, role: &str, credentials: RoleCredentials) -> bool {
        match role {
            TASK_APPLICATION => self.put(task, TASK_APPLICATION, credentials),
            TASK_EXECUTION => self.put(task, TASK_EXECUTION, credentials),
            _ => return false,
        }
        true
    }

    fn put(&self, task: &str, role: &'static str, credentials: RoleCredentials) {
        let id = credentials.credentials_id.clone();
        let mut entries = self.entries();
        let keys_here = entries.get(&id).is_some_and(|entry| !entry.credentials.access_key_id.is_empty());
        if id.is_empty() || (keys_here && credentials.access_key_id.is_empty()) {
            return;
        }
        entries.insert(id, Entry { task: task.to_owned(), role, credentials });
        drop(entries);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Forgets a task's credentials.
    pub fn forget(&self, task: &str) {
        self.entries().retain(|_, entry| entry.task != task);
    }

    /// What a task may see under a credentials id: only its own.
    pub fn lookup(&self, task: &str, id: &str) -> Lookup {
        match self.entries().get(id).filter(|entry| entry.task == task) {
            None => Lookup::Unknown,
            Some(entry) if entry.credentials.access_key_id.is_empty() => Lookup::Uninitialised,
            Some(entry) => Lookup::Known(entry.credentials.clone()),
        }
    }

    /// The keys of a task's execution role, if they are here.
    pub fn execution(&self, task: &str) -> Option<RoleCredentials> {
        self.of(task, TASK_EXECUTION)
    }

    /// The keys of a task's own role, if they are here.
    pub fn application(&self, task: &str) -> Option<RoleCredentials> {
        self.of(task, TASK_APPLICATION)
    }

    fn of(&self, task: &str, role: &str) -> Option<RoleCredentials> {
        let entries = self.entries();
        let mut own = entries.values().filter(|entry| entry.task == task && entry.role == role);
        own.find(|entry| !entry.credentials.access_key_id.is_empty()).map(|entry| entry.credentials.clone())
    }

    /// The same; where only their id is here, as after a restart, waits for the control plane to send them.
    pub async fn execution_in_time(&self, task: &str) -> Option<RoleCredentials> {
        let mut changes = self.changes();
        let arrival = async {
            while self.expects_execution(task) {
                if let Some(credentials) = self.execution(task) {
                    return Some(credentials);
                }
                changes.changed().await.ok()?;
            }
            None
        };
        tokio::time::timeout(KEYS_PATIENCE, arrival).await.ok().flatten()
    }

    fn expects_execution(&self, task: &str) -> bool {
        self.entries().values().any(|entry| entry.task == task && entry.role == TASK_EXECUTION)
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, key: &str) -> RoleCredentials {
        RoleCredentials { credentials_id: id.into(), access_key_id: key.into(), ..RoleCredentials::default() }
    }

    #[test]
    fn a_task_sees_only_its_own_credentials() {
        let roles = Roles::default();
        let task = Task { arn: "t1".into(), role_credentials: Some(credentials("a", "K")), ..Task::default() };
        roles.learn(&task);
        assert_eq!(roles.lookup("t1", "a"), Lookup::Known(credentials("a", "K")));
        assert_eq!(roles.lookup("t2", "a"), Lookup::Unknown);
        roles.forget("t1");
        assert_eq!(roles.lookup("t1", "a"), Lookup::Unknown);
    }

    #[test]
    fn ids_without_keys_wait_for_them_and_keep_those_they_have() {
        let roles = Roles::default();
        let bare = Task { arn: "t".into(), execution_role_credentials: Some(credentials("e", "")), ..Task::default() };
        roles.learn(&bare);
        assert_eq!((roles.lookup("t", "e"), roles.execution("t")), (Lookup::Uninitialised, None));
        assert!(roles.refresh("t", TASK_EXECUTION, credentials("e", "K1")));
        roles.learn(&bare);
        assert_eq!(roles.execution("t"), Some(credentials("e", "K1")));
        assert!(!roles.refresh("t", "SomethingElse", credentials("x", "K")));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_on_their_way_are_waited_for_and_no_others() {
        let roles = Roles::default();
        assert_eq!(roles.execution_in_time("t").await, None);
        let bare = Task { arn: "t".into(), execution_role_credentials: Some(credentials("e", "")), ..Task::default() };
        roles.learn(&bare);
        assert_eq!(roles.execution_in_time("t").await, None, "they never came");
        let later = async {
            tokio::time::sleep(KEYS_PATIENCE / 2).await;
            roles.refresh("t", TASK_EXECUTION, credentials("e", "K"))
        };
        assert_eq!(tokio::join!(roles.execution_in_time("t"), later), (Some(credentials("e", "K")), true));
    }
}
