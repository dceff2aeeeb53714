//! The server's side: the newest slice of every consumer, and a task for each connection.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    MAX_KEY,
    message::{FromConsumer, FromPublisher, LineError, VERSION, flush, lines, receive, send},
};

/// Deletions remembered per consumer; who is further behind gets a snapshot.
const MAX_TOMBSTONES: usize = 4096;
/// Connections served at once.
const MAX_CONNECTIONS: usize = 4096;
/// Reports that wait for the server to take them; more of them wait in their consumers.
const MAX_REPORTS: usize = 256;
/// A consumer that takes nothing for so long is disconnected.
const STALLED: Duration = Duration::from_secs(30);

/// Why a slice cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// An item is no JSON, which only a map with keys that are no strings can cause.
    #[error("item {key} cannot be written as JSON: {error}")]
    Json {
        /// The item's key.
        key: String,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A key is longer than [`MAX_KEY`].
    #[error("a key of {0} bytes is too long")]
    Key(usize),
}

/// What is known of one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerStatus {
    /// Its name.
    pub consumer: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// The newest revision of its slice.
    pub revision: u64,
    /// The newest revision it has acted upon.
    pub acknowledged: u64,
}

/// A report from a consumer. Dropping it without [`IncomingReport::confirm`] makes it come again on the consumer's next
/// connection.
#[derive(Debug)]
pub struct IncomingReport {
    /// Who reports.
    pub consumer: String,
    /// What it is about.
    pub key: String,
    /// The report.
    pub body: Value,
    number: u64,
    confirm: mpsc::UnboundedSender<u64>,
}

impl IncomingReport {
    /// Tells the consumer that the report is durable. At most as many confirmations wait as reports were received.
    pub fn confirm(self) {
        // A consumer that has gone meanwhile sends the report again.
        let _ = self.confirm.send(self.number);
    }
}

struct Item {
    revision: u64,
    value: Arc<Value>,
}

#[derive(Default)]
struct Topic {
    items: BTreeMap<String, Item>,
    tombstones: VecDeque<(u64, String)>,
    /// Deletions up to this revision are forgotten.
    forgotten: u64,
    acknowledged: u64,
    connections: usize,
    /// 0 until the first publication.
    revision: watch::Sender<u64>,
}

/// Whether a user id may follow a consumer.
type Allowed = Box<dyn Fn(&str, u32) -> bool + Send + Sync>;

struct Shared {
    epoch: String,
    topics: Mutex<HashMap<String, Topic>>,
    reports: mpsc::Sender<IncomingReport>,
    allowed: Allowed,
}

/// Publishes slices on a Unix socket. Dropping it closes the socket and all connections.
pub struct Publisher {
    shared: Arc<Shared>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<IncomingReport>>,
    accepting: JoinHandle<()>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Publisher {
    /// Listens at `path`, in place of a socket left there by a dead process. `allowed` says whether a process with
    /// this user id (as the kernel tells it) may follow the consumer of this name.
    pub fn bind(path: &Path, allowed: impl Fn(&str, u32) -> bool + Send + Sync + 'static) -> io::Result<Self> {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(path)?;
        // Who may follow is decided by the kernel's word on the other side, not by the file's mode.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        let (reports, incoming) = mpsc::channel(MAX_REPORTS);
        let epoch = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        let shared = Arc::new(Shared { epoch, topics: Mutex::default(), reports, allowed: Box::new(allowed) });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, incoming: tokio::sync::Mutex::new(incoming), accepting })
    }

    /// Makes `slice` the consumer's slice. What is as before costs a comparison; if all is, nothing is sent.
    pub fn publish<T: Serialize>(&self, consumer: &str, slice: &BTreeMap<String, T>) -> Result<(), PublishError> {
        let mut fresh = BTreeMap::new();
        for (key, item) in slice {
            if key.len() > MAX_KEY {
                return Err(PublishError::Key(key.len()));
            }
            let value = serde_json::to_value(item).map_err(|error| PublishError::Json { key: key.clone(), error })?;
            fresh.insert(key.clone(), value);
        }
        let mut topics = self.shared.topics();
        topics.entry(consumer.to_owned()).or_default().replace(fresh);
        Ok(())
    }

    /// Forgets a consumer that no longer exists. Its slice becomes empty for whoever still follows it.
    pub fn withdraw(&self, consumer: &str) {
        let mut topics = self.shared.topics();
        if let Some(topic) = topics.get_mut(consumer) {
            topic.replace(BTreeMap::new());
            if topic.connections == 0 {
                topics.remove(consumer);
            }
        }
    }

    /// The next report; `None` never while the publisher lives. Safe to cancel.
    pub async fn next_report(&self) -> Option<IncomingReport> {
        self.incoming.lock().await.recv().await
    }

    /// What is known of each consumer, by name.
    pub fn status(&self) -> Vec<ConsumerStatus> {
        let topics = self.shared.topics();
        let mut status: Vec<_> = topics
            .iter()
            .map(|(consumer, topic)| ConsumerStatus {
                consumer: consumer.clone(),
                connected: topic.connections > 0,
                revision: *topic.revision.borrow(),
                acknowledged: topic.acknowledged,
            })
            .collect();
        status.sort_by(|one, other| one.consumer.cmp(&other.consumer));
        status
    }
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection must be sent to have `revision`.
struct Step {
    snapshot: bool,
    revision: u64,
    put: Vec<(String, Arc<Value>)>,
    delete: Vec<String>,
}

impl Topic {
    fn replace(&mut self, fresh: BTreeMap<String, Value>) {
        let next = *self.revision.borrow() + 1;
        let mut changed = next == 1;
        let gone: Vec<String> = self.items.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect();
        for key in gone {
            self.items.remove(&key);
            self.tombstones.push_back((next, key));
            changed = true;
        }
        for (key, value) in fresh {
            let same = self.items.get(&key).is_some_and(|item| *item.value == value);
            if !same {
                self.items.insert(key, Item { revision: next, value: Arc::new(value) });
                changed = true;
            }
        }
        while self.tombstones.len() > MAX_TOMBSTONES {
            if let Some((revision, _)) = self.tombstones.pop_front() {
                self.forgotten = revision;
            }
        }
        if changed {
            self.revision.send_replace(next);
        }
    }

    /// The step from `have` to the newest revision; `have` is `None` for who has nothing of ours.
    fn step(&self, have: Option<u64>) -> Step {
        let revision = *self.revision.borrow();
        let base = have.filter(|have| *have >= self.forgotten && *have <= revision);
        let newer = |of: u64| base.is_none_or(|base| of > base);
        let put = self
            .items
            .iter()
            .filter(|(_, item)| newer(item.revision))
            .map(|(key, item)| (key.clone(), item.value.clone()))
            .collect();
        let delete = self
            .tombstones
            .iter()
            .filter(|(at, key)| base.is_some() && newer(*at) && !self.items.contains_key(key))
            .map(|(_, key)| key.clone())
            .collect();
        Step { snapshot: base.is_none(), revision, put, delete }
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    match serve(stream, &shared).await {
                        Ok(()) | Err(LineError::Closed) => {}
                        Err(error) => tracing::warn!(%error, "a feed connection ended"),
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close first.
                tracing::warn!(%error, "cannot accept a feed connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn refused(reason: impl Into<String>) -> LineError {
    LineError::Line(io::Error::new(io::ErrorKind::PermissionDenied, reason.into()).into())
}

async fn serve(stream: UnixStream, shared: &Arc<Shared>) -> Result<(), LineError> {
    let credentials = stream.peer_cred().map_err(|error| LineError::Line(error.into()))?;
    let (mut reader, writer) = lines(stream);
    let hello = timeout(Duration::from_secs(5), receive(&mut reader)).await.map_err(|_| LineError::Closed)??;
    let FromConsumer::Hello { version, consumer, epoch, revision } = hello else {
        return Err(refused("the first line was no hello"));
    };
    if version != VERSION || consumer.len() > MAX_KEY {
        return Err(refused(format!("version {version} of the feed protocol is not spoken here")));
    }
    if !(shared.allowed)(&consumer, credentials.uid()) {
        return Err(refused(format!("user {} may not follow {consumer:.64}", credentials.uid())));
    }
    let have = epoch.filter(|epoch| *epoch == shared.epoch).map(|_| revision);
    let changes = {
        let mut topics = shared.topics();
        let topic = topics.entry(consumer.clone()).or_default();
        topic.connections += 1;
        topic.revision.subscribe()
    };
    let ended = converse(shared, &consumer, have, changes, reader, writer).await;
    let mut topics = shared.topics();
    if let Some(topic) = topics.get_mut(&consumer) {
        topic.connections -= 1;
        let published = *topic.revision.borrow() > 0;
        if topic.connections == 0 && (!published || topic.items.is_empty()) {
            topics.remove(&consumer);
        }
    }
    ended
}

async fn converse(
    shared: &Arc<Shared>,
    consumer: &str,
    mut have: Option<u64>,
    mut changes: watch::Receiver<u64>,
    mut reader: crate::message::Reader,
    mut writer: crate::message::Writer,
) -> Result<(), LineError> {
    let (confirm, mut confirmed) = mpsc::unbounded_channel();
    changes.mark_changed();
    // Who has the newest state already is told so once, by an empty step.
    let mut confirmed_once = false;
    loop {
        tokio::select! {
            changed = changes.changed() => {
                changed.map_err(|_| LineError::Closed)?;
                let step = shared.topics().get(consumer).map(|topic| topic.step(have));
                if let Some(step) = step
                    && step.revision > 0
                    && (have != Some(step.revision) || !confirmed_once)
                {
                    have = Some(step.revision);
                    confirmed_once = true;
                    timeout(STALLED, send_step(&mut writer, &shared.epoch, step)).await.map_err(|_| LineError::Closed)??;
                }
            }
            Some(number) = confirmed.recv() => {
                let confirmation = async {
                    send(&mut writer, &FromPublisher::Confirm { number }).await?;
                    flush(&mut writer).await
                };
                timeout(STALLED, confirmation).await.map_err(|_| LineError::Closed)??;
            }
            message = receive(&mut reader) => match message? {
                FromConsumer::Acknowledge { revision } => {
                    if let Some(topic) = shared.topics().get_mut(consumer) {
                        topic.acknowledged = revision.min(*topic.revision.borrow());
                    }
                }
                FromConsumer::Report { number, key, body } if key.len() <= MAX_KEY => {
                    let report =
                        IncomingReport { consumer: consumer.to_owned(), key, body, number, confirm: confirm.clone() };
                    shared.reports.send(report).await.map_err(|_| LineError::Closed)?;
                }
                FromConsumer::Report { .. } | FromConsumer::Hello { .. } => {
                    return Err(refused("a message that is not allowed here"));
                }
            }
        }
    }
}

async fn send_step(writer: &mut crate::message::Writer, epoch: &str, step: Step) -> Result<(), LineError> {
    send(writer, &FromPublisher::Begin { epoch: epoch.to_owned(), snapshot: step.snapshot }).await?;
    for (key, value) in step.put {
        send(writer, &FromPublisher::Put { key, value: Value::clone(&value) }).await?;
    }
    for key in step.delete {
        send(writer, &FromPublisher::Delete { key }).await?;
    }
    send(writer, &FromPublisher::End { revision: step.revision }).await?;
    flush(writer).await
}
