//! The owner of one running instance: a small process of its own that outlives `host`. It makes the instance's
//! namespaces, starts its first process in them, keeps what that prints, and says how it ended.

use std::{
    ffi::OsString,
    fs, io,
    io::Read,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use runtime::{DeviceRule, Group, Limits, LoopDevice};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

use super::{
    console::Console,
    root,
    spec::{self, Ended, Shim, Spec},
    volumes,
};
use crate::process::{Process, boot_id};

/// The words after the program's name.
const SHIM: &str = "instance-shim";
const STAGE: &str = "instance-stage";
/// What an instance may have of processes and threads.
const PIDS: u64 = 32_768;

/// Becomes the shim or the first process of an instance, if the arguments (program name first) ask for it; then this is
/// the exit code. Call it before any thread exists.
pub fn dispatch(arguments: impl Iterator<Item = OsString>) -> Option<i32> {
    let arguments: Vec<OsString> = arguments.skip(1).take(2).collect();
    let [word, directory] = arguments.as_slice() else { return None };
    let directory = Path::new(directory);
    match word.to_str()? {
        SHIM => Some(i32::from(own(directory).is_err())),
        STAGE => Some(match root::enter(directory) {
            Ok(never) => match never {},
            Err(error) => {
                println!("boot: {error}");
                1
            }
        }),
        _ => None,
    }
}

/// Starts the shim of an instance whose spec is in `directory`. It does not end with this process.
pub(super) fn start(directory: &Path, executable: &Path) -> io::Result<std::process::Child> {
    let own_program = std::env::current_exe().is_ok_and(|own| own == executable);
    let program = if own_program { Path::new("/proc/self/exe") } else { executable };
    let mut command = Command::new(program);
    command.arg0("longshore").arg(SHIM).arg(directory).env_clear().process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

/// Owns the instance until it ends.
fn own(directory: &Path) -> io::Result<()> {
    let ended = run(directory);
    let reason = match &ended {
        Ok(status) => said(*status),
        Err(error) => format!("it could not be booted: {error}"),
    };
    spec::write(directory, spec::EXIT, &Ended { reason, boot_id: boot_id() })?;
    ended.map(drop)
}

fn said(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "it was shut down".to_owned(),
        _ => format!("its first process ended: {status}"),
    }
}

fn run(directory: &Path) -> io::Result<ExitStatus> {
    let spec: Spec = spec::read(directory, spec::SPEC).ok_or_else(|| io::Error::other("there is no boot to do"))?;
    let _ = nix::unistd::setsid();
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let shim = Process::of(own).ok_or_else(|| io::Error::other("a process does not find itself"))?;
    spec::write(directory, spec::SHIM, &Shim { shim: shim.clone(), init: None })?;
    let mut console = Console::open(&directory.join(spec::CONSOLE))?;

    volumes::format(&spec.root)?;
    let disk = LoopDevice::attach(&spec.root)?;
    let volumes = spec.volumes.iter().map(|(file, _)| LoopDevice::attach(file)).collect::<io::Result<Vec<_>>>()?;
    let group = Group::create(&spec.group, &limits(&spec)).map_err(io::Error::other)?;
    let devices = [&disk].into_iter().chain(&volumes).map(|device| Ok(fs::metadata(device.path())?.rdev()));
    group.join(own).map_err(io::Error::other)?;
    let rules = rules(&devices.collect::<io::Result<Vec<_>>>()?);
    if group.is_unified() {
        console
            .line("boot: this kernel has cgroup v2 only: the instance's devices are not limited by its control group");
    } else {
        group.allow_devices(&rules).map_err(io::Error::other)?;
    }

    // A mount of its own of this very program, whatever is at its path by now; of the machine's no other can be taken along.
    let program = open_tree(CWD, "/proc/self/exe", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    setns(fs::File::open(&spec.namespace)?, CloneFlags::CLONE_NEWNET)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWPID,
    )?;
    // Nothing that is mounted from here on is seen by the machine; what the machine hands over later is seen here.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let plan = root::Plan {
        spec: &spec,
        disk: disk.path(),
        program: &program,
        volumes: volumes.iter().zip(&spec.volumes).map(|(device, (_, name))| (device.path(), name.as_str())).collect(),
    };
    plan.mount(directory)?;
    // One level below the group that is the root of its control group namespace, so that it can make others beside this.
    if group.is_unified() {
        Group::open(&format!("{}/init", spec.group)).and_then(|init| init.join(own)).map_err(io::Error::other)?;
    }
    let (mut reader, writer) = io::pipe()?;
    let mut stage = Command::new("/proc/self/exe");
    stage.arg0("longshore").arg(STAGE).arg(directory).env_clear();
    stage.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut init = stage.spawn()?;
    // The command holds the pipe's other end.
    drop(stage);
    let init_process = i32::try_from(init.id()).ok().and_then(Process::of);
    spec::write(directory, spec::SHIM, &Shim { shim, init: init_process })?;
    // All that runs in the instance ends with its first process, and so does its console.
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        console.write(buffer.get(..count).unwrap_or_default());
    }
    let status = init.wait()?;
    // Mounts go with the namespace, loop devices with their last user; only groups stay.
    drop((disk, volumes));
    Ok(status)
}

fn limits(spec: &Spec) -> Limits {
    let memory = spec.memory_mib << 20;
    Limits {
        memory_bytes: Some(memory),
        memory_swap_bytes: Some(memory),
        cpu_period_microseconds: Some(100_000),
        cpu_quota_microseconds: Some(u64::from(spec.vcpus) * 100_000),
        cpu_shares: Some(u64::from(spec.vcpus) * 1024),
        pids: Some(PIDS),
        ..Limits::default()
    }
}

/// What the instance may use: the devices every container has, tun and fuse, its own disks. Any node may be made, which
/// unpacking an image needs, and none of these opened.
fn rules(disks: &[u64]) -> Vec<DeviceRule> {
    let rule = |block, major, minor, access| DeviceRule { block, major, minor, access };
    let mut rules = vec![rule(false, None, None, "m"), rule(true, None, None, "m")];
    let characters = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)];
    rules.extend(characters.map(|(major, minor)| rule(false, Some(major), Some(minor), "rwm")));
    rules.push(rule(false, Some(136), None, "rwm"));
    rules.extend(disks.iter().map(|device| {
        let (major, minor) = (nix::sys::stat::major(*device), nix::sys::stat::minor(*device));
        rule(true, Some(major), Some(minor), "rwm")
    }));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_devices_can_be_opened() {
        let disk = nix::sys::stat::makedev(7, 3);
        let texts: Vec<String> = rules(&[disk]).iter().map(ToString::to_string).collect();
        assert!(texts.contains(&"b *:* m".to_owned()) && texts.contains(&"b 7:3 rwm".to_owned()));
        assert!(texts.contains(&"c 1:3 rwm".to_owned()) && texts.contains(&"c 136:* rwm".to_owned()));
        assert_eq!(texts.iter().filter(|text| text.starts_with('b') && text.contains('r')).count(), 1);
    }
}
