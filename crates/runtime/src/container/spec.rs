//! What a container is made from, in plain Rust, and the rules a specification must keep before anything is started.
//!
//! Nothing here is optional for the caller's safety: the seccomp profile, no_new_privs, masked paths and the capability bounding set
//! are applied to every container and cannot be switched off, so there is no field for them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ContainerError;
use super::capabilities;
use crate::cgroup::Limits;
use crate::rootfs::Rootfs;

/// One container. [`ContainerSpec::new`] fills everything but the root and the arguments with defaults.
#[derive(Clone, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image layers and the writable directory over them.
    pub rootfs: Rootfs,
    /// The command, looked up in the container's PATH when it has no slash.
    pub args: Vec<String>,
    /// `NAME=value`. PATH, HOME and HOSTNAME are added when missing.
    pub env: Vec<String>,
    /// Working directory; empty is `/`. Made when it is missing, as Docker does.
    pub cwd: String,
    /// `user`, `uid`, `user:group` … resolved in the container's own passwd and group files; empty is root.
    pub user: String,
    /// Supplementary groups beside those of the group file.
    pub additional_gids: Vec<u32>,
    /// Capabilities beside Docker's default list, with or without `CAP_`; `ALL` is allowed.
    pub capabilities_add: Vec<String>,
    /// Capabilities taken from that list; `ALL` is allowed.
    pub capabilities_drop: Vec<String>,
    /// Whether the root file system refuses writes.
    pub read_only_root: bool,
    /// Directories and files of the host seen inside.
    pub mounts: Vec<Mount>,
    /// Memory file systems.
    pub tmpfs: Vec<Tmpfs>,
    /// Size of `/dev/shm`; 64 MiB when absent.
    pub shm_size_bytes: Option<u64>,
    /// Generated files (hosts, resolv.conf, hostname), kept beside `rootfs.upper` and bind-mounted.
    pub files: Vec<File>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Whether process 1 is a small init that forwards signals and reaps, with the command as its child.
    pub init: bool,
    /// Host name inside.
    pub hostname: String,
    /// A network namespace to join; absent is a new one without any interface but a loopback that is down.
    pub network_namespace: Option<PathBuf>,
    /// Share the process namespace of the container whose first process this is, by its process id on the host.
    pub pid_namespace_of: Option<i32>,
    /// Preference of the kernel's memory killer, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Limits of this container's own control group.
    pub limits: Limits,
    /// The control group (of the task) below which the container's own is made.
    pub cgroup_parent: String,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// What happens to output nobody has read yet.
    pub logs: LogLimits,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host. Must exist.
    pub source: PathBuf,
    /// In the container, absolute. Made when missing.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A memory file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// In the container, absolute.
    pub target: String,
    /// Hard size.
    pub size_bytes: u64,
    /// Mount options such as `noexec`, `ro`, `mode=1777`.
    pub options: Vec<String>,
}

/// A generated file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// In the container, absolute.
    pub target: String,
    /// Its text.
    pub content: String,
    /// Permissions.
    pub mode: u32,
}

/// A resource limit by its Docker name, such as `nofile`. `u64::MAX` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `core`, `cpu`, `data`, `fsize`, `locks`, `memlock`, `msgqueue`, `nice`, `nofile`, `nproc`, `rss`, `rtprio`, `rttime`, `sigpending`, `stack`.
    pub name: String,
    /// What a process starts with.
    pub soft: u64,
    /// How far it may raise it.
    pub hard: u64,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: String,
    /// Some of `r`, `w`, `m`.
    pub permissions: String,
}

/// The bound of output that was printed and not yet acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes on disk, at least 256 KiB.
    pub limit_bytes: u64,
    /// What happens beyond them.
    pub when_full: WhenFull,
}

/// What happens to a container that prints faster than its lines are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// Its writes wait.
    Block,
    /// The new output is dropped, and counted.
    Drop,
}

impl ContainerSpec {
    /// A container of these arguments as root, without limits, in namespaces of its own.
    pub fn new(rootfs: Rootfs, args: Vec<String>) -> Self {
        Self {
            rootfs,
            args,
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            additional_gids: Vec::new(),
            capabilities_add: Vec::new(),
            capabilities_drop: Vec::new(),
            read_only_root: false,
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            shm_size_bytes: None,
            files: Vec::new(),
            ulimits: Vec::new(),
            sysctls: BTreeMap::new(),
            init: false,
            hostname: String::new(),
            network_namespace: None,
            pid_namespace_of: None,
            oom_score_adj: None,
            limits: Limits::default(),
            cgroup_parent: "longshore/unnamed".to_owned(),
            devices: Vec::new(),
            logs: LogLimits { limit_bytes: 10 << 20, when_full: WhenFull::Block },
        }
    }

    /// Refuses what could not be carried out or would reach outside the container, naming the field.
    pub(crate) fn validate(&self) -> Result<(), ContainerError> {
        let bad = |field: &str, reason: String| Err(ContainerError::InvalidSpec { field: field.to_owned(), reason });
        if self.args.first().is_none_or(String::is_empty) {
            return bad("args", "no command specified".to_owned());
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return bad("args", "an argument has a zero byte".to_owned());
        }
        if let Some(name) = self
            .env
            .iter()
            .find(|pair| pair.contains('\0') || pair.split_once('=').is_none_or(|(name, _)| name.is_empty()))
        {
            let name = name.split('=').next().unwrap_or_default();
            return bad("env", format!("{name:?} is not NAME=value"));
        }
        let targets = self
            .mounts
            .iter()
            .map(|m| &m.target)
            .chain(self.tmpfs.iter().map(|t| &t.target))
            .chain(self.files.iter().map(|f| &f.target));
        for target in targets.chain(self.devices.iter().map(|d| &d.container_path)) {
            if !target.starts_with('/')
                || target.trim_matches('/').is_empty()
                || target.contains('\0')
                || target.split('/').any(|part| part == "..")
            {
                return bad("mounts", format!("{target:?} is not an absolute path below the root"));
            }
        }
        if !self.cwd.is_empty() && !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return bad("cwd", format!("{:?} is not absolute", self.cwd));
        }
        for name in self.sysctls.keys() {
            if !namespaced(name) {
                return bad("sysctls", format!("{name:?} is not a parameter of a container's own namespaces"));
            }
        }
        for limit in &self.ulimits {
            if rlimit_name(&limit.name).is_none() {
                return bad("ulimits", format!("{:?} is not a resource limit", limit.name));
            }
            if limit.soft > limit.hard {
                return bad("ulimits", format!("{}: the soft limit is above the hard one", limit.name));
            }
        }
        for option in self.tmpfs.iter().flat_map(|tmpfs| &tmpfs.options) {
            if option.contains([',', '\0']) || option.starts_with("size=") {
                return bad("tmpfs", format!("option {option:?}"));
            }
        }
        for device in &self.devices {
            if device.permissions.is_empty() || !device.permissions.bytes().all(|b| b"rwm".contains(&b)) {
                return bad("devices", format!("permissions {:?}", device.permissions));
            }
        }
        if self.hostname.len() > 64 || !self.hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return bad("hostname", format!("{:?}", self.hostname));
        }
        if self.logs.limit_bytes < 256 << 10 {
            return bad("logs", "limit_bytes is below 256 KiB".to_owned());
        }
        if self.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return bad("oom_score_adj", "not within -1000 and 1000".to_owned());
        }
        capabilities::granted(&self.capabilities_add, &self.capabilities_drop)?;
        Ok(())
    }
}

/// Docker's list: what belongs to the IPC and network namespaces a container may have of its own.
fn namespaced(name: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.contains("..");
    plain && (IPC.contains(&name) || name.starts_with("fs.mqueue.") || name.starts_with("net."))
}

/// `nofile` → `RLIMIT_NOFILE`.
pub(crate) fn rlimit_name(name: &str) -> Option<String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    NAMES.contains(&name).then(|| format!("RLIMIT_{}", name.to_ascii_uppercase()))
}

impl fmt::Debug for ContainerSpec {
    /// Leaves out what may be secret: values of the environment and the content of files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|pair| pair.split('=').next().unwrap_or_default()).collect();
        f.debug_struct("ContainerSpec")
            .field("args", &self.args)
            .field("env", &names)
            .field("user", &self.user)
            .field("cgroup_parent", &self.cgroup_parent)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("target", &self.target).field("bytes", &self.content.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ContainerSpec), field: Option<&str>) {
        let rootfs = Rootfs { lowers: vec!["/lower".into()], upper: "/upper".into(), work: "/work".into() };
        let mut spec = ContainerSpec::new(rootfs, vec!["/bin/true".into()]);
        change(&mut spec);
        match (spec.validate(), field) {
            (Ok(()), None) => {}
            (Err(ContainerError::InvalidSpec { field, .. }), Some(expected)) => assert_eq!(field, expected),
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn refusals_name_the_field() {
        check(|_| {}, None);
        check(|s| s.args.clear(), Some("args"));
        check(|s| s.args = vec![String::new()], Some("args"));
        check(|s| s.env = vec!["=x".into()], Some("env"));
        check(|s| s.env = vec!["A=b\0c".into()], Some("env"));
        check(|s| s.cwd = "relative".into(), Some("cwd"));
        check(
            |s| s.mounts = vec![Mount { source: "/x".into(), target: "/a/../../etc".into(), read_only: true }],
            Some("mounts"),
        );
        check(|s| s.tmpfs = vec![Tmpfs { target: "/".into(), size_bytes: 1, options: vec![] }], Some("mounts"));
        check(
            |s| s.tmpfs = vec![Tmpfs { target: "/t".into(), size_bytes: 1, options: vec!["size=9g".into()] }],
            Some("tmpfs"),
        );
        check(|s| drop(s.sysctls.insert("kernel.core_pattern".into(), "|/evil".into())), Some("sysctls"));
        check(|s| drop(s.sysctls.insert("net.core.somaxconn".into(), "1024".into())), None);
        check(|s| s.ulimits = vec![Ulimit { name: "nofiles".into(), soft: 1, hard: 1 }], Some("ulimits"));
        check(|s| s.ulimits = vec![Ulimit { name: "nofile".into(), soft: 2, hard: 1 }], Some("ulimits"));
        check(|s| s.capabilities_add = vec!["SYS_EVERYTHING".into()], Some("capabilities"));
        check(|s| s.hostname = "a b".into(), Some("hostname"));
        check(|s| s.logs.limit_bytes = 1, Some("logs"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let rootfs = Rootfs { lowers: vec![], upper: "/upper".into(), work: "/work".into() };
        let mut spec = ContainerSpec::new(rootfs, vec!["/bin/true".into()]);
        spec.env = vec!["PASSWORD=hunter2".into()];
        let text = format!("{spec:?}");
        assert!(text.contains("PASSWORD") && !text.contains("hunter2"));
    }
}
