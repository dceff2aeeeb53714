//! RegisterTaskDefinition: every member is checked and kept, or refused by name.

use api::ecs::*;
use domain::{
    Scope,
    ecs::{NetworkMode, TaskDefinitionFamily, TaskDefinitionStatus, names},
};
use wire::ServiceError;

use super::{Stored, compatibility, containers, required_attributes, shapes, size, update_family};
use crate::{
    Call, Options,
    ecs::{
        common::{Given, client, refuse, tags, tags_shape, unsupported},
        compute::definition_constraints,
        roles,
    },
};

/// The most containers of a task definition.
const MAX_CONTAINERS: usize = 10;

pub(in crate::ecs) async fn register(
    call: Call,
    input: RegisterTaskDefinitionRequest,
) -> Result<RegisterTaskDefinitionResponse, ServiceError> {
    let family = input.family.clone().unwrap_or_default();
    let auth = call.authorise(&[auth_arn(&call, &family)])?;
    for role in [&input.task_role_arn, &input.execution_role_arn].into_iter().flatten().filter(|role| !role.is_empty())
    {
        auth.authorise_action("iam:PassRole", &[role])?;
    }
    let stored = definition(input, &auth.scope, &auth.platform().options)?;
    let mut stored = Stored { registered_at: auth.now(), registered_by: auth.principal.arn().to_string(), ..stored };
    auth.transact(|tx| {
        let key = auth.scope.key(&stored.family);
        let mut known = tx.get::<TaskDefinitionFamily>(&key).map_or_else(
            || TaskDefinitionFamily {
                scope: auth.scope.clone(),
                family: stored.family.clone(),
                last_revision: 0,
                status: None,
                latest_active: None,
            },
            |known| TaskDefinitionFamily::clone(&known),
        );
        known.last_revision = known.last_revision.saturating_add(1);
        stored.revision = known.last_revision;
        stored.arn = names::task_definition(&auth.scope, &stored.family, stored.revision);
        tx.put(known);
        let response = RegisterTaskDefinitionResponse {
            task_definition: Some(shapes::task_definition(&stored)),
            tags: Some(tags_shape(&stored.tags)),
        };
        let family = stored.family.clone();
        tx.put(stored);
        update_family(tx, &auth.scope, &family);
        Ok(response)
    })
    .await
}

fn auth_arn(call: &Call, family: &str) -> String {
    call.arn("ecs", &format!("task-definition/{family}:*")).to_string()
}

/// Checks a request. Its family's next revision it becomes when it is stored.
fn definition(input: RegisterTaskDefinitionRequest, scope: &Scope, options: &Options) -> Result<Stored, ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let RegisterTaskDefinitionRequest {
        family,
        task_role_arn,
        execution_role_arn,
        network_mode,
        container_definitions,
        volumes,
        placement_constraints,
        requires_compatibilities,
        cpu,
        memory,
        tags: given_tags,
        pid_mode,
        ipc_mode,
        proxy_configuration,
        inference_accelerators,
        ephemeral_storage,
        runtime_platform,
        enable_fault_injection,
        trusted_execution_configuration,
    } = input;
    let family = family.unwrap_or_default();
    if !names::is_valid(&family) {
        return Err(client("Family contains invalid characters."));
    }
    refuse(&[
        ("volumes", volumes.given()),
        ("pidMode", pid_mode.given()),
        ("ipcMode", ipc_mode.given()),
        ("proxyConfiguration", proxy_configuration.is_some()),
        ("inferenceAccelerators", inference_accelerators.given()),
        ("enableFaultInjection", enable_fault_injection.given()),
        ("trustedExecutionConfiguration", trusted_execution_configuration.is_some()),
    ])?;
    let requires_compatibilities = required_compatibilities(requires_compatibilities.unwrap_or_default())?;
    let for_fargate = requires_compatibilities.iter().any(|kind| kind == "FARGATE");
    let given_mode = network_mode.filter(|mode| !mode.is_empty());
    let network_mode = match given_mode.as_deref().map(|mode| (mode, NetworkMode::parse(mode))) {
        Some((_, Some(NetworkMode::Awsvpc))) => NetworkMode::Awsvpc,
        _ if for_fargate => return Err(client("Fargate only supports network mode \u{2018}awsvpc\u{2019}.")),
        None => NetworkMode::Bridge,
        Some((_, Some(mode))) => mode,
        Some((other, None)) => return Err(client(format!("Invalid network mode: {other}"))),
    };
    let size = size::read(cpu.as_deref(), memory.as_deref(), for_fargate)?;
    let container_definitions = container_definitions.unwrap_or_default();
    if container_definitions.is_empty() {
        return Err(client("Container list cannot be empty."));
    }
    if container_definitions.len() > MAX_CONTAINERS {
        return Err(client(format!("Task definition has too many containers. The maximum is {MAX_CONTAINERS}.")));
    }
    let execution_role_arn = role(execution_role_arn)?;
    if execution_role_arn.is_none() {
        fetches_nothing(&container_definitions)?;
    }
    let container_definitions = containers::check(container_definitions, size, network_mode)?;
    let platform = runtime_platform.unwrap_or_default();
    check_platform(&platform)?;
    let mut stored = Stored {
        arn: names::task_definition(scope, &family, 0),
        scope: scope.clone(),
        family,
        revision: 0,
        status: TaskDefinitionStatus::Active,
        task_role_arn: role(task_role_arn)?,
        execution_role_arn,
        network_mode,
        has_network_mode: given_mode.is_some(),
        cpu: size.cpu,
        memory: size.memory,
        requires_compatibilities,
        compatibilities: Vec::new(),
        requires_attributes: Vec::new(),
        cpu_architecture: platform.cpu_architecture,
        operating_system_family: platform.operating_system_family,
        ephemeral_storage: ephemeral_storage.map(check_storage).transpose()?,
        placement_constraints: definition_constraints(&placement_constraints.unwrap_or_default())?,
        container_definitions,
        tags: tags(given_tags)?,
        registered_at: domain::Timestamp::default(),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    };
    let fargate = compatibility::with_fargate(&stored, options);
    if for_fargate {
        fargate.clone()?;
    }
    stored.compatibilities = compatibility::of(&stored, fargate.is_ok());
    stored.requires_attributes = required_attributes::of(&stored, options);
    Ok(stored)
}

/// The ARN or the bare name of a role; whether there is one is asked when a task is started.
pub(in crate::ecs) fn role(given: Option<String>) -> Result<Option<String>, ServiceError> {
    let given = given.filter(|role| !role.is_empty());
    if given.as_ref().is_some_and(|role| !roles::is_well_formed(role)) {
        return Err(client("Role is not valid"));
    }
    Ok(given)
}

fn required_compatibilities(given: Vec<String>) -> Result<Vec<String>, ServiceError> {
    let mut distinct: Vec<String> = Vec::new();
    for kind in given {
        match kind.as_str() {
            "FARGATE" | "EC2" | "EXTERNAL" => {}
            "MANAGED_INSTANCES" => return Err(unsupported(&format!("requiresCompatibilities {kind}"))),
            other => return Err(client(format!("Invalid requiresCompatibilities value: {other}"))),
        }
        if !distinct.contains(&kind) {
            distinct.push(kind);
        }
    }
    Ok(distinct)
}

/// What only an execution role could fetch is refused without one, whether or not it is served with one.
fn fetches_nothing(containers: &[ContainerDefinition]) -> Result<(), ServiceError> {
    if containers.iter().any(|container| container.secrets.given()) {
        return Err(client(
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'.",
        ));
    }
    if containers.iter().any(|container| container.repository_credentials.is_some()) {
        return Err(client(
            "Private repository authentication requires that the task definition specify a value for executionRoleArn.",
        ));
    }
    Ok(())
}

/// This machine's architecture, as task definitions name it.
fn own_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "ARM64" } else { "X86_64" }
}

fn check_platform(platform: &RuntimePlatform) -> Result<(), ServiceError> {
    match platform.operating_system_family.as_deref() {
        None | Some("LINUX") => {}
        Some(other) => return Err(unsupported(&format!("runtimePlatform.operatingSystemFamily {other}"))),
    }
    match platform.cpu_architecture.as_deref() {
        None => Ok(()),
        Some(architecture) if architecture == own_architecture() => Ok(()),
        Some(other) => Err(unsupported(&format!("runtimePlatform.cpuArchitecture {other} on this machine"))),
    }
}

fn check_storage(storage: EphemeralStorage) -> Result<u32, ServiceError> {
    storage
        .size_in_gi_b
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| (21..=200).contains(size))
        .ok_or_else(|| client("Invalid 'ephemeralStorage' setting for task: the size must be between 21 and 200 GiB."))
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
