//! The log store: what the services hold.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::{self, JoinHandle},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task,
};

use super::{
    chunk,
    disk::{Directory, Disk},
    error::LogError,
    event::{NewEvent, StreamKey},
    query::{Page, Query},
    reclaim::{Keep, Reclaim, Reclaimed},
    segment::{Segment, number_of},
    stats::{Stats, StreamStats},
    walk,
    writer::{Job, Writer},
};

/// Sizes that the tests make small.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment with this many bytes is sealed. It bounds what is repaired after a kill.
    pub segment_bytes: u64,
    /// How many bytes may wait to be written before appends wait for room.
    pub queue_bytes: usize,
    /// A newest segment with fewer bytes than this is not rewritten to give space back.
    pub least_rewrite: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 256 << 20, queue_bytes: 32 << 20, least_rewrite: 1 << 20 }
    }
}

pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    /// All segments; the last is the one that is written.
    pub segments: RwLock<Vec<Arc<Segment>>>,
    pub stats: RwLock<Stats>,
}

impl Shared {
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn sealed(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.segments();
        segments.pop();
        segments
    }
}

/// The events of all log streams. Dropping it waits for what is being written.
pub struct LogStore {
    shared: Arc<Shared>,
    options: Options,
    /// Taken away to end the writer.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    reclaiming: Arc<Mutex<()>>,
}

impl LogStore {
    /// Opens the store in a directory, making it if it is missing. Blocks while it reads.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        Self::open_on(Arc::new(Directory::new(directory)?), Options::default())
    }

    /// Opens the store on a disk. What was acknowledged before a crash is there; what was not may be missing, but
    /// always as a whole append. Blocks while it reads.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, LogError> {
        let names = disk.list()?;
        for name in names.iter().filter(|name| name.ends_with(".redb.new")) {
            disk.remove(name)?;
        }
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let newest = numbers.pop();
        let mut segments = Vec::new();
        for number in numbers {
            segments.push(Arc::new(Segment::open(disk.clone(), number)?));
        }
        let active = Arc::new(match newest {
            Some(number) => Segment::open_for_writing(disk.clone(), number)?,
            None => Segment::create(disk.clone(), 1, 1)?,
        });
        segments.push(active.clone());
        let (mut stats, mut next) = (Stats::default(), 1);
        for segment in &segments {
            next = next.max(segment.next_sequence()?);
            segment.each_stream(&mut |key, summary| stats.add(key, summary))?;
        }
        let shared = Arc::new(Shared { disk, segments: RwLock::new(segments), stats: RwLock::new(stats) });
        let (jobs, queue) = mpsc::unbounded_channel();
        let (written, segment_bytes) = (active.bytes(), options.segment_bytes);
        let writer = Writer { shared: shared.clone(), active, next, segment_bytes, written, broken: false };
        let writer = thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run(queue))?;
        let room = Arc::new(Semaphore::new(options.queue_bytes.max(1)));
        Ok(Self { shared, options, jobs: Some(jobs), room, writer: Some(writer), reclaiming: Arc::default() })
    }

    /// Appends events to a stream and returns when they are durable. They need not be in order.
    pub async fn append(&self, key: StreamKey, ingestion_time: i64, events: Vec<NewEvent>) -> Result<(), LogError> {
        let chunks = chunk::cut(key.group, key.stream, ingestion_time, events);
        let bytes = chunks.iter().map(|(_, data)| data.len()).sum::<usize>().clamp(1, self.options.queue_bytes.max(1));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| LogError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.jobs()?.send(Job::Append { chunks, reply, permit }).map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Reads a page. A page sees all that was acknowledged before it was asked for.
    pub async fn read(&self, query: Query) -> Result<Page, LogError> {
        let segments = self.shared.segments();
        task::spawn_blocking(move || walk::read(&segments, &query)).await.map_err(|_| LogError::Closed)?
    }

    /// Makes a stream known that has no events yet, so that [`LogStore::streams_by_last_event`] lists it.
    pub fn register(&self, key: StreamKey) {
        self.shared.stats.write().unwrap_or_else(PoisonError::into_inner).register(key);
    }

    /// Forgets a stream that was deleted. Its events go when space is given back.
    pub fn forget(&self, stream: u64) {
        self.shared.stats.write().unwrap_or_else(PoisonError::into_inner).forget(stream);
    }

    /// What is known of a stream; nothing when it has no events.
    pub fn stream_stats(&self, stream: u64) -> Option<StreamStats> {
        self.shared.stats.read().unwrap_or_else(PoisonError::into_inner).stream(stream)
    }

    /// The bytes of the messages of a group.
    pub fn group_bytes(&self, group: u64) -> u64 {
        self.shared.stats.read().unwrap_or_else(PoisonError::into_inner).group_bytes(group)
    }

    /// The streams of a group in the order of their last events (those without events are the oldest), after the
    /// given one, as pairs of that time (`i64::MIN` without events) and the stream.
    pub fn streams_by_last_event(
        &self,
        group: u64,
        after: Option<(i64, u64)>,
        descending: bool,
        limit: usize,
    ) -> Vec<(i64, u64)> {
        let stats = self.shared.stats.read().unwrap_or_else(PoisonError::into_inner);
        stats.by_last_event(group, after, descending, limit)
    }

    /// Gives back the space of what is not to be kept. `keep` is asked about streams that were seen here, and must
    /// answer from the newest state: a stream it does not know is one that was deleted.
    pub async fn reclaim(
        &self,
        keep: impl Fn(StreamKey) -> Keep + Send + Sync + 'static,
    ) -> Result<Reclaimed, LogError> {
        let (shared, jobs, least) = (self.shared.clone(), self.jobs()?.clone(), self.options.least_rewrite);
        let reclaiming = self.reclaiming.clone();
        let run = move || {
            let _one_at_a_time = reclaiming.lock().unwrap_or_else(PoisonError::into_inner);
            Reclaim { shared: &shared, jobs: &jobs, keep: &keep, least }.run()
        };
        task::spawn_blocking(run).await.map_err(|_| LogError::Closed)?
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn jobs(&self) -> Result<&mpsc::UnboundedSender<Job>, LogError> {
        self.jobs.as_ref().ok_or(LogError::Closed)
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}
