//! Policies of a role: embedded ones, and attached managed ones.

use api::iam::*;
use domain::Arn;
use wire::ServiceError;

use super::{
    documents,
    names::{page, required, role, role_arn},
    roles::change,
};
use crate::Call;

/// How many managed policies a role can have.
const MAX_ATTACHED: usize = 10;
/// How many characters a role's embedded policies may have together, white space not counted.
const MAX_INLINE: usize = 10_240;

pub(super) async fn put(call: Call, input: PutRolePolicyRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let policy = required(input.policy_name, "policyName")?;
    let document = required(input.policy_document, "policyDocument")?;
    documents::check(documents::Kind::Identity, &document)?;
    change(&call, &name, |role| {
        role.inline_policies.insert(policy, document);
        let size = |text: &String| text.chars().filter(|c| !c.is_whitespace()).count();
        if role.inline_policies.values().map(size).sum::<usize>() > MAX_INLINE {
            return Err(error::limit_exceeded_exception(format!(
                "Maximum policy size of {MAX_INLINE} bytes exceeded for role {}",
                role.name
            )));
        }
        Ok(())
    })
    .await
}

pub(super) fn get(call: &Call, input: GetRolePolicyRequest) -> Result<GetRolePolicyResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let policy = required(input.policy_name, "policyName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    let role = role(call, &auth.snapshot(), &name)?;
    let document = role.inline_policies.get(&policy).ok_or_else(|| no_policy(&policy))?;
    Ok(GetRolePolicyResponse {
        role_name: Some(role.name.clone()),
        // Documents come back URL-encoded (RFC 3986), as IAM gives them.
        policy_document: Some(wire::percent_encode(document)),
        policy_name: Some(policy),
    })
}

pub(super) fn list(call: &Call, input: ListRolePoliciesRequest) -> Result<ListRolePoliciesResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    let role = role(call, &auth.snapshot(), &name)?;
    let names = role.inline_policies.keys();
    let page =
        page(call.operation, names, input.marker.as_deref(), input.max_items, |name| (*name).clone(), String::clone)?;
    Ok(ListRolePoliciesResponse {
        policy_names: Some(page.items),
        is_truncated: Some(page.is_truncated),
        marker: page.marker,
    })
}

pub(super) async fn delete(call: Call, input: DeleteRolePolicyRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let policy = required(input.policy_name, "policyName")?;
    change(&call, &name, |role| role.inline_policies.remove(&policy).map(drop).ok_or_else(|| no_policy(&policy))).await
}

/// Attaches one of Amazon's managed policies by its ARN. The account's own do not exist yet.
pub(super) async fn attach(call: Call, input: AttachRolePolicyRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let policy = policy_arn(input.policy_arn)?;
    change(&call, &name, |role| {
        if role.attached_policies.contains(&policy) {
            return Ok(());
        }
        if policy.account() != "aws" {
            return Err(error::no_such_entity_exception(format!(
                "Policy {policy} does not exist or is not attachable."
            )));
        }
        if role.attached_policies.len() >= MAX_ATTACHED {
            return Err(error::limit_exceeded_exception(format!(
                "Cannot exceed quota for PoliciesPerRole: {MAX_ATTACHED}"
            )));
        }
        role.attached_policies.push(policy);
        Ok(())
    })
    .await
}

pub(super) async fn detach(call: Call, input: DetachRolePolicyRequest) -> Result<(), ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let policy = policy_arn(input.policy_arn)?;
    change(&call, &name, |role| {
        let before = role.attached_policies.len();
        role.attached_policies.retain(|attached| *attached != policy);
        if role.attached_policies.len() == before {
            return Err(error::no_such_entity_exception(format!("Policy {policy} was not found.")));
        }
        Ok(())
    })
    .await
}

pub(super) fn list_attached(
    call: &Call,
    input: ListAttachedRolePoliciesRequest,
) -> Result<ListAttachedRolePoliciesResponse, ServiceError> {
    let name = required(input.role_name, "roleName")?;
    let auth = call.authorise(&[role_arn(call, &name)])?;
    let role = role(call, &auth.snapshot(), &name)?;
    let prefix = input.path_prefix.unwrap_or_else(|| "/".to_owned());
    let mut policies: Vec<&Arn> = role.attached_policies.iter().collect();
    policies.retain(|policy| format!("/{}", policy.resource_path()).starts_with(&prefix));
    policies.sort();
    let page = page(
        call.operation,
        policies.into_iter(),
        input.marker.as_deref(),
        input.max_items,
        |policy| policy.to_string(),
        |policy| AttachedPolicy {
            policy_name: Some(policy.resource_name().to_owned()),
            policy_arn: Some(policy.to_string()),
        },
    )?;
    Ok(ListAttachedRolePoliciesResponse {
        attached_policies: Some(page.items),
        is_truncated: Some(page.is_truncated),
        marker: page.marker,
    })
}

fn policy_arn(arn: Option<String>) -> Result<Arn, ServiceError> {
    let text = required(arn, "policyArn")?;
    text.parse::<Arn>()
        .ok()
        .filter(|arn| arn.service() == "iam" && arn.resource_type() == "policy")
        .ok_or_else(|| error::invalid_input_exception(format!("ARN {text} is not valid.")))
}

fn no_policy(name: &str) -> ServiceError {
    error::no_such_entity_exception(format!("The role policy with name {name} cannot be found."))
}
