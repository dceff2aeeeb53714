//! Knowing a process again: a pid alone is not enough, since pids are used again; a pid, its start time and the boot that
//! both count from are. A machine that starts the same way after a power cut may well reach the same two numbers.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// A process as its pid file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidFile {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/{pid}/stat`).
    pub start_time: u64,
    /// The kernel's id of that boot.
    pub boot_id: String,
    /// What it was started with: another `up` with other options does not go on with it.
    pub arguments: Vec<String>,
}

impl PidFile {
    /// The file for a process that runs now.
    pub fn of(pid: i32, arguments: Vec<String>) -> io::Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()?, arguments })
    }

    /// Reads a pid file; `None` when there is none or it is damaged.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes the pid file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        // Others may write to this directory: what they have put in the way is neither followed nor written to.
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        fs::rename(temporary, path)
    }

    /// Whether the process still runs.
    pub fn is_running(&self) -> bool {
        start_time(self.pid).is_ok_and(|start| start == self.start_time) && boot_id().is_ok_and(|id| id == self.boot_id)
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may end between the two lines: then there is nobody to tell.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The start time of a running process. A zombie does not count as running.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the command in parentheses and may hold anything, so fields are counted from its end.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    match (fields.first(), fields.get(19).and_then(|field| field.parse().ok())) {
        (Some(&"Z" | &"X"), _) | (_, None) => Err(io::Error::from(io::ErrorKind::NotFound)),
        (_, Some(start)) => Ok(start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_start_time_and_boot() {
        let own = PidFile::of(i32::try_from(std::process::id()).unwrap(), vec![]).unwrap();
        assert!(own.is_running());
        assert!(!PidFile { start_time: own.start_time + 1, ..own.clone() }.is_running());
        assert!(!PidFile { boot_id: "another".into(), ..own }.is_running());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("agent.pid"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, path.with_extension("new")).unwrap();
        let own = PidFile::of(i32::try_from(std::process::id()).unwrap(), vec![]).unwrap();
        own.write(&path).unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
        assert_eq!(PidFile::read(&path), Some(own));
    }

    #[test]
    fn a_zombie_is_not_running() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let file = PidFile { pid, start_time: 0, boot_id: boot_id().unwrap(), arguments: vec![] };
        while fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().split(") ").nth(1).map(|s| s.starts_with('Z'))
            != Some(true)
        {
            std::thread::yield_now();
        }
        assert!(!file.is_running());
        child.wait().unwrap();
    }
}
