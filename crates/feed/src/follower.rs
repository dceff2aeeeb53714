//! The consumer's side: one task that keeps the slice up to date, writes it to disk and delivers reports.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    MAX_KEY, Slice,
    cache::{self, Cached},
    message::{FromConsumer, FromPublisher, LineError, VERSION, Writer, flush, lines, receive, send},
};

/// Keys with reports under way.
const MAX_REPORTS: usize = 4096;
/// Reports sent and not confirmed yet. Few enough to fit a socket's buffer, so that neither side ever waits to write
/// while the other does too.
const MAX_UNDER_WAY: usize = 64;
/// How long to wait before connecting again: doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// The slice is written to disk this long after it changed, so that many changes cost one write.
const WRITE_DELAY: Duration = Duration::from_millis(250);

/// What to follow.
#[derive(Clone, Debug)]
pub struct FollowOptions {
    /// The publisher's socket.
    pub socket: PathBuf,
    /// Our name, e.g. `host`.
    pub consumer: String,
    /// Where the last slice is kept; `None` keeps none.
    pub cache: Option<PathBuf>,
}

struct Pending {
    number: u64,
    body: Value,
    sent: bool,
}

#[derive(Default)]
struct Reports {
    next: u64,
    pending: BTreeMap<String, Pending>,
}

struct Shared<T> {
    slice: watch::Sender<Arc<Slice<T>>>,
    acknowledged: watch::Sender<u64>,
    reports: Mutex<Reports>,
    reported: Notify,
}

impl<T> Shared<T> {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a slice until it is dropped.
pub struct Follower<T> {
    shared: Arc<Shared<T>>,
    changes: watch::Receiver<Arc<Slice<T>>>,
    task: JoinHandle<()>,
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Follower<T> {
    /// Starts with the slice on disk, if there is one, and connects in the background. Needs a tokio runtime.
    pub fn start(options: FollowOptions) -> Self {
        let mut epoch = None;
        let mut slice = Slice::default();
        if let Some(path) = &options.cache {
            match cache::load::<T>(path) {
                Ok(Some(cached)) => {
                    epoch = cached.epoch;
                    slice = Slice { revision: cached.revision, known: true, confirmed: false, items: cached.items };
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "the slice on disk cannot be read"),
            }
        }
        let (sender, mut changes) = watch::channel(Arc::new(slice));
        changes.mark_changed();
        let shared = Arc::new(Shared {
            slice: sender,
            acknowledged: watch::Sender::new(0),
            reports: Mutex::default(),
            reported: Notify::new(),
        });
        let task = tokio::spawn(follow(options, shared.clone(), epoch));
        Self { shared, changes, task }
    }

    /// The newest slice.
    pub fn slice(&self) -> Arc<Slice<T>> {
        self.changes.borrow().clone()
    }

    /// Waits until the slice is another one than this follower last gave, and gives it. The first call gives what is
    /// there at once. Safe to cancel.
    pub async fn changed(&mut self) -> Arc<Slice<T>> {
        if self.changes.changed().await.is_err() {
            // The sender lives as long as we do.
            std::future::pending::<()>().await;
        }
        self.changes.borrow_and_update().clone()
    }

    /// Tells the publisher that everything up to this revision has been acted upon.
    pub fn acknowledge(&self, revision: u64) {
        self.shared.acknowledged.send_replace(revision);
    }

    /// Sends a report as soon as possible, and again until it is confirmed. A report with the same key that is still
    /// under way is replaced. Beyond 4096 keys under way a report of a new key is refused: `false`.
    pub fn report(&self, key: &str, body: &impl Serialize) -> bool {
        let Ok(body) = serde_json::to_value(body) else { return false };
        let mut reports = self.shared.reports();
        if key.len() > MAX_KEY || (reports.pending.len() >= MAX_REPORTS && !reports.pending.contains_key(key)) {
            tracing::error!(key, "too many reports are waiting for the server; this one is lost");
            return false;
        }
        reports.next += 1;
        let number = reports.next;
        reports.pending.insert(key.to_owned(), Pending { number, body, sent: false });
        drop(reports);
        self.shared.reported.notify_one();
        true
    }
}

async fn follow<T: Serialize + DeserializeOwned + Send + Sync + 'static>(
    options: FollowOptions,
    shared: Arc<Shared<T>>,
    mut epoch: Option<String>,
) {
    let mut wait = BACKOFF.0;
    let mut announced = false;
    loop {
        match UnixStream::connect(&options.socket).await {
            Ok(stream) => {
                wait = BACKOFF.0;
                announced = false;
                let error = converse(stream, &options, &shared, &mut epoch).await;
                tracing::info!(consumer = options.consumer, %error, "the feed is interrupted");
            }
            Err(error) if !announced => {
                announced = true;
                tracing::info!(socket = %options.socket.display(), %error, "the feed cannot be reached; trying on");
            }
            Err(_) => {}
        }
        sleep(wait).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

/// Runs one connection to its end.
async fn converse<T: Serialize + DeserializeOwned + Send + Sync + 'static>(
    stream: UnixStream,
    options: &FollowOptions,
    shared: &Arc<Shared<T>>,
    epoch: &mut Option<String>,
) -> LineError {
    let (mut reader, mut writer) = lines(stream);
    let revision = shared.slice.borrow().revision;
    let consumer = options.consumer.clone();
    let hello = FromConsumer::Hello { version: VERSION, consumer, epoch: epoch.clone(), revision };
    if let Err(error) = send_now(&mut writer, &hello).await {
        return error;
    }
    for pending in shared.reports().pending.values_mut() {
        pending.sent = false;
    }
    let mut acknowledged = shared.acknowledged.subscribe();
    acknowledged.mark_changed();
    let mut step = None;
    let mut write_at: Option<Instant> = None;
    shared.reported.notify_one();
    loop {
        let outcome = tokio::select! {
            message = receive(&mut reader) => match message {
                Ok(message) => {
                    if take(shared, epoch, &mut step, message) && write_at.is_none() {
                        write_at = Some(Instant::now() + WRITE_DELAY);
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Ok(()) = acknowledged.changed() => {
                let revision = *acknowledged.borrow_and_update();
                send_now(&mut writer, &FromConsumer::Acknowledge { revision }).await
            }
            () = shared.reported.notified() => send_reports(shared, &mut writer).await,
            () = sleep_until(write_at.unwrap_or_else(Instant::now)), if write_at.is_some() => {
                write_at = None;
                write(options, shared, epoch).await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            if write_at.is_some() {
                write(options, shared, epoch).await;
            }
            return error;
        }
    }
}

/// A step that has begun.
struct Step<T> {
    epoch: String,
    items: BTreeMap<String, Arc<T>>,
}

/// Takes one message in. Returns whether the slice is another one now.
fn take<T: DeserializeOwned>(
    shared: &Shared<T>,
    epoch: &mut Option<String>,
    step: &mut Option<Step<T>>,
    message: FromPublisher,
) -> bool {
    match message {
        FromPublisher::Begin { epoch, snapshot } => {
            let items = if snapshot { BTreeMap::new() } else { shared.slice.borrow().items.clone() };
            *step = Some(Step { epoch, items });
        }
        FromPublisher::Put { key, value } => {
            if let Some(step) = step {
                match serde_json::from_value(value) {
                    Ok(item) => _ = step.items.insert(key, Arc::new(item)),
                    // A newer server may know items that we do not; the others are still worth having.
                    Err(error) => tracing::error!(key, %error, "an item of the slice is not understood"),
                }
            }
        }
        FromPublisher::Delete { key } => {
            if let Some(step) = step {
                step.items.remove(&key);
            }
        }
        FromPublisher::End { revision } => {
            if let Some(done) = step.take() {
                *epoch = Some(done.epoch);
                shared.slice.send_replace(Arc::new(Slice {
                    revision,
                    known: true,
                    confirmed: true,
                    items: done.items,
                }));
                return true;
            }
        }
        FromPublisher::Confirm { number } => {
            shared.reports().pending.retain(|_, pending| pending.number != number);
            shared.reported.notify_one();
        }
    }
    false
}

async fn send_now(writer: &mut Writer, message: &FromConsumer) -> Result<(), LineError> {
    send(writer, message).await?;
    flush(writer).await
}

async fn send_reports<T>(shared: &Shared<T>, writer: &mut Writer) -> Result<(), LineError> {
    let unsent: Vec<FromConsumer> = {
        let mut reports = shared.reports();
        let room = MAX_UNDER_WAY.saturating_sub(reports.pending.values().filter(|pending| pending.sent).count());
        let unsent = reports.pending.iter_mut().filter(|(_, pending)| !pending.sent).take(room);
        unsent
            .map(|(key, pending)| {
                pending.sent = true;
                FromConsumer::Report { number: pending.number, key: key.clone(), body: pending.body.clone() }
            })
            .collect()
    };
    for report in &unsent {
        send(writer, report).await?;
    }
    flush(writer).await
}

async fn write<T: Serialize + Send + Sync + 'static>(
    options: &FollowOptions,
    shared: &Arc<Shared<T>>,
    epoch: &Option<String>,
) {
    let Some(path) = options.cache.clone() else { return };
    let slice = shared.slice.borrow().clone();
    let cached = Cached { epoch: epoch.clone(), revision: slice.revision, items: slice.items.clone() };
    let written = tokio::task::spawn_blocking(move || cache::save(&path, &cached)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "the slice cannot be written to disk");
    }
}
