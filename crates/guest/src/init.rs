//! The first process of an instance. It starts [`crate::boot`], takes in every process whose parent has ended, and ends
//! the instance in order when it is told to (SIGTERM, as a power button) or when nothing is left to do.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Between the polite signal to all that runs and the last one.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether they have ended meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Runs as process 1 and gives the exit code of the instance: 0 for a shutdown in order. Must be called while the process
/// has a single thread.
pub fn init() -> i32 {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR, Signal::SIGCHLD].into_iter().collect();
    if let Err(error) = signals.thread_block() {
        println!("init: signals cannot be taken: {error}");
        return 1;
    }
    let boot = match start_boot() {
        Ok(pid) => pid,
        Err(error) => {
            println!("init: nothing can be started: {error}");
            return 1;
        }
    };
    let mut code = loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(boot) {
                    break code;
                }
            }
            Ok(_) => {
                println!("init: shutting down");
                // It ends what it started in order; everything else has its turn below.
                let _ = kill(boot, Signal::SIGTERM);
            }
            Err(error) => println!("init: {error}"),
        }
    };
    if let Err(error) = end_all() {
        println!("init: {error}");
        code = 1;
    }
    nix::unistd::sync();
    println!("init: power off");
    code
}

fn start_boot() -> std::io::Result<Pid> {
    // It inherits which signals are blocked, and lets them through again by itself.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("longshore").arg("guest-boot").stdin(Stdio::null());
    let child = command.spawn()?;
    i32::try_from(child.id()).map(Pid::from_raw).map_err(std::io::Error::other)
}

/// Takes in all that has ended; the exit code once that was the boot process.
fn reap(boot: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == boot => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == boot => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}

/// Ends every other process of the instance.
fn end_all() -> nix::Result<()> {
    let everybody = Pid::from_raw(-1);
    for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, GRACE)] {
        match kill(everybody, signal) {
            Err(Errno::ESRCH) => return Ok(()),
            other => other?,
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(()),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(LOOK),
                _ => {}
            }
        }
    }
    Ok(())
}
