//! A small init for `initProcessEnabled`: process 1 that forwards signals to the program, reaps what is orphaned, and ends as it ends.
//!
//! It is not a program of its own: the process that would have executed the container's program forks once more and stays, under the same
//! seccomp filters, so nothing has to be put into the image. It is not dumpable, so `/proc/1/exe` leads nowhere.

use std::os::fd::RawFd;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use super::error::Failure;

/// Forks; the child runs `execute`, which returns only if it failed. Returns only if it failed, in either process.
pub(crate) fn run(report: RawFd, execute: impl FnOnce() -> Failure) -> Failure {
    let all = SigSet::all();
    let blocked =
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).and_then(|()| nix::sys::prctl::set_dumpable(false));
    if let Err(error) = blocked {
        return Failure::Create(format!("init: {error}"));
    }
    // SAFETY: this process is single-threaded: it was forked for this container alone.
    match unsafe { fork() } {
        Err(error) => Failure::Create(format!("init: fork: {error}")),
        Ok(ForkResult::Child) => {
            // A group of its own, as a shell's job would have. Neither call can fail in a new child in a way that matters.
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            execute()
        }
        Ok(ForkResult::Parent { child }) => {
            // Only the child's copy of the pipe must decide whether the program was executed.
            // SAFETY: the descriptor is ours and nobody uses it here after this.
            unsafe { libc::close(report) };
            // SAFETY: closing what the library left open (marked close-on-exec, which never comes here); numbers above 2 are in no use.
            unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
            let code = supervise(child, &all);
            // SAFETY: ends this process without running anybody's destructors, as after a fork it must.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Waits for signals and children until the program itself has ended; returns its exit code.
fn supervise(child: Pid, all: &SigSet) -> i32 {
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // A signal to a program that has just ended has no addressee.
            Ok(signal) => drop(kill(child, signal)),
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
}
