//! STS's face: who am I, and sessions of roles.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/>

use std::time::Duration;

use api::sts::*;
use domain::{
    Arn,
    identity::{Role, role_key},
};
use iam::Principal;
use wire::{ServiceError, Timestamp};

use crate::Call;

/// The service.
pub struct Sts;

/// The shortest session and the default, in seconds; the longest is the role's.
const DURATION: (u32, u32) = (900, 3_600);
/// The longest session when a role's session assumes another role.
const CHAINED_DURATION: u32 = 3_600;

impl api::sts::Sts for Sts {
    type Call = Call;

    /// Needs no permission, as at Amazon: whoever can sign may ask who they are.
    async fn get_caller_identity(
        &self,
        call: Call,
        _: GetCallerIdentityRequest,
    ) -> Result<GetCallerIdentityResponse, ServiceError> {
        Ok(GetCallerIdentityResponse {
            user_id: Some(call.principal.user_id()),
            account: Some(call.principal.account().to_string()),
            arn: Some(call.principal.arn().to_string()),
        })
    }

    async fn assume_role(&self, call: Call, input: AssumeRoleRequest) -> Result<AssumeRoleResponse, ServiceError> {
        refuse_unsupported(&input)?;
        let role_arn = input.role_arn.unwrap_or_default();
        let session = input.role_session_name.unwrap_or_default();
        let arn: Arn =
            role_arn.parse().map_err(|_| ServiceError::new("ValidationError", format!("{role_arn} is invalid")))?;
        let auth = call.authorise(&[&arn])?;
        let role = auth.snapshot().get::<Role>(&role_key(call.principal.account(), arn.resource_name()));
        let role = role.filter(|role| role.arn == arn).ok_or_else(|| not_allowed(&call, &arn))?;
        let duration = input.duration_seconds.map_or(Some(DURATION.1), |seconds| u32::try_from(seconds).ok());
        let chained = matches!(call.principal, Principal::AssumedRole { .. });
        let longest = if chained { role.max_session_duration.min(CHAINED_DURATION) } else { role.max_session_duration };
        let duration = duration.filter(|seconds| *seconds >= DURATION.0 && *seconds <= longest).ok_or_else(|| {
            let why = if chained {
                "the 1 hour session limit for roles assumed by role chaining"
            } else {
                "the MaxSessionDuration set for this role"
            };
            ServiceError::new("ValidationError", format!("The requested DurationSeconds exceeds {why}."))
        })?;
        let principal = Principal::AssumedRole {
            account: role.account.clone(),
            role: role.arn.clone(),
            role_id: role.id.clone(),
            session,
        };
        let assumed =
            AssumedRoleUser { assumed_role_id: Some(principal.user_id()), arn: Some(principal.arn().to_string()) };
        let platform = auth.platform();
        let duration = Duration::from_secs(u64::from(duration));
        let given = platform.authority.issue_session(&mut platform.ids(), principal, auth.now(), duration);
        let given = given.ok_or_else(|| ServiceError::internal("The system has no randomness to give."))?;
        Ok(AssumeRoleResponse {
            credentials: Some(Credentials {
                access_key_id: Some(given.access_key_id),
                secret_access_key: Some(given.secret_access_key),
                session_token: Some(given.session_token),
                expiration: Some(Timestamp(given.expiration.millis())),
            }),
            assumed_role_user: Some(assumed),
            ..AssumeRoleResponse::default()
        })
    }
}

/// What a session could be limited or marked by has no effect yet, so it is refused rather than forgotten.
fn refuse_unsupported(input: &AssumeRoleRequest) -> Result<(), ServiceError> {
    let given = [
        ("Policy", input.policy.is_some()),
        ("PolicyArns", input.policy_arns.as_ref().is_some_and(|list| !list.is_empty())),
        ("Tags", input.tags.as_ref().is_some_and(|list| !list.is_empty())),
        ("TransitiveTagKeys", input.transitive_tag_keys.as_ref().is_some_and(|list| !list.is_empty())),
        ("ExternalId", input.external_id.is_some()),
        ("SerialNumber", input.serial_number.is_some()),
        ("TokenCode", input.token_code.is_some()),
        ("SourceIdentity", input.source_identity.is_some()),
        ("ProvidedContexts", input.provided_contexts.is_some()),
        ("MinimumSessionTokenSize", input.minimum_session_token_size.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(ServiceError::new("ValidationError", format!("{name} is not supported by Longshore yet.")))
        }
        None => Ok(()),
    }
}

fn not_allowed(call: &Call, role: &Arn) -> ServiceError {
    let text =
        format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {role}", call.principal.arn());
    ServiceError::new("AccessDenied", text).status(403)
}
