//! What RunTask and StartTask are asked for alike: overrides, network, tags, who starts it.

use api::ecs::{NetworkConfiguration, Tag, TaskOverride, TaskVolumeConfiguration};
use domain::{
    Scope, Tags,
    ecs::{Cluster, Compute, TaskDefinition, TaskNetwork, TaskOverrides},
};
use store::Snapshot;
use wire::ServiceError;

use super::overrides;
use crate::{
    Authorised,
    ecs::{
        common::{Given, invalid, refuse, tags},
        network,
    },
};

/// The members of both requests, as given.
pub(super) struct Asked<'a> {
    pub(super) enable_ecs_managed_tags: Option<bool>,
    pub(super) enable_execute_command: Option<bool>,
    pub(super) group: &'a Option<String>,
    pub(super) network_configuration: &'a Option<NetworkConfiguration>,
    pub(super) overrides: &'a Option<TaskOverride>,
    pub(super) propagate_tags: &'a Option<String>,
    pub(super) reference_id: &'a Option<String>,
    pub(super) started_by: &'a Option<String>,
    pub(super) tags: &'a Option<Vec<Tag>>,
    pub(super) volume_configurations: &'a Option<Vec<TaskVolumeConfiguration>>,
}

/// The same, checked.
pub(super) struct Checked {
    pub(super) overrides: TaskOverrides,
    pub(super) network: Option<TaskNetwork>,
    pub(super) tags: Tags,
    /// `family:{family}` unless given.
    pub(super) group: String,
    pub(super) started_by: Option<String>,
}

/// Checks them for a task of this definition.
pub(super) fn check(
    view: &Snapshot,
    scope: &Scope,
    cluster: &Cluster,
    definition: &TaskDefinition,
    compute: &Compute,
    asked: Asked<'_>,
) -> Result<Checked, ServiceError> {
    refuse(&[
        ("enableExecuteCommand", asked.enable_execute_command.given()),
        ("referenceId", asked.reference_id.given()),
        ("volumeConfigurations", asked.volume_configurations.given()),
    ])?;
    let group = asked.group.clone().filter(|group| !group.is_empty());
    if group.as_ref().is_some_and(|group| group.starts_with("service:")) {
        return Err(invalid("Invalid namespace for group. The namespace 'service' is reserved."));
    }
    let started_by = asked.started_by.clone().filter(|text| !text.is_empty());
    if started_by.as_ref().is_some_and(|text| text.len() > 128) {
        return Err(invalid("startedBy can have at most 128 characters."));
    }
    let overrides = overrides::check(asked.overrides.clone(), definition, compute)?;
    let mut all_tags = match asked.propagate_tags.as_deref() {
        None | Some("" | "NONE") => Tags::default(),
        Some("TASK_DEFINITION") => definition.tags.clone(),
        Some(other) => return Err(invalid(format!("propagateTags {other} is not valid for a task of no service."))),
    };
    tags(asked.tags.clone())?.iter().for_each(|tag| all_tags.set_unchecked(tag.key.clone(), tag.value.clone()));
    if asked.enable_ecs_managed_tags == Some(true) {
        all_tags.set_unchecked("aws:ecs:clusterName".to_owned(), cluster.name.clone());
    }
    Ok(Checked {
        overrides,
        network: network::check(view, scope, definition.network_mode, asked.network_configuration.clone())?,
        tags: all_tags,
        group: group.unwrap_or_else(|| format!("family:{}", definition.family)),
        started_by,
    })
}

/// Whether the caller may pass the task's roles on.
pub(super) fn pass_roles(
    auth: &Authorised,
    definition: &TaskDefinition,
    overrides: &TaskOverrides,
) -> Result<(), ServiceError> {
    let task = overrides.task_role_arn.as_ref().or(definition.task_role_arn.as_ref());
    let execution = overrides.execution_role_arn.as_ref().or(definition.execution_role_arn.as_ref());
    task.into_iter().chain(execution).try_for_each(|role| auth.authorise_action("iam:PassRole", &[role]))
}
