//! Giving space back. Level-triggered: what is on disk is compared with what is to be kept, so that it makes no
//! difference whether a deletion was interrupted by a crash.
//!
//! A sealed segment in which nothing is to be kept is deleted. One in which less than half is to be kept has that
//! half moved to the newest segment first. So the disk holds at most about twice what is kept.

use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{
    chunk::Header,
    error::LogError,
    event::StreamKey,
    segment::{Placed, Segment, Summary},
    store::Shared,
    writer::{Job, Reply},
};

/// How many bytes are moved at once: between two such moves, appends get their turn.
const MOVE_BYTES: usize = 2 << 20;

/// What is to be kept of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The stream is gone.
    Nothing,
    /// Events of this time and later, in milliseconds since 1970.
    Since(i64),
    /// All of it.
    Everything,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Segments deleted.
    pub segments: usize,
    /// Bytes of messages in them that were not kept.
    pub bytes: u64,
    /// Bytes of chunks that were moved to be kept.
    pub moved: u64,
}

pub(super) struct Reclaim<'a> {
    pub shared: &'a Shared,
    pub jobs: &'a mpsc::UnboundedSender<Job>,
    pub keep: &'a (dyn Fn(StreamKey) -> Keep + Send + Sync),
    /// A newest segment with fewer bytes is left alone.
    pub least: u64,
}

impl Reclaim<'_> {
    pub fn run(&self) -> Result<Reclaimed, LogError> {
        let known = self.shared.stats.read().unwrap_or_else(PoisonError::into_inner).keys();
        for key in known {
            if (self.keep)(key) == Keep::Nothing {
                self.shared.stats.write().unwrap_or_else(PoisonError::into_inner).forget(key.stream);
            }
        }
        if let Some(newest) = self.shared.segments().last() {
            let (live, dead) = self.weigh(newest)?;
            if dead > live && live + dead >= self.least {
                self.ask(|reply| Job::Roll { reply })?;
            }
        }
        let mut reclaimed = Reclaimed::default();
        for segment in self.shared.sealed() {
            segment.settle()?;
            let (live, dead) = self.weigh(&segment)?;
            if live > 0 && dead <= live {
                continue;
            }
            if live > 0 {
                reclaimed.moved += self.move_kept(&segment)?;
            }
            self.ask(|reply| Job::Remove { number: segment.number, reply })?;
            reclaimed.segments += 1;
            reclaimed.bytes += dead;
        }
        Ok(reclaimed)
    }

    fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), LogError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).map_err(|_| LogError::Closed)?;
        answer.blocking_recv().map_err(|_| LogError::Closed)?
    }

    /// How many bytes of a segment are to be kept, and how many are not.
    fn weigh(&self, segment: &Segment) -> Result<(u64, u64), LogError> {
        let (mut live, mut dead) = (0, 0);
        segment.each_stream(&mut |key, summary| {
            let lost = lost((self.keep)(key), summary);
            // An empty stream has no row, so a row that is kept weighs at least one byte.
            live += (summary.bytes - lost).max(u64::from(lost < summary.bytes));
            dead += lost;
        })?;
        Ok((live, dead))
    }

    fn move_kept(&self, segment: &Arc<Segment>) -> Result<u64, LogError> {
        let view = segment.view()?;
        let (mut from, mut moved) = (0, 0);
        loop {
            let (mut chunks, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
            view.each_chunk(from, &mut |sequence, data| {
                let corrupt = |reason| LogError::Corrupt { segment: segment.number, reason };
                let header = Header::decode(data).map_err(corrupt)?;
                (from, looked_at) = (sequence + 1, looked_at + 1);
                let kept = match (self.keep)(StreamKey { group: header.group, stream: header.stream }) {
                    Keep::Nothing => false,
                    Keep::Since(time) => header.last >= time,
                    Keep::Everything => true,
                };
                if kept {
                    bytes += data.len();
                    chunks.push(Placed { sequence, header, data: data.to_vec() });
                }
                Ok(bytes < MOVE_BYTES)
            })?;
            if looked_at == 0 {
                return Ok(moved);
            }
            moved += bytes as u64;
            if !chunks.is_empty() {
                self.ask(|reply| Job::Adopt { chunks, reply })?;
            }
        }
    }
}

/// How many of a stream's bytes in a segment are not to be kept, taking them as spread evenly over its time.
fn lost(keep: Keep, summary: Summary) -> u64 {
    let since = match keep {
        Keep::Everything => return 0,
        Keep::Nothing => return summary.bytes,
        Keep::Since(since) => since,
    };
    if summary.last < since {
        return summary.bytes;
    }
    if summary.first >= since {
        return 0;
    }
    let (before, all) = (since.abs_diff(summary.first), summary.last.abs_diff(summary.first).max(1));
    // Something at `last` is kept, whatever the proportion says.
    let part = u128::from(summary.bytes) * u128::from(before) / u128::from(all);
    u64::try_from(part).unwrap_or(u64::MAX).min(summary.bytes.saturating_sub(1))
}
