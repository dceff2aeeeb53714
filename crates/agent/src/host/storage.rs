//! Where what a task's containers write is kept. On a Fargate host that is a volume of the size the task was promised; on
//! an instance of the user's it is a directory, which shares the instance's disk with everything else, as Docker's does.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use domain::agent_protocol::payload::{EPHEMERAL_STORAGE, Task};
use runtime::EphemeralVolume;

use super::Settings;
use crate::instance::Kind;

/// What Fargate gives each task, in GiB.
const EPHEMERAL_GIB: u64 = 20;

/// One task's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Storage {
    /// A sparse file and where it is mounted.
    Volume { image: PathBuf, mount: PathBuf },
    /// A directory.
    Directory(PathBuf),
}

impl Storage {
    /// The storage of that name, whether it is there or not.
    pub(super) fn of(settings: &Settings, name: &str) -> Storage {
        let directory = settings.volumes();
        match settings.kind {
            Kind::Fargate => {
                Storage::Volume { image: directory.join(format!("{name}.ext4")), mount: directory.join(name) }
            }
            Kind::Ec2 | Kind::External => Storage::Directory(directory.join(name)),
        }
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> &Path {
        match self {
            Storage::Volume { mount, .. } => mount,
            Storage::Directory(directory) => directory,
        }
    }

    /// Whether it is there, as after a restart of the agent.
    pub(super) fn exists(&self) -> bool {
        match self {
            Storage::Volume { image, mount } => EphemeralVolume::adopt(image, mount).is_some(),
            Storage::Directory(directory) => directory.is_dir(),
        }
    }

    /// Makes it, with so many bytes where it has a size of its own. Blocking.
    pub(super) fn create(&self, bytes: u64) -> Result<(), String> {
        match self {
            Storage::Volume { image, mount } => {
                EphemeralVolume::create(image, mount, bytes).map(drop).map_err(|error| error.to_string())
            }
            Storage::Directory(directory) => std::fs::create_dir_all(directory).map_err(|error| error.to_string()),
        }
    }

    /// Used and total bytes, where it has a size of its own.
    pub(super) fn usage(&self) -> Option<(u64, u64)> {
        match self {
            Storage::Volume { image, mount } => EphemeralVolume::adopt(image, mount)?.usage().ok(),
            Storage::Directory(_) => None,
        }
    }

    /// Removes it with all that is in it.
    pub(super) async fn remove(self) {
        let removed = tokio::task::spawn_blocking(move || self.remove_now()).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(error, "a task's storage could not be removed");
        }
    }

    fn remove_now(self) -> Result<(), String> {
        match self {
            Storage::Volume { image, mount } => match EphemeralVolume::adopt(&image, &mount) {
                Some(volume) => volume.remove().map_err(|error| error.to_string()),
                None => {
                    let _ = std::fs::remove_dir(&mount);
                    crate::state::remove(&image).map_err(|error| error.to_string())
                }
            },
            Storage::Directory(directory) => match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
                _ => Ok(()),
            },
        }
    }
}

/// How much a task was promised.
pub(super) fn gibibytes(task: &Task) -> u64 {
    let attachment = task.attachments.iter().find(|attachment| attachment.attachment_type == EPHEMERAL_STORAGE);
    let properties = attachment.map(|attachment| attachment.attachment_properties.as_slice()).unwrap_or_default();
    let size = properties.iter().find(|property| property.name == "sizeInGiB");
    size.and_then(|property| property.value.parse().ok()).unwrap_or(EPHEMERAL_GIB).clamp(1, 200)
}

/// Makes the volume of a next task ready, so that it does not wait for one. Not awaited: nothing depends on it.
pub(super) fn make_spare(settings: &Settings) {
    if settings.kind != Kind::Fargate {
        return;
    }
    let directory = settings.volumes();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = EphemeralVolume::spare(&directory, EPHEMERAL_GIB << 30) {
            tracing::info!(%error, "no spare ephemeral storage was made");
        }
    });
}

/// Removes the storage of tasks that are in no record.
pub(super) async fn remove_orphans(settings: &Settings, known: &HashSet<&str>) {
    let Ok(entries) = std::fs::read_dir(settings.volumes()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().map(|name| name.trim_end_matches(".ext4").to_owned()) else { continue };
        if known.contains(name.as_str()) || name.starts_with("template-") {
            continue;
        }
        if !name.starts_with("spare-") {
            tracing::warn!(volume = name, "removing storage no task knows");
        }
        Storage::of(settings, &name).remove().await;
    }
}
