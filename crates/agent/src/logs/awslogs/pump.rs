//! Delivers one container's lines: reads the spool, batches, calls `PutLogEvents`, and only then lets the spool forget.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use domain::{Clock, Timestamp};
use runtime::LogLine;
use tokio::sync::watch;
use wire::sigv4::Keys;

use super::batch::Batch;
use super::lines::{Assembler, Event};
use super::options::Options;
use crate::aws::{CallError, Client, patiently, role_keys};
use crate::engine::record;
use crate::engine::record::task_id;
use crate::identity::Identity;
use crate::logs::{Lines, Source};
use crate::roles::Roles;

/// Lines read at once; with lines of at most 256 KiB this bounds the memory of a pump to a few megabytes.
const READ_AT_ONCE: usize = 16;
/// How long a batch waits for more lines.
const LINGER: Duration = Duration::from_millis(300);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where one container's lines go, and who signs.
pub struct Delivery {
    /// The platform's API.
    pub client: Client,
    /// Where the execution role's keys are.
    pub roles: Arc<Roles>,
    /// The instance, where its own keys are used.
    pub instance: Option<Arc<Identity>>,
    /// The task.
    pub task_arn: String,
    /// The driver's options.
    pub options: Options,
    /// Region of the group.
    pub region: String,
    /// The stream.
    pub stream: String,
}

/// Why a stream could not be made ready, in the words Amazon uses on Fargate.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The execution role's keys are not here.
    #[error(
        "create stream has been retried 1 times: failed to create Cloudwatch log stream: the task has no execution role credentials"
    )]
    NoKeys,
    /// The call that failed.
    #[error("create stream has been retried 1 times: failed to create Cloudwatch log stream: {0}")]
    Call(CallError),
}

impl Delivery {
    /// The stream of a container.
    pub fn new(options: Options, source: &Source<'_>) -> Self {
        let task_arn = source.task.arn.clone();
        Self {
            client: source.client.clone(),
            roles: source.roles.clone(),
            instance: source.instance.cloned(),
            region: options.region.clone().unwrap_or_else(|| record::region(&task_arn).to_owned()),
            stream: options.stream(source.container, task_id(&task_arn), source.runtime_id),
            options,
            task_arn,
        }
    }

    /// Makes sure the stream is there, as the driver does before the container starts.
    pub async fn open(&self) -> Result<(), OpenError> {
        let keys = match &self.instance {
            Some(_) => self.keys(),
            None => {
                let role = self.roles.execution_in_time(&self.task_arn).await;
                role.map(|role| role_keys(&role, "logs", &self.region))
            }
        };
        let keys = keys.ok_or(OpenError::NoKeys)?;
        patiently(|| self.make_stream(&keys)).await.map_err(OpenError::Call)
    }

    /// The keys there are right now.
    fn keys(&self) -> Option<Keys> {
        match &self.instance {
            Some(instance) => {
                let keys = instance.credentials.keys("logs").ok()?;
                Some(Keys { region: self.region.clone(), ..keys })
            }
            None => self.roles.execution(&self.task_arn).map(|role| role_keys(&role, "logs", &self.region)),
        }
    }

    async fn make_stream(&self, keys: &Keys) -> Result<(), CallError> {
        let made = self.client.create_log_stream(&self.options.group, &self.stream, keys).await;
        let no_group = made.as_ref().err().and_then(CallError::code) == Some("ResourceNotFoundException");
        if !no_group || !self.options.create_group {
            return made;
        }
        self.client.create_log_group(&self.options.group, keys).await?;
        self.client.create_log_stream(&self.options.group, &self.stream, keys).await
    }

    /// Delivers a batch, for as long as it takes. What the service will never take is counted and given up.
    async fn deliver(&self, events: Vec<Event>) {
        let mut pause = Duration::from_millis(100);
        let mut reopened = false;
        loop {
            let Some(keys) = self.keys() else {
                // After a restart of the agent the control plane sends the keys again.
                let mut changes = self.roles.changes();
                let _ = tokio::time::timeout(LONGEST_PAUSE, changes.changed()).await;
                continue;
            };
            let error = match self.client.put_log_events(&self.options.group, &self.stream, &events, &keys).await {
                Ok(0) => return,
                Ok(rejected) => {
                    tracing::warn!(
                        stream = self.stream,
                        rejected,
                        "log events outside the time the group takes were lost"
                    );
                    return;
                }
                Err(error) => error,
            };
            let gone = error.code() == Some("ResourceNotFoundException");
            if gone && !reopened && self.open().await.is_ok() {
                reopened = true;
                continue;
            }
            if !error.is_temporary() && !error.is_expired() {
                tracing::warn!(
                    group = self.options.group,
                    stream = self.stream,
                    lost = events.len(),
                    first = events.first().map(|event| event.time.millis()),
                    %error,
                    "log events were lost"
                );
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Delivers everything a container prints, until it ended and all was delivered; then `done` becomes true. `directory`
/// is the container's own; an event that still waits for lines is kept there.
pub async fn run(mut reader: Lines, delivery: Delivery, directory: PathBuf, done: watch::Sender<bool>) {
    let open_event = directory.join("open-log-event.json");
    let mut assembler = Assembler::new(delivery.options.first_line.clone());
    assembler.resume(read_open(&open_event));
    let (mut batch, mut dropped) = (Batch::default(), 0);
    let mut ended = false;
    while !ended {
        let mut events = Vec::new();
        let deadline = tokio::time::Instant::now() + LINGER;
        // Wait for a first line for as long as it takes, then for more of them a little.
        let mut overflow = None;
        while !ended && overflow.is_none() && !batch.is_large() {
            let next = reader.next(READ_AT_ONCE);
            let waits_for_more = !batch.is_empty() || assembler.open().is_some();
            let lines = if waits_for_more {
                match tokio::time::timeout_at(deadline, next).await {
                    Ok(lines) => lines,
                    Err(_) => break,
                }
            } else {
                next.await
            };
            match lines {
                Ok(Some(lines)) => take(&lines, &mut assembler, &mut events),
                Ok(None) => ended = true,
                Err(error) => {
                    tracing::warn!(stream = delivery.stream, %error, "the spool of a container's lines cannot be read");
                    ended = true;
                }
            }
            if ended {
                assembler.flush(&mut events);
            }
            overflow = fill(&mut batch, &mut events);
        }
        assembler.expire(Clock::system_now(), &mut events);
        let mut rest = overflow.into_iter().chain(events).collect::<Vec<_>>();
        loop {
            let left = fill(&mut batch, &mut rest);
            if !batch.is_empty() {
                delivery.deliver(batch.take()).await;
            }
            match left {
                Some(event) => rest.insert(0, event),
                None => break,
            }
        }
        keep_open(&open_event, assembler.open());
        if let Err(error) = reader.acknowledge() {
            tracing::warn!(stream = delivery.stream, %error, "delivered lines could not be forgotten");
        }
        let now_dropped = reader.dropped_bytes();
        if now_dropped > dropped {
            let bytes = now_dropped - dropped;
            tracing::warn!(
                stream = delivery.stream,
                bytes,
                "a container printed faster than its log buffer takes: lines were dropped"
            );
            dropped = now_dropped;
        }
    }
    done.send_replace(true);
}

/// Moves events into the batch; gives back the one that did not fit.
fn fill(batch: &mut Batch, events: &mut Vec<Event>) -> Option<Event> {
    let mut waiting = std::mem::take(events).into_iter();
    while let Some(event) = waiting.next() {
        if let Err(event) = batch.push(event) {
            events.extend(waiting);
            return Some(event);
        }
    }
    None
}

fn take(lines: &[LogLine], assembler: &mut Assembler, events: &mut Vec<Event>) {
    for line in lines {
        let since_epoch = line.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX));
        assembler.push(&line.bytes, time, events);
    }
}

fn read_open(path: &Path) -> Option<Event> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn keep_open(path: &Path, open: Option<&Event>) {
    let kept = match open {
        Some(event) => {
            serde_json::to_vec(event).map_err(std::io::Error::other).and_then(|text| std::fs::write(path, text))
        }
        None if path.exists() => std::fs::remove_file(path),
        None => Ok(()),
    };
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "an open log event could not be kept");
    }
}
