//! Task scale-in protection: UpdateTaskProtection and GetTaskProtection. The reconcilers of services go by it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html>

use std::{sync::Arc, time::Duration};

use api::ecs::*;
use domain::{
    Timestamp,
    ecs::{DesiredStatus, Service, status::failure},
};
use store::Snapshot;
use wire::ServiceError;

use super::{Stored, auth_arn, task_arn};
use crate::{
    Call,
    ecs::common::{cluster, invalid, missing, time},
};

/// The most tasks of a request.
const MOST_TASKS: usize = 10;

/// How long a task is protected where a request does not say.
const DEFAULT_MINUTES: i32 = 120;

/// Two days.
const MOST_MINUTES: i32 = 2880;

pub(in crate::ecs) async fn update(
    call: Call,
    input: UpdateTaskProtectionRequest,
) -> Result<UpdateTaskProtectionResponse, ServiceError> {
    let UpdateTaskProtectionRequest { cluster: of, tasks, protection_enabled, expires_in_minutes } = input;
    let asked = tasks.unwrap_or_default();
    let arns: Vec<String> = asked.iter().map(|text| auth_arn(&call.scope, of.as_deref(), text)).collect();
    let auth = call.authorise(&arns)?;
    check_number(&asked)?;
    let enabled = protection_enabled.ok_or_else(|| invalid("protectionEnabled cannot be null."))?;
    let minutes = expires_in_minutes.unwrap_or(DEFAULT_MINUTES);
    if !(1..=MOST_MINUTES).contains(&minutes) {
        return Err(invalid(format!("expiresInMinutes must be between 1 and {MOST_MINUTES}.")));
    }
    let now = auth.now();
    let until = now + Duration::from_secs(u64::from(minutes.unsigned_abs()) * 60);
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, of.as_deref())?;
        let (mut protected_tasks, mut failures) = (Vec::new(), Vec::new());
        for text in &asked {
            let arn = task_arn(&auth.scope, &cluster.name, text)?;
            match find(tx, &arn) {
                Err(failure) => failures.push(failure),
                // What holds up a deployment cannot hold it up for longer.
                Ok(task) if enabled && is_blocked(tx, &task, now) => {
                    failures.push(refused(&task, failure::DEPLOYMENT_BLOCKED));
                }
                Ok(task) => {
                    let mut task = Stored::clone(&task);
                    task.protected_until = enabled.then_some(until);
                    protected_tasks.push(shape(&task, now));
                    tx.put(task);
                }
            }
        }
        Ok(UpdateTaskProtectionResponse { protected_tasks: Some(protected_tasks), failures: Some(failures) })
    })
    .await
}

pub(in crate::ecs) async fn get(
    call: Call,
    input: GetTaskProtectionRequest,
) -> Result<GetTaskProtectionResponse, ServiceError> {
    let GetTaskProtectionRequest { cluster: of, tasks } = input;
    let asked = tasks.unwrap_or_default();
    let arns: Vec<String> = asked.iter().map(|text| auth_arn(&call.scope, of.as_deref(), text)).collect();
    let auth = call.authorise(&arns)?;
    check_number(&asked)?;
    let (view, now) = (auth.snapshot(), auth.now());
    let cluster = cluster(&view, &auth.scope, of.as_deref())?;
    let (mut protected_tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &asked {
        let arn = task_arn(&auth.scope, &cluster.name, text)?;
        match find(&view, &arn) {
            Err(failure) => failures.push(failure),
            Ok(task) => protected_tasks.push(shape(&task, now)),
        }
    }
    Ok(GetTaskProtectionResponse { protected_tasks: Some(protected_tasks), failures: Some(failures) })
}

fn check_number(asked: &[String]) -> Result<(), ServiceError> {
    match asked.len() {
        0 => Err(invalid("Tasks cannot be empty.")),
        1..=MOST_TASKS => Ok(()),
        _ => Err(invalid(format!("Tasks cannot be more than {MOST_TASKS}."))),
    }
}

/// A task that can be protected: one of a service that shall run.
fn find(view: &Snapshot, arn: &str) -> Result<Arc<Stored>, Failure> {
    let task = view.get::<Stored>(arn).ok_or_else(|| missing(arn))?;
    if task.service_arn.is_none() || task.desired_status == DesiredStatus::Stopped {
        return Err(refused(&task, failure::TASK_NOT_VALID));
    }
    Ok(task)
}

fn refused(task: &Stored, reason: &str) -> Failure {
    Failure { arn: Some(task.arn.to_string()), reason: Some(reason.to_owned()), ..Failure::default() }
}

/// Whether its service's deployment finds no way on because of protected tasks.
fn is_blocked(view: &Snapshot, task: &Stored, now: Timestamp) -> bool {
    let service = task.service_arn.as_ref().and_then(|arn| view.get::<Service>(arn.as_str()));
    let blocked = |service: &Arc<Service>| service.primary().is_some_and(|primary| primary.blocked);
    service.filter(blocked).is_some_and(|service| {
        view.find::<Stored>(Stored::OF_SERVICE, service.arn.as_str()).any(|task| task.is_protected(now))
    })
}

fn shape(task: &Stored, now: Timestamp) -> ProtectedTask {
    let enabled = task.is_protected(now);
    ProtectedTask {
        task_arn: Some(task.arn.to_string()),
        protection_enabled: Some(enabled),
        expiration_date: task.protected_until.filter(|_| enabled).map(time),
    }
}
