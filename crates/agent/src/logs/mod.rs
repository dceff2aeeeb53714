//! Log drivers, one module each. What the rest of the agent knows of a driver is what this file gives: a container's
//! [`LogDriver`] says how its lines are spooled and what metadata shows of it, and its [`Sink`] takes them.

pub mod awslogs;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use domain::agent_protocol::docker::LogConfig;
use domain::agent_protocol::payload::{Container, Task};
use runtime::{LogLimits, LogLine, LogReader, WhenFull};
use tokio::sync::watch;

use crate::aws::Client;
use crate::docker::logs::Follower;
use crate::engine::record::{docker_host_config, task_id};
use crate::identity::Identity;
use crate::roles::Roles;

/// The capabilities of a host with these drivers, as Amazon names them.
pub const CAPABILITIES: &[&str] =
    &["com.amazonaws.ecs.capability.logging-driver.awslogs", "ecs.capability.execution-role-awslogs"];

/// What `logsAuthStrategy` says where the execution role's keys are meant.
pub const EXECUTION_ROLE: &str = "ExecutionRole";
/// Spool of a container nobody reads, in bytes: the runtime's least.
const UNREAD: u64 = 256 << 10;

/// A container's log driver, its options read.
#[derive(Debug, Clone)]
pub enum LogDriver {
    /// Nobody keeps what it prints.
    None,
    /// CloudWatch Logs.
    Awslogs(awslogs::options::Options),
}

/// Why a container's log configuration is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DriverError {
    /// A driver that is not here.
    #[error("the log driver {0} is not supported by Longshore")]
    Unknown(String),
    /// An option of `awslogs`.
    #[error("logConfiguration: {0}")]
    Awslogs(#[from] awslogs::options::OptionError),
}

/// Whose lines a sink takes, and who calls Amazon's APIs for it.
pub struct Source<'a> {
    /// The platform's API.
    pub client: &'a Client,
    /// Where the execution role's keys are.
    pub roles: &'a Arc<Roles>,
    /// The instance, if its own keys are used instead.
    pub instance: Option<&'a Arc<Identity>>,
    /// The task.
    pub task: &'a Task,
    /// The container's name.
    pub container: &'a str,
    /// Its identifier in the runtime; empty before there is one.
    pub runtime_id: &'a str,
}

/// Where one container's lines go.
pub enum Sink {
    /// A log stream of CloudWatch Logs.
    Awslogs(awslogs::pump::Delivery),
}

/// A container's lines, until they were delivered.
pub enum Lines {
    /// Kept by our own runtime.
    Runtime(LogReader),
    /// Kept by Docker Engine.
    Docker(Follower),
}

impl Lines {
    /// The next lines, about `max` of them. Waits until there is one; `None` when the container has ended and everything
    /// was handed out. A cancelled call loses nothing.
    pub async fn next(&mut self, max: usize) -> io::Result<Option<Vec<LogLine>>> {
        match self {
            Self::Runtime(reader) => reader.next(max).await,
            Self::Docker(follower) => Ok(follower.next(max).await),
        }
    }

    /// Forgets everything handed out so far.
    pub fn acknowledge(&mut self) -> io::Result<()> {
        match self {
            Self::Runtime(reader) => reader.acknowledge(),
            Self::Docker(follower) => follower.acknowledge(),
        }
    }

    /// How many bytes are known to have been dropped. Docker does not count what it drops.
    pub fn dropped_bytes(&self) -> u64 {
        match self {
            Self::Runtime(reader) => reader.dropped_bytes(),
            Self::Docker(_) => 0,
        }
    }
}

impl LogDriver {
    /// The driver of a payload's container.
    pub fn of(container: &Container) -> Result<Self, DriverError> {
        docker_host_config(container).log_config.as_ref().map_or(Ok(Self::None), Self::new)
    }

    /// The driver of a log configuration.
    pub fn new(config: &LogConfig) -> Result<Self, DriverError> {
        match config.kind.as_str() {
            "" | "none" => Ok(Self::None),
            "awslogs" => Ok(Self::Awslogs(awslogs::options::Options::new(&config.config)?)),
            other => Err(DriverError::Unknown(other.to_owned())),
        }
    }

    /// What the runtime keeps of the lines until the sink has taken them.
    pub fn spool(&self) -> LogLimits {
        match self {
            Self::None => LogLimits { limit_bytes: UNREAD, when_full: WhenFull::Drop },
            Self::Awslogs(options) => options.spool(),
        }
    }

    /// The options of `config` as task metadata shows them for a container.
    pub fn shown(
        &self,
        config: &LogConfig,
        task_arn: &str,
        container: &str,
        runtime_id: &str,
    ) -> BTreeMap<String, String> {
        match self {
            Self::None => config.config.clone(),
            Self::Awslogs(options) => {
                options.shown(&config.config, &options.stream(container, task_id(task_arn), runtime_id))
            }
        }
    }

    /// Where the lines of a container go; `None` if nobody keeps them.
    pub fn sink(self, source: &Source<'_>) -> Option<Sink> {
        match self {
            Self::None => None,
            Self::Awslogs(options) => Some(Sink::Awslogs(awslogs::pump::Delivery::new(options, source))),
        }
    }
}

impl Sink {
    /// Makes ready whatever the lines go to, as Fargate does before a container is made. The error is in Amazon's words.
    pub async fn open(&self) -> Result<(), String> {
        match self {
            Self::Awslogs(delivery) => delivery.open().await.map_err(|error| error.to_string()),
        }
    }

    /// Delivers everything a container prints, until it ended and all was delivered; then `done` becomes true.
    /// `directory` is the container's own.
    pub async fn run(self, lines: Lines, directory: PathBuf, done: watch::Sender<bool>) {
        match self {
            Self::Awslogs(delivery) => awslogs::pump::run(lines, delivery, directory, done).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_not_here_is_refused_by_name() {
        let config = |kind: &str| LogConfig { kind: kind.to_owned(), ..LogConfig::default() };
        assert!(matches!(LogDriver::new(&config("none")), Ok(LogDriver::None)));
        assert!(matches!(LogDriver::new(&config("awslogs")), Err(DriverError::Awslogs(_))));
        assert_eq!(
            LogDriver::new(&config("splunk")).unwrap_err().to_string(),
            "the log driver splunk is not supported by Longshore"
        );
    }
}
