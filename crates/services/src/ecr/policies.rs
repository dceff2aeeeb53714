//! Repository policies: kept as they are given, and decided by once policies are evaluated at all.

use api::ecr::*;
use domain::repositories::Repository;
use wire::ServiceError;

use super::{Answer, Target, invalid, refusal, repositories::change};
use crate::Call;

pub(super) async fn set(call: &Call, input: SetRepositoryPolicyRequest) -> Answer<SetRepositoryPolicyResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let text = input.policy_text.unwrap_or_default();
    let policy: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    if !policy.is_some_and(|policy| is_policy(&policy)) {
        return Err(invalid("PolicyText", "Invalid repository policy provided"));
    }
    change(&auth, &target, |repository| repository.policy = Some(text.clone())).await?;
    Ok(SetRepositoryPolicyResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        policy_text: Some(text),
    })
}

pub(super) fn get(call: &Call, input: GetRepositoryPolicyRequest) -> Answer<GetRepositoryPolicyResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let repository = registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    Ok(GetRepositoryPolicyResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        policy_text: Some(repository.policy.clone().ok_or_else(|| missing(&target))?),
    })
}

pub(super) async fn delete(
    call: &Call,
    input: DeleteRepositoryPolicyRequest,
) -> Answer<DeleteRepositoryPolicyResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let before = change(&auth, &target, |repository: &mut Repository| repository.policy = None).await?;
    Ok(DeleteRepositoryPolicyResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        policy_text: Some(before.policy.clone().ok_or_else(|| missing(&target))?),
    })
}

fn missing(target: &Target) -> ServiceError {
    error::repository_policy_not_found_exception(format!(
        "Repository policy does not exist for the repository with name '{}' in the registry with id '{}'",
        target.name, target.scope.account
    ))
}

/// A resource policy: an object whose statements each have an effect, a principal and an action.
fn is_policy(policy: &serde_json::Value) -> bool {
    let statement = |statement: &serde_json::Value| {
        let either = |one: &str, other: &str| statement.get(one).is_some() != statement.get(other).is_some();
        matches!(statement.get("Effect").and_then(|effect| effect.as_str()), Some("Allow" | "Deny"))
            && either("Principal", "NotPrincipal")
            && either("Action", "NotAction")
    };
    match policy.get("Statement") {
        Some(serde_json::Value::Array(statements)) => !statements.is_empty() && statements.iter().all(statement),
        Some(one) => statement(one),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_has_statements_with_effect_principal_and_action() {
        let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"});
        assert!(is_policy(&json!({"Version": "2012-10-17", "Statement": [statement]})));
        assert!(is_policy(&json!({"Statement": statement})));
        for wrong in [
            json!({}),
            json!([]),
            json!({"Statement": []}),
            json!({"Statement": [{"Effect": "Allow", "Action": "*"}]}),
            json!({"Statement": [{"Effect": "allow", "Principal": "*", "Action": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Principal": "*"}]}),
        ] {
            assert!(!is_policy(&wrong), "{wrong}");
        }
    }
}
