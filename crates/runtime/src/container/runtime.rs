//! All containers below one directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::error::ContainerError;
use super::handle::{self, Container};
use super::protocol::{self, Created};
use super::shim;
use super::spec::ContainerSpec;
use crate::cgroup::{Group, Limits};
use crate::files;
use crate::helper::Helper;
use crate::{SHIM, rootfs};

/// How long a shim may take to make a container, on the slowest disk.
const CREATION: Duration = Duration::from_secs(60);
/// How long a shim that has nothing to do may take to say so.
const ANSWER: Duration = Duration::from_secs(10);
/// What [`Runtime::check`] makes and removes; no container's id begins with a point.
const PROBE: &str = ".probe";

/// Where containers are kept and which binary owns them.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// One subdirectory for each container. Made, with mode 0700, if missing.
    pub directory: PathBuf,
    /// The binary that becomes the shim.
    pub helper: Helper,
}

/// The containers below one directory. One caller at a time: who may be that is the caller's business.
pub struct Runtime {
    options: RuntimeOptions,
    registry: Arc<Registry>,
}

#[derive(Default)]
pub(super) struct Registry {
    containers: Mutex<BTreeMap<String, Container>>,
}

impl Registry {
    pub(super) fn forget(&self, id: &str) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

/// What [`Runtime::destroy`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestroyReport {
    /// Containers removed.
    pub containers: usize,
    /// Processes killed, shims included.
    pub processes: usize,
    /// Mounts undone.
    pub mounts: usize,
}

impl Runtime {
    /// Opens the directory and takes over every container in it: those that run are followed, those that ended meanwhile say how.
    /// What was only half made is removed.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub async fn open(mut options: RuntimeOptions) -> Result<Arc<Runtime>, ContainerError> {
        files::private_directory(&options.directory)?;
        options.directory = std::fs::canonicalize(&options.directory)?;
        let runtime = Arc::new(Runtime { options, registry: Arc::default() });
        for id in subdirectories(&runtime.options.directory)? {
            let directory = runtime.options.directory.join(&id);
            match protocol::read::<ContainerSpec>(&directory, protocol::SPEC) {
                Some(spec) => drop(runtime.register(id, directory, spec)?),
                None => handle::remove(&directory, None, false)?,
            }
        }
        Ok(runtime)
    }

    /// Makes a container: its root filesystem is mounted, its limits are set, its first process exists in its namespaces and waits for
    /// [`Container::start`]. Giving up waiting does not stop the making.
    ///
    /// # Errors
    /// The kinds of [`ContainerError`]; nothing is left behind then, except what `upper` already held.
    pub async fn create(&self, id: &str, spec: ContainerSpec) -> Result<Container, ContainerError> {
        let plain = !id.is_empty()
            && id.len() <= 128
            && !id.starts_with('.')
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !plain {
            return Err(ContainerError::InvalidSpec { field: "id".to_owned(), reason: format!("{id:?}") });
        }
        spec.validate()?;
        let directory = self.options.directory.join(id);
        match std::fs::DirBuilder::new().create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ContainerError::AlreadyExists { id: id.to_owned() });
            }
            other => other?,
        }
        let helper = self.options.helper.clone();
        let making = tokio::spawn(async move {
            let made = make(&helper, &directory, &spec).await;
            if made.is_err() {
                let tidied = directory.clone();
                // The caller learns the first failure; what cannot be removed now is removed by the next `open`.
                let _ = tokio::task::spawn_blocking(move || {
                    handle::kill_and_wait(protocol::read(&tidied, protocol::SHIM), Duration::from_millis(200));
                    handle::remove(&tidied, None, false)
                })
                .await;
            }
            made.map(|()| (directory, spec))
        });
        let (directory, spec) =
            making.await.map_err(|error| ContainerError::Create { detail: error.to_string() })??;
        self.register(id.to_owned(), directory, spec)
    }

    fn register(&self, id: String, directory: PathBuf, spec: ContainerSpec) -> Result<Container, ContainerError> {
        let container = Container::adopt(id.clone(), directory, spec, Arc::downgrade(&self.registry))?;
        self.registry.containers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, container.clone());
        Ok(container)
    }

    /// Whether a container could be made now, as far as that is seen without making one: its directory can be written to, a control
    /// group below `cgroup` can be made and removed, and the program that would own it can be executed and answers. Leaves nothing behind.
    ///
    /// # Errors
    /// The first of these that fails.
    pub async fn check(&self, cgroup: &str) -> Result<(), ContainerError> {
        let at = |what: String| {
            move |error: io::Error| ContainerError::Io(io::Error::new(error.kind(), format!("{what}: {error}")))
        };
        let (file, path) = (self.options.directory.join(PROBE), format!("{cgroup}/{PROBE}"));
        let resources = tokio::task::spawn_blocking(move || {
            let written = std::fs::write(&file, b"probe").and_then(|()| std::fs::remove_file(&file));
            written.map_err(at(file.display().to_string()))?;
            Ok::<(), ContainerError>(Group::create(&path, &Limits::default())?.remove()?)
        });
        resources.await.map_err(|error| ContainerError::Create { detail: error.to_string() })??;
        // Given no container to own, a shim ends at once.
        let mut command = tokio::process::Command::from(self.options.helper.command(SHIM));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(at("the shim's program".to_owned()))?;
        let died = |detail: String| ContainerError::ShimDied { detail };
        match tokio::time::timeout(ANSWER, child.wait()).await {
            Err(_) => Err(died(format!("no answer within {} seconds", ANSWER.as_secs()))),
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(status)) if status.code() == Some(shim::NO_CONTAINER) => Ok(()),
            Ok(Ok(status)) => Err(died(status.to_string())),
        }
    }

    /// The container of that id, running or ended, until it is deleted.
    pub fn get(&self, id: &str) -> Option<Container> {
        self.registry.containers.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All of them, in the order of their ids.
    pub fn list(&self) -> Vec<Container> {
        self.registry.containers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Stops and removes everything that ever ran below `directory` and the control group `cgroup`, whether or not anybody owns it.
    /// Blocking; safe to call twice, and after any crash.
    ///
    /// # Errors
    /// What could not be removed; calling again goes on from there.
    pub fn destroy(directory: &Path, cgroup: &str) -> Result<DestroyReport, ContainerError> {
        let group = Group::open(cgroup)?;
        let mut report = DestroyReport { processes: group.kill(), ..DestroyReport::default() };
        if directory.exists() {
            for id in subdirectories(directory)? {
                let container = directory.join(&id);
                for name in [protocol::SHIM, protocol::STATE] {
                    let process = match name {
                        protocol::SHIM => protocol::read(&container, name),
                        _ => protocol::read::<protocol::Running>(&container, name).map(|running| running.process),
                    };
                    report.processes += usize::from(process.as_ref().is_some_and(protocol::Process::alive));
                    handle::kill_and_wait(process, Duration::ZERO);
                }
                report.containers += 1;
            }
            let mounts = |error: rootfs::RootfsError| ContainerError::Mount {
                target: directory.display().to_string(),
                reason: error.to_string(),
            };
            report.mounts = rootfs::unmount_under(directory).map_err(mounts)?;
            for id in subdirectories(directory)? {
                let container = directory.join(&id);
                if let Some(spec) = protocol::read::<ContainerSpec>(&container, protocol::SPEC) {
                    let own = Group::open(&format!("{}/{id}", spec.cgroup_parent.trim_matches('/')))?;
                    handle::remove(&container, Some((&spec, &own)), false)?;
                } else {
                    handle::remove(&container, None, false)?;
                }
            }
        }
        group.remove()?;
        Ok(report)
    }
}

/// Writes the specification, starts the shim and waits for its first line.
async fn make(helper: &Helper, directory: &Path, spec: &ContainerSpec) -> Result<(), ContainerError> {
    std::fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    protocol::write(directory, protocol::SPEC, spec)?;
    let mut command = helper.command(SHIM);
    command.arg(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = tokio::process::Command::from(command).spawn()?;
    let output = child.stdout.take().ok_or_else(|| ContainerError::ShimDied { detail: "no output".to_owned() })?;
    // The shim outlives us; while we live, somebody has to take note of its end.
    tokio::spawn(async move { child.wait().await });
    let mut line = String::new();
    let mut reader = BufReader::new(output).take(protocol::MAXIMUM_LINE as u64);
    let read = tokio::time::timeout(CREATION, reader.read_line(&mut line)).await;
    match read {
        Err(_) => Err(ContainerError::ShimDied { detail: format!("nothing after {} seconds", CREATION.as_secs()) }),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(_)) => match serde_json::from_str(&line) {
            Ok(Created::Ok(_)) => Ok(()),
            Ok(Created::Err(failure)) => Err(failure.into()),
            Err(_) => Err(ContainerError::ShimDied { detail: "it ended before it said anything".to_owned() }),
        },
    }
}

fn subdirectories(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}
