//! The ECS agent of an instance, and what ecs-init does for it on Amazon's image: its defaults, and that it runs.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::PATH;
use crate::output::Output;

/// What the image itself says; `/etc/ecs/ecs.config` goes before it.
const DEFAULTS: &str = "/var/lib/ecs/ecs.config";
/// Where the agent keeps its state.
const DATA: &str = "/var/lib/ecs/data";
const LOG: &str = "/var/log/ecs/ecs-agent.log";
/// Between two starts of an agent that ends.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// An agent that ran for so long is started again at once.
const STEADY: Duration = Duration::from_secs(60);
/// How long an agent that was asked to end may take.
const GRACE: Duration = Duration::from_secs(3);

/// What ecs-init hands to Amazon's agent, as far as ours can do it: no EFS, and of the log drivers awslogs.
const AS_ECS_INIT: &str = "ECS_ENABLE_TASK_IAM_ROLE=true
ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST=true
ECS_ENABLE_TASK_ENI=true
ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE=true
ECS_AVAILABLE_LOGGING_DRIVERS=[\"awslogs\",\"none\"]
";

/// Writes what the image says to the agent: where the API is, and what is switched on.
pub(crate) fn write_defaults(endpoint: &str) -> io::Result<()> {
    for directory in ["/etc/ecs", "/var/lib/ecs", DATA, "/var/log/ecs"] {
        fs::create_dir_all(directory)?;
    }
    fs::write(DEFAULTS, format!("ECS_BACKEND_HOST={endpoint}\nECS_DATADIR={DATA}\n{AS_ECS_INIT}"))
}

/// Keeps the agent running for ever.
pub(crate) async fn run(console: &Output) -> io::Result<std::convert::Infallible> {
    let log = Output::open(Path::new(LOG), false)?;
    let mut pause = PAUSE.0;
    loop {
        let since = Instant::now();
        let how = match start(&log) {
            Ok(mut agent) => agent.0.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
            Err(error) => error.to_string(),
        };
        // The reason is the agent's last words; the whole story is in its log.
        console.line(&format!("ecs: the agent ended ({how}): {}", log.last_line()));
        pause = if since.elapsed() > STEADY { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::time::sleep(pause).await;
    }
}

/// A running agent, which is asked to end when this is dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(pid) = self.0.id().and_then(|id| i32::try_from(id).ok()) else { return };
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn start(log: &Output) -> io::Result<Agent> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["agent", "--ec2"]).env_clear().env("PATH", PATH).env("HOME", "/root").current_dir("/");
    for name in ["LONGSHORE_LOG", "RUST_LOG", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let log = log.clone();
        tokio::spawn(async move { log.copy(stdout).await });
    }
    if let Some(stderr) = child.stderr.take() {
        let log = log.clone();
        tokio::spawn(async move { log.copy(stderr).await });
    }
    Ok(Agent(child))
}
