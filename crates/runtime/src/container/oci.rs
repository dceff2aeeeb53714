//! The OCI runtime specification of a container: namespaces, mounts, masked paths, devices, as Docker lays them out.
//!
//! Limits are not in it: the shim sets them on the control group before the first process joins, with the same code that limits a
//! whole task.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::error::Failure;
use super::process::Process;
use super::protocol;
use super::spec::{ContainerSpec, Device};
use crate::files;

/// Kernel interfaces that tell too much or reach too far.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// More of the same, which newer Docker versions mask too.
const MASKED_NEWER: [&str; 2] = ["/sys/devices/virtual/powercap", "/proc/kallsyms"];
/// Readable, but not for changing the host.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Docker's default size of `/dev/shm`.
const SHARED_MEMORY: u64 = 64 << 20;

/// The specification for the container in `directory`, whose root is mounted below it. Writes the generated files.
pub(crate) fn describe(
    spec: &ContainerSpec,
    process: &Process,
    directory: &Path,
    cgroup: &str,
) -> Result<Value, Failure> {
    let mut namespaces =
        vec![json!({"type": "mount"}), json!({"type": "uts"}), json!({"type": "ipc"}), json!({"type": "cgroup"})];
    namespaces.push(match &spec.network_namespace {
        Some(path) => json!({"type": "network", "path": path}),
        None => json!({"type": "network"}),
    });
    namespaces.push(match spec.pid_namespace_of {
        Some(pid) => json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}),
        None => json!({"type": "pid"}),
    });
    let mut devices = Vec::new();
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for device in &spec.devices {
        let (node, rule) = describe_device(device)?;
        devices.push(node);
        rules.push(rule);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": {"path": directory.join(protocol::ROOTFS), "readonly": spec.read_only_root},
        "hostname": spec.hostname,
        "process": process.describe(),
        "mounts": mounts(spec)?,
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/{cgroup}"),
            "resources": {"devices": rules},
            "devices": devices,
            "sysctl": spec.sysctls,
            "maskedPaths": MASKED.iter().chain(&MASKED_NEWER).collect::<Vec<_>>(),
            "readonlyPaths": read_only(),
            "rootfsPropagation": "private",
        },
    }))
}

/// Paths that are for reading. The library mounts each tree of cgroup v1 writable whatever its options say, and with them a
/// container could lift its own limits.
fn read_only() -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let trees = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // With cgroup v2 these are the host's groups, which the container does not see: what is missing is passed over.
    let trees = trees.filter(|path| path.is_dir()).chain([root.to_path_buf()]);
    READ_ONLY.map(str::to_owned).into_iter().chain(trees.map(|path| path.display().to_string())).collect()
}

fn mounts(spec: &ContainerSpec) -> Result<Vec<Value>, Failure> {
    let plain = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let shared = format!("size={}", spec.shm_size_bytes.unwrap_or(SHARED_MEMORY));
    let mut mounts = vec![
        plain("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        plain("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        plain(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        plain("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        plain("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        plain("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        plain("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shared]),
    ];
    for tmpfs in &spec.tmpfs {
        let size = format!("size={}", tmpfs.size_bytes);
        let given = tmpfs.options.iter().map(String::as_str);
        let options: Vec<&str> = ["nosuid", "nodev", "noexec"]
            .into_iter()
            .filter(|option| !spec_allows(tmpfs, option))
            .chain(given)
            .chain([size.as_str()])
            .collect();
        mounts.push(plain(&tmpfs.target, "tmpfs", "tmpfs", &options));
    }
    for mount in &spec.mounts {
        mounts.push(bind(&mount.source, &mount.target, mount.read_only)?);
    }
    // Beside what the container writes: it may write to these too, and has no more room for it.
    let mut generated = spec.rootfs.upper.clone().into_os_string();
    generated.push(".files");
    let generated = PathBuf::from(generated);
    if !spec.files.is_empty() {
        files::private_directory(&generated).map_err(Failure::io("generated files"))?;
    }
    for (number, file) in spec.files.iter().enumerate() {
        let path = generated.join(number.to_string());
        files::replace(&path, file.content.as_bytes(), file.mode).map_err(Failure::io("generated file"))?;
        mounts.push(bind(&path, &file.target, spec.read_only_root)?);
    }
    Ok(mounts)
}

/// Whether a memory file system asks for the opposite of one of the careful defaults.
fn spec_allows(tmpfs: &super::Tmpfs, default: &str) -> bool {
    let opposite = default.strip_prefix("no").unwrap_or(default);
    tmpfs.options.iter().any(|option| option == opposite)
}

fn bind(source: &Path, target: &str, read_only: bool) -> Result<Value, Failure> {
    if !source.exists() {
        return Err(Failure::Mount(target.to_owned(), format!("{}: no such file or directory", source.display())));
    }
    // Devices come through `devices` alone, whatever nodes a mounted directory holds.
    let options = ["rbind", "rprivate", "nodev", if read_only { "ro" } else { "rw" }];
    Ok(json!({"destination": target, "type": "bind", "source": source, "options": options}))
}

fn describe_device(device: &Device) -> Result<(Value, Value), Failure> {
    let name = device.host_path.display().to_string();
    let metadata = std::fs::metadata(&device.host_path)
        .map_err(|error| Failure::Invalid("devices".to_owned(), format!("{name}: {error}")))?;
    let kind = if metadata.file_type().is_block_device() {
        "b"
    } else if metadata.file_type().is_char_device() {
        "c"
    } else {
        return Err(Failure::Invalid("devices".to_owned(), format!("{name}: not a device")));
    };
    let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    let node = json!({"path": device.container_path, "type": kind, "major": major, "minor": minor, "fileMode": metadata.mode() & 0o777, "uid": metadata.uid(), "gid": metadata.gid()});
    let rule = json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": device.permissions});
    Ok((node, rule))
}
