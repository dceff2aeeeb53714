//! Processes that outlive this one, found again by a later `host`: told apart from others with the same id by the time they
//! started, and by the boot that time counts from.

use std::{fs, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// A process, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In clock ticks since the machine started, as in `/proc/{pid}/stat`.
    pub(crate) started: u64,
    /// The kernel's id of that boot.
    pub(crate) boot_id: String,
}

impl Process {
    /// The process that has this id now; `None` when there is none, or only its exit status is left.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: start_time(pid)?, boot_id: boot_id() })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started) && self.boot_id == boot_id()
    }

    /// Asks it to end with `signal`, and makes it end if it has not after `grace`.
    pub(crate) fn end(&self, signal: Signal, grace: Duration) {
        if !self.is_alive() {
            return;
        }
        let Some(Ok(pidfd)) = Pid::from_raw(self.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
        // The descriptor was opened while the process was the right one, or it is still: check again.
        if !self.is_alive() {
            return;
        }
        let grace = Timespec { tv_sec: i64::try_from(grace.as_secs()).unwrap_or(5), tv_nsec: 0 };
        let ended = || matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&grace)), Ok(1..));
        let _ = pidfd_send_signal(&pidfd, signal);
        if !ended() {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = ended();
        }
    }
}

/// The kernel's id of this boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When a process started; `None` when there is none, or only its exit status is left.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything: the fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(started)
}

#[cfg(test)]
mod tests {
    use std::{process::Command, thread};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        let process = Process::of(own).unwrap();
        assert!(process.is_alive());
        assert!(!Process { started: process.started + 1, ..process.clone() }.is_alive());
        assert!(!Process { boot_id: "another".into(), ..process }.is_alive());
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while start_time(pid).is_some() {
            thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
    }
}
