//! From the machine's file systems to the instance's: what is mounted where, and the step into it.

use std::{
    convert::Infallible,
    fs::{self, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, move_mount},
    process::{Signal, set_parent_process_death_signal},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};

use super::{
    image,
    spec::{self, Spec},
};

/// Where the instance has this program.
const PROGRAM: &str = "opt/longshore/bin/longshore";
/// Kernel interfaces that reach the machine, or tell too much of it.
const MASKED: [&str; 8] =
    ["acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "sysrq-trigger", "timer_list"];
/// What root of an instance must not do to the machine's kernel.
const DROPPED: [CapabilitySet; 11] = [
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_TIME,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
    CapabilitySet::SYSLOG,
    CapabilitySet::WAKE_ALARM,
    CapabilitySet::BLOCK_SUSPEND,
    CapabilitySet::AUDIT_CONTROL,
    CapabilitySet::SYS_PACCT,
];

fn at<E: Into<io::Error>>(path: impl AsRef<Path>) -> impl FnOnce(E) -> io::Error {
    let path = path.as_ref().display().to_string();
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{path}: {error}"))
    }
}

fn mounted(source: Option<&Path>, target: &Path, kind: &str, flags: MsFlags, data: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(target).map_err(at(target))?;
    mount(source, target, Some(kind), flags, data).map_err(at(target))
}

/// Shows a directory or a file of the machine, for reading only.
fn shown(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at(target))?;
    read_only(target)
}

fn read_only(target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(at(target))
}

/// What the shim mounts before the first process exists.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a Spec,
    pub(super) disk: &'a Path,
    /// This program, as a mount that is nowhere yet.
    pub(super) program: &'a OwnedFd,
    /// Devices and what the instance calls them.
    pub(super) volumes: Vec<(&'a Path, &'a str)>,
}

impl Plan<'_> {
    /// Mounts everything but `/proc`, which must be the new process namespace's.
    pub(super) fn mount(&self, directory: &Path) -> io::Result<()> {
        let root = &directory.join(spec::ROOT);
        mounted(Some(self.disk), root, "ext4", MsFlags::MS_NOATIME, None)?;
        image::lay_out(root, self.spec).map_err(at("the image"))?;
        shown(Path::new("/usr"), &root.join("usr"))?;
        for name in image::OUTSIDE_USR {
            let (from, to) = (Path::new("/").join(name), root.join(name));
            if from.is_dir() && !from.is_symlink() {
                shown(&from, &to)?;
            }
        }
        let program = root.join(PROGRAM);
        touch(&program)?;
        move_mount(self.program, "", CWD, &program, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(at(&program))?;
        read_only(&program)?;
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mounted(None, &root.join("sys"), "sysfs", quiet, None)?;
        self.control_groups(&root.join("sys/fs/cgroup"))?;
        self.devices(&root.join("dev"))?;
        let run = root.join("run");
        mounted(None, &run, "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755,size=20%"))?;
        fs::create_dir_all(run.join("lock"))?;
        let (handed, interfaces) = (directory.join(spec::INTERFACES), run.join("longshore/interfaces"));
        fs::create_dir_all(&interfaces)?;
        mount(Some(&handed), &interfaces, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(at(&interfaces))?;
        // It sees what is handed over later, and nothing that it mounts there is seen by the machine.
        mount(None::<&str>, &interfaces, None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
            .map_err(at(&interfaces))
    }

    /// The machine's hierarchies, from the instance's own group downwards.
    fn control_groups(&self, target: &Path) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let hierarchies = hierarchies(&fs::read_to_string("/proc/self/mountinfo")?);
        if hierarchies.iter().any(|(path, ..)| path.as_os_str().is_empty()) {
            return mounted(None, target, "cgroup2", flags, None);
        }
        mounted(None, target, "tmpfs", flags, Some("mode=755"))?;
        for (path, kind, options) in hierarchies {
            mounted(None, &target.join(path), kind, flags, options.as_deref())?;
        }
        Ok(())
    }

    fn devices(&self, dev: &Path) -> io::Result<()> {
        mounted(None, dev, "tmpfs", MsFlags::MS_NOSUID, Some("mode=755,size=1m"))?;
        for (name, major, minor) in [
            ("null", 1, 3),
            ("zero", 1, 5),
            ("full", 1, 7),
            ("random", 1, 8),
            ("urandom", 1, 9),
            ("tty", 5, 0),
            ("fuse", 10, 229),
        ] {
            node(&dev.join(name), SFlag::S_IFCHR, makedev(major, minor), 0o666)?;
        }
        fs::create_dir_all(dev.join("net"))?;
        node(&dev.join("net/tun"), SFlag::S_IFCHR, makedev(10, 200), 0o666)?;
        let pts = Some("newinstance,ptmxmode=0666,mode=0620,gid=5");
        mounted(None, &dev.join("pts"), "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, pts)?;
        let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mounted(None, &dev.join("shm"), "tmpfs", quiet, Some("mode=1777"))?;
        mounted(None, &dev.join("mqueue"), "mqueue", quiet, None)?;
        for (target, name) in [
            ("pts/ptmx", "ptmx"),
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
        ] {
            std::os::unix::fs::symlink(target, dev.join(name))?;
        }
        for (device, name) in &self.volumes {
            let number = std::os::unix::fs::MetadataExt::rdev(&fs::metadata(device)?);
            let name = name.strip_prefix("/dev/").unwrap_or(name);
            node(&dev.join(name), SFlag::S_IFBLK, number, 0o660)?;
            // Amazon's kernels call `sdf` `xvdf` as well.
            if let Some(letters) = name.strip_prefix("sd") {
                std::os::unix::fs::symlink(name, dev.join(format!("xvd{letters}")))?;
            }
        }
        Ok(())
    }
}

fn node(path: &Path, kind: SFlag, number: u64, mode: u32) -> io::Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(mode), number).map_err(at(path))?;
    // The mask of this process took some of it.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(at(path))
}

fn touch(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|present| !present.is_file()) {
        fs::remove_file(path).map_err(at(path))?;
    }
    OpenOptions::new().create(true).append(true).open(path).map(drop).map_err(at(path))
}

/// The hierarchies below `/sys/fs/cgroup`: path below it, file system, mount data. The one of cgroup v2 alone has no path.
fn hierarchies(mountinfo: &str) -> Vec<(PathBuf, &'static str, Option<String>)> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut fields = right.split(' ');
        let (kind, options) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let Some(path) = left.split(' ').nth(4).and_then(|path| path.strip_prefix("/sys/fs/cgroup")) else { continue };
        let path = PathBuf::from(path.trim_start_matches('/'));
        match kind {
            "cgroup2" => found.push((path, "cgroup2", None)),
            "cgroup" => {
                let words = ["rw", "ro", "xattr", "clone_children", "noprefix"];
                let kept =
                    options.split(',').filter(|word| !words.contains(word) && !word.starts_with("release_agent"));
                found.push((path, "cgroup", Some(kept.collect::<Vec<_>>().join(","))));
            }
            _ => {}
        }
    }
    found
}

/// The first process of the new namespace, up to the moment when it becomes the instance's own.
pub(super) fn enter(directory: &Path) -> io::Result<Infallible> {
    // The instance ends with its shim, so that none runs that nobody owns.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let spec: Spec = spec::read(directory, spec::SPEC).ok_or_else(|| io::Error::other("there is no boot to do"))?;
    let (command, arguments) = spec.command.split_first().ok_or_else(|| io::Error::other("there is nothing to run"))?;
    nix::unistd::sethostname(spec.hostname.split('.').next().unwrap_or(&spec.hostname))?;
    // The shim keeps the machine's root: stepping into another takes along all of a mount namespace.
    unshare(CloneFlags::CLONE_NEWNS)?;
    let root = directory.join(spec::ROOT);
    proc(&root.join("proc"))?;
    step_into(&root)?;
    for capability in DROPPED {
        remove_capability_from_bounding_set(capability)?;
    }
    let mut program = Command::new(command);
    program.args(arguments).env_clear().envs(spec.environment.iter().map(|(name, value)| (name, value)));
    Err(program.current_dir("/").exec())
}

fn proc(proc: &Path) -> io::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mounted(None, proc, "proc", quiet, None)?;
    let null = proc.with_file_name("dev/null");
    for name in MASKED {
        let path = proc.join(name);
        if path.is_dir() {
            let flags = quiet | MsFlags::MS_RDONLY;
            mount(None::<&str>, &path, Some("tmpfs"), flags, Some("size=0,mode=000")).map_err(at(&path))?;
        } else if path.exists() {
            mount(Some(&null), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at(&path))?;
        }
    }
    // Kernel parameters are the machine's, but for those of the instance's own network.
    let parameters = proc.join("sys");
    shown(&parameters, &parameters)?;
    let network = parameters.join("net");
    mount(Some(&network), &network, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at(&network))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | quiet;
    mount(None::<&str>, &network, None::<&str>, flags, None::<&str>).map_err(at(&network))
}

/// Makes `root` the root, and lets go of everything that was there before.
fn step_into(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root).map_err(at(root))?;
    // The old root lands on top of the new one, and is taken off it again: no directory is needed for it.
    nix::unistd::pivot_root(".", ".").map_err(at(root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at("the machine's root"))?;
    std::env::set_current_dir("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(
            hierarchies(hybrid),
            [
                (PathBuf::from("cpu,cpuacct"), "cgroup", Some("cpu,cpuacct".to_owned())),
                (PathBuf::from("systemd"), "cgroup", Some("name=systemd".to_owned())),
                (PathBuf::from("unified"), "cgroup2", None),
            ]
        );
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(hierarchies(unified), [(PathBuf::new(), "cgroup2", None)]);
    }
}
