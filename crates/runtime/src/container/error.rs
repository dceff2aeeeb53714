//! What can go wrong with a container, in kinds that a caller can tell apart and map to Amazon's texts.

use std::io;

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupError;
use crate::rootfs::RootfsError;

/// Why a container could not be created, started, reached or removed. The texts of the first kinds are those Docker users know.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The command is not in the image.
    #[error("exec: {executable:?}: {}", if executable.contains('/') { "stat: no such file or directory" } else { "executable file not found in $PATH" })]
    ExecutableNotFound {
        /// As given.
        executable: String,
    },
    /// The command is there but may not be executed.
    #[error("exec: {executable:?}: permission denied")]
    ExecutableDenied {
        /// As given.
        executable: String,
    },
    /// The command is no program for this machine.
    #[error("exec {executable}: exec format error")]
    ExecFormat {
        /// As given.
        executable: String,
    },
    /// The working directory cannot be entered.
    #[error("working directory {path:?}: {reason}")]
    WorkingDirectory {
        /// As given.
        path: String,
        /// Why.
        reason: String,
    },
    /// A user the image does not have.
    #[error("unable to find user {user}: no matching entries in passwd file")]
    NoSuchUser {
        /// As given.
        user: String,
    },
    /// A group the image does not have.
    #[error("unable to find group {group}: no matching entries in group file")]
    NoSuchGroup {
        /// As given.
        group: String,
    },
    /// A field of the specification that cannot be carried out.
    #[error("invalid {field}: {reason}")]
    InvalidSpec {
        /// The field's name.
        field: String,
        /// Why.
        reason: String,
    },
    /// A mount that failed.
    #[error("cannot mount {target:?}: {reason}")]
    Mount {
        /// Where.
        target: String,
        /// Why.
        reason: String,
    },
    /// A control group that could not be made or read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The limits could not be set when the container was made.
    #[error("cannot set limits: {0}")]
    Limits(String),
    /// The seccomp profile could not be installed; nothing was started.
    #[error("seccomp: {0}")]
    Seccomp(String),
    /// It has ended.
    #[error("container is not running")]
    NotRunning,
    /// A container of that id is there already.
    #[error("container {id:?} already exists")]
    AlreadyExists {
        /// Its id.
        id: String,
    },
    /// The process that owns the container ended or does not answer.
    #[error("the container's shim failed: {detail}")]
    ShimDied {
        /// What is known.
        detail: String,
    },
    /// The disk is full.
    #[error("no space left on device")]
    NoSpace,
    /// Any other refusal while the container was being made.
    #[error("failed to create container: {detail}")]
    Create {
        /// The chain of causes.
        detail: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// [`ContainerError`] as the shim reports it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Failure {
    NotFound(String),
    Denied(String),
    Format(String),
    WorkingDirectory(String, String),
    User(String),
    Group(String),
    Invalid(String, String),
    Mount(String, String),
    Limits(String),
    Seccomp(String),
    NotRunning,
    NoSpace,
    Create(String),
}

impl From<Failure> for ContainerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound(executable) => Self::ExecutableNotFound { executable },
            Failure::Denied(executable) => Self::ExecutableDenied { executable },
            Failure::Format(executable) => Self::ExecFormat { executable },
            Failure::WorkingDirectory(path, reason) => Self::WorkingDirectory { path, reason },
            Failure::User(user) => Self::NoSuchUser { user },
            Failure::Group(group) => Self::NoSuchGroup { group },
            Failure::Invalid(field, reason) => Self::InvalidSpec { field, reason },
            Failure::Mount(target, reason) => Self::Mount { target, reason },
            Failure::Limits(detail) => Self::Limits(detail),
            Failure::Seccomp(detail) => Self::Seccomp(detail),
            Failure::NotRunning => Self::NotRunning,
            Failure::NoSpace => Self::NoSpace,
            Failure::Create(detail) => Self::Create { detail },
        }
    }
}

impl From<RootfsError> for Failure {
    fn from(error: RootfsError) -> Self {
        match error {
            RootfsError::NoSpace => Self::NoSpace,
            RootfsError::NoSuchName { kind: "user", name, .. } => Self::User(name),
            RootfsError::NoSuchName { name, .. } => Self::Group(name),
            RootfsError::Mount { target, reason } => Self::Mount(target.display().to_string(), reason),
            other => Self::Create(other.to_string()),
        }
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        match error {
            ContainerError::InvalidSpec { field, reason } => Self::Invalid(field, reason),
            ContainerError::Seccomp(detail) => Self::Seccomp(detail),
            other => Self::Create(other.to_string()),
        }
    }
}

impl Failure {
    /// A file operation of the shim that has no kind of its own.
    pub(crate) fn io(what: &str) -> impl FnOnce(io::Error) -> Failure {
        let what = what.to_owned();
        move |error| {
            if error.raw_os_error() == Some(libc::ENOSPC) {
                Failure::NoSpace
            } else {
                Failure::Create(format!("{what}: {error}"))
            }
        }
    }
}
