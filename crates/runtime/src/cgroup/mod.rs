//! Control groups: the limits of a task and of a container, what they use, and whether the kernel had to kill for memory.
//!
//! One [`Group`] is the same path below every controller of cgroup v1 (hybrid hosts), or one directory of the unified v2 tree. Limits
//! are given in Docker's terms, which are also Amazon's, and converted where v2 counts differently. Putting a process into a group is
//! left to the container's start; [`Group::processes`] and [`Group::kill`] are for cleaning up.

mod devices;
mod hierarchy;
mod v1;
mod v2;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use devices::{DeviceKind, DeviceRule};
pub(crate) use hierarchy::Hierarchy;

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path has a component that could leave the tree, or is empty.
    #[error("control group path {0:?} is not allowed")]
    Path(String),
    /// A file of the group could not be read or written.
    #[error("control group file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks what a limit needs.
    #[error("this kernel cannot limit {0}")]
    Unsupported(&'static str),
}

impl CgroupError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
        let path = path.to_path_buf();
        move |source| CgroupError::File { path, source }
    }
}

/// What a group may use; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Hard memory limit in bytes: beyond it the kernel kills.
    pub memory_bytes: Option<u64>,
    /// Soft memory limit in bytes: what the group keeps under contention.
    pub memory_reservation_bytes: Option<u64>,
    /// Memory plus swap in bytes, as Docker counts; needs `memory_bytes`.
    pub memory_swap_bytes: Option<u64>,
    /// 0 (never swap) to 100. Only cgroup v1 has it.
    pub swappiness: Option<u8>,
    /// Relative weight, 2 to 262144; 1024 is one CPU.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period.
    pub cpu_quota_microseconds: Option<u64>,
    /// The period; 100,000 when absent.
    pub cpu_period_microseconds: Option<u64>,
    /// How many processes and threads.
    pub pids: Option<u64>,
}

/// What a group and everything below it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// CPU time since the group was made.
    pub cpu_usage_nanoseconds: u64,
    /// The part spent in user mode.
    pub cpu_user_nanoseconds: u64,
    /// The part spent in the kernel.
    pub cpu_system_nanoseconds: u64,
    /// How long the group was held back by its quota.
    pub cpu_throttled_nanoseconds: u64,
    /// CPU time on each of the host's CPUs; empty where the kernel does not count it (cgroup v2).
    pub cpu_usage_percpu_nanoseconds: Vec<u64>,
    /// Periods of its quota that the group has run in.
    pub cpu_periods: u64,
    /// Those of them in which it was held back.
    pub cpu_throttled_periods: u64,
    /// CPUs of the host.
    pub online_cpus: u32,
    /// Memory in use without the inactive file cache, as `docker stats` and Container Insights count.
    pub memory_usage_bytes: u64,
    /// The highest the kernel has seen, cache included.
    pub memory_max_usage_bytes: u64,
    /// The hard limit.
    pub memory_limit_bytes: Option<u64>,
    /// File cache.
    pub memory_cache_bytes: u64,
    /// Everything the kernel tells of the memory, under the kernel's names.
    pub memory_details: BTreeMap<String, u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
    /// How many processes the kernel has killed for memory.
    pub oom_kills: u64,
}

/// One control group, named by its path below the mount point, such as `longshore/ab12cd/task`.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchy: Hierarchy,
    path: String,
}

impl Group {
    /// Makes the group (its parents too) with these limits; an existing one gets them.
    ///
    /// # Errors
    /// [`CgroupError::Path`] for a path that could leave the tree, else what the kernel refuses.
    pub fn create(path: &str, limits: &Limits) -> Result<Group, CgroupError> {
        let group = Group::open(path)?;
        group.make(limits)?;
        Ok(group)
    }

    /// Names a group that may or may not exist.
    ///
    /// # Errors
    /// [`CgroupError::Path`].
    pub fn open(path: &str) -> Result<Group, CgroupError> {
        Group::below(Hierarchy::detect(), path)
    }

    pub(crate) fn below(hierarchy: Hierarchy, path: &str) -> Result<Group, CgroupError> {
        let path = path.trim_matches('/');
        let allowed = |part: &str| {
            !part.is_empty()
                && part.len() <= 200
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        if path.is_empty() || path.len() > 1000 || !path.split('/').all(allowed) {
            return Err(CgroupError::Path(path.to_owned()));
        }
        Ok(Group { hierarchy, path: path.to_owned() })
    }

    pub(crate) fn make(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.hierarchy.make(&self.path)?;
        self.update(limits)
    }

    /// The path it was opened with.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the group exists.
    pub fn exists(&self) -> bool {
        self.hierarchy.directory("memory", &self.path).is_dir()
    }

    /// Sets the limits that are given, leaves the others.
    ///
    /// # Errors
    /// What the kernel refuses, with the file's name.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        if self.hierarchy.unified() { v2::update(self, limits) } else { v1::update(self, limits) }
    }

    /// Lets the group and all below it use these devices and no others. The group must have none below it yet.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn restrict_devices(&self, allowed: &[DeviceRule]) -> Result<(), CgroupError> {
        devices::restrict(&self.hierarchy, &self.path, allowed)
    }

    /// Puts the calling process into the group, in every tree that this host has.
    ///
    /// # Errors
    /// What the kernel refuses, with the file's name.
    pub fn enter(&self) -> Result<(), CgroupError> {
        self.hierarchy.enter(&self.path)
    }

    /// Whether this host has one tree for all controllers (cgroup v2), where a group with processes gives none to groups below it.
    pub fn is_unified(&self) -> bool {
        self.hierarchy.unified()
    }

    /// What the group uses now.
    ///
    /// # Errors
    /// If the group does not exist. A single counter the kernel does not offer reads as 0.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = if self.hierarchy.unified() { v2::stats(self)? } else { v1::stats(self)? };
        stats.online_cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        Ok(stats)
    }

    /// How many processes of this group (not of those below) were killed for memory; 0 if it is gone.
    pub fn oom_kills(&self) -> u64 {
        let (file, key) =
            if self.hierarchy.unified() { ("memory.events", "oom_kill") } else { ("memory.oom_control", "oom_kill") };
        keyed(&self.file("memory", file), key).unwrap_or(0)
    }

    /// The names of the groups directly below.
    pub fn children(&self) -> Vec<String> {
        self.hierarchy.children(&self.path)
    }

    /// Every process of the group and of those below.
    pub fn processes(&self) -> Vec<i32> {
        self.hierarchy.processes(&self.path)
    }

    /// Kills every process of the group and below with SIGKILL, several rounds against forking; says how many it saw.
    pub fn kill(&self) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..50 {
            let processes = self.processes();
            if processes.is_empty() {
                break;
            }
            for process in processes {
                seen.insert(process);
                // A process that ended meanwhile is what we want.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(if round < 5 { 1 } else { 20 }));
        }
        seen.len()
    }

    /// Removes the group and those below. A missing one is fine.
    ///
    /// # Errors
    /// `EBUSY` while processes live in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.hierarchy.remove(&self.path)
    }

    /// Removes the group if nothing is in it and nothing below it: one that many share, by the last who leaves.
    pub fn remove_if_empty(&self) {
        self.hierarchy.remove_if_empty(&self.path);
    }

    pub(crate) fn file(&self, controller: &str, name: &str) -> PathBuf {
        self.hierarchy.directory(controller, &self.path).join(name)
    }
}

/// Writes a limit.
fn write(path: &Path, value: impl std::fmt::Display) -> Result<(), CgroupError> {
    std::fs::write(path, value.to_string()).map_err(CgroupError::at(path))
}

/// The only number in a file.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after `key` in a file of `key value` lines.
fn keyed(path: &Path, key: &str) -> Option<u64> {
    keyed_in(&std::fs::read_to_string(path).ok()?, key)
}

/// All lines of `key value` with a number.
fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

fn keyed_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests;
