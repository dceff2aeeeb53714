//! What the files of an instance's directory say: they are all that `host`, the shim and the next `host` know of each
//! other.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::process::{Process, boot_id};

/// What must be booted, written by `host`.
pub(crate) const SPEC: &str = "spec.json";
/// Who runs it, written by the shim.
pub(crate) const SHIM: &str = "shim.json";
/// How it ended, written by the shim.
pub(crate) const EXIT: &str = "exit.json";
/// Locked by the shim while it lives: an instance never has two.
pub(crate) const LOCK: &str = "lock";
/// What its tasks' interfaces are handed over in.
pub(crate) const INTERFACES: &str = "interfaces";
/// Where the root volume is mounted, in the instance's own mount namespace only.
pub(crate) const ROOT: &str = "root";

/// One boot of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) instance_id: String,
    pub(crate) boot: u64,
    pub(crate) hostname: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// The root volume's file and its name inside, e.g. `/dev/xvda`.
    pub(crate) root: Disk,
    pub(crate) disks: Vec<Disk>,
    pub(crate) interface_id: String,
    /// The network namespace of its interface, and its inode: an instance never boots twice in the same.
    pub(crate) namespace: PathBuf,
    pub(crate) namespace_inode: u64,
    pub(crate) cgroup: String,
    /// The platform's data, of which nothing may be seen inside.
    pub(crate) data_dir: PathBuf,
    /// The program that the instance finds as its first, which also is the shim.
    pub(crate) executable: PathBuf,
    /// What becomes its first process.
    pub(crate) command: Vec<String>,
    /// Where the platform's API answers inside.
    pub(crate) endpoint: String,
    /// Whether its root volume has programs of its own, as an OCI image has: otherwise they are the machine's.
    #[serde(default)]
    pub(crate) own_programs: bool,
}

/// A volume of a [`Spec`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) volume_id: String,
    pub(crate) image: PathBuf,
    pub(crate) device_name: String,
}

/// The process that owns a running instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shim {
    pub(crate) boot: u64,
    pub(crate) process: Process,
    /// The instance's first process.
    pub(crate) guest: Option<Process>,
    /// Whether that executes the instance's own program already.
    pub(crate) booted: bool,
    pub(crate) namespace_inode: u64,
    /// Volumes in use.
    pub(crate) volumes: Vec<String>,
}

/// The end of a boot that was not asked for, or of one that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) boot: u64,
    /// The machine's boot in which that happened: what ended because the machine went down is booted again.
    boot_id: String,
    pub(crate) reason: String,
    /// Whether it shut itself down in order.
    #[serde(default)]
    pub(crate) in_order: bool,
}

impl Exit {
    pub(crate) fn now(boot: u64, reason: String) -> Self {
        Self { boot, boot_id: boot_id(), reason, in_order: false }
    }
}

/// What is known of an instance's latest boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of it is on the machine, or only its directory.
    Off,
    /// The shim lives; the instance's own program does not run yet.
    Starting(Shim),
    /// Its own program runs.
    Running(Shim),
    /// It ended.
    Ended(Exit),
}

/// Reads what the files of an instance say.
pub(crate) fn state(directory: &Path) -> State {
    let shim: Option<Shim> = read(directory, SHIM);
    if let Some(shim) = &shim
        && shim.process.is_alive()
    {
        let shim = shim.clone();
        return if shim.booted { State::Running(shim) } else { State::Starting(shim) };
    }
    if let Some(exit) = read::<Exit>(directory, EXIT).filter(|exit| exit.boot_id == boot_id()) {
        return State::Ended(exit);
    }
    match shim {
        Some(shim) if shim.process.is_of_this_boot() => {
            let reason = "The process that runs the instance was killed".to_owned();
            State::Ended(Exit::now(shim.boot, reason))
        }
        _ => State::Off,
    }
}

/// The content of a file; `None` when there is none that makes sense.
pub(crate) fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(directory.join(name)).ok()?).ok()
}

/// Replaces a file in one step.
pub(crate) fn write<T: Serialize>(directory: &Path, name: &str, content: &T) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    drop(file);
    fs::rename(&temporary, directory.join(name))
}

/// Removes a file, if it is there.
pub(crate) fn forget(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
