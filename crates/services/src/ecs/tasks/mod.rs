//! Tasks: running, stopping, describing and listing them.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>

mod list;
mod overrides;
pub(super) mod protection;
mod request;
mod run;
mod shapes;
mod start;

use api::ecs::*;
use domain::{
    Scope,
    ecs::{StopCode, names, status::reason},
};
use wire::ServiceError;

use super::common::{cluster, cluster_arn, invalid, missing};
use crate::Call;

pub(super) use list::list;
pub(super) use run::run;
pub(super) use start::start;

type Stored = domain::ecs::Task;

/// A list of names and values, each name at most once; the last one counts.
pub(super) fn environment(given: Option<Vec<KeyValuePair>>) -> Result<Vec<(String, String)>, ServiceError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in given.unwrap_or_default() {
        let name = pair.name.unwrap_or_default();
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(super::common::client("The name of an environment variable cannot be empty or contain '='."));
        }
        let value = pair.value.unwrap_or_default();
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => pairs.push((name, value)),
        }
    }
    Ok(pairs)
}

/// The ARN of the task that a request means, within a cluster.
fn task_arn(scope: &Scope, cluster: &str, text: &str) -> Result<String, ServiceError> {
    names::in_cluster(scope, cluster, "task", text).ok_or_else(|| {
        let path = text.split(":task/").nth(1).and_then(|path| path.split_once('/'));
        match path {
            Some((other, _)) => {
                invalid(format!("Invalid identifier: Identifier is for cluster {other}. Your cluster is {cluster}"))
            }
            None => invalid("Invalid identifier: the task is neither an id nor an ARN of this account and region."),
        }
    })
}

/// The ARN for authorising, as far as the request names it well.
fn auth_arn(scope: &Scope, cluster: Option<&str>, text: &str) -> String {
    let cluster = cluster_arn(scope, cluster);
    let name = cluster.rsplit('/').next().unwrap_or_default();
    names::in_cluster(scope, name, "task", text).unwrap_or_else(|| text.to_owned())
}

pub(super) async fn stop(call: Call, input: StopTaskRequest) -> Result<StopTaskResponse, ServiceError> {
    let text = input.task.unwrap_or_default();
    let auth = call.authorise(&[auth_arn(&call.scope, input.cluster.as_deref(), &text)])?;
    let reason = input.reason.filter(|text| !text.is_empty()).unwrap_or_else(|| reason::USER.to_owned());
    let now = auth.now();
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let arn = task_arn(&auth.scope, &cluster.name, &text)?;
        let mut task = tx
            .get::<Stored>(&arn)
            .map(|task| Stored::clone(&task))
            .ok_or_else(|| invalid("The referenced task was not found."))?;
        if task.request_stop(StopCode::UserInitiated, &reason, now) {
            tx.put(task.clone());
        }
        Ok(StopTaskResponse { task: Some(shapes::task(tx, &task, false)) })
    })
    .await
}

pub(super) async fn describe(call: Call, input: DescribeTasksRequest) -> Result<DescribeTasksResponse, ServiceError> {
    let asked = input.tasks.unwrap_or_default();
    let arns: Vec<String> = asked.iter().map(|text| auth_arn(&call.scope, input.cluster.as_deref(), text)).collect();
    let auth = call.authorise(&arns)?;
    if asked.is_empty() {
        return Err(invalid("Tasks cannot be empty."));
    }
    if asked.len() > 100 {
        return Err(invalid("Tasks cannot be more than 100."));
    }
    let with_tags = input.include.is_some_and(|include| include.iter().any(|part| part == "TAGS"));
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for text in asked {
        let arn = task_arn(&auth.scope, &cluster.name, &text)?;
        match view.get::<Stored>(&arn) {
            Some(task) => tasks.push(shapes::task(&view, &task, with_tags)),
            None => failures.push(missing(arn)),
        }
    }
    Ok(DescribeTasksResponse { tasks: Some(tasks), failures: Some(failures) })
}
