//! Containers through the runtime: start, find again, stop, check, and the delivery of what they print.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use domain::Timestamp;
use domain::agent_protocol::payload::Task;
use nix::sys::signal::Signal;
use runtime::{Container, ExecSpec, Exit, PullRequest, State};
use tokio::sync::watch;

use super::{Host, lock, reasons, spec, storage};
use crate::engine::driver::{Found, StartOrder, Started};
use crate::engine::health::{Check, Outcome};
use crate::engine::machine::{Ended, Failure};
use crate::logs::Lines;
use crate::network::Joined;

/// What a health check prints is kept up to this.
const CHECK_OUTPUT: usize = 4096;
/// How long the kernel may take to kill.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Host {
    pub(super) async fn start_container(&self, order: StartOrder) -> Result<Started, Failure> {
        let image = self.image(&order.task, order.index).await?;
        let joined = self.join(&order.task, order.index).await?;
        let started = self.start_joined(&order, &image, &joined).await;
        match started {
            Ok(at) => Ok(Started { at, network: joined.network, named: None }),
            Err(failure) => {
                self.leave(&order.task, order.index).await;
                Err(failure)
            }
        }
    }

    async fn start_joined(
        &self,
        order: &StartOrder,
        image: &runtime::Image,
        joined: &Joined,
    ) -> Result<Timestamp, Failure> {
        let spec = spec::build(&self.settings, order, image, joined)?;
        let id = order.runtime_id.as_str();
        let endpoint = self.endpoint_for(&order.task, joined);
        let (container, endpoint) = tokio::join!(self.runtime.create(id, spec), endpoint);
        let container = container.map_err(|error| reasons::start(&error))?;
        self.follow(&order.task, order.index, &container);
        let started = match endpoint {
            Ok(()) => container.start().await.map_err(|error| reasons::start(&error)),
            Err(failure) => Err(failure),
        };
        if started.is_err()
            && let Err(error) = container.delete().await
        {
            tracing::warn!(container = id, %error, "a container that did not start could not be removed");
        }
        storage::make_spare(&self.settings);
        started.map(timestamp)
    }

    /// The image of a container, which was pulled before; after a restart of the agent it is looked up.
    async fn image(&self, task: &Task, index: usize) -> Result<Arc<runtime::Image>, Failure> {
        if let Some(image) = lock(&self.pulled).get(&(task.arn.clone(), index)) {
            return Ok(image.clone());
        }
        let image = task.containers.get(index).map(|container| container.image.clone()).unwrap_or_default();
        let reference = image.parse().map_err(|error| reasons::pull(&error, &image, "", 1))?;
        // The one that was pulled for it, though its tag may have moved on.
        let record = self.view(&task.arn);
        let digest = record.and_then(|record| record.containers.get(index)?.manifest_digest.as_ref()?.parse().ok());
        if let Some(image) = digest.and_then(|digest| self.images.exactly(&reference, &digest)) {
            return Ok(Arc::new(image));
        }
        let mut request = PullRequest::new(reference);
        request.missing_only = true;
        let found = self.images.pull(request, Arc::new(|_| {})).await;
        found.map(Arc::new).map_err(|error| reasons::pull(&error, &image, "", 1))
    }

    pub(super) async fn find_container(&self, task: Arc<Task>, index: usize, runtime_id: &str) -> Found {
        let Some(container) = self.container(runtime_id) else { return Found::Nothing };
        match container.state() {
            State::Created => {
                if let Err(error) = container.delete().await {
                    tracing::warn!(container = runtime_id, %error, "a half-made container could not be removed");
                }
                Found::Nothing
            }
            State::Running { started_at } => {
                self.follow(&task, index, &container);
                let network = self.network_of(&task, index);
                Found::Running(Started { at: timestamp(started_at), network, named: None })
            }
            State::Exited(exit) => {
                self.follow(&task, index, &container);
                Found::Ended(exit.started_at.map(timestamp), ended(&exit))
            }
        }
    }

    /// Delivers what the container prints, if it has a log driver.
    fn follow(&self, task: &Task, index: usize, container: &Container) {
        let Some(definition) = task.containers.get(index) else { return };
        let Some(sink) = self.sink(task, definition, container.id()) else { return };
        let (sender, receiver) = watch::channel(false);
        if lock(&self.drains).insert(container.id().to_owned(), receiver).is_some() {
            tracing::error!(container = container.id(), "two readers of a container's lines");
        }
        tokio::spawn(sink.run(Lines::Runtime(container.logs()), container.directory().to_owned(), sender));
    }

    pub(super) async fn stop_container(&self, runtime_id: &str, signal: Option<&str>, grace: Duration) {
        let Some(container) = self.container(runtime_id) else { return };
        let signal = signal.and_then(parse_signal).unwrap_or(Signal::SIGTERM as i32);
        if container.signal(signal).await.is_err() {
            // It ended by itself.
            return;
        }
        if tokio::time::timeout(grace, container.wait()).await.is_ok() {
            return;
        }
        tracing::info!(container = runtime_id, "still running after its stop timeout: killing it");
        if let Err(error) = container.signal(Signal::SIGKILL as i32).await {
            tracing::info!(container = runtime_id, %error, "not killed");
        }
        let _ = tokio::time::timeout(KILL_PATIENCE, container.wait()).await;
    }

    pub(super) async fn check_container(&self, runtime_id: &str, check: &Check) -> Outcome {
        let Some(container) = self.container(runtime_id) else {
            return Outcome { exit_code: None, output: "the container is gone".to_owned() };
        };
        let exec = ExecSpec {
            args: check.arguments.clone(),
            env: None,
            cwd: None,
            user: None,
            timeout: check.timeout,
            output_limit: CHECK_OUTPUT,
        };
        match container.exec(exec).await {
            Ok(outcome) if outcome.timed_out => Outcome {
                exit_code: None,
                output: format!("Health check exceeded timeout ({} s)", check.timeout.as_secs()),
            },
            Ok(outcome) => {
                Outcome { exit_code: Some(outcome.code), output: String::from_utf8_lossy(&outcome.output).into_owned() }
            }
            Err(error) => Outcome { exit_code: None, output: error.to_string() },
        }
    }
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn parse_signal(text: &str) -> Option<i32> {
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    if let Some(offset) = name.strip_prefix("SIGRTMIN") {
        let offset = offset.trim_start_matches('+');
        let offset = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
        // The C library keeps the first two for itself, so what programs call SIGRTMIN is 34.
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    Signal::from_str(&name).ok().map(|signal| signal as i32)
}

/// How a container's process ended, in the engine's terms.
pub(super) fn ended(exit: &Exit) -> Ended {
    Ended { exit_code: exit.code, out_of_memory: exit.oom_killed, at: timestamp(exit.finished_at) }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_as_images_write_them() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("SIGNOTHING", None),
            ("0", None),
            ("99", None),
        ] {
            assert_eq!(parse_signal(text), number, "{text}");
        }
    }
}
