//! Bugs of the committer and of what is made of reports.

use std::time::Duration;

use control::{Launcher, Step, TaskStep, queue::Queue};
use domain::{
    IdSource, Timestamp,
    ecs::{AgentAbsence, ReportedStatus, RolloutState, Service, Task, TaskStatus},
};
use store::Transaction;

use super::Bug;
use crate::world::agents::{Message, Said};

/// Longer than any delay.
pub(super) const LATER: Duration = Duration::from_secs(3_600);

/// Applies a step with the bug, if there is one.
pub fn commit(
    bug: Option<Bug>,
    tx: &mut Transaction,
    step: &Step,
    launcher: &dyn Launcher,
    queue: &mut Queue,
    ids: &mut IdSource,
    now: Timestamp,
) {
    let mut apply = |tx: &mut Transaction, step: &Step, now: Timestamp| {
        control::commit(tx, step, launcher, queue, ids, now);
    };
    match (bug, step) {
        (Some(Bug::StalePlan), Step::Service(plan)) => {
            let mut plan = plan.clone();
            if let Some(service) = tx.get::<Service>(&plan.service) {
                plan.expected = control::service::expectation(tx, &service, now);
            }
            apply(tx, &Step::Service(plan), now);
        }
        (Some(Bug::ProtectionUnseen), Step::Service(plan)) => {
            let protected = |tx: &Transaction, arn: &str| tx.get::<Task>(arn).and_then(|task| task.protected_until);
            let were: Vec<_> =
                plan.stop.iter().filter_map(|stop| Some((&stop.task, protected(tx, &stop.task)?))).collect();
            let set = |tx: &mut Transaction, arn: &str, until: Option<Timestamp>| {
                tx.update::<Task>(arn, |task| task.protected_until = until);
            };
            were.iter().for_each(|(arn, _)| set(tx, arn, None));
            apply(tx, step, now);
            were.iter().for_each(|(arn, until)| set(tx, arn, Some(*until)));
        }
        (Some(Bug::BackToWhatFailed), Step::Service(plan)) if plan.fail => {
            let before = tx.get::<Service>(&plan.service);
            apply(tx, step, now);
            let failed = before.as_ref().and_then(|before| before.primary()).cloned();
            tx.update::<Service>(&plan.service, |service| {
                if let (Some(primary), Some(failed)) = (service.primary_mut(), failed)
                    && primary.id != failed.id
                {
                    primary.revision_arn = failed.revision_arn;
                    primary.task_definition_arn = failed.task_definition_arn;
                }
            });
        }
        (Some(Bug::DelayNotWaitedFor), Step::Task { step: TaskStep::Deactivate, .. }) => apply(tx, step, now + LATER),
        (Some(Bug::AwayIsLost), Step::Task { arn, step: TaskStep::Lose }) => {
            let host = tx.get::<Task>(arn).and_then(|task| task.container_instance_arn.clone());
            let absence = host.and_then(|host| tx.get::<AgentAbsence>(host.as_str()));
            if let Some(absence) = &absence {
                tx.put(AgentAbsence { lost_at: Some(now), ..AgentAbsence::clone(absence) });
            }
            apply(tx, step, now);
            if let Some(absence) = &absence {
                tx.put(AgentAbsence::clone(absence));
            }
        }
        _ => apply(tx, step, now),
    }
}

/// What is made of a report beyond what should be. The task in `tx` is as it was before.
pub fn observe(bug: Bug, tx: &mut Transaction, task: &mut Task, message: &Message) {
    let Said::Report(report) = &message.said else { return };
    let Some(before) = tx.get::<Task>(task.arn.as_str()) else { return };
    match (bug, report.status) {
        (Bug::RepeatedFailureCounts, Some(ReportedStatus::Stopped)) if before.last_status > TaskStatus::Stopping => {
            let deployment = task.deployment_id.clone().unwrap_or_default();
            let service = task.service_arn.as_ref().map(|arn| arn.to_string()).unwrap_or_default();
            tx.update::<Service>(&service, |service| {
                let open = |one: &&mut domain::ecs::Deployment| {
                    one.id == deployment && one.rollout_state == RolloutState::InProgress
                };
                service.deployments.iter_mut().find(open).into_iter().for_each(|one| one.failed_tasks += 1);
            });
        }
        (Bug::LateReportTurnsBack, Some(ReportedStatus::Pending)) if before.last_status == TaskStatus::Running => {
            task.last_status = TaskStatus::Pending;
        }
        _ => {}
    }
}
