//! What any driver does with a task's record: the control plane is told of changes, and the disk remembers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::IdSource;

use crate::engine::record::{StateChange, TaskRecord, task_id};
use crate::host::Settings;
use crate::identity::Identity;
use crate::session::Backoff;
use crate::state;

/// Tells the control plane, for as long as it takes; returns once the change was taken or can never be.
pub async fn submit(identity: &Identity, ids: &Mutex<IdSource>, task_arn: &str, change: &StateChange) {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30), 1.6, 0.3);
    loop {
        let outcome = match identity.credentials.keys("ecs") {
            Ok(keys) => identity.client.submit(&identity.cluster, task_arn, change, &keys).await,
            Err(why) => {
                tracing::warn!(why, "no keys to submit with");
                identity.credentials.forget();
                tokio::time::sleep(Duration::from_secs(5)).await;
                continue;
            }
        };
        let error = match outcome {
            Ok(()) => {
                tracing::info!(task = task_id(task_arn), status = change.status, reason = change.reason, "told");
                return;
            }
            Err(error) => error,
        };
        if error.code() == Some("InvalidParameterException") {
            tracing::warn!(task = task_id(task_arn), status = change.status, %error, "a state change can never be taken");
            return;
        }
        if error.is_expired() {
            identity.credentials.forget();
        }
        tracing::info!(task = task_id(task_arn), status = change.status, %error, "not told yet");
        let pause = backoff.pause(&mut ids.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::time::sleep(pause).await;
    }
}

/// Remembers a task across restarts of the agent.
pub fn save(settings: &Settings, record: &TaskRecord) {
    let path = settings.tasks().join(format!("{}.json", record.id()));
    if let Err(error) = state::write(&path, record) {
        tracing::error!(task = record.id(), %error, "a task cannot be remembered");
    }
}

/// Forgets a task that is gone and told.
pub fn forget(settings: &Settings, record: &TaskRecord) {
    let path = settings.tasks().join(format!("{}.json", record.id()));
    if let Err(error) = state::remove(&path) {
        tracing::error!(task = record.id(), %error, "a task cannot be forgotten");
    }
}

/// `{task id}-{ten digits}`: what a container is known by at its metadata endpoint.
pub fn new_id(ids: &Mutex<IdSource>, task_id: &str) -> String {
    let hex = ids.lock().unwrap_or_else(PoisonError::into_inner).hex(12);
    let digits = u64::from_str_radix(&hex, 16).unwrap_or_default() % 10_000_000_000;
    format!("{task_id}-{digits:010}")
}
