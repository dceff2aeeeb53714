//! The owner of one container: the process `longshore shim <directory>`.
//!
//! It is single-threaded from its first instruction to its last, because it forks. It mounts the root filesystem, sets the limits, lets
//! `libcontainer` create the container, says so on its standard output, and then serves the control socket, copies output into the spool and
//! waits ([`supervise`]). It outlives whoever started it. Whatever it learns is in files first.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::Container as Library;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Gid, Uid};

use super::error::Failure;
use super::executor::Workload;
use super::oci;
use super::process::{Command, Process};
use super::protocol::{self, Created, Running};
use super::spec::ContainerSpec;
use super::supervise;
use crate::cgroup::Group;
use crate::logs::spool::Spool;
use crate::rootfs;

/// A container that was created and waits to be started.
pub(crate) struct Built {
    pub directory: PathBuf,
    pub spec: ContainerSpec,
    pub library: Library,
    pub group: Group,
    pub running: Running,
    /// Closes when the program was executed; carries a [`Failure`] if not.
    pub report: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub listener: UnixListener,
    pub signals: SignalFd,
    pub spool: Spool,
}

/// The exit code of a shim that was given no container.
pub(crate) const NO_CONTAINER: i32 = 2;

/// Runs a container to its end; the exit code says only whether there ever was one.
pub(crate) fn main(arguments: &[OsString]) -> i32 {
    let Some(directory) = arguments.first().map(PathBuf::from) else { return NO_CONTAINER };
    let outcome = prepare().and_then(|signals| create(&directory, signals));
    let (created, built) = match outcome {
        Ok(built) => (Created::Ok(built.running.clone()), Some(built)),
        Err(failure) => (Created::Err(failure), None),
    };
    let line = serde_json::to_vec(&created).unwrap_or_default();
    // A creator that died meanwhile finds the container by its files.
    let _ = std::io::stdout().write_all(&[&line, &b"\n"[..]].concat());
    let Some(built) = built else { return 1 };
    detach_output();
    supervise::run(built);
    0
}

/// Makes this process independent of the one that started it.
fn prepare() -> Result<SignalFd, Failure> {
    let failed = |what: &'static str| move |error: nix::Error| Failure::Create(format!("{what}: {error}"));
    nix::unistd::setsid().map_err(failed("setsid"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(failed("subreaper"))?;
    // Inherited by what enters the container: until its `execve` nobody inside may look into it, or take its descriptors.
    nix::sys::prctl::set_dumpable(false).map_err(failed("dumpable"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGQUIT] {
        // SAFETY: ignoring a signal installs no handler. A supervisor that stops its own group must not take the containers along.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }.map_err(failed("signal"))?;
    }
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).map_err(failed("sigprocmask"))?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed("signalfd"))
}

fn create(directory: &Path, signals: SignalFd) -> Result<Built, Failure> {
    // Every later name is short and relative, the socket's above all: its address has room for 107 bytes.
    std::env::set_current_dir(directory).map_err(Failure::io("container directory"))?;
    let own = protocol::Process::observe(i32::try_from(std::process::id()).unwrap_or(0))
        .ok_or_else(|| Failure::Create("/proc is not mounted".to_owned()))?;
    protocol::write(directory, protocol::SHIM, &own).map_err(Failure::io("shim.json"))?;
    let spec: ContainerSpec = protocol::read(directory, protocol::SPEC)
        .ok_or_else(|| Failure::Create("spec.json is missing or damaged".to_owned()))?;
    spec.validate()?;
    let id = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let target = directory.join(protocol::ROOTFS);
    rootfs::mount_overlay(&spec.rootfs, &target)?;
    let built = build(directory, &id, spec, signals);
    if built.is_err() {
        // The failure to report is the first one.
        let _ = rootfs::unmount_under(directory);
    }
    built
}

fn build(directory: &Path, id: &str, spec: ContainerSpec, signals: SignalFd) -> Result<Built, Failure> {
    let command = Command { args: &spec.args, env: &spec.env, cwd: &spec.cwd, user: &spec.user };
    let process = Process::resolve(&spec, &command, &directory.join(protocol::ROOTFS))?;
    let cgroup = format!("{}/{id}", spec.cgroup_parent.trim_matches('/'));
    let described = oci::describe(&spec, &process, directory, &cgroup)?;
    crate::files::replace(&directory.join("config.json"), &serde_json::to_vec(&described).unwrap_or_default(), 0o600)
        .map_err(Failure::io("config.json"))?;
    let group = Group::create(&cgroup, &spec.limits).map_err(|error| Failure::Limits(error.to_string()))?;
    let pipes = Pipes::new(&process)?;
    let (report, report_writer) = pipe()?;
    let workload = Workload { process: Rc::new(process), report: report_writer.as_raw_fd(), init: spec.init };
    let score = std::fs::read_to_string("/proc/self/oom_score_adj");
    let (stdout, stderr) = (pipes.stdout.0, pipes.stderr.0);
    let library = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_executor(workload)
        .with_root_path(directory.join(protocol::STATES))
        .map(|builder| {
            builder
                .with_stdout(pipes.stdout.1)
                .with_stderr(pipes.stderr.1)
                .as_init(directory)
                .with_systemd(false)
                .with_detach(true)
        })
        .and_then(|builder| builder.build());
    drop(report_writer);
    if let Ok(score) = score {
        // The library set the container's score on this process too; the kernel may refuse to lower it, and then it stays.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.trim());
    }
    let library = match library {
        Ok(library) => library,
        Err(error) => {
            let told = supervise::read_report(&report).flatten();
            remove_group(&group);
            return Err(told.unwrap_or_else(|| Failure::Create(chain(&error))));
        }
    };
    let pid = library.pid().map_or(0, |pid| pid.as_raw());
    let running = protocol::Process::observe(pid).map(|process| Running { process, started_at: None });
    let running =
        running.ok_or_else(|| Failure::Create("the container's process ended before it was started".to_owned()))?;
    protocol::write(directory, protocol::STATE, &running).map_err(Failure::io("state.json"))?;
    // Relative: see above. A stale socket cannot be there, the directory is new.
    let listener = UnixListener::bind(protocol::SOCKET).map_err(Failure::io("control socket"))?;
    let spool = Spool::create(&directory.join(protocol::SPOOL), &spec.logs).map_err(Failure::io("spool"))?;
    Ok(Built {
        directory: directory.to_path_buf(),
        spec,
        library,
        group,
        running,
        report,
        stdout,
        stderr,
        listener,
        signals,
        spool,
    })
}

pub(crate) fn remove_group(group: &Group) {
    group.kill();
    if let Err(error) = group.remove() {
        tracing::warn!(%error, "a control group is left for the next sweep");
    }
}

/// The two output pipes, reading end first. Their inodes belong to the container's user, who may open `/dev/stdout` anew.
struct Pipes {
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new(process: &Process) -> Result<Self, Failure> {
        Ok(Self { stdout: owned_pipe(process)?, stderr: owned_pipe(process)? })
    }
}

/// A pipe the container's user may reopen by name.
pub(crate) fn owned_pipe(process: &Process) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (read, write) = pipe()?;
    nix::unistd::fchown(write.as_fd(), Some(Uid::from_raw(process.user.uid)), Some(Gid::from_raw(process.user.gid)))
        .map_err(|error| Failure::io("pipe")(error.into()))?;
    Ok((read, write))
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| Failure::io("pipe")(error.into()))
}

/// An error with its causes, without the zero bytes the library leaves in some.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text.replace('\0', "").trim().to_owned()
}

/// Lets go of the pipe to the creator, who would otherwise wait for its end for as long as the container runs.
fn detach_output() {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    if let Ok(null) = null {
        // Failing leaves the pipe open, which only costs the creator a descriptor.
        let _ = nix::unistd::dup2_stdout(&null);
        let _ = nix::unistd::dup2_stderr(&null);
    }
}
