//! A command inside a running container, for health checks and `ExecuteCommand`.
//!
//! The shim forks one process per command; that process joins the container through `libcontainer`, collects the output, keeps the time,
//! answers the client itself and ends. The command gets the container's namespaces, control group, user, capabilities, resource limits
//! and seccomp filters.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base64::Engine;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::error::Failure;
use super::executor::Workload;
use super::process::{Command, Process};
use super::protocol::{self, Answer, ExecRequest};
use super::shim::{self, Built};
use super::supervise;

/// Output beyond this is dropped whatever was asked for.
const MAXIMUM_OUTPUT: usize = 4 << 20;

/// Runs the request in a process of its own, which answers on `client`.
pub(crate) fn fork(built: &Built, client: &UnixStream, request: ExecRequest) -> Result<(), Failure> {
    // SAFETY: the shim is single-threaded, so the child may do whatever the parent could.
    match unsafe { nix::unistd::fork() } {
        Err(error) => Err(Failure::Create(format!("fork: {error}"))),
        Ok(ForkResult::Parent { .. }) => Ok(()),
        Ok(ForkResult::Child) => {
            let answer = run(built, client, &request).unwrap_or_else(Answer::Failed);
            let mut line = serde_json::to_vec(&answer).unwrap_or_default();
            line.push(b'\n');
            let mut stream = client;
            // One who hung up does not want the answer.
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(&line);
            // SAFETY: ends the process without the destructors of what it shares with the shim.
            unsafe { libc::_exit(0) }
        }
    }
}

fn run(built: &Built, client: &UnixStream, request: &ExecRequest) -> Result<Answer, Failure> {
    let spec = &built.spec;
    if request.args.first().is_none_or(String::is_empty) {
        return Err(Failure::Invalid("args".to_owned(), "no command specified".to_owned()));
    }
    let deadline = Instant::now() + Duration::from_millis(request.timeout_milliseconds);
    let command = Command {
        args: &request.args,
        env: request.env.as_deref().unwrap_or(&spec.env),
        cwd: request.cwd.as_deref().unwrap_or(&spec.cwd),
        user: request.user.as_deref().unwrap_or(&spec.user),
    };
    let process = Process::resolve(spec, &command, &built.directory.join(protocol::ROOTFS))?;
    let description = format!("exec-{}.json", std::process::id());
    let text = serde_json::to_vec(&process.describe()).unwrap_or_default();
    crate::files::replace(&built.directory.join(&description), &text, 0o600).map_err(Failure::io("process.json"))?;
    let (output, writer) = shim::owned_pipe(&process)?;
    let second = writer.try_clone().map_err(Failure::io("pipe"))?;
    let (report, report_writer) = shim::pipe()?;
    let workload = Workload { process: Rc::new(process), report: report_writer.as_raw_fd(), init: false };
    let pid = ContainerBuilder::new(built.library.id().to_owned(), SyscallType::default())
        .with_executor(workload)
        .with_root_path(built.directory.join(protocol::STATES))
        .map(|builder| builder.with_stdout(writer).with_stderr(second).as_tenant())
        .and_then(|tenant| tenant.with_process(Some(built.directory.join(&description))).with_detach(true).build());
    drop(report_writer);
    // Of use only while the library read it.
    let _ = std::fs::remove_file(built.directory.join(&description));
    let told = supervise::read_report(&report).flatten();
    match (pid, told) {
        (_, Some(failure)) => Err(failure),
        (Err(error), None) => Err(Failure::Create(shim::chain(&error))),
        (Ok(pid), None) => watch(Pid::from_raw(pid.as_raw()), &output, client, request, deadline),
    }
}

/// Collects output until the command ends, the time is up or the client hangs up.
fn watch(
    pid: Pid,
    output: &OwnedFd,
    client: &UnixStream,
    request: &ExecRequest,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let process = pidfd(pid).map_err(Failure::io("pidfd"))?;
    let limit = request.output_limit.min(MAXIMUM_OUTPUT);
    let mut collected = Vec::new();
    let mut buffer = vec![0; 1 << 14];
    let mut open = true;
    let mut timed_out = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let nothing = PollFlags::empty();
        let mut sources = [
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
            PollFd::new(client.as_fd(), nothing),
            PollFd::new(
                if open { output.as_fd() } else { process.as_fd() },
                if open { PollFlags::POLLIN } else { nothing },
            ),
        ];
        let ready = poll(&mut sources, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let happened =
            |index: usize| sources.get(index).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        if open && happened(2) {
            open = take(output, &mut buffer, &mut collected, limit);
            continue;
        }
        if happened(0) {
            break;
        }
        if happened(1) || ready == Ok(0) && left.is_zero() {
            timed_out = true;
            // The command is a session of its own: this reaches what it started as well.
            let _ = nix::sys::signal::killpg(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            break;
        }
    }
    let code = match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        _ => 128 + libc::SIGKILL,
    };
    // What is left in the pipe belongs to the answer; a background process that holds it open does not.
    while open
        && collected.len() < limit
        && poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap_or(0) > 0
    {
        open = take(output, &mut buffer, &mut collected, limit);
    }
    let output = base64::engine::general_purpose::STANDARD.encode(&collected);
    Ok(Answer::Executed { code, output, timed_out })
}

/// Reads one chunk and keeps what fits; false at the end.
fn take(output: &OwnedFd, buffer: &mut [u8], collected: &mut Vec<u8>, limit: usize) -> bool {
    match nix::unistd::read(output, buffer) {
        Ok(0) => false,
        Ok(count) => {
            let room = limit.saturating_sub(collected.len()).min(count);
            collected.extend_from_slice(buffer.get(..room).unwrap_or_default());
            true
        }
        Err(nix::Error::EINTR | nix::Error::EAGAIN) => true,
        Err(_) => false,
    }
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: Pid) -> std::io::Result<OwnedFd> {
    // SAFETY: a plain system call; the result is checked before it is owned.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) })
}
