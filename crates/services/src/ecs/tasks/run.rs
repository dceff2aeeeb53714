//! RunTask.

use api::ecs::*;
use domain::{
    Scope,
    ecs::{Cluster as StoredCluster, NewTask, TaskOverrides, status::failure},
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{Stored, overrides, shapes};
use crate::{
    Authorised, Call,
    ec2::NetworkError,
    ecs::{
        common::{Given, client, cluster, cluster_arn, invalid, refuse, tags},
        compute::{LaunchChoice, check_placement, launch_choice, platform_version},
        launch::{LaunchError, launch},
        network, task_definitions,
    },
};

/// What RunTask was asked for, checked.
struct Checked {
    count: usize,
    overrides: TaskOverrides,
    cpu: u32,
    memory: u32,
    choice: LaunchChoice,
    network: domain::ecs::TaskNetwork,
    tags: domain::Tags,
}

pub(in crate::ecs) async fn run(call: Call, input: RunTaskRequest) -> Result<RunTaskResponse, ServiceError> {
    let text = input.task_definition.clone().unwrap_or_default();
    let resources = [task_definitions::arn_of(&call.scope, &text), cluster_arn(&call.scope, input.cluster.as_deref())];
    let auth = call.authorise(&resources[..1])?;
    let view = auth.snapshot();
    let stored_cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let definition = task_definitions::active(&view, &auth.scope, &text)?;
    let checked = check(&view, &auth.scope, &stored_cluster, &definition, &input)?;
    pass_roles(&auth, &definition, &checked.overrides)?;
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
        for _ in 0..checked.count {
            let new = NewTask {
                cluster: &stored_cluster,
                definition: &definition,
                cpu: checked.cpu,
                memory: checked.memory,
                overrides: checked.overrides.clone(),
                launch_type: "FARGATE",
                capacity_provider: checked.choice.capacity_provider.as_ref().map(|choice| choice.name.clone()),
                group: input.group.clone().unwrap_or_default(),
                started_by: input.started_by.clone().filter(|text| !text.is_empty()),
                service: None,
                container_instance_arn: None,
                load_balancers: Vec::new(),
                image_digests: Default::default(),
                tags: checked.tags.clone(),
            };
            match launch(tx, new, &checked.network, &mut ids, now) {
                Ok(mut task) => {
                    if input.client_token.is_some() {
                        task.client_token.clone_from(&input.client_token);
                        tx.put(task.clone());
                    }
                    tasks.push(shapes::task(tx, &task, true));
                }
                Err(error) => failures.push(Failure { reason: Some(reason(error)?), ..Failure::default() }),
            }
        }
        Ok(RunTaskResponse { tasks: Some(tasks), failures: Some(failures) })
    })
    .await
}

/// The reason for `failures`; what no retry can mend is an error of the request.
fn reason(error: LaunchError) -> Result<String, ServiceError> {
    match error {
        LaunchError::Capacity => Ok(failure::CAPACITY.to_owned()),
        LaunchError::Network(NetworkError::SubnetFull | NetworkError::NoPublicAddress(_)) => {
            Ok("RESOURCE:ENI".to_owned())
        }
        LaunchError::Network(other) => Err(invalid(other.to_string())),
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
        overrides: given_overrides,
        placement_constraints,
        placement_strategy,
        platform_version: version,
        propagate_tags,
        reference_id,
        started_by,
        tags: given_tags,
        task_definition: _,
        client_token,
        volume_configurations,
    } = input;
    let count = usize::try_from(count.unwrap_or(1)).unwrap_or(0);
    if !(1..=10).contains(&count) {
        return Err(invalid("count must be between 1 and 10."));
    }
    let choice = launch_choice(view, cluster, launch_type.as_deref(), capacity_provider_strategy.clone())?;
    check_placement(placement_constraints.as_deref(), placement_strategy.as_deref())?;
    refuse(&[
        ("enableExecuteCommand", enable_execute_command.given()),
        ("referenceId", reference_id.given()),
        ("volumeConfigurations", volume_configurations.given()),
    ])?;
    platform_version(version.as_deref())?;
    if group.as_ref().is_some_and(|group| group.starts_with("service:")) {
        return Err(invalid("Invalid namespace for group. The namespace 'service' is reserved."));
    }
    for (field, text, most) in [("startedBy", started_by, 128), ("clientToken", client_token, 64)] {
        if text.as_ref().is_some_and(|text| text.len() > most) {
            return Err(invalid(format!("{field} can have at most {most} characters.")));
        }
    }
    let overrides = overrides::check(given_overrides.clone(), definition)?;
    let cpu = overrides.cpu.or(definition.cpu).unwrap_or_default();
    let memory = overrides.memory.or(definition.memory).unwrap_or_default();
    task_definitions::check_size(cpu, memory)?;
    let mut all_tags = match propagate_tags.as_deref() {
        None | Some("" | "NONE") => domain::Tags::default(),
        Some("TASK_DEFINITION") => definition.tags.clone(),
        Some(other) => return Err(invalid(format!("propagateTags {other} is not valid for RunTask."))),
    };
    tags(given_tags.clone())?.iter().for_each(|tag| all_tags.set_unchecked(tag.key.clone(), tag.value.clone()));
    if *enable_ecs_managed_tags == Some(true) {
        all_tags.set_unchecked("aws:ecs:clusterName".to_owned(), cluster.name.clone());
    }
    let network = network::check(view, scope, network_configuration.clone())?;
    Ok(Checked { count, overrides, cpu, memory, choice, network, tags: all_tags })
}

fn pass_roles(
    auth: &Authorised,
    definition: &domain::ecs::TaskDefinition,
    overrides: &TaskOverrides,
) -> Result<(), ServiceError> {
    let task = overrides.task_role_arn.as_ref().or(definition.task_role_arn.as_ref());
    let execution = overrides.execution_role_arn.as_ref().or(definition.execution_role_arn.as_ref());
    task.into_iter().chain(execution).try_for_each(|role| auth.authorise_action("iam:PassRole", &[role]))
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
    let default_group = format!("family:{}", definition.family);
    let group = input.group.as_ref().filter(|group| !group.is_empty()).unwrap_or(&default_group);
    let provider = checked.choice.capacity_provider.as_ref().map(|choice| choice.name.as_str());
    let same = before.len() <= checked.count
        && before.iter().all(|task| {
            task.cluster_arn == cluster.arn
                && task.task_definition_arn == definition.arn
                && task.overrides == checked.overrides
                && task.tags == checked.tags
                && task.group == *group
                && task.capacity_provider.as_deref() == provider
                && task.started_by == input.started_by.clone().filter(|text| !text.is_empty())
        });
    if !same {
        return Err(error::conflict_exception("The client token was used before with other parameters."));
    }
    let tasks = before.iter().map(|task| shapes::task(tx, task, true)).collect();
    Ok(Some(RunTaskResponse { tasks: Some(tasks), failures: Some(Vec::new()) }))
}
