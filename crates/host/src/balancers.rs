//! Load balancers' processes: each runs in the network namespace of its load balancer's first interface, without
//! privileges, in a process group of its own, and outlives this process. A file per process says which it is, so that
//! the next `host` adopts it instead of starting another.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use domain::balancing::network::is_network;
use domain::network::host::{HostReport, LoadBalancerItem, LoadBalancerState};
use nix::sys::prctl;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, getpriority_process, pidfd_send_signal, setpriority_process},
};
use serde::{Deserialize, Serialize};

use crate::{Config, interface, netns, process::Process};

/// Pauses before a process that ended is started again: doubling from the first to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A process that ran for so long begins with the shortest pause again.
const STEADY: Duration = Duration::from_secs(30);
/// Added to the niceness: when everything competes for the processors, those that wait for an answer come before those
/// that make it. Much more would have the load balancer woken for every single request.
const PRECEDENCE: i32 = -2;
/// Between the polite signal and the last one.
const GRACE: Duration = Duration::from_secs(5);

/// What the file of a process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    arn: String,
    #[serde(flatten)]
    process: Process,
}

/// A process that runs, and what is needed to watch and end it.
struct Running {
    process: Process,
    /// Only for our own children, which must be waited for.
    child: Option<Child>,
    since: Instant,
}

#[derive(Default)]
struct Balancer {
    running: Option<Running>,
    pause: Duration,
    not_before: Option<Instant>,
    reason: Option<String>,
    reported: Option<HostReport>,
    changed: bool,
}

/// All load balancers of this machine.
pub(crate) struct Balancers {
    directory: PathBuf,
    balancers: BTreeMap<String, Balancer>,
}

impl Balancers {
    /// Finds the processes that an earlier `host` has left.
    pub(crate) fn adopt(data_dir: &Path) -> io::Result<Self> {
        let directory = directory(data_dir);
        fs::create_dir_all(&directory)?;
        let mut balancers = BTreeMap::new();
        for (path, Recorded { arn, process }) in recorded(&directory) {
            if process.is_alive() {
                let running = Some(Running { process, child: None, since: Instant::now() });
                balancers.insert(arn, Balancer { running, ..Balancer::default() });
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { directory, balancers })
    }

    /// The process of a load balancer, if it runs.
    pub(crate) fn process_of(&self, arn: &str) -> Option<i32> {
        Some(self.balancers.get(arn)?.running.as_ref()?.process.pid)
    }

    /// Whether there is something new to report on a load balancer; asked once, it is no longer new.
    pub(crate) fn take_changed(&mut self, arn: &str) -> bool {
        self.balancers.get_mut(arn).is_some_and(|balancer| std::mem::take(&mut balancer.changed))
    }

    /// Makes a process run for each of these load balancers whose interface is ready, and none for others unless the server
    /// has not `confirmed` yet that there are no others. Returns what has changed.
    pub(crate) fn reconcile(
        &mut self,
        wanted: &BTreeMap<String, LoadBalancerItem>,
        confirmed: bool,
        config: &Config,
    ) -> Vec<(String, HostReport)> {
        let gone: Vec<String> =
            self.balancers.keys().filter(|arn| confirmed && !wanted.contains_key(*arn)).cloned().collect();
        for arn in gone {
            if let Some(running) = self.balancers.remove(&arn).and_then(|balancer| balancer.running) {
                let file = file(&self.directory, &arn);
                // Ending takes up to its grace; others must not wait for it.
                thread::spawn(move || {
                    end(running);
                    let _ = fs::remove_file(file);
                });
            }
        }
        let mut changed = Vec::new();
        for (arn, item) in wanted {
            let balancer = self.balancers.entry(arn.clone()).or_default();
            balancer.observe();
            balancer.start_if_due(item, config, &self.directory);
            let report = balancer.report(arn);
            if balancer.reported.as_ref() != Some(&report) {
                balancer.reported = Some(report.clone());
                balancer.changed = true;
                changed.push((format!("lb/{arn}"), report));
            }
        }
        changed
    }
}

impl Balancer {
    fn observe(&mut self) {
        let Some(running) = &mut self.running else { return };
        let ended = match &mut running.child {
            Some(child) => match child.try_wait() {
                Ok(Some(status)) => Some(status.to_string()),
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            },
            None => (!running.process.is_alive()).then(|| "it ended".to_owned()),
        };
        if let Some(how) = ended {
            let (pid, steady) = (running.process.pid, running.since.elapsed() > STEADY);
            self.pause = if steady { BACKOFF.0 } else { self.pause };
            self.fail(format!("the process {pid} ended: {how}"));
        }
    }

    fn fail(&mut self, reason: String) {
        tracing::warn!(reason, "a load balancer's process does not run");
        self.running = None;
        self.reason = Some(reason);
        self.pause = self.pause.clamp(BACKOFF.0, BACKOFF.1);
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(BACKOFF.1);
    }

    fn start_if_due(&mut self, item: &LoadBalancerItem, config: &Config, directory: &Path) {
        if self.running.is_some() || self.not_before.is_some_and(|at| at > Instant::now()) {
            return;
        }
        let Some(home) = item.interface_ids.first() else {
            self.reason = Some("it has no interface".to_owned());
            return;
        };
        let namespace = interface::path(&config.platform, home);
        if !netns::is_ready(&namespace) {
            self.reason = Some(format!("its interface {home} is not ready"));
            return;
        }
        match start(&item.arn, &namespace, config, directory) {
            Ok(running) => {
                self.reason = None;
                self.running = Some(running);
            }
            Err(error) => self.fail(format!("it cannot be started: {error}")),
        }
    }

    fn report(&self, arn: &str) -> HostReport {
        let pid = self.running.as_ref().map(|running| running.process.pid);
        HostReport::LoadBalancer {
            arn: arn.to_owned(),
            state: if pid.is_some() { LoadBalancerState::Running } else { LoadBalancerState::Restarting },
            pid,
            reason: self.reason.clone(),
            refused_listeners: Vec::new(),
        }
    }
}

fn start(arn: &str, namespace: &Path, config: &Config, directory: &Path) -> io::Result<Running> {
    if let Some(process) = unrecorded(arn, namespace) {
        record(arn, &process, directory)?;
        return Ok(Running { process, child: None, since: Instant::now() });
    }
    let child = netns::within(namespace, || {
        // This thread's flag, inherited by what it starts: nothing in there can ever gain privileges.
        prctl::set_no_new_privs()?;
        // Likewise inherited. Where it may not be raised, as in a container without CAP_SYS_NICE, it stays as it is.
        let _ = getpriority_process(None).and_then(|own| setpriority_process(None, own + PRECEDENCE));
        // Once it is another user, it may not be able to look up the executable or the directory by their paths: they can
        // lie below directories that only root may enter. Our own executable and our own directory need no looking up.
        let own_program = env::current_exe().is_ok_and(|own| own == config.executable);
        let program = if own_program { Path::new("/proc/self/exe") } else { &config.executable };
        let mut command = Command::new(program);
        command.arg0(&config.executable).args(["balancer", "--load-balancer", arn]).env_clear();
        if env::current_dir().ok().as_ref() != Some(&config.data_dir) {
            command.current_dir(&config.data_dir);
        }
        for name in ["LONGSHORE_LOG", "RUST_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if is_network(arn) {
            // It changes its user itself, to keep the one capability that connecting from a client's address needs.
            command.args(["--user", &config.user.0.to_string()]);
        } else {
            // Changing the user drops all capabilities and all further groups.
            command.uid(config.user.0).gid(config.user.1);
        }
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn()
    })?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let process = Process::of(pid).ok_or_else(|| io::Error::other("it ended at once"))?;
    record(arn, &process, directory)?;
    Ok(Running { process, child: Some(child), since: Instant::now() })
}

fn record(arn: &str, process: &Process, directory: &Path) -> io::Result<()> {
    let temporary = directory.join("new.tmp");
    let recorded = Recorded { arn: arn.to_owned(), process: process.clone() };
    fs::write(&temporary, serde_json::to_vec(&recorded)?)?;
    fs::rename(&temporary, file(directory, arn))
}

/// A process of this load balancer that runs in its namespace and is in no file: an earlier `host` was killed between
/// starting and recording it.
fn unrecorded(arn: &str, namespace: &Path) -> Option<Process> {
    let home = fs::metadata(namespace).ok()?.ino();
    let arguments = format!("\0balancer\0--load-balancer\0{arn}\0");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let is_it = String::from_utf8_lossy(&command).contains(&arguments)
            && fs::metadata(entry.path().join("ns/net")).is_ok_and(|own| own.ino() == home);
        is_it.then(|| Process::of(pid)).flatten()
    })
}

/// Asks a process to end, then makes it.
fn end(mut running: Running) {
    if let Some(pidfd) = running.process.open() {
        let _ = pidfd_send_signal(&pidfd, Signal::TERM);
        let grace = Timespec { tv_sec: i64::try_from(GRACE.as_secs()).unwrap_or(5), tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&grace));
        if !matches!(ended, Ok(1..)) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&grace));
        }
    }
    if let Some(child) = &mut running.child {
        let _ = child.wait();
    }
}

/// Ends all processes that are recorded under a data directory, and says which.
pub(crate) fn stop_all(data_dir: &Path) -> Vec<String> {
    let mut removed = Vec::new();
    let ending: Vec<_> = recorded(&directory(data_dir))
        .into_iter()
        .map(|(path, Recorded { arn, process })| {
            if process.is_alive() {
                removed.push(format!("load balancer process {} of {arn}", process.pid));
            }
            thread::spawn(move || {
                end(Running { process, child: None, since: Instant::now() });
                let _ = fs::remove_file(path);
            })
        })
        .collect();
    for thread in ending {
        let _ = thread.join();
    }
    removed
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("host/balancers")
}

fn file(directory: &Path, arn: &str) -> PathBuf {
    // ARNs have slashes; a hash has none. Two of them never meet: FNV-1a over texts that differ in a random id.
    let hash = arn
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    directory.join(format!("{hash:016x}.json"))
}

fn recorded(directory: &Path) -> Vec<(PathBuf, Recorded)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| {
            let process = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some((path, process))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ignores_the_signal_is_ended_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh").args(["-c", "trap '' TERM; while :; do sleep 0.1; done"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let place = super::directory(directory.path());
        fs::create_dir_all(&place).unwrap();
        record("arn:x", &Process::of(pid).unwrap(), &place).unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(stop_all(directory.path()).len(), 1);
        assert!(!child.wait().unwrap().success());
        assert!(stop_all(directory.path()).is_empty());
    }
}
