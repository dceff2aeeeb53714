//! What one boot of an instance is made from, handed to its shim as a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Files of an instance's directory.
pub(super) const SPEC: &str = "spec.json";
pub(super) const SHIM: &str = "shim.json";
pub(super) const EXIT: &str = "exit.json";
pub(super) const CONSOLE: &str = "console.log";
/// Where its root is mounted, in its own mount namespace.
pub(super) const ROOT: &str = "root";
/// What its tasks' interfaces are handed over in.
pub(super) const INTERFACES: &str = "interfaces";

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) instance_id: String,
    /// Its primary interface.
    pub(crate) interface_id: String,
    /// Which boot it is, as in the item.
    pub(crate) boot: u64,
    pub(crate) hostname: String,
    /// Where its names end, e.g. `ec2.internal`.
    pub(crate) domain: String,
    /// The network namespace it lives in.
    pub(crate) namespace: PathBuf,
    /// Its control group.
    pub(crate) group: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    /// The file that is its root volume.
    pub(crate) root: PathBuf,
    /// Its other volumes: file and name of the device.
    pub(crate) volumes: Vec<(PathBuf, String)>,
    /// The executable that it has as its own, and that its shim is.
    pub(crate) executable: PathBuf,
    /// Its first process.
    pub(crate) command: Vec<String>,
    /// That process's environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// For people.
    pub(crate) reason: String,
    /// The kernel's id of the machine's boot in which that was.
    pub(crate) boot_id: String,
}

/// The shim of a boot, and whether the first process exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shim {
    pub(crate) shim: Process,
    /// The instance's first process, once there is one.
    pub(crate) init: Option<Process>,
}

/// Reads one of these files; `None` when it is not there or cannot be understood.
pub(super) fn read<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&fs::read(directory.join(name)).ok()?).ok()
}

/// Writes one of these files, whole or not at all.
pub(super) fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, directory.join(name))
}
