//! Roles: create, read, change, delete, tags.

use api::iam::*;
use domain::identity::{self, role_key};
use wire::ServiceError;

use super::{
    documents,
    names::{arn, no_role, page, path, required, role, role_arn, tags},
    shapes,
};
use crate::Call;

/// The session lengths a role can have, in seconds, and the default.
const SESSION_SECONDS: (u32, u32, u32) = (3_600, 43_200, 3_600);

pub(super) async fn create(call: Call, input: CreateRoleRequest) -> Result<CreateRoleResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let path = path(input.path)?;
    let arn = arn(&call, "role", &path, &name);
    let auth = call.authorise(&[&arn])?;
    if input.permissions_boundary.is_some() {
        return Err(error::invalid_input_exception("PermissionsBoundary is not supported by Longshore yet."));
    }
    let trust_policy = required(input.assume_role_policy_document, "assumeRolePolicyDocument")?;
    documents::check(documents::Kind::Trust, &trust_policy)?;
    let role = identity::Role {
        arn,
        account: call.scope.account.clone(),
        path,
        id: auth.platform().ids().iam("AROA", 21),
        trust_policy,
        description: input.description,
        max_session_duration: session_duration(input.max_session_duration)?,
        inline_policies: Default::default(),
        attached_policies: Vec::new(),
        permissions_boundary: None,
        tags: tags(input.tags)?,
        created_at: auth.now(),
        name,
    };
    let shape = shapes::role(&role);
    auth.transact(|tx| {
        if tx.contains::<identity::Role>(&role_key(&role.account, &role.name)) {
            return Err(error::entity_already_exists_exception(format!(
                "Role with name {} already exists.",
                role.name
            )));
        }
        tx.put(role);
        Ok(())
    })
    .await?;
    Ok(CreateRoleResponse { role: Some(shape) })
}

pub(super) fn get(call: &Call, input: GetRoleRequest) -> Result<GetRoleResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    Ok(GetRoleResponse { role: Some(shapes::role(role(call, &auth.snapshot(), &name)?.as_ref())) })
}

pub(super) fn list(call: &Call, input: ListRolesRequest) -> Result<ListRolesResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let snapshot = auth.snapshot();
    let prefix = input.path_prefix.unwrap_or_default();
    let own = format!("{}/", call.scope.account);
    let roles = snapshot.list::<identity::Role>(&own).filter(|role| role.path.starts_with(&prefix));
    let page = page(
        call.operation,
        roles,
        input.marker.as_deref(),
        input.max_items,
        |role| role_key(&role.account, &role.name),
        |role| shapes::listed_role(&role),
    )?;
    Ok(ListRolesResponse { roles: Some(page.items), is_truncated: Some(page.is_truncated), marker: page.marker })
}

pub(super) async fn update(call: Call, input: UpdateRoleRequest) -> Result<UpdateRoleResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let duration = input.max_session_duration.map(|seconds| session_duration(Some(seconds))).transpose()?;
    change(&call, &name, |role| {
        if let Some(description) = input.description {
            role.description = Some(description);
        }
        if let Some(duration) = duration {
            role.max_session_duration = duration;
        }
        Ok(())
    })
    .await?;
    Ok(UpdateRoleResponse {})
}

pub(super) async fn update_trust_policy(call: Call, input: UpdateAssumeRolePolicyRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let document = required(input.policy_document, "policyDocument")?;
    documents::check(documents::Kind::Trust, &document)?;
    change(&call, &name, |role| {
        role.trust_policy = document;
        Ok(())
    })
    .await
}

pub(super) async fn delete(call: Call, input: DeleteRoleRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(&call, &name)])?;
    let key = role_key(&call.scope.account, &name);
    auth.transact(|tx| {
        let role = tx.get::<identity::Role>(&key).ok_or_else(|| no_role(&name))?;
        let conflict =
            |what: &str| Err(error::delete_conflict_exception(format!("Cannot delete entity, must {what} first.")));
        if tx.count::<identity::InstanceProfile>("role", key.clone()) > 0 {
            return conflict("remove roles from instance profile");
        }
        if !role.attached_policies.is_empty() {
            return conflict("detach all policies");
        }
        if !role.inline_policies.is_empty() {
            return conflict("delete policies");
        }
        tx.delete::<identity::Role>(&key);
        Ok(())
    })
    .await
}

pub(super) async fn tag(call: Call, input: TagRoleRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let new = tags(input.tags)?;
    change(&call, &name, |role| {
        for tag in new.iter() {
            let set = role.tags.set(tag.key.clone(), tag.value.clone());
            set.map_err(|error| error::limit_exceeded_exception(error.to_string()))?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn untag(call: Call, input: UntagRoleRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    change(&call, &name, |role| {
        input.tag_keys.unwrap_or_default().iter().for_each(|key| role.tags.remove(key));
        Ok(())
    })
    .await
}

pub(super) fn list_tags(call: &Call, input: ListRoleTagsRequest) -> Result<ListRoleTagsResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    let mut tags = shapes::tags(&role(call, &auth.snapshot(), &name)?.tags);
    tags.sort_by(|a, b| a.key.cmp(&b.key));
    let key = |tag: &Tag| tag.key.clone().unwrap_or_default();
    let page = page(call.operation, tags.into_iter(), input.marker.as_deref(), input.max_items, key, |tag| tag)?;
    Ok(ListRoleTagsResponse { tags: Some(page.items), is_truncated: Some(page.is_truncated), marker: page.marker })
}

/// Authorises, then changes a role in one transaction.
pub(super) async fn change(
    call: &Call,
    name: &str,
    change: impl FnOnce(&mut identity::Role) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let auth = call.authorise(&[role_arn(call, name)])?;
    let key = role_key(&call.scope.account, name);
    auth.transact(|tx| {
        let role = tx.get::<identity::Role>(&key).ok_or_else(|| no_role(name))?;
        let mut role = identity::Role::clone(&role);
        change(&mut role)?;
        tx.put(role);
        Ok(())
    })
    .await
}

fn session_duration(seconds: Option<i32>) -> Result<u32, ServiceError> {
    let (least, most, default) = SESSION_SECONDS;
    let Some(seconds) = seconds else { return Ok(default) };
    u32::try_from(seconds).ok().filter(|seconds| (least..=most).contains(seconds)).ok_or_else(|| {
        ServiceError::new("ValidationError", format!("MaxSessionDuration must be between {least} and {most} seconds."))
    })
}
