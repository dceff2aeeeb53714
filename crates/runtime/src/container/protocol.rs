//! What a container's directory holds and what is said over its socket: the whole interface between a caller and a shim.
//!
//! The two may be of different versions (a caller is upgraded while containers run), so fields are only ever added.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::Failure;

/// The specification, with the environment in it: mode 0600.
pub(crate) const SPEC: &str = "spec.json";
/// Who the shim is ([`Process`]).
pub(crate) const SHIM: &str = "shim.json";
/// What the shim knows of the running container ([`Running`]).
pub(crate) const STATE: &str = "state.json";
/// How it ended ([`Ended`]).
pub(crate) const EXIT: &str = "exit.json";
/// The control socket.
pub(crate) const SOCKET: &str = "ctl.sock";
/// The mount point of the root filesystem.
pub(crate) const ROOTFS: &str = "rootfs";
/// Output that was not taken yet.
pub(crate) const SPOOL: &str = "spool";
/// The container library's own state.
pub(crate) const STATES: &str = "state";

/// A process, safe against the reuse of its number and against a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub pid: i32,
    /// In clock ticks since the boot, from `/proc/<pid>/stat`.
    pub start_time: u64,
    pub boot_id: String,
}

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub process: Process,
    /// When its own program was executed, in nanoseconds since 1970.
    pub started_at: Option<u64>,
}

/// A container that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// 128 + n when signalled; absent when nobody was there to see it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub started_at: Option<u64>,
    pub finished_at: u64,
}

/// The shim's first and only line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Created {
    Ok(Running),
    Err(Failure),
}

/// One line to the socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Start,
    Signal(i32),
    /// Answered when the container ends.
    Wait,
    Exec(ExecRequest),
}

/// A command to run inside.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub args: Vec<String>,
    pub env: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    pub timeout_milliseconds: u64,
    pub output_limit: usize,
}

/// One line back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Started { started_at: u64 },
    Signalled,
    Ended(Ended),
    Executed { code: i32, output: String, timed_out: bool },
    Failed(Failure),
}

/// A line longer than this is nobody's of ours.
pub(crate) const MAXIMUM_LINE: usize = 8 << 20;

/// Reads a file of the directory; absent or damaged is `None`.
pub(crate) fn read<T: for<'a> Deserialize<'a>>(directory: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&std::fs::read(directory.join(name)).ok()?).ok()
}

/// Writes a file of the directory in one step, for root's eyes only.
pub(crate) fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> std::io::Result<()> {
    crate::files::replace(&directory.join(name), &serde_json::to_vec(value)?, 0o600)
}

impl Process {
    /// Describes a process that is alive now.
    pub(crate) fn observe(pid: i32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)?, boot_id: boot_id() })
    }

    /// Whether that very process still runs (an unreaped one does not).
    pub(crate) fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time) && self.boot_id == boot_id()
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of `stat`, counted after the name, which may hold anything. A zombie has no start time here.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end_of_name = stat.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut fields = text.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let me = Process::observe(own).unwrap();
        assert!(me.alive());
        assert!(!Process { start_time: me.start_time + 1, ..me.clone() }.alive());
        assert!(!Process { boot_id: "another".into(), ..me }.alive());
        assert!(Process::observe(i32::MAX).is_none());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        for _ in 0..500 {
            if start_time(pid).is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(Process::observe(pid).is_none());
        child.wait().unwrap();
    }
}
