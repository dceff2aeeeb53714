//! Task definitions. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html>

mod compatibility;
mod containers;
pub(super) mod gpus;
mod logs;
mod register;
mod required_attributes;
mod shapes;
mod size;

use std::sync::Arc;

use api::ecs::*;
use domain::{
    Scope,
    ecs::{Service, Task, TaskDefinitionFamily, TaskDefinitionStatus, names},
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::common::{client, invalid, missing, page, page_in_order, page_size, tags_shape};
use crate::Call;

pub(super) use containers::{Wanted, check_fit, memory_of};
pub(super) use logs::driver_of as log_driver_of;
pub(super) use register::{register, role};
pub(super) use size::{Size, check as check_size};

type Stored = domain::ecs::TaskDefinition;

/// The revision that a request means: `family` (its newest active revision), `family:revision` or an ARN.
pub(super) fn find(view: &Snapshot, scope: &Scope, text: &str) -> Option<Arc<Stored>> {
    let name = names::name_after(scope, text, "task-definition")?;
    let arn = match name.split_once(':') {
        None => view.get::<TaskDefinitionFamily>(&scope.key(name))?.latest_arn()?,
        Some((family, revision)) if revision.bytes().all(|byte| byte.is_ascii_digit()) => {
            names::task_definition(scope, family, revision.parse().ok()?)
        }
        Some(_) => return None,
    };
    view.get::<Stored>(arn.as_str())
}

/// As [`find`], only active ones: for what starts something new.
pub(super) fn active(view: &Snapshot, scope: &Scope, text: &str) -> Result<Arc<Stored>, ServiceError> {
    match find(view, scope, text) {
        Some(found) if found.status == TaskDefinitionStatus::Active => Ok(found),
        Some(_) => Err(invalid("TaskDefinition is inactive")),
        None => Err(client("TaskDefinition not found.")),
    }
}

/// The ARN for authorising: what the text says, completed.
pub(super) fn arn_of(scope: &Scope, text: &str) -> String {
    match names::name_after(scope, text, "task-definition") {
        Some(name) => scope.arn("ecs", &format!("task-definition/{name}")).to_string(),
        None => text.to_owned(),
    }
}

pub(super) async fn describe(
    call: Call,
    input: DescribeTaskDefinitionRequest,
) -> Result<DescribeTaskDefinitionResponse, ServiceError> {
    let text = input.task_definition.unwrap_or_default();
    let auth = call.authorise(&[arn_of(&call.scope, &text)])?;
    let stored =
        find(&auth.snapshot(), &auth.scope, &text).ok_or_else(|| client("Unable to describe task definition."))?;
    let with_tags = input.include.is_some_and(|include| include.iter().any(|part| part == "TAGS"));
    Ok(DescribeTaskDefinitionResponse {
        task_definition: Some(shapes::task_definition(&stored)),
        tags: Some(if with_tags { tags_shape(&stored.tags) } else { Vec::new() }),
    })
}

pub(super) async fn deregister(
    call: Call,
    input: DeregisterTaskDefinitionRequest,
) -> Result<DeregisterTaskDefinitionResponse, ServiceError> {
    let text = input.task_definition.unwrap_or_default();
    let auth = call.authorise(&[arn_of(&call.scope, &text)])?;
    if !text.rsplit('/').next().is_some_and(|name| name.contains(':')) {
        return Err(invalid("Revision is missing."));
    }
    let now = auth.now();
    auth.transact(|tx| {
        let found = find(tx, &auth.scope, &text).filter(|found| found.status != TaskDefinitionStatus::DeleteInProgress);
        let mut stored = Stored::clone(&*found.ok_or_else(|| client("The specified task definition does not exist."))?);
        if stored.status == TaskDefinitionStatus::Active {
            stored.status = TaskDefinitionStatus::Inactive;
            stored.deregistered_at = Some(now);
            tx.put(stored.clone());
            update_family(tx, &auth.scope, &stored.family);
        }
        Ok(DeregisterTaskDefinitionResponse { task_definition: Some(shapes::task_definition(&stored)) })
    })
    .await
}

pub(super) async fn delete(
    call: Call,
    input: DeleteTaskDefinitionsRequest,
) -> Result<DeleteTaskDefinitionsResponse, ServiceError> {
    let asked = input.task_definitions.unwrap_or_default();
    let arns: Vec<String> = asked.iter().map(|text| arn_of(&call.scope, text)).collect();
    let auth = call.authorise(&arns)?;
    if asked.is_empty() || asked.len() > 10 {
        return Err(invalid("The number of task definitions must be between 1 and 10."));
    }
    let now = auth.now();
    auth.transact(|tx| {
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for arn in &arns {
            let Some(stored) = tx.get::<Stored>(arn) else {
                failures.push(missing(arn));
                continue;
            };
            if stored.status == TaskDefinitionStatus::Active {
                failures.push(Failure {
                    arn: Some(arn.clone()),
                    reason: Some("The specified task definition is still in ACTIVE status. Please deregister the target and try again.".into()),
                    ..Failure::default()
                });
                continue;
            }
            let mut stored = Stored::clone(&stored);
            stored.status = TaskDefinitionStatus::DeleteInProgress;
            stored.delete_requested_at = Some(now);
            deleted.push(shapes::task_definition(&stored));
            // It goes when nothing uses it: at once here, or with the next deletion in its family.
            if is_used(tx, arn) { tx.put(stored.clone()) } else { tx.delete::<Stored>(arn) }
            remove_unused(tx, &auth.scope, &stored.family);
            update_family(tx, &auth.scope, &stored.family);
        }
        Ok(DeleteTaskDefinitionsResponse { task_definitions: Some(deleted), failures: Some(failures) })
    })
    .await
}

pub(super) async fn list(
    call: Call,
    input: ListTaskDefinitionsRequest,
) -> Result<ListTaskDefinitionsResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let size = page_size(input.max_results, 100, 100)?;
    let status = status(input.status.as_deref(), TaskDefinitionStatus::Active)?;
    let view = auth.snapshot();
    let mut found: Vec<Arc<Stored>> = match input.family_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        Some(family) => view.find(Stored::BY_FAMILY, Stored::family_index(&auth.scope, family, status)).collect(),
        None => view.find(Stored::BY_SCOPE, Stored::scope_index(&auth.scope, status)).collect(),
    };
    // The order of keys would put revision 10 before revision 2.
    let order = |stored: &Stored| format!("{}:{:010}", stored.family, stored.revision);
    found.sort_by_cached_key(|stored| order(stored));
    let descending = input.sort.as_deref() == Some("DESC");
    if descending {
        found.reverse();
    }
    let passed = |key: &str, after: &str| if descending { key >= after } else { key <= after };
    let keys = found.iter().map(|stored| order(stored));
    let token = input.next_token.as_deref();
    let (keys, next_token) = page_in_order(&operation::LIST_TASK_DEFINITIONS, keys, token, size, passed)?;
    let arn = |key: &String| {
        let (family, revision) = key.rsplit_once(':')?;
        Some(names::task_definition(&auth.scope, family, revision.parse().ok()?).to_string())
    };
    Ok(ListTaskDefinitionsResponse { task_definition_arns: Some(keys.iter().filter_map(arn).collect()), next_token })
}

pub(super) async fn list_families(
    call: Call,
    input: ListTaskDefinitionFamiliesRequest,
) -> Result<ListTaskDefinitionFamiliesResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let size = page_size(input.max_results, 100, 100)?;
    let prefix = input.family_prefix.unwrap_or_default();
    let view = auth.snapshot();
    let of = |status: TaskDefinitionStatus| {
        let index = Stored::scope_index(&auth.scope, status);
        view.find::<TaskDefinitionFamily>(TaskDefinitionFamily::BY_SCOPE, index).map(|family| family.family.clone())
    };
    let mut families: Vec<String> = match input.status.as_deref() {
        None | Some("ACTIVE") => of(TaskDefinitionStatus::Active).collect(),
        Some("INACTIVE") => of(TaskDefinitionStatus::Inactive).collect(),
        Some("ALL") => of(TaskDefinitionStatus::Active).chain(of(TaskDefinitionStatus::Inactive)).collect(),
        Some(other) => return Err(invalid(format!("Invalid status: {other}"))),
    };
    families.retain(|family| family.starts_with(&prefix));
    families.sort();
    let (families, next_token) =
        page(&operation::LIST_TASK_DEFINITION_FAMILIES, families.into_iter(), input.next_token.as_deref(), size)?;
    Ok(ListTaskDefinitionFamiliesResponse { families: Some(families), next_token })
}

fn status(text: Option<&str>, default: TaskDefinitionStatus) -> Result<TaskDefinitionStatus, ServiceError> {
    use TaskDefinitionStatus::*;
    match text {
        None => Ok(default),
        Some(text) => [Active, Inactive, DeleteInProgress]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| invalid(format!("Invalid status: {text}"))),
    }
}

/// Whether a task runs it or a service has a deployment of it.
fn is_used(view: &Snapshot, arn: &str) -> bool {
    view.count::<Task>(Task::OF_DEFINITION, arn) > 0 || view.count::<Service>(Service::BY_DEFINITION, arn) > 0
}

fn remove_unused(tx: &mut Transaction, scope: &Scope, family: &str) {
    let index = Stored::family_index(scope, family, TaskDefinitionStatus::DeleteInProgress);
    let over: Vec<String> = tx
        .find::<Stored>(Stored::BY_FAMILY, index)
        .map(|stored| stored.arn.to_string())
        .filter(|arn| !is_used(tx, arn))
        .collect();
    over.iter().for_each(|arn| tx.delete::<Stored>(arn));
}

/// Writes down what the family's revisions make of it.
fn update_family(tx: &mut Transaction, scope: &Scope, family: &str) {
    let of = |tx: &Snapshot, status| {
        tx.find::<Stored>(Stored::BY_FAMILY, Stored::family_index(scope, family, status))
            .map(|stored| stored.revision)
            .max()
    };
    let latest_active = of(tx, TaskDefinitionStatus::Active);
    let inactive = of(tx, TaskDefinitionStatus::Inactive).map(|_| TaskDefinitionStatus::Inactive);
    let status = latest_active.map(|_| TaskDefinitionStatus::Active).or(inactive);
    tx.update::<TaskDefinitionFamily>(&scope.key(family), |family| {
        family.latest_active = latest_active;
        family.status = status;
    });
}
