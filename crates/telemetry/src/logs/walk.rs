//! Reading a page: walk slice by slice (see [`super::chunk`]), and within a slice merge its chunks.
//!
//! Chunks of a slice overlap in time, so they are merged; chunks of different slices do not, so no more than one slice
//! is looked at at a time. Of a slice with very many chunks only the nearest are taken at once: the nearest N events
//! lie in the N chunks that begin nearest.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
};

use super::{
    chunk::{Chunk, SLICE_MS, slice_of},
    error::LogError,
    event::{Position, StoredEvent, StreamKey},
    query::{Direction, Page, Query, Streams},
    segment::{Entry, Owner, Segment, View},
};

/// How many chunks of a slice are merged at once, and so how many events are taken before the slice is looked at again.
const NEAREST: usize = 10_000;
/// What an index entry counts as work.
const ENTRY_WORK: usize = 64;
/// What an event counts beyond its message, on a page as in PutLogEvents.
const EVENT_BYTES: usize = 26;

/// Smaller is nearer in the direction of reading.
type Rank = (i64, u64);

fn rank(direction: Direction, position: Position) -> Rank {
    match direction {
        Direction::Forward => (position.timestamp, position.sequence),
        Direction::Backward => (!position.timestamp, !position.sequence),
    }
}

/// One index to read from.
struct Source {
    view: Arc<View>,
    owner: Owner,
    /// The nearest slice that has an entry here, where known.
    next: Option<i64>,
    done: bool,
}

/// A chunk that has not been loaded yet, ordered by where it begins.
struct Pending {
    rank: Rank,
    view: Arc<View>,
    entry: Entry,
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.rank, self.view.number).cmp(&(other.rank, other.view.number))
    }
}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pending {}

/// A chunk that is being read.
struct Open {
    chunk: Chunk,
    sequence: u64,
    index: usize,
}

pub(super) struct Walk<'q> {
    query: &'q Query,
    sources: Vec<Source>,
    /// Everything looked for is in `lo..hi`, which shrinks.
    lo: Position,
    hi: Position,
    work: usize,
    bytes: usize,
    events: Vec<StoredEvent>,
    last: Option<Position>,
}

/// Why a slice was left.
enum Left {
    /// Nothing more in it.
    Empty,
    /// There may be more.
    Again,
    /// The page is full.
    Full,
}

/// Reads a page.
pub(super) fn read(segments: &[Arc<Segment>], query: &Query) -> Result<Page, LogError> {
    let (mut lo, mut hi) = (Position::at(query.start), Position::at(query.end));
    match query.direction {
        Direction::Forward => lo = lo.max(query.gap),
        Direction::Backward => hi = hi.min(query.gap),
    }
    let mut walk = Walk { query, sources: Vec::new(), lo, hi, work: 0, bytes: 0, events: Vec::new(), last: None };
    let exhausted = lo >= hi || query.limit == 0 || {
        walk.find_sources(segments)?;
        walk.run()?
    };
    // At the end, what was looked through after the last event does not count: something may still come there.
    let resume = match (query.direction, exhausted, walk.last) {
        (_, true, None) => query.gap,
        (Direction::Forward, true, Some(last)) => last.next(),
        (Direction::Backward, true, Some(last)) => last,
        (Direction::Forward, false, _) => walk.lo,
        (Direction::Backward, false, _) => walk.hi,
    };
    Ok(Page { events: walk.events, resume, exhausted })
}

impl Walk<'_> {
    fn find_sources(&mut self, segments: &[Arc<Segment>]) -> Result<(), LogError> {
        let (from, to) = (self.lo.timestamp, self.hi.timestamp);
        for segment in segments {
            let overlaps = |first: i64, last: i64| first <= to && last >= from;
            if !segment.group(self.query.group).is_some_and(|summary| overlaps(summary.first, summary.last)) {
                continue;
            }
            let view = Arc::new(segment.view()?);
            let source = |owner| Source { view: view.clone(), owner, next: None, done: false };
            match &self.query.streams {
                Streams::All | Streams::Among(_) => self.sources.push(source(Owner::Group(self.query.group))),
                Streams::Few(streams) => {
                    for stream in streams {
                        let key = StreamKey { group: self.query.group, stream: *stream };
                        if view.summary(key)?.is_some_and(|summary| overlaps(summary.first, summary.last)) {
                            self.sources.push(source(Owner::Stream(*stream)));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills the page. Says whether the end was reached.
    fn run(&mut self) -> Result<bool, LogError> {
        while let Some(slice) = self.next_slice()? {
            loop {
                match self.read_slice(slice)? {
                    Left::Again => {}
                    Left::Empty => break,
                    Left::Full => return Ok(false),
                }
            }
            match self.query.direction {
                Direction::Forward => self.lo = self.lo.max(Position::at(slice.saturating_add(SLICE_MS))),
                Direction::Backward => self.hi = self.hi.min(Position::at(slice)),
            }
            if self.lo >= self.hi {
                break;
            }
            if self.work >= self.query.work {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The nearest slice that may hold something of `lo..hi`.
    fn next_slice(&mut self) -> Result<Option<i64>, LogError> {
        let backward = self.query.direction == Direction::Backward;
        let start = slice_of(self.lo.timestamp);
        // Nothing of the time of `hi` itself is wanted when it is the gap before all events of that time.
        let end = if self.hi.sequence == 0 { self.hi.timestamp.saturating_sub(1) } else { self.hi.timestamp };
        let mut nearest: Option<i64> = None;
        for source in &mut self.sources {
            let behind = |slice: i64| if backward { slice > end } else { slice < start };
            if !source.done && source.next.is_none_or(behind) {
                self.work += ENTRY_WORK;
                let edge = source.view.edge(source.owner, start..=end, backward)?;
                source.next = edge.map(|entry| slice_of(entry.first));
                source.done = edge.is_none();
            }
            let Some(next) = source.next.filter(|_| !source.done) else { continue };
            nearest = Some(match nearest {
                Some(slice) if backward => slice.max(next),
                Some(slice) => slice.min(next),
                None => next,
            });
        }
        Ok(nearest)
    }

    /// Reads what there is in a slice, or the nearest part of it.
    fn read_slice(&mut self, slice: i64) -> Result<Left, LogError> {
        let (mut pending, truncated) = self.pending(slice)?;
        let mut open: BinaryHeap<Reverse<(Rank, usize)>> = BinaryHeap::new();
        let mut chunks: Vec<Option<Open>> = Vec::new();
        let mut taken = 0;
        loop {
            // Load chunks as long as one could begin before the nearest event at hand.
            while let Some(nearest) = pending.last() {
                if open.peek().is_some_and(|Reverse((rank, _))| *rank < nearest.rank) {
                    break;
                }
                let Some(Pending { view, entry, .. }) = pending.pop() else { break };
                let chunk = self.load(&view, entry)?;
                if let Some((opened, rank)) = self.start(chunk, entry.sequence) {
                    open.push(Reverse((rank, chunks.len())));
                    chunks.push(Some(opened));
                }
            }
            let Some(Reverse((_, slot))) = open.pop() else { break };
            let Some(current) = chunks.get_mut(slot).and_then(Option::take) else { break };
            if truncated && taken >= NEAREST {
                return Ok(Left::Again);
            }
            if !self.take(&current) {
                return Ok(Left::Full);
            }
            taken += 1;
            if let Some((advanced, rank)) = self.advance(current) {
                open.push(Reverse((rank, slot)));
                if let Some(place) = chunks.get_mut(slot) {
                    *place = Some(advanced);
                }
            }
        }
        Ok(if truncated { Left::Again } else { Left::Empty })
    }

    /// The nearest chunks of a slice, the nearest last, and whether there are more.
    fn pending(&mut self, slice: i64) -> Result<(Vec<Pending>, bool), LogError> {
        let mut nearest: BinaryHeap<Pending> = BinaryHeap::new();
        let (mut truncated, mut scanned) = (false, 0);
        for source in self.sources.iter().filter(|source| !source.done && source.next == Some(slice)) {
            let mut failed = None;
            source.view.entries(source.owner, slice..=slice.saturating_add(SLICE_MS - 1), false, &mut |entry| {
                scanned += 1;
                match self.edge(&source.view, entry) {
                    Ok(None) => {}
                    Ok(Some(rank)) => {
                        nearest.push(Pending { rank, view: source.view.clone(), entry });
                        if nearest.len() > NEAREST {
                            truncated = true;
                            nearest.pop();
                        }
                    }
                    Err(error) => failed = Some(error),
                }
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        self.work += scanned * ENTRY_WORK;
        let mut pending = nearest.into_sorted_vec();
        pending.reverse();
        Ok((pending, truncated))
    }

    /// Where in the direction of reading the wanted part of a chunk begins, if it has one.
    fn edge(&self, view: &View, entry: Entry) -> Result<Option<Rank>, LogError> {
        if matches!(&self.query.streams, Streams::Among(set) if !set.contains(&entry.stream)) {
            return Ok(None);
        }
        let first = Position { timestamp: entry.first, sequence: entry.sequence };
        let more = u64::from(entry.count).saturating_sub(1);
        let last = Position { timestamp: entry.last, sequence: entry.sequence.saturating_add(more) };
        if last < self.lo || first >= self.hi {
            return Ok(None);
        }
        let direction = self.query.direction;
        match direction {
            Direction::Forward if first >= self.lo => Ok(Some(rank(direction, first))),
            Direction::Backward if last < self.hi => Ok(Some(rank(direction, last))),
            // The chunk crosses the edge of what is wanted: look inside.
            _ => Ok(self.start(self.load_quietly(view, entry)?, entry.sequence).map(|(_, rank)| rank)),
        }
    }

    fn load(&mut self, view: &View, entry: Entry) -> Result<Chunk, LogError> {
        let chunk = self.load_quietly(view, entry)?;
        self.work += chunk.header.bytes as usize;
        Ok(chunk)
    }

    fn load_quietly(&self, view: &View, entry: Entry) -> Result<Chunk, LogError> {
        let corrupt = |reason| LogError::Corrupt { segment: view.number, reason };
        let data = view.chunk(entry.sequence)?.ok_or_else(|| corrupt("it is missing"))?;
        Chunk::decode(data).map_err(corrupt)
    }

    /// The nearest wanted event of a chunk.
    fn start(&self, chunk: Chunk, sequence: u64) -> Option<(Open, Rank)> {
        let at = |index: usize| position(&chunk, sequence, index);
        let index = match self.query.direction {
            Direction::Forward => (0..chunk.len()).find(|index| at(*index).is_some_and(|p| p >= self.lo))?,
            Direction::Backward => (0..chunk.len()).rev().find(|index| at(*index).is_some_and(|p| p < self.hi))?,
        };
        self.opened(Open { chunk, sequence, index })
    }

    fn advance(&self, mut open: Open) -> Option<(Open, Rank)> {
        open.index = match self.query.direction {
            Direction::Forward => open.index.checked_add(1)?,
            Direction::Backward => open.index.checked_sub(1)?,
        };
        self.opened(open)
    }

    fn opened(&self, open: Open) -> Option<(Open, Rank)> {
        let position = position(&open.chunk, open.sequence, open.index)?;
        (position >= self.lo && position < self.hi).then(|| (open, rank(self.query.direction, position)))
    }

    /// Looks at an event. Says no when the page has no room for it, and then it counts as not looked at.
    fn take(&mut self, open: &Open) -> bool {
        let Some(position) = position(&open.chunk, open.sequence, open.index) else { return true };
        // A segment whose move to another was interrupted by a crash leaves some chunks in both.
        let seen = self.last == Some(position);
        if !seen {
            let message = open.chunk.message(open.index);
            let wanted = self.query.matching.as_ref().is_none_or(|pattern| pattern.matches(&message));
            let bytes = message.len() + EVENT_BYTES;
            let full = self.events.len() >= self.query.limit
                || !self.events.is_empty() && self.bytes + bytes > self.query.bytes;
            let tired = self.last.is_some() && self.work >= self.query.work;
            if wanted && full || tired {
                return false;
            }
            if wanted {
                self.bytes += bytes;
                self.events.push(StoredEvent {
                    stream: open.chunk.header.stream,
                    position,
                    ingestion_time: open.chunk.header.ingestion_time,
                    message: message.into_owned(),
                });
            }
        }
        self.last = Some(position);
        match self.query.direction {
            Direction::Forward => self.lo = position.next(),
            Direction::Backward => self.hi = position,
        }
        true
    }
}

fn position(chunk: &Chunk, sequence: u64, index: usize) -> Option<Position> {
    let timestamp = chunk.timestamp(index)?;
    Some(Position { timestamp, sequence: sequence.checked_add(index as u64)? })
}
