//! Where the control groups of this host are: one tree per controller (v1, hybrid) or one for all (v2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The v1 controllers a container's processes are found in. Others on the host are left alone.
const V1_CONTROLLERS: [&str; 12] = [
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "cpuset",
    "devices",
    "freezer",
    "blkio",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
];

/// What a v2 group needs to have delegated to it.
const V2_CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// The mounted hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    root: PathBuf,
    unified: bool,
}

impl Hierarchy {
    /// Looks at `/sys/fs/cgroup`.
    pub(crate) fn detect() -> Self {
        let root = PathBuf::from("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        Self { root, unified }
    }

    #[cfg(test)]
    pub(crate) fn fake(root: &Path, unified: bool) -> Self {
        Self { root: root.to_path_buf(), unified }
    }

    pub(crate) fn unified(&self) -> bool {
        self.unified
    }

    /// The group's directory for one controller.
    pub(crate) fn directory(&self, controller: &str, path: &str) -> PathBuf {
        if self.unified { self.root.join(path) } else { self.root.join(controller).join(path) }
    }

    /// Makes the group for the controllers that carry limits. The others are made by whoever puts a process into them.
    pub(crate) fn make(&self, path: &str) -> Result<(), CgroupError> {
        if !self.unified {
            for controller in ["memory", "cpu", "cpuacct", "pids", "blkio"] {
                let mount = self.root.join(controller);
                if mount.is_dir() {
                    let directory = mount.join(path);
                    fs::create_dir_all(&directory).map_err(CgroupError::at(&directory))?;
                }
            }
            return Ok(());
        }
        let mut directory = self.root.clone();
        let parts: Vec<&str> = path.split('/').collect();
        for part in parts {
            // A controller must be handed down from each level before the next one can use it.
            self.delegate(&directory)?;
            directory.push(part);
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CgroupError::at(&directory)(error)),
            }
        }
        Ok(())
    }

    fn delegate(&self, directory: &Path) -> Result<(), CgroupError> {
        let available = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
        let file = directory.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file).unwrap_or_default();
        for controller in V2_CONTROLLERS {
            let has = |list: &str| list.split_whitespace().any(|name| name == controller);
            if has(&available) && !has(&enabled) {
                fs::write(&file, format!("+{controller}")).map_err(CgroupError::at(&file))?;
            }
        }
        Ok(())
    }

    fn mounts(&self) -> Vec<PathBuf> {
        if self.unified {
            return vec![self.root.clone()];
        }
        V1_CONTROLLERS
            .iter()
            .map(|controller| self.root.join(controller))
            .chain([self.root.join("systemd"), self.root.join("unified")])
            .filter(|p| p.is_dir())
            .collect()
    }

    /// Puts the calling process into the group in every tree, making it where it is missing.
    pub(crate) fn enter(&self, path: &str) -> Result<(), CgroupError> {
        for mount in self.mounts() {
            let cpuset = mount.ends_with("cpuset");
            let mut directory = mount;
            for part in path.split('/') {
                let parent = directory.clone();
                directory.push(part);
                match fs::create_dir(&directory) {
                    Ok(()) if cpuset => inherit_cpuset(&parent, &directory)?,
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(CgroupError::at(&directory)(error)),
                }
            }
            let file = directory.join("cgroup.procs");
            fs::write(&file, "0").map_err(CgroupError::at(&file))?;
        }
        Ok(())
    }

    /// Processes of the group and below; one controller is enough, for a process is put into all.
    pub(crate) fn processes(&self, path: &str) -> Vec<i32> {
        let mut found = std::collections::BTreeSet::new();
        for mount in self.mounts() {
            collect(&mount.join(path), 0, &mut found);
        }
        found.into_iter().collect()
    }

    /// The names of the groups directly below, in any controller.
    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        for mount in self.mounts() {
            let found = children(&mount.join(path)).into_iter();
            names.extend(found.filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())));
        }
        names.into_iter().collect()
    }

    /// Removes the group where the kernel says that it is empty.
    pub(crate) fn remove_if_empty(&self, path: &str) {
        for mount in self.mounts() {
            // EBUSY or ENOTEMPTY is an answer, not a failure.
            let _ = fs::remove_dir(mount.join(path));
        }
    }

    /// Removes the group and those below, in every controller.
    pub(crate) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        for mount in self.mounts() {
            remove_tree(&mount.join(path), 0)?;
        }
        Ok(())
    }
}

/// A new group of the v1 cpuset controller has no processors and no memory, and takes no process before it has.
fn inherit_cpuset(parent: &Path, directory: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(name)).map_err(CgroupError::at(&parent.join(name)))?;
        let file = directory.join(name);
        fs::write(&file, value).map_err(CgroupError::at(&file))?;
    }
    Ok(())
}

/// How deep a tree of ours can be; more would be somebody else's.
const MAXIMUM_DEPTH: usize = 16;

fn collect(directory: &Path, depth: usize, found: &mut std::collections::BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    if depth < MAXIMUM_DEPTH {
        for child in children(directory) {
            collect(&child, depth + 1, found);
        }
    }
}

fn remove_tree(directory: &Path, depth: usize) -> Result<(), CgroupError> {
    if depth < MAXIMUM_DEPTH {
        for child in children(directory) {
            remove_tree(&child, depth + 1)?;
        }
    }
    for attempt in 0..20 {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The kernel lets go of an ended process a moment after it was waited for.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < 19 => {
                std::thread::sleep(std::time::Duration::from_millis(1 << attempt.min(4)))
            }
            Err(error) => return Err(CgroupError::at(directory)(error)),
        }
    }
    Ok(())
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
