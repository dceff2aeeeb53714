//! `$ECS_AGENT_URI/task-protection/v1/state`: a task asks for its own scale-in protection. The agent makes the call that
//! belongs to it, signed with the task role's keys, and answers in the shapes of Amazon's agent.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html>

use std::time::Duration;

use api::ecs::{Failure, ProtectedTask};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::aws::{CallError, role_keys};

/// How long Amazon's agent waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What a task asks for.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Wish {
    protection_enabled: Option<bool>,
    expires_in_minutes: Option<i32>,
}

/// Whoever asks is none of the task's containers.
pub(super) fn unknown() -> (StatusCode, Value) {
    let error = json!({ "Code": "ResourceNotFoundException", "Message": "Failed to find a task for the request" });
    (StatusCode::NOT_FOUND, json!({ "error": error }))
}

/// Answers GET and PUT.
pub(super) async fn state(context: &Context, method: &Method, body: &[u8]) -> (StatusCode, Value) {
    let task = context.task_arn.as_str();
    let wish = match *method {
        Method::PUT => match wish(body) {
            Ok(wish) => Some(wish),
            Err(text) => return error(task, StatusCode::BAD_REQUEST, "InvalidParameterException", &text),
        },
        _ => None,
    };
    let Some(credentials) = context.roles.application(task) else {
        let text = "Invalid Request: no task IAM role credentials available for task";
        return error(task, StatusCode::FORBIDDEN, "AccessDeniedException", text);
    };
    // An agent's own cluster and region may be others than those of its tasks.
    let parts: Vec<&str> = task.split([':', '/']).collect();
    let (region, cluster) = (parts.get(3).copied().unwrap_or_default(), parts.get(6).copied().unwrap_or_default());
    let keys = role_keys(&credentials, "ecs", region);
    let call = async {
        match wish {
            Some((enabled, minutes)) => {
                let answer = context.api.protect_task(cluster, task, enabled, minutes, &keys).await?;
                Ok((answer.protected_tasks, answer.failures))
            }
            None => {
                let answer = context.api.task_protection(cluster, task, &keys).await?;
                Ok((answer.protected_tasks, answer.failures))
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, call).await {
        Err(_) => {
            let text = "Timed out calling ECS Task Protection API";
            error(task, StatusCode::GATEWAY_TIMEOUT, "RequestCanceled", text)
        }
        Ok(Err(CallError::Service(why))) => {
            let status = StatusCode::from_u16(why.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            error(task, status, why.code(), why.message())
        }
        Ok(Err(CallError::Transport(text))) => error(task, StatusCode::INTERNAL_SERVER_ERROR, "ServerException", &text),
        Ok(Ok((protected, failures))) => told(task, protected, failures),
    }
}

/// What a PUT says.
fn wish(body: &[u8]) -> Result<(bool, Option<i32>), String> {
    let wish: Wish =
        serde_json::from_slice(body).map_err(|_| "UpdateTaskProtection: failed to decode request".to_owned())?;
    match wish.protection_enabled {
        Some(enabled) => Ok((enabled, wish.expires_in_minutes)),
        None => Err("Invalid request: does not contain 'ProtectionEnabled' field".to_owned()),
    }
}

/// The answer of the control plane, which is about this one task. A failure is an answer like another.
fn told(task: &str, protected: Option<Vec<ProtectedTask>>, failures: Option<Vec<Failure>>) -> (StatusCode, Value) {
    if let Some(failure) = failures.into_iter().flatten().next() {
        let failure = json!({ "Arn": failure.arn, "Detail": failure.detail, "Reason": failure.reason });
        return (StatusCode::OK, json!({ "failure": failure }));
    }
    let Some(protected) = protected.into_iter().flatten().next() else {
        return error(task, StatusCode::INTERNAL_SERVER_ERROR, "ServerException", "Unexpected error occurred");
    };
    let expiration = protected.expiration_date.map(wire::Timestamp::to_rfc3339);
    let protection = json!({
        "ExpirationDate": expiration,
        "ProtectionEnabled": protected.protection_enabled,
        "TaskArn": protected.task_arn,
    });
    (StatusCode::OK, json!({ "protection": protection }))
}

fn error(task: &str, status: StatusCode, code: &str, message: &str) -> (StatusCode, Value) {
    (status, json!({ "error": { "Arn": task, "Code": code, "Message": message } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_says_must_be_what_amazons_agent_takes() {
        assert_eq!(wish(br#"{"ProtectionEnabled":true}"#), Ok((true, None)));
        assert_eq!(wish(br#"{"ProtectionEnabled":false,"ExpiresInMinutes":5}"#), Ok((false, Some(5))));
        assert!(wish(b"{}").unwrap_err().contains("ProtectionEnabled"));
        for bad in [&b""[..], b"[]", br#"{"ProtectionEnabled":"yes"}"#, br#"{"ProtectionEnabled":true,"Other":1}"#] {
            assert!(wish(bad).unwrap_err().contains("decode"), "{bad:?}");
        }
    }

    #[test]
    fn a_failure_is_an_answer_with_its_reason() {
        let failure =
            Failure { arn: Some("t".into()), reason: Some("DEPLOYMENT_BLOCKED".into()), ..Failure::default() };
        let (status, body) = told("t", Some(Vec::new()), Some(vec![failure]));
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, json!({ "failure": { "Arn": "t", "Detail": null, "Reason": "DEPLOYMENT_BLOCKED" } }));
        let protected =
            ProtectedTask { task_arn: Some("t".into()), protection_enabled: Some(false), ..Default::default() };
        let (_, body) = told("t", Some(vec![protected]), None);
        assert_eq!(body["protection"]["ProtectionEnabled"], json!(false));
    }
}
