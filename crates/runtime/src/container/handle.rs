//! The caller's side of one container.
//!
//! A watcher task holds a connection to the shim until the container ends. If the shim itself was killed, the watcher follows the
//! container's process by its pidfd and reports an unknown exit code; nothing else depends on the shim being alive.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use base64::Engine;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::error::ContainerError;
use super::exec;
use super::protocol::{self, Answer, Ended, ExecRequest, Request, Running};
use super::runtime::Registry;
use super::spec::ContainerSpec;
use crate::cgroup::{Group, Stats};
use crate::files;
use crate::logs::LogReader;
use crate::rootfs;

/// How long a shim may take to answer what it can answer at once.
const PROMPT: Duration = Duration::from_secs(30);

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first process exists and waits.
    Created,
    /// Its program was executed.
    Running {
        /// When.
        started_at: SystemTime,
    },
    /// It has ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + n when signalled; `None` when nobody saw it (the shim had been killed, or the host rebooted).
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of the container for memory.
    pub oom_killed: bool,
    /// When its program was executed; `None` if it never was.
    pub started_at: Option<SystemTime>,
    /// When it ended, or when that was noticed.
    pub finished_at: SystemTime,
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        Self {
            code: ended.code,
            signal: ended.signal,
            oom_killed: ended.oom_killed,
            started_at: ended.started_at.map(files::from_nanoseconds),
            finished_at: files::from_nanoseconds(ended.finished_at),
        }
    }
}

/// A command to run inside.
#[derive(Clone)]
pub struct ExecSpec {
    /// Looked up in PATH as the container's own command is.
    pub args: Vec<String>,
    /// `None` is the container's.
    pub env: Option<Vec<String>>,
    /// `None` is the container's.
    pub cwd: Option<String>,
    /// `None` is the container's.
    pub user: Option<String>,
    /// After this it is killed.
    pub timeout: Duration,
    /// Bytes of output to keep, at most 4 MiB.
    pub output_limit: usize,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    /// 128 + n when signalled.
    pub code: i32,
    /// Both streams in the order they came, the beginning of them.
    pub output: Vec<u8>,
    /// Whether it was killed because the time was up.
    pub timed_out: bool,
}

/// One container. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct Container {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(super) id: String,
    pub(super) directory: PathBuf,
    spec: ContainerSpec,
    group: Group,
    state: watch::Sender<State>,
    registry: Weak<Registry>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("id", &self.inner.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Whether no more output can come: the container has ended and its shim is gone.
    pub(crate) fn output_is_complete(&self) -> bool {
        matches!(*self.state.borrow(), State::Exited(_)) && !self.shim().is_some_and(|shim| shim.alive())
    }

    fn shim(&self) -> Option<protocol::Process> {
        protocol::read(&self.directory, protocol::SHIM)
    }

    fn running(&self) -> Option<Running> {
        protocol::read(&self.directory, protocol::STATE)
    }

    /// Connects by a name that is short enough whatever the directory is called.
    async fn connect(&self) -> io::Result<UnixStream> {
        let directory = files::open_directory(&self.directory)?;
        UnixStream::connect(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), protocol::SOCKET)).await
    }

    async fn ask(&self, request: &Request) -> io::Result<Answer> {
        let mut stream = self.connect().await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        let mut reader = BufReader::new(stream).take(protocol::MAXIMUM_LINE as u64);
        reader.read_until(b'\n', &mut answer).await?;
        if !answer.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn ask_promptly(&self, request: &Request, patience: Duration) -> Result<Answer, ContainerError> {
        match tokio::time::timeout(patience, self.ask(request)).await {
            Ok(Ok(Answer::Failed(failure))) => Err(failure.into()),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if matches!(*self.state.borrow(), State::Exited(_)) || self.ended().is_some() => {
                tracing::debug!(%error, "the container has ended");
                Err(ContainerError::NotRunning)
            }
            Ok(Err(error)) => Err(ContainerError::ShimDied { detail: error.to_string() }),
            Err(_) => Err(ContainerError::ShimDied { detail: format!("no answer in {} seconds", patience.as_secs()) }),
        }
    }

    fn ended(&self) -> Option<Exit> {
        protocol::read::<Ended>(&self.directory, protocol::EXIT).map(Exit::from)
    }

    /// Follows the container to its end.
    async fn watch(self: Arc<Self>) {
        let exit = match self.ask(&Request::Wait).await {
            Ok(Answer::Ended(ended)) => Exit::from(ended),
            Ok(_) | Err(_) => self.watch_alone().await,
        };
        self.state.send_replace(State::Exited(exit));
    }

    /// The shim does not answer: it has ended after the container, or it was killed.
    async fn watch_alone(&self) -> Exit {
        loop {
            if let Some(exit) = self.ended() {
                return exit;
            }
            let Some(running) = self.running() else { return self.unknown(None) };
            if !running.process.alive() {
                // A live shim is about to write how it ended.
                if self.shim().is_some_and(|shim| shim.alive()) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                return self.ended().unwrap_or_else(|| self.unknown(running.started_at));
            }
            let process = nix::unistd::Pid::from_raw(running.process.pid);
            match exec::pidfd(process).and_then(readable_at_end) {
                Ok(fd) if running.process.alive() => drop(fd.readable().await),
                // Ended between the two looks; or no descriptor is left, and then looking from time to time has to do.
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn unknown(&self, started_at: Option<u64>) -> Exit {
        let oom_killed = self.group.oom_kills() > 0;
        let finished_at = files::now_nanoseconds();
        let ended = Ended { code: None, signal: None, oom_killed, started_at, finished_at };
        // So that every later look gives the same answer.
        if let Err(error) = protocol::write(&self.directory, protocol::EXIT, &ended) {
            tracing::warn!(%error, id = self.id, "exit.json");
        }
        Exit::from(ended)
    }
}

impl Container {
    /// Describes a container whose directory is there, and follows it from now on.
    pub(super) fn adopt(
        id: String,
        directory: PathBuf,
        spec: ContainerSpec,
        registry: Weak<Registry>,
    ) -> Result<Self, ContainerError> {
        let group = Group::open(&format!("{}/{id}", spec.cgroup_parent.trim_matches('/')))?;
        let started_at = protocol::read::<Running>(&directory, protocol::STATE).and_then(|running| running.started_at);
        let state = match (protocol::read::<Ended>(&directory, protocol::EXIT), started_at) {
            (Some(ended), _) => State::Exited(ended.into()),
            (None, Some(started_at)) => State::Running { started_at: files::from_nanoseconds(started_at) },
            (None, None) => State::Created,
        };
        let over = matches!(state, State::Exited(_));
        let inner = Arc::new(Inner { id, directory, spec, group, state: watch::Sender::new(state), registry });
        if !over {
            tokio::spawn(Arc::clone(&inner).watch());
        }
        Ok(Self { inner })
    }

    /// The name it was created with.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// What it was made from.
    pub fn spec(&self) -> &ContainerSpec {
        &self.inner.spec
    }

    /// Its first process, as the host counts, while it lives.
    pub fn pid(&self) -> Option<i32> {
        self.inner.running().map(|running| running.process).filter(protocol::Process::alive).map(|process| process.pid)
    }

    /// Where it is in its life, as far as it is known here.
    pub fn state(&self) -> State {
        self.inner.state.borrow().clone()
    }

    /// Executes its program; returns when the kernel has done so.
    ///
    /// # Errors
    /// The kinds of [`ContainerError`] that say why the program cannot be executed; [`ContainerError::NotRunning`] after its end.
    pub async fn start(&self) -> Result<SystemTime, ContainerError> {
        match self.inner.ask_promptly(&Request::Start, PROMPT).await? {
            Answer::Started { started_at } => {
                let started_at = files::from_nanoseconds(started_at);
                self.inner.state.send_if_modified(|state| {
                    let change = *state == State::Created;
                    if change {
                        *state = State::Running { started_at };
                    }
                    change
                });
                Ok(started_at)
            }
            other => Err(ContainerError::ShimDied { detail: format!("unexpected answer {other:?}") }),
        }
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`] after its end.
    pub async fn signal(&self, signal: i32) -> Result<(), ContainerError> {
        match self.inner.ask_promptly(&Request::Signal(signal), PROMPT).await {
            Ok(_) => Ok(()),
            Err(ContainerError::ShimDied { .. }) => self.signal_directly(signal),
            Err(error) => Err(error),
        }
    }

    /// Without a shim: through a descriptor of the process, so that a reused number is not hit.
    fn signal_directly(&self, signal: i32) -> Result<(), ContainerError> {
        let running = self.inner.running().ok_or(ContainerError::NotRunning)?;
        let fd =
            exec::pidfd(nix::unistd::Pid::from_raw(running.process.pid)).map_err(|_| ContainerError::NotRunning)?;
        if !running.process.alive() {
            return Err(ContainerError::NotRunning);
        }
        // SAFETY: a plain system call on an open descriptor; no siginfo is passed.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    /// Waits for its end. Any number may wait, and giving up costs nothing.
    pub async fn wait(&self) -> Exit {
        let mut state = self.inner.state.subscribe();
        loop {
            if let State::Exited(exit) = &*state.borrow_and_update() {
                return exit.clone();
            }
            if state.changed().await.is_err() {
                // The sender is ours; it cannot go first.
                return self.inner.unknown(None);
            }
        }
    }

    /// Runs a command inside and waits for it.
    ///
    /// # Errors
    /// As [`Container::start`]; a command that ran and failed is no error.
    pub async fn exec(&self, exec: ExecSpec) -> Result<ExecOutcome, ContainerError> {
        let request = Request::Exec(ExecRequest {
            args: exec.args,
            env: exec.env,
            cwd: exec.cwd,
            user: exec.user,
            timeout_milliseconds: u64::try_from(exec.timeout.as_millis()).unwrap_or(u64::MAX),
            output_limit: exec.output_limit,
        });
        match self.inner.ask_promptly(&request, exec.timeout.saturating_add(PROMPT)).await? {
            Answer::Executed { code, output, timed_out } => {
                let output = base64::engine::general_purpose::STANDARD.decode(output).unwrap_or_default();
                Ok(ExecOutcome { code, output, timed_out })
            }
            other => Err(ContainerError::ShimDied { detail: format!("unexpected answer {other:?}") }),
        }
    }

    /// What it uses now.
    ///
    /// # Errors
    /// After its end: the control group is gone.
    pub fn stats(&self) -> Result<Stats, ContainerError> {
        Ok(self.inner.group.stats()?)
    }

    /// Its output, from the first line not yet acknowledged. One reader at a time.
    pub fn logs(&self) -> LogReader {
        LogReader::open(&self.inner.directory.join(protocol::SPOOL), Some(Arc::clone(&self.inner)))
    }

    /// Kills it if it still runs and removes everything of it, what it wrote included.
    ///
    /// # Errors
    /// What could not be removed; calling again goes on from there.
    pub async fn delete(&self) -> Result<(), ContainerError> {
        self.remove(false).await
    }

    /// As [`Container::delete`], but keeps what it wrote (`upper` of its [`crate::Rootfs`]): a new container over the same directories goes
    /// on from there, as a restarted one does.
    ///
    /// # Errors
    /// As [`Container::delete`].
    pub async fn release(&self) -> Result<(), ContainerError> {
        self.remove(true).await
    }

    async fn remove(&self, keep_files: bool) -> Result<(), ContainerError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.remove(keep_files))
            .await
            .map_err(|error| ContainerError::Create { detail: error.to_string() })?
    }
}

impl Inner {
    /// Blocking.
    fn remove(&self, keep_files: bool) -> Result<(), ContainerError> {
        self.group.kill();
        kill_and_wait(self.running().map(|running| running.process), Duration::ZERO);
        // The shim writes how it ended; one that waits for its output to be taken does not wait any longer.
        kill_and_wait(self.shim(), Duration::from_millis(300));
        remove(&self.directory, Some((&self.spec, &self.group)), keep_files)?;
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.id);
        }
        self.state.send_if_modified(|state| {
            let change = !matches!(state, State::Exited(_));
            if change {
                let finished_at = SystemTime::now();
                *state = State::Exited(Exit {
                    code: Some(128 + libc::SIGKILL),
                    signal: Some(libc::SIGKILL),
                    oom_killed: false,
                    started_at: None,
                    finished_at,
                });
            }
            change
        });
        Ok(())
    }
}

/// Lets the async runtime watch a pidfd.
fn readable_at_end(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value owns the descriptor and always names the same one.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Gives a process `patience` to end by itself, then kills it, and waits until it is gone.
pub(super) fn kill_and_wait(process: Option<protocol::Process>, patience: Duration) {
    let Some(process) = process else { return };
    let began = std::time::Instant::now();
    let mut killed = false;
    while process.alive() && began.elapsed() < Duration::from_secs(10) {
        if began.elapsed() >= patience && !killed {
            killed = true;
            // It may end in this very moment, and then there is nobody to kill.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Removes what a container that does not run any more has left on the host.
pub(super) fn remove(
    directory: &Path,
    described: Option<(&ContainerSpec, &Group)>,
    keep_files: bool,
) -> Result<(), ContainerError> {
    let mounts = |error: rootfs::RootfsError| ContainerError::Mount {
        target: directory.display().to_string(),
        reason: error.to_string(),
    };
    rootfs::unmount_under(directory).map_err(mounts)?;
    if let Some((spec, group)) = described {
        group.kill();
        group.remove()?;
        if !keep_files {
            remove_directory(&spec.rootfs.upper)?;
            remove_directory(&spec.rootfs.work)?;
        }
    }
    remove_directory(directory)
}

fn remove_directory(path: &Path) -> Result<(), ContainerError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
