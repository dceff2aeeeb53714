//! RunTask.

use api::ecs::*;
use domain::{
    Scope,
    ecs::{Cluster as StoredCluster, Compute, NewTask, Placement, status::failure},
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    Stored,
    request::{self, Asked, pass_roles},
    shapes,
};
use crate::{
    Authorised, Call,
    ec2::NetworkError,
    ecs::{
        common::{client, cluster, cluster_arn, invalid},
        compute,
        launch::{LaunchError, launch},
        task_definitions,
    },
};

/// What RunTask was asked for, checked.
struct Checked {
    count: usize,
    compute: Compute,
    placement: Placement,
    task: request::Checked,
}

pub(in crate::ecs) async fn run(call: Call, input: RunTaskRequest) -> Result<RunTaskResponse, ServiceError> {
    let text = input.task_definition.clone().unwrap_or_default();
    let resources = [task_definitions::arn_of(&call.scope, &text), cluster_arn(&call.scope, input.cluster.as_deref())];
    let auth = call.authorise(&resources[..1])?;
    let view = auth.snapshot();
    let stored_cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let definition = task_definitions::active(&view, &auth.scope, &text)?;
    let checked = check(&view, &auth.scope, &stored_cluster, &definition, &input)?;
    pass_roles(&auth, &definition, &checked.task.overrides)?;
    let now = auth.now();
    let platform = auth.platform().clone();
    auth.transact(|tx| {
        // What was read may have changed since; what matters is looked at again.
        let stored_cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let definition = task_definitions::active(tx, &auth.scope, &text)?;
        if let Some(before) = repeated(tx, &auth, &stored_cluster, &definition, &input, &checked)? {
            return Ok(before);
        }
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        let mut ids = platform.ids();
        let (cpu, memory) = definition.size_with(&checked.task.overrides);
        for _ in 0..checked.count {
            let new = NewTask {
                cluster: &stored_cluster,
                definition: &definition,
                cpu,
                memory,
                overrides: checked.task.overrides.clone(),
                compute: &checked.compute,
                placement: &checked.placement,
                group: checked.task.group.clone(),
                started_by: checked.task.started_by.clone(),
                service: None,
                container_instance_arn: None,
                zone: None,
                gpu_ids: Vec::new(),
                load_balancers: Vec::new(),
                image_digests: Default::default(),
                tags: checked.task.tags.clone(),
            };
            match launch(tx, &platform.fleets, new, checked.task.network.as_ref(), &mut ids, now) {
                Ok(mut task) => {
                    if input.client_token.is_some() {
                        task.client_token.clone_from(&input.client_token);
                        tx.put(task.clone());
                    }
                    tasks.push(shapes::task(tx, &task, true));
                }
                Err(LaunchError::NotPlaced(refusal)) => {
                    // What has found no place for one has none for the others, which are the same.
                    failures.extend(refusals(&refusal)?);
                    break;
                }
                Err(error) => failures.push(Failure { reason: Some(reason(error)?), ..Failure::default() }),
            }
        }
        Ok(RunTaskResponse { tasks: Some(tasks), failures: Some(failures) })
    })
    .await
}

/// Why each container instance did not take the task. A cluster without any is an error of the request.
fn refusals(refusal: &placement::Refusal) -> Result<Vec<Failure>, ServiceError> {
    if refusal.left_out.is_empty() {
        return Err(invalid("No Container Instances were found in your cluster."));
    }
    let failure = |one: &placement::LeftOut| Failure {
        arn: Some(one.arn().to_string()),
        reason: Some(one.reason.as_str().to_owned()),
        ..Failure::default()
    };
    Ok(refusal.left_out.iter().map(failure).collect())
}

/// The reason for `failures`; what no retry can mend is an error of the request.
pub(super) fn reason(error: LaunchError) -> Result<String, ServiceError> {
    match error {
        LaunchError::Capacity => Ok(failure::CAPACITY.to_owned()),
        LaunchError::NotPlaced(refusal) => Ok(refusal.to_string()),
        LaunchError::Network(NetworkError::SubnetFull | NetworkError::NoPublicAddress(_)) => {
            Ok("RESOURCE:ENI".to_owned())
        }
        LaunchError::Network(other) => Err(invalid(other.to_string())),
        LaunchError::Constraint(error) => Err(invalid(LaunchError::Constraint(error).to_string())),
        role @ LaunchError::Role(_) => Err(client(role.to_string())),
    }
}

fn check(
    view: &Snapshot,
    scope: &Scope,
    cluster: &StoredCluster,
    definition: &domain::ecs::TaskDefinition,
    input: &RunTaskRequest,
) -> Result<Checked, ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let RunTaskRequest {
        capacity_provider_strategy,
        cluster: _,
        count,
        enable_ecs_managed_tags,
        enable_execute_command,
        group,
        launch_type,
        network_configuration,
        overrides,
        placement_constraints,
        placement_strategy,
        platform_version: version,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        task_definition: _,
        client_token,
        volume_configurations,
    } = input;
    let count = usize::try_from(count.unwrap_or(1)).unwrap_or(0);
    if !(1..=10).contains(&count) {
        return Err(invalid("count must be between 1 and 10."));
    }
    if client_token.as_ref().is_some_and(|token| token.len() > 64) {
        return Err(invalid("clientToken can have at most 64 characters."));
    }
    let compute = compute::compute(
        cluster,
        definition,
        launch_type.as_deref(),
        capacity_provider_strategy.as_deref(),
        version.as_deref(),
    )?;
    let placement = compute::placement(&compute, placement_constraints.as_deref(), placement_strategy.as_deref())?;
    let asked = Asked {
        enable_ecs_managed_tags: *enable_ecs_managed_tags,
        enable_execute_command: *enable_execute_command,
        group,
        network_configuration,
        overrides,
        propagate_tags,
        reference_id,
        started_by,
        tags,
        volume_configurations,
    };
    let task = request::check(view, scope, cluster, definition, &compute, asked)?;
    Ok(Checked { count, compute, placement, task })
}

/// The answer to the same request with the same client token, as long as its tasks are known.
fn repeated(
    tx: &Transaction,
    auth: &Authorised,
    cluster: &StoredCluster,
    definition: &domain::ecs::TaskDefinition,
    input: &RunTaskRequest,
    checked: &Checked,
) -> Result<Option<RunTaskResponse>, ServiceError> {
    let Some(token) = input.client_token.as_deref() else { return Ok(None) };
    let before: Vec<_> = tx.find::<Stored>(Stored::BY_CLIENT_TOKEN, auth.scope.key(token)).collect();
    if before.is_empty() {
        return Ok(None);
    }
    let (asked, provider) = (&checked.task, checked.compute.capacity_provider.as_ref());
    let same = before.len() <= checked.count
        && before.iter().all(|task| {
            task.cluster_arn == cluster.arn
                && task.task_definition_arn == definition.arn
                && task.launch_type == checked.compute.host_kind()
                && task.capacity_provider.as_deref() == provider.map(|choice| choice.name.as_str())
                && task.overrides == asked.overrides
                && task.tags == asked.tags
                && task.group == asked.group
                && task.started_by == asked.started_by
        });
    if !same {
        return Err(error::conflict_exception("The client token was used before with other parameters."));
    }
    let tasks = before.iter().map(|task| shapes::task(tx, task, true)).collect();
    Ok(Some(RunTaskResponse { tasks: Some(tasks), failures: Some(Vec::new()) }))
}
