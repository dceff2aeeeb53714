//! Instance profiles: the way a role gets to an EC2 instance.

use std::sync::Arc;

use api::iam::*;
use domain::{
    Arn,
    identity::{self, DEFAULT_PATH, role_key},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    names::{arn, no_role, page, path, required, role_arn, tags},
    shapes,
};
use crate::Call;

pub(super) async fn create(
    call: Call,
    input: CreateInstanceProfileRequest,
) -> Result<CreateInstanceProfileResponse, ServiceError> {
    let name = required(input.instance_profile_name, "instanceProfileName")?;
    let path = path(input.path)?;
    let arn = arn(&call, "instance-profile", &path, &name);
    let auth = call.authorise(&[&arn])?;
    let profile = identity::InstanceProfile {
        arn,
        account: call.scope.account.clone(),
        path,
        id: auth.platform().ids().iam("AIPA", 21),
        role: None,
        tags: tags(input.tags)?,
        created_at: auth.now(),
        name,
    };
    let shape = shapes::instance_profile(&profile, None);
    auth.transact(|tx| {
        if tx.contains::<identity::InstanceProfile>(&role_key(&profile.account, &profile.name)) {
            return Err(error::entity_already_exists_exception(format!(
                "Instance Profile {} already exists.",
                profile.name
            )));
        }
        tx.put(profile);
        Ok(())
    })
    .await?;
    Ok(CreateInstanceProfileResponse { instance_profile: Some(shape) })
}

pub(super) fn get(call: &Call, input: GetInstanceProfileRequest) -> Result<GetInstanceProfileResponse, ServiceError> {
    let name = required(input.instance_profile_name, "instanceProfileName")?;
    let auth = call.authorise(&[profile_arn(call, &name)])?;
    let snapshot = auth.snapshot();
    let profile = snapshot
        .get::<identity::InstanceProfile>(&role_key(&call.scope.account, &name))
        .ok_or_else(|| no_profile(&name))?;
    Ok(GetInstanceProfileResponse { instance_profile: Some(shape(&snapshot, &profile)) })
}

pub(super) fn list(
    call: &Call,
    input: ListInstanceProfilesRequest,
) -> Result<ListInstanceProfilesResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let snapshot = auth.snapshot();
    let prefix = input.path_prefix.unwrap_or_default();
    let own = format!("{}/", call.scope.account);
    let profiles = snapshot.list::<identity::InstanceProfile>(&own).filter(|profile| profile.path.starts_with(&prefix));
    let page = page(call.operation, profiles, input.marker.as_deref(), input.max_items, key, |profile| {
        shape(&snapshot, &profile)
    })?;
    Ok(ListInstanceProfilesResponse {
        instance_profiles: Some(page.items),
        is_truncated: Some(page.is_truncated),
        marker: page.marker,
    })
}

pub(super) fn list_for_role(
    call: &Call,
    input: ListInstanceProfilesForRoleRequest,
) -> Result<ListInstanceProfilesForRoleResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    let snapshot = auth.snapshot();
    let role = role_key(&call.scope.account, &name);
    if !snapshot.contains::<identity::Role>(&role) {
        return Err(no_role(&name));
    }
    let profiles = snapshot.find::<identity::InstanceProfile>("role", role);
    let page = page(call.operation, profiles, input.marker.as_deref(), input.max_items, key, |profile| {
        shape(&snapshot, &profile)
    })?;
    Ok(ListInstanceProfilesForRoleResponse {
        instance_profiles: Some(page.items),
        is_truncated: Some(page.is_truncated),
        marker: page.marker,
    })
}

pub(super) async fn delete(call: Call, input: DeleteInstanceProfileRequest) -> Result<(), ServiceError> {
    let name = required(input.instance_profile_name, "instanceProfileName")?;
    let auth = call.authorise(&[profile_arn(&call, &name)])?;
    let key = role_key(&call.scope.account, &name);
    auth.transact(|tx| {
        let profile = tx.get::<identity::InstanceProfile>(&key).ok_or_else(|| no_profile(&name))?;
        if profile.role.is_some() {
            return Err(error::delete_conflict_exception(
                "Cannot delete entity, must remove roles from instance profile first.",
            ));
        }
        tx.delete::<identity::InstanceProfile>(&key);
        Ok(())
    })
    .await
}

/// Puts a role into the profile: which hands the role over to whoever launches instances with it.
pub(super) async fn add_role(call: Call, input: AddRoleToInstanceProfileRequest) -> Result<(), ServiceError> {
    let name = required(input.instance_profile_name, "instanceProfileName")?;
    let role = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[profile_arn(&call, &name)])?;
    call.authorise_action("iam:PassRole", &[role_arn(&call, &role)])?;
    let key = role_key(&call.scope.account, &name);
    auth.transact(|tx| {
        let profile = tx.get::<identity::InstanceProfile>(&key).ok_or_else(|| no_profile(&name))?;
        let role =
            tx.get::<identity::Role>(&role_key(&call.scope.account, &role)).ok_or_else(|| no_role(&role))?.name.clone();
        if profile.role.is_some() {
            return Err(error::limit_exceeded_exception(
                "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1",
            ));
        }
        tx.put(identity::InstanceProfile { role: Some(role), ..identity::InstanceProfile::clone(&profile) });
        Ok(())
    })
    .await
}

pub(super) async fn remove_role(call: Call, input: RemoveRoleFromInstanceProfileRequest) -> Result<(), ServiceError> {
    let name = required(input.instance_profile_name, "instanceProfileName")?;
    let role = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[profile_arn(&call, &name)])?;
    let key = role_key(&call.scope.account, &name);
    auth.transact(|tx| {
        let profile = tx.get::<identity::InstanceProfile>(&key).ok_or_else(|| no_profile(&name))?;
        if !profile.role.as_ref().is_some_and(|held| held.eq_ignore_ascii_case(&role)) {
            return Err(no_role(&role));
        }
        tx.put(identity::InstanceProfile { role: None, ..identity::InstanceProfile::clone(&profile) });
        Ok(())
    })
    .await
}

fn profile_arn(call: &Call, name: &str) -> Arn {
    let key = role_key(&call.scope.account, name);
    let profile = call.unchecked_snapshot().get::<identity::InstanceProfile>(&key);
    profile.map_or_else(|| arn(call, "instance-profile", DEFAULT_PATH, name), |profile| profile.arn.clone())
}

fn shape(snapshot: &Snapshot, profile: &identity::InstanceProfile) -> InstanceProfile {
    let role = profile.role.as_ref().and_then(|role| snapshot.get::<identity::Role>(&role_key(&profile.account, role)));
    shapes::instance_profile(profile, role.as_deref())
}

fn key(profile: &Arc<identity::InstanceProfile>) -> String {
    role_key(&profile.account, &profile.name)
}

fn no_profile(name: &str) -> ServiceError {
    error::no_such_entity_exception(format!("Instance Profile {name} cannot be found."))
}
