//! The one thread that writes: it commits whatever has come in since the last commit, and rolls segments.

use std::sync::{Arc, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    chunk::Header,
    error::LogError,
    event::StreamKey,
    segment::{Placed, Segment, Summary, View},
    store::Shared,
};

/// Most bytes of one commit, beyond a single append: bounds memory and how long the first in it waits.
const COMMIT_BYTES: usize = 8 << 20;

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<(), LogError>>;

/// Something for the writer to do.
pub(super) enum Job {
    /// Append chunks, numbering their events.
    Append { chunks: Vec<(Header, Vec<u8>)>, reply: Reply, permit: OwnedSemaphorePermit },
    /// Take in chunks of an older segment under the numbers they have.
    Adopt { chunks: Vec<Placed>, reply: Reply },
    /// Seal the newest segment.
    Roll { reply: Reply },
    /// Delete a sealed segment.
    Remove { number: u64, reply: Reply },
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub active: Arc<Segment>,
    /// The number of the next event.
    pub next: u64,
    /// A segment with this many bytes is sealed.
    pub segment_bytes: u64,
    /// Bytes in the newest segment.
    pub written: u64,
    /// The last commit failed, so the segment must be opened again.
    pub broken: bool,
}

impl Writer {
    /// Works until all senders are gone.
    pub fn run(mut self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut batch = Batch::default();
            let mut job = Some(job);
            while let Some(next) = job.take() {
                match next {
                    Job::Append { chunks, reply, permit } => {
                        for (header, data) in chunks {
                            let sequence = self.next;
                            self.next += u64::from(header.count);
                            batch.push(Placed { sequence, header, data });
                        }
                        batch.replies.push((reply, Some(permit)));
                    }
                    Job::Adopt { chunks, reply } => {
                        chunks.into_iter().for_each(|chunk| batch.push(chunk));
                        batch.replies.push((reply, None));
                    }
                    Job::Roll { reply } => {
                        self.commit(std::mem::take(&mut batch));
                        answer(reply, self.roll());
                    }
                    Job::Remove { number, reply } => {
                        self.commit(std::mem::take(&mut batch));
                        answer(reply, self.remove(number));
                    }
                }
                if batch.bytes < COMMIT_BYTES {
                    job = jobs.try_recv().ok();
                }
            }
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Batch) {
        if batch.replies.is_empty() {
            return;
        }
        let result = self.write(&batch);
        if let Err(error) = &result {
            tracing::error!(%error, "log events could not be written");
        }
        for (reply, permit) in batch.replies {
            drop(permit);
            answer(reply, result.clone());
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), LogError> {
        if batch.chunks.is_empty() {
            return Ok(());
        }
        if self.broken {
            if !self.active.reopen()? {
                return Err(LogError::Disk("the segment is being read and cannot be opened again yet".to_owned()));
            }
            self.broken = false;
        }
        if let Err(error) = self.active.write(&batch.chunks, self.next) {
            self.broken = true;
            return Err(error);
        }
        self.written += batch.bytes as u64;
        {
            let mut stats = self.shared.stats.write().unwrap_or_else(PoisonError::into_inner);
            for chunk in &batch.chunks {
                let key = StreamKey { group: chunk.header.group, stream: chunk.header.stream };
                stats.add(key, Summary::of(&chunk.header));
            }
        }
        if self.written >= self.segment_bytes {
            // The events are safe; that no new segment could be made is only logged, and tried again at the next commit.
            if let Err(error) = self.roll() {
                tracing::warn!(%error, "a log segment could not be sealed");
            }
        }
        Ok(())
    }

    /// Seals the newest segment and goes on in a new one.
    fn roll(&mut self) -> Result<(), LogError> {
        let number = self.active.number + 1;
        let segment = Arc::new(Segment::create(self.shared.disk.clone(), number, self.next)?);
        self.shared.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment.clone());
        (self.active, self.written, self.broken) = (segment, 0, false);
        for segment in self.shared.sealed() {
            segment.settle()?;
        }
        Ok(())
    }

    /// Deletes a sealed segment and what is known from it.
    fn remove(&mut self, number: u64) -> Result<(), LogError> {
        if number == self.active.number {
            return Ok(());
        }
        let removed = {
            let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
            let Some(index) = segments.iter().position(|segment| segment.number == number) else { return Ok(()) };
            segments.remove(index)
        };
        removed.remove()?;
        let mut keys = Vec::new();
        removed.each_stream(&mut |key, _| keys.push(key))?;
        let views = self.shared.segments().iter().map(Segment::view).collect::<Result<Vec<View>, _>>()?;
        for key in keys {
            let mut left: Option<Summary> = None;
            for view in &views {
                if let Some(summary) = view.summary(key)? {
                    left = Some(left.map_or(summary, |left| left.merge(summary)));
                }
            }
            let mut stats = self.shared.stats.write().unwrap_or_else(PoisonError::into_inner);
            if stats.knows(key.stream) {
                stats.set(key, left);
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Batch {
    chunks: Vec<Placed>,
    bytes: usize,
    replies: Vec<(Reply, Option<OwnedSemaphorePermit>)>,
}

impl Batch {
    fn push(&mut self, chunk: Placed) {
        self.bytes += chunk.data.len();
        self.chunks.push(chunk);
    }
}

/// Nobody may be waiting any more, which is fine.
fn answer(reply: Reply, result: Result<(), LogError>) {
    let _ = reply.send(result);
}
