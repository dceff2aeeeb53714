//! The first process of an instance until it becomes the instance's own program: it enters the instance's control group
//! and network, makes the other namespaces, and leaves the machine's file systems behind for good.
//!
//! What the instance's disk holds is its users': paths on it are followed only after `/` is that disk, where no link
//! leads out.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{chdir, dup2_stdin, fchdir, pivot_root, sethostname},
};
use runtime::Group;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    image, mounts, program,
    record::{self, ROOT, SPEC, Spec},
    shim::Devices,
};

/// What root inside does not have: what reaches past the instance into the machine's one kernel, and
/// `CAP_DAC_READ_SEARCH`, with which files of a file system are opened that are not mounted.
const FORGONE: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_DAC_READ_SEARCH",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_PACCT",
    "CAP_SYS_RAWIO",
    "CAP_SYS_TIME",
    "CAP_WAKE_ALARM",
];

/// Becomes the instance's first program; returns only if that fails. Standard input is where that is told.
pub(super) fn main(directory: &Path, devices: &str) -> i32 {
    let status = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    match boot(directory, devices, &status) {
        Ok(never) => match never {},
        Err(error) => {
            // Nobody may be left to hear it.
            let _ = File::from(status).write_all(error.to_string().as_bytes());
            1
        }
    }
}

fn boot(directory: &Path, devices: &str, status: &OwnedFd) -> io::Result<Infallible> {
    set_pdeathsig(Signal::SIGKILL)?;
    // A shim that ended before that call would not be noticed by it.
    let mut reader = [PollFd::new(status, PollFlags::OUT)];
    poll(&mut reader, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if reader[0].revents().contains(PollFlags::ERR) {
        return Err(io::Error::other("the shim has ended"));
    }
    let spec: Spec = record::read(directory, SPEC).ok_or_else(|| io::Error::other("there is nothing to boot from"))?;
    let devices: Devices = serde_json::from_str(devices)?;
    let root = devices.0.first().ok_or_else(|| io::Error::other("it has no root volume"))?;
    dup2_stdin(File::open("/dev/null")?)?;

    let inner = super::inner_group(&spec.cgroup);
    let group = Group::open(&inner).map_err(io::Error::other)?;
    group.enter().map_err(io::Error::other)?;
    setns(File::open(&spec.namespace).map_err(at("its network"))?, CloneFlags::CLONE_NEWNET)?;
    unshare(
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP,
    )?;
    if group.is_unified() {
        // What is the root inside must have no process of its own before groups below it can have limits.
        Group::open(&format!("{inner}/init")).and_then(|group| group.enter()).map_err(io::Error::other)?;
    }
    sethostname(&spec.hostname)?;

    let none = None::<&str>;
    // What is mounted from here on is the instance's alone; what the machine mounts later where it hands things over is
    // seen here as well.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    let trees = mounts::control_group_trees()?;
    let pieces = match spec.own_programs {
        true => Some(
            program::pieces(&spec.executable, &super::directory(&spec.data_dir)).map_err(at("its first program"))?,
        ),
        false => None,
    };
    let place = directory.join(ROOT);
    mount(Some(root.node.as_str()), &place, Some("ext4"), MsFlags::MS_RELATIME, none)
        .map_err(|error| io::Error::other(format!("the root volume cannot be mounted: {error}")))?;
    let machine = File::open("/")?;
    chdir(&place)?;
    // One upon the other: `/` is the instance's from here on, and the working directory the machine's, so that a path
    // without a slash in front names a file of the machine.
    pivot_root(".", ".")?;
    fchdir(&machine)?;
    match &pieces {
        Some(_) => image::complete(&spec).map_err(at("its root volume"))?,
        None => {
            image::lay_out().map_err(at("its root volume"))?;
            mounts::programs(&spec).map_err(at("its programs"))?;
            image::refresh(&spec).map_err(at("its root volume"))?;
        }
    }
    mounts::devices(&spec, &devices).map_err(at("its /dev"))?;
    if let Some(pieces) = &pieces {
        program::bring_in(pieces).map_err(at("its first program"))?;
    }
    mounts::interfaces(directory).map_err(at("its tasks' interfaces"))?;
    mounts::kernel(&trees).map_err(at("its /proc and /sys"))?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    drop(machine);

    runtime::forgo_capabilities(FORGONE).map_err(io::Error::other)?;
    // As many as the machine lets it have; fewer is no reason not to boot.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, 65_536, 524_288);
    let (program, arguments) = spec.command.split_first().ok_or_else(|| io::Error::other("it has no program"))?;
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/longshore/bin:/run/longshore/bin",
        )
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .env("TERM", "linux")
        .env("container", "longshore")
        .env("LONGSHORE_ENDPOINT", &spec.endpoint)
        .exec();
    Err(at(program)(error))
}

fn at(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
