//! Root filesystems: image layers under a writable directory (overlayfs), the volume that bounds what a task may write, and the users
//! an image defines.
//!
//! Mounts are made in the caller's mount namespace with names below the caller's directories, so that [`unmount_under`] finds
//! every one of them again after any crash.

mod loop_device;
mod overlay;
pub(crate) mod users;
mod volume;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use loop_device::LoopDevice;
pub use overlay::{mount_overlay, unmount_under};
pub use volume::EphemeralVolume;

/// What a container's root is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Image layers, bottom first.
    pub lowers: Vec<PathBuf>,
    /// What the container writes. Made when missing; kept when the container starts again.
    pub upper: PathBuf,
    /// For the kernel's own use, on the same file system as `upper`. Made when missing.
    pub work: PathBuf,
}

/// What went wrong with a root filesystem.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A mount or unmount was refused.
    #[error("cannot mount {}: {reason}", target.display())]
    Mount {
        /// The mount point.
        target: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// The file system of a volume could not be made.
    #[error("cannot make a file system: {0}")]
    Format(String),
    /// The host's disk is full.
    #[error("no space left on device")]
    NoSpace,
    /// A user or group that the image does not have.
    #[error("unable to find {kind} {name}: no matching entries in {file} file")]
    NoSuchName {
        /// `user` or `group`.
        kind: &'static str,
        /// As given.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// Any other failure of a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RootfsError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
        let path = path.to_path_buf();
        move |source| {
            if source.raw_os_error() == Some(libc::ENOSPC) {
                RootfsError::NoSpace
            } else {
                RootfsError::Io { path, source }
            }
        }
    }

    pub(crate) fn mount(target: &Path) -> impl FnOnce(nix::Error) -> RootfsError {
        let target = target.to_path_buf();
        move |error| RootfsError::Mount { target, reason: error.desc().to_owned() }
    }
}
