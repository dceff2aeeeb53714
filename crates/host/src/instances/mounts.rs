//! What is mounted in an instance beside its root volume. `/` is the instance's, the working directory the machine's.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use domain::instances::INTERFACES_DIRECTORY;

use super::{
    PROGRAM,
    record::{INTERFACES, Spec},
    shim::{Device, Devices},
};

/// Character devices that every instance may use, if the machine has them: name in `/dev`, major and minor number.
pub(super) const NODES: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
];

/// What of `/proc` and `/sys` is about the machine and not about the instance.
const HIDDEN: &[&str] = &[
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

const NONE: Option<&str> = None;

fn quiet() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn file_system(kind: &str, target: &str, flags: MsFlags, options: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(target)?;
    mount(Some(kind), target, Some(kind), flags, options)
        .map_err(|error| io::Error::other(format!("{target}: {}", error.desc())))
}

fn bind(source: &Path, target: &str) -> io::Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|error| io::Error::other(format!("{target}: {}", error.desc())))
}

fn bind_read_only(source: &Path, target: &str, flags: MsFlags) -> io::Result<()> {
    bind(source, target)?;
    mount(NONE, target, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags, NONE)
        .map_err(|error| io::Error::other(format!("{target}: {}", error.desc())))
}

/// Shows a file of the machine's, named by its path there, under the name `target`, which exists.
pub(super) fn bind_read_only_file(source: &Path, target: &Path) -> io::Result<()> {
    let source = source.strip_prefix("/").map_err(io::Error::other)?;
    bind_read_only(source, &target.to_string_lossy(), MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
}

/// Programs and libraries are the machine's, and this platform's own.
pub(super) fn programs(spec: &Spec) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let target = format!("/{name}");
        match fs::symlink_metadata(name) {
            Ok(metadata) if metadata.is_symlink() => {
                let link = fs::read_link(name)?;
                if fs::read_link(&target).ok().as_ref() != Some(&link) {
                    let _ = fs::remove_file(&target);
                    symlink(link, &target)?;
                }
            }
            Ok(metadata) if metadata.is_dir() => {
                fs::create_dir_all(&target)?;
                bind_read_only(Path::new(name), &target, flags)?;
            }
            _ => {}
        }
    }
    if spec.data_dir.starts_with("/usr") {
        mount(Some("tmpfs"), &spec.data_dir, Some("tmpfs"), quiet() | MsFlags::MS_RDONLY, NONE)?;
    }
    if let Some(parent) = Path::new(PROGRAM).parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().write(true).create(true).truncate(false).open(PROGRAM)?;
    let program = spec.executable.strip_prefix("/").map_err(io::Error::other)?;
    bind_read_only(program, PROGRAM, flags)
}

/// A tree of control groups of the machine: where it is mounted below `/sys/fs/cgroup`, its type and its options.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree {
    name: String,
    kind: &'static str,
    options: Option<String>,
}

/// The trees that the machine has. To be asked before the machine's file systems are left.
pub(super) fn control_group_trees() -> io::Result<Vec<Tree>> {
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    Ok(trees(&fs::read_to_string("/proc/self/mountinfo")?, &controllers))
}

fn trees(mounts: &str, controllers: &str) -> Vec<Tree> {
    let controllers: Vec<&str> = controllers.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut trees = Vec::new();
    for line in mounts.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let (Some(place), mut back) = (front.split_whitespace().nth(4), back.split_whitespace()) else { continue };
        let (kind, options) = (back.next().unwrap_or_default(), back.nth(1).unwrap_or_default());
        let Some(name) = place.strip_prefix("/sys/fs/cgroup").map(|name| name.trim_matches('/').to_owned()) else {
            continue;
        };
        match kind {
            "cgroup2" => trees.push(Tree { name, kind: "cgroup2", options: None }),
            "cgroup" if !name.is_empty() && !name.contains('/') => {
                let own =
                    options.split(',').filter(|option| controllers.contains(option) || option.starts_with("name="));
                let mut own: Vec<&str> = own.collect();
                if own.iter().all(|option| option.starts_with("name=")) {
                    own.insert(0, "none");
                }
                trees.push(Tree { name, kind: "cgroup", options: Some(own.join(",")) });
            }
            _ => {}
        }
    }
    trees
}

/// `/proc` and `/sys` of the instance's own namespaces, and its control groups to make others below. After [`devices`].
pub(super) fn kernel(trees: &[Tree]) -> io::Result<()> {
    file_system("proc", "/proc", quiet(), NONE)?;
    file_system("sysfs", "/sys", quiet(), NONE)?;
    // The mount, not the file system: another mount of it may be written to.
    mount(NONE, "/sys", NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | quiet(), NONE)?;
    let mut links = Vec::new();
    if !trees.iter().any(|tree| tree.name.is_empty()) {
        mount(Some("tmpfs"), "/sys/fs/cgroup", Some("tmpfs"), quiet(), Some("mode=0755,size=64k"))?;
        // A tree of two controllers goes by both their names.
        for tree in trees.iter().filter(|tree| tree.name.contains(',')) {
            links.extend(tree.name.split(',').map(|name| (tree.name.as_str(), name)));
        }
    }
    for tree in trees {
        let target = Path::new("/sys/fs/cgroup").join(&tree.name);
        if !tree.name.is_empty() {
            fs::create_dir_all(&target)?;
        }
        mount(Some(tree.kind), &target, Some(tree.kind), quiet(), tree.options.as_deref())
            .map_err(|error| io::Error::other(format!("{}: {}", target.display(), error.desc())))?;
    }
    for (tree, name) in links {
        symlink(tree, Path::new("/sys/fs/cgroup").join(name))?;
    }
    bind(Path::new("/proc/sys"), "/proc/sys")?;
    // Of these parameters the instance has its own.
    bind(Path::new("/proc/sys/net"), "/proc/sys/net")?;
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        if *path != "/proc/sys" {
            bind(Path::new(path), path)?;
        }
        mount(NONE, *path, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | quiet(), NONE)?;
    }
    for path in HIDDEN {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                mount(Some("tmpfs"), *path, Some("tmpfs"), quiet() | MsFlags::MS_RDONLY, Some("size=0"))?
            }
            Ok(_) => bind(Path::new("/dev/null"), path)?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// `/dev`, `/run` and what belongs to them.
pub(super) fn devices(spec: &Spec, devices: &Devices) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    file_system("tmpfs", "/dev", flags, Some("mode=0755,size=64k"))?;
    for (name, major, minor) in NODES {
        let target = Path::new("/dev").join(name);
        if !fs::metadata(Path::new("dev").join(name)).is_ok_and(|node| node.file_type().is_char_device()) {
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        make_node(&target, SFlag::S_IFCHR, 0o666, (u64::from(*major), u64::from(*minor)))?;
    }
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    file_system("devpts", "/dev/pts", flags, Some(pts))?;
    file_system("tmpfs", "/dev/shm", quiet(), Some("mode=1777"))?;
    file_system("mqueue", "/dev/mqueue", quiet(), NONE)?;
    for (link, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        // What the first process prints is the console.
        ("console", "/proc/1/fd/1"),
    ] {
        symlink(target, Path::new("/dev").join(link))?;
    }
    for (disk, device) in std::iter::once(&spec.root).chain(&spec.disks).zip(&devices.0) {
        make_disk(&disk.device_name, device)?;
    }
    file_system("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))?;
    fs::create_dir_all("/run/lock")?;
    fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777))
}

/// Where the machine hands over what the instance's tasks have. After [`devices`].
pub(super) fn interfaces(directory: &Path) -> io::Result<()> {
    let source = directory.strip_prefix("/").map_err(io::Error::other)?.join(INTERFACES);
    fs::create_dir_all(INTERFACES_DIRECTORY)?;
    bind(&source, INTERFACES_DIRECTORY)
}

/// A volume under its name, and `/dev/sdf` under `/dev/xvdf` too, as on an instance of Amazon's.
fn make_disk(name: &str, device: &Device) -> io::Result<()> {
    let number = (device.major, device.minor);
    make_node(Path::new(name), SFlag::S_IFBLK, 0o660, number)?;
    match name.strip_prefix("/dev/sd") {
        Some(letter) => make_node(Path::new(&format!("/dev/xvd{letter}")), SFlag::S_IFBLK, 0o660, number),
        None => Ok(()),
    }
}

fn make_node(path: &Path, kind: SFlag, mode: u32, (major, minor): (u64, u64)) -> io::Result<()> {
    match mknod(path, kind, Mode::from_bits_truncate(mode), makedev(major, minor)) {
        // Two volumes whose names come to the same: the one that has it by its own name was first, or is as good.
        Ok(()) | Err(nix::Error::EEXIST) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) => Err(io::Error::other(format!("{}: {}", path.display(), error.desc()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_trees_are_found() {
        let mounts = "25 1 0:22 / /sys/fs/cgroup rw shared:9 - tmpfs tmpfs rw,mode=755\n\
             26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             27 25 0:24 / /sys/fs/cgroup/systemd rw shared:3 - cgroup cgroup rw,xattr,name=systemd\n\
             28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             29 1 0:26 / /elsewhere rw - cgroup cgroup rw,memory\n";
        let tree = |name: &str, kind, options: Option<&str>| Tree {
            name: name.to_owned(),
            kind,
            options: options.map(str::to_owned),
        };
        let found = trees(mounts, "#subsys_name\thierarchy\ncpu\t1\ncpuacct\t1\nmemory\t2\n");
        assert_eq!(
            found,
            [
                tree("cpu,cpuacct", "cgroup", Some("cpu,cpuacct")),
                tree("systemd", "cgroup", Some("none,name=systemd")),
                tree("unified", "cgroup2", None),
            ]
        );
        let found = trees("25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "");
        assert_eq!(found, [tree("", "cgroup2", None)]);
    }
}
