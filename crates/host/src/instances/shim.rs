//! The owner of one running instance: a small process of one thread that outlives `host`. It attaches the volumes, makes
//! the control group, starts the instance's first process in a process namespace of its own (see [`super::guest`]),
//! copies what that prints, and writes down how it ended. When it is killed, the kernel ends the instance with it.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sched::{CloneFlags, unshare},
    sys::signal::{SigSet, Signal},
    unistd::{pipe2, setsid},
};
use runtime::{DeviceKind, DeviceRule, Group, Limits, LoopDevice};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};

use super::{
    GUEST,
    console::Console,
    image, program,
    record::{self, Disk, EXIT, Exit, LOCK, SHIM, SPEC, Shim, Spec},
};
use crate::process::Process;

/// The exit code of a shim that found another one at work.
pub(super) const ANOTHER: i32 = 3;
/// How an instance ended that has shut itself down.
const IN_ORDER: &str = "Instance initiated shutdown";
/// How many processes and threads an instance may have.
const PROCESSES: u64 = 32_768;
/// How long a volume may still belong to the boot before.
const DETACHED: Duration = Duration::from_secs(10);

/// What the second stage is told beyond the [`Spec`]: the nodes of the volumes, in its order, the root first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Devices(pub(super) Vec<Device>);

/// A volume's loop device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Device {
    pub(super) node: String,
    pub(super) major: u64,
    pub(super) minor: u64,
}

/// Runs until the instance has ended.
pub(super) fn main(directory: &Path) -> i32 {
    // It fails only for who leads a session already.
    let _ = setsid();
    let locked = File::create(directory.join(LOCK)).map(|file| file.try_lock().map(|()| file));
    let Ok(Ok(_lock)) = locked else { return ANOTHER };
    let Some(spec) = record::read::<Spec>(directory, SPEC) else {
        eprintln!("{}: no {SPEC} to boot from", directory.display());
        return 1;
    };
    let reason = match run(directory, &spec) {
        Ok(reason) => reason,
        Err(error) => format!("The instance could not be booted: {error}"),
    };
    let in_order = reason == IN_ORDER;
    let mut exit = Exit::now(spec.boot, reason);
    exit.in_order = in_order;
    match record::write(directory, EXIT, &exit) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}: {error}", directory.join(EXIT).display());
            1
        }
    }
}

fn run(directory: &Path, spec: &Spec) -> io::Result<String> {
    // What is sent to everybody, as when the machine goes down, is the instance's to act upon and not ours.
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>().thread_block()?;
    record::forget(directory, EXIT)?;
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let process = Process::of(own).ok_or_else(|| io::Error::other("this process is not in /proc"))?;
    let disks: Vec<&Disk> = std::iter::once(&spec.root).chain(&spec.disks).collect();
    let mut record = Shim {
        boot: spec.boot,
        process,
        guest: None,
        booted: false,
        namespace_inode: spec.namespace_inode,
        volumes: disks.iter().map(|disk| disk.volume_id.clone()).collect(),
    };
    record::write(directory, SHIM, &record)?;
    let mut console = Console::begin(directory)?;
    let group = Group::open(&spec.cgroup).map_err(io::Error::other)?;
    // What a killed shim has left.
    group.kill();
    group.remove().map_err(io::Error::other)?;
    if spec.own_programs {
        // Where its bytes are not counted as the instance's.
        program::prepare(&spec.executable, &super::directory(&spec.data_dir))?;
    }
    let outcome = with_disks(&disks, &mut console, |devices, console| {
        make_group(&group, spec, devices).map_err(io::Error::other)?;
        let (console_out, console_in) = pipe2(OFlag::O_CLOEXEC)?;
        let (status_out, status_in) = pipe2(OFlag::O_CLOEXEC)?;
        let mut command = Command::new(&spec.executable);
        command.arg(GUEST).arg(directory).arg(serde_json::to_string(devices)?);
        command.env_clear().stdin(Stdio::from(status_in));
        command.stdout(Stdio::from(console_in.try_clone()?)).stderr(Stdio::from(console_in));
        unshare(CloneFlags::CLONE_NEWPID)?;
        let mut child = command.spawn()?;
        // The pipes end when the last who has their other ends does: that must not be us.
        drop(command);
        record.guest = i32::try_from(child.id()).ok().and_then(Process::of);
        record::write(directory, SHIM, &record)?;
        let watched = watch(&mut child, console_out, status_out, console, || {
            record.booted = true;
            record::write(directory, SHIM, &record)
        });
        if watched.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        watched.map(|failure| failure.unwrap_or_else(|| describe(status, &group)))
    });
    group.kill();
    if let Err(error) = group.remove() {
        console.write(format!("\nlongshore: {error}\n").as_bytes());
    }
    outcome
}

/// Attaches the volumes for as long as `work` lasts.
fn with_disks<R>(
    disks: &[&Disk],
    console: &mut Console,
    work: impl FnOnce(&Devices, &mut Console) -> io::Result<R>,
) -> io::Result<R> {
    let mut attached: Vec<LoopDevice> = Vec::new();
    let mut devices = Vec::new();
    for disk in disks {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", disk.volume_id));
        let end = Instant::now() + DETACHED;
        while LoopDevice::has(&disk.image) {
            if Instant::now() > end {
                return Err(failed(io::Error::other("the volume is in use")));
            }
            thread::sleep(Duration::from_millis(20));
        }
        // The root is the first.
        if attached.is_empty()
            && let Err(problem) = image::grow(&disk.image)
        {
            console.write(format!("longshore: the root volume was not grown: {problem}\n").as_bytes());
        }
        let device = LoopDevice::attach(&disk.image).map_err(failed)?;
        let (major, minor) = device.number().map_err(failed)?;
        devices.push(Device { node: device.path().display().to_string(), major, minor });
        attached.push(device);
    }
    work(&Devices(devices), console)
}

/// The limits are on a group that the instance cannot reach; its own is one below.
fn make_group(group: &Group, spec: &Spec, devices: &Devices) -> Result<(), runtime::CgroupError> {
    let memory = spec.memory_mib << 20;
    let limits = Limits {
        memory_bytes: Some(memory),
        memory_swap_bytes: Some(memory),
        cpu_quota_microseconds: Some(u64::from(spec.vcpus) * 100_000),
        cpu_period_microseconds: Some(100_000),
        pids: Some(PROCESSES),
        ..Limits::default()
    };
    if let Some((all, _)) = group.path().rsplit_once('/') {
        // All instances together leave the machine processes to start.
        let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|most| most.trim().parse::<u64>().ok());
        Group::create(all, &Limits { pids: most.map(|most| most / 4 * 3), ..Limits::default() })?;
    }
    Group::create(group.path(), &limits)?;
    group.restrict_devices(&allowed(devices))?;
    // What it can see of its limits are those of its own group.
    Group::create(&super::inner_group(group.path()), &limits).map(drop)
}

/// The usual character devices and its own volumes. Nodes may be made of all, as image layers have them; opened, they
/// are refused.
fn allowed(devices: &Devices) -> Vec<DeviceRule> {
    let rule = |kind, major, minor, open| DeviceRule { kind, major, minor, open, make: true };
    let mut rules = vec![
        rule(DeviceKind::Character, None, None, false),
        rule(DeviceKind::Block, None, None, false),
        // Terminals of its own.
        rule(DeviceKind::Character, Some(136), None, true),
    ];
    for (_, major, minor) in super::mounts::NODES {
        rules.push(rule(DeviceKind::Character, Some(*major), Some(*minor), true));
    }
    // console and ptmx: what a container engine gives each of its containers, an instance must be able to give.
    for minor in [1, 2] {
        rules.push(rule(DeviceKind::Character, Some(5), Some(minor), true));
    }
    for device in &devices.0 {
        let (Ok(major), Ok(minor)) = (u32::try_from(device.major), u32::try_from(device.minor)) else { continue };
        rules.push(rule(DeviceKind::Block, Some(major), Some(minor), true));
    }
    rules
}

/// Copies the console until the child has ended. Says why it could not be booted, if it could not.
fn watch(
    child: &mut Child,
    console_out: OwnedFd,
    status_out: OwnedFd,
    console: &mut Console,
    booted: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<String>> {
    let pid =
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("no process id"))?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    fcntl(&console_out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut output = Some(File::from(console_out));
    let mut status = Some(File::from(status_out));
    let (mut failure, mut booted) = (Vec::new(), Some(booted));
    let mut buffer = vec![0; 16 << 10];
    loop {
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        watched.extend(output.iter().chain(&status).map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)));
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            outcome => outcome?,
        };
        let over = !watched[0].revents().is_empty();
        let readable = |index: usize| watched.get(index).is_some_and(|one| !one.revents().is_empty());
        let (print, report) = (output.is_some() && readable(1), readable(1 + usize::from(output.is_some())));
        drop(watched);
        if print && !copy(&mut output, console, &mut buffer) {
            output = None;
        }
        if report && let Some(file) = &mut status {
            match file.read(&mut buffer)? {
                0 => {
                    status = None;
                    // Closed without a word: by the execution of the instance's own program.
                    if failure.is_empty()
                        && !over
                        && let Some(booted) = booted.take()
                    {
                        booted()?;
                    }
                }
                count => failure.extend_from_slice(&buffer[..count]),
            }
        }
        if over && status.is_none() {
            copy(&mut output, console, &mut buffer);
            return Ok((!failure.is_empty()).then(|| {
                let said = String::from_utf8_lossy(&failure).into_owned();
                let _ = io::stderr().write_all(said.as_bytes());
                format!("The instance could not be booted: {said}")
            }));
        }
    }
}

/// Copies what there is; whether there may be more later.
fn copy(output: &mut Option<File>, console: &mut Console, buffer: &mut [u8]) -> bool {
    let Some(output) = output else { return false };
    loop {
        match output.read(buffer) {
            Ok(0) => return false,
            Ok(count) => console.write(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn describe(status: ExitStatus, group: &Group) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => IN_ORDER.to_owned(),
        (Some(code), _) => format!("The first process of the instance ended with exit code {code}"),
        (None, signal) => {
            let memory = group.stats().is_ok_and(|stats| stats.oom_kills > 0);
            let why = if memory { ", after the instance ran out of memory" } else { "" };
            format!("The first process of the instance was killed by signal {}{why}", signal.unwrap_or_default())
        }
    }
}

/// Whether a directory has a shim at work, also one that has not written its file yet.
pub(super) fn is_at_work(directory: &Path) -> bool {
    let Ok(file) = fs::OpenOptions::new().write(true).open(directory.join(LOCK)) else { return false };
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}
