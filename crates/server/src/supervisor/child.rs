//! One child of the supervisor: started, watched, started again.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{process::Command, sync::watch, time::Instant};

use super::PidFile;

/// How long a child is waited for before it is started again: doubles up to the second figure, and starts over once a
/// child has run for the third.
const BACKOFF: (Duration, Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(5), Duration::from_secs(30));
/// How often an adopted child is looked at: it is not ours to wait for.
const ADOPTED_POLL: Duration = Duration::from_millis(100);
/// How long a child may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Clone, Debug)]
pub struct Child {
    /// `server`, `host` or `agent`.
    pub role: &'static str,
    /// The executable.
    pub executable: PathBuf,
    /// Its arguments, the role first.
    pub arguments: Vec<String>,
    /// Variables of its environment; it has no others but `PATH` and `LONGSHORE_LOG`.
    pub environment: Vec<(String, String)>,
    /// Its working directory: DATA.
    pub directory: PathBuf,
}

impl Child {
    /// Where its pid file is.
    pub fn pid_path(&self) -> PathBuf {
        pid_path(&self.directory, self.role)
    }

    /// Keeps the child running until told to stop, then stops it. A child of an earlier supervisor that runs with the
    /// same arguments is gone on with; one with others is replaced.
    pub async fn supervise(self, mut stop: watch::Receiver<bool>) {
        let mut pause = BACKOFF.0;
        loop {
            let started = Instant::now();
            match self.adopt().await {
                Some(adopted) => {
                    tracing::info!(role = self.role, pid = adopted.pid, "going on with a running process");
                    tokio::select! {
                        () = ended(&adopted) => {}
                        () = told_to(&mut stop) => return terminate(&adopted).await,
                    }
                }
                None => match self.start() {
                    Ok(mut process) => {
                        tokio::select! {
                            status = process.wait() => {
                                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                                tracing::warn!(role = self.role, status, "a process has ended: starting it again");
                            }
                            () = told_to(&mut stop) => {
                                if let Some(running) = PidFile::read(&self.pid_path()) {
                                    running.signal(Signal::SIGTERM);
                                }
                                if tokio::time::timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
                                    // It had its time; start_kill only fails when it has ended by now.
                                    let _ = process.start_kill();
                                    let _ = process.wait().await;
                                }
                                return;
                            }
                        }
                    }
                    Err(error) => tracing::error!(role = self.role, %error, "a process cannot be started"),
                },
            }
            if *stop.borrow() {
                return;
            }
            pause = if started.elapsed() > BACKOFF.2 { BACKOFF.0 } else { pause };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told_to(&mut stop) => return,
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn adopt(&self) -> Option<PidFile> {
        let running = PidFile::read(&self.pid_path()).filter(PidFile::is_running)?;
        if running.arguments == self.identity() {
            return Some(running);
        }
        tracing::info!(role = self.role, pid = running.pid, "replacing a process that runs with other options");
        terminate(&running).await;
        None
    }

    fn start(&self) -> io::Result<tokio::process::Child> {
        let mut command = Command::new(&self.executable);
        command
            .args(&self.arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C in the terminal is for the supervisor, which stops the others in order.
            .process_group(0)
            .env_clear()
            .envs(self.environment.iter().cloned());
        for name in ["PATH", "LONGSHORE_LOG", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let process = command.spawn()?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        PidFile::of(pid, self.identity())?.write(&self.pid_path())?;
        Ok(process)
    }

    /// What a running child must have been started with to be the same: executable's build, arguments, environment.
    fn identity(&self) -> Vec<String> {
        let build = std::fs::metadata(&self.executable)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map_or_else(String::new, |age| age.as_nanos().to_string());
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        [build].into_iter().chain(self.arguments.iter().cloned()).chain(environment).collect()
    }
}

/// Where a role's pid file is.
pub fn pid_path(directory: &Path, role: &str) -> PathBuf {
    directory.join("run").join(format!("{role}.pid"))
}

/// Ends a process that is not our child: SIGTERM, and after a while SIGKILL.
pub async fn terminate(process: &PidFile) {
    process.signal(Signal::SIGTERM);
    if tokio::time::timeout(STOP_TIMEOUT, ended(process)).await.is_err() {
        process.signal(Signal::SIGKILL);
        ended(process).await;
    }
}

/// Returns when the supervisor stops, or is gone.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    // The guard that `wait_for` gives must not live on: it belongs to this thread.
    let _ = stop.wait_for(|stop| *stop).await.map(drop);
}

async fn ended(process: &PidFile) {
    while process.is_running() {
        tokio::time::sleep(ADOPTED_POLL).await;
    }
}
