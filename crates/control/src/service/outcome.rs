//! What becomes of a service's newest deployment: complete, or failed and rolled back. Written to the service, to its history
//! and to its events.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>

use domain::{
    Arn, IdSource, Timestamp,
    ecs::{BreakerStatus, RolloutState, ServiceDeployment, ServiceDeploymentStatus, ServiceRevision},
};
use store::Transaction;

use crate::events::{self, Edit};

/// Who ends deployments by counting.
const BREAKER: &str = "ECS deployment circuit breaker";

/// All of it is there and healthy, and nothing else is.
pub(crate) fn complete(tx: &mut Transaction, edit: &mut Edit, now: Timestamp) {
    let Some(primary) = edit.service.primary_mut() else { return };
    primary.rollout_state = RolloutState::Completed;
    primary.rollout_state_reason = format!("ECS deployment {} completed.", primary.id);
    primary.updated_at = now;
    let (id, failures, digests) = (primary.id.clone(), primary.failed_tasks, primary.image_digests.clone());
    let (revision, during) = (primary.revision_arn.clone(), primary.service_deployment_arn.clone());
    edit.say(&events::completed(&id));
    if let Some(revision) = &revision {
        tx.update::<ServiceRevision>(revision.as_str(), |revision| revision.image_digests = digests);
    }
    edit.service.last_completed = revision;
    change(tx, during.as_ref(), |open| {
        let status = match open.status {
            ServiceDeploymentStatus::RollbackInProgress => ServiceDeploymentStatus::RollbackSuccessful,
            _ => ServiceDeploymentStatus::Successful,
        };
        open.finish(status, None, failures, now);
    });
}

/// Too many of its tasks failed. The service goes back to what was deployed last and whole, if it shall and there is such
/// a thing; otherwise no more tasks are started.
pub(crate) fn fail(tx: &mut Transaction, edit: &mut Edit, ids: &mut IdSource, now: Timestamp) {
    let Some(primary) = edit.service.primary_mut() else { return };
    primary.rollout_state = RolloutState::Failed;
    // It starts nothing more, so it waits for no room.
    primary.unplaced = false;
    primary.rollout_state_reason = format!("{BREAKER}: tasks failed to start.");
    primary.updated_at = now;
    let (id, failures, during) = (primary.id.clone(), primary.failed_tasks, primary.service_deployment_arn.clone());
    edit.say(&events::failed(&id));
    let reason = format!("{BREAKER}: tasks failed to start.");
    change(tx, during.as_ref(), |open| open.breaker_status = BreakerStatus::Triggered);
    let before = edit.service.last_completed.clone().filter(|_| edit.service.circuit_breaker.rollback);
    let Some(before) = before.and_then(|arn| tx.get::<ServiceRevision>(arn.as_str())) else {
        let nothing_there = edit.service.circuit_breaker.rollback;
        return change(tx, during.as_ref(), |open| {
            let (status, reason) = if nothing_there {
                (ServiceDeploymentStatus::RollbackFailed, format!("{reason} No deployment was completed before."))
            } else {
                (ServiceDeploymentStatus::Stopped, reason.clone())
            };
            open.finish(status, Some(reason), failures, now);
        });
    };
    let again = edit.service.roll_back(&before, BREAKER, ids, now);
    edit.say(&events::rolling_back(&again));
    change(tx, during.as_ref(), |open| open.roll_back(before.arn.clone(), &reason, failures, now));
}

/// Changes the service deployment, if it goes on.
fn change(tx: &mut Transaction, arn: Option<&Arn>, change: impl FnOnce(&mut ServiceDeployment)) {
    let Some(known) = arn.and_then(|arn| tx.get::<ServiceDeployment>(arn.as_str())) else { return };
    if known.status.is_open() {
        let mut changed = ServiceDeployment::clone(&known);
        change(&mut changed);
        tx.put(changed);
    }
}
