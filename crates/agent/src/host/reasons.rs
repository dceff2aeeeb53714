//! Why a task did not start, in the words Amazon uses on Fargate.

use runtime::{ContainerError, ImageError};

use crate::aws::CallError;
use crate::engine::machine::Failure;

/// A pull that failed after so many attempts. `reference` is the image with its registry and tag.
pub fn pull(error: &ImageError, reference: &str, url: &str, attempts: u32) -> Failure {
    let resolve = |what: String| {
        format!(
            "CannotPullContainerError: pull image manifest has been retried {attempts} time(s): failed to resolve ref {reference}: {what}"
        )
    };
    let status = |code: u16| {
        let reason = http::StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default();
        format!("unexpected status from HEAD request to {url}: {code} {reason}")
    };
    let text = match error {
        ImageError::InvalidReference { reason, .. } => {
            format!("CannotPullContainerError: invalid reference format: {reason}")
        }
        ImageError::NotFound { .. } => resolve(format!("{reference}: not found")),
        ImageError::Denied { status: code, .. } => resolve(status(*code)),
        ImageError::Unauthorized { .. } => resolve(
            "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials"
                .to_owned(),
        ),
        ImageError::TooManyRequests { .. } => resolve(format!("{}: toomanyrequests", status(429))),
        ImageError::Timeout { url, detail, .. } | ImageError::Unreachable { url, detail, .. } => {
            resolve(format!("failed to do request: Head \"{url}\": {detail}"))
        }
        ImageError::Registry { status: code, .. } => resolve(status(*code)),
        ImageError::WrongPlatform { wanted, .. } => format!(
            "CannotPullContainerError: image Manifest does not contain descriptor matching platform '{wanted}'"
        ),
        ImageError::NoSpace => format!(
            "CannotPullContainerError: ref pull has been retried {attempts} time(s): failed to extract layer: no space left on device"
        ),
        other => format!("CannotPullContainerError: ref pull has been retried {attempts} time(s): {other}"),
    };
    Failure(text)
}

/// A container that could not be created or started.
pub fn start(error: &ContainerError) -> Failure {
    let started = |what: String| {
        format!(
            "CannotStartContainerError: ResourceInitializationError: failed to create new container runtime task: failed to create shim task: OCI runtime create failed: unable to start container process: {what}: unknown"
        )
    };
    let text = match error {
        ContainerError::ExecutableNotFound { executable } if executable.contains('/') => {
            started(format!("exec: \"{executable}\": stat {executable}: no such file or directory"))
        }
        ContainerError::ExecutableNotFound { executable } => {
            started(format!("exec: \"{executable}\": executable file not found in $PATH"))
        }
        ContainerError::ExecutableDenied { executable } => {
            started(format!("exec: \"{executable}\": permission denied"))
        }
        ContainerError::ExecFormat { executable } => started(format!("exec {executable}: exec format error")),
        ContainerError::NoSuchUser { user } => {
            format!("CannotStartContainerError: unable to find user {user}: no matching entries in passwd file")
        }
        ContainerError::NoSuchGroup { group } => {
            format!("CannotStartContainerError: unable to find group {group}: no matching entries in group file")
        }
        ContainerError::InvalidSpec { field, reason } => format!("CannotCreateContainerError: {field}: {reason}"),
        other => format!("CannotStartContainerError: {other}"),
    };
    Failure(text)
}

/// The registry's token could not be had.
pub fn registry_login(error: &CallError) -> Failure {
    let what = match error {
        CallError::Service(_) => format!(
            "execution resource retrieval failed: unable to retrieve ecr registry auth: service call has been retried 1 time(s): {error}"
        ),
        CallError::Transport(_) => format!(
            "The task cannot pull registry auth from Amazon ECR: There is a connection issue between the task and Amazon ECR. Check your task network configuration. {error}"
        ),
    };
    Failure(format!("ResourceInitializationError: unable to pull secrets or registry auth: {what}"))
}

/// The task has an image in ECR and no usable execution role.
pub fn no_execution_role() -> Failure {
    Failure(
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable to retrieve ecr registry auth: the task has no execution role credentials"
            .to_owned(),
    )
}

/// A container's network could not be made: a port that is taken, above all. In Docker's words.
pub fn network(name: &str, task: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure(format!(
        "CannotStartContainerError: Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({task}): {error}"
    ))
}

/// Something of the task's surroundings could not be made.
pub fn resource(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure(format!("ResourceInitializationError: {what}: {error}"))
}
