//! One segment: a redb file with the chunks in order of arrival, two indexes by time, and a summary of each stream.
//!
//! The newest segment is open for writing; the others are opened read-only, so that a kill leaves nothing to repair
//! in them, however many there are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use redb::{Builder, Database, ReadOnlyDatabase, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    chunk::Header,
    disk::{Boxed, Disk},
    error::LogError,
    event::StreamKey,
};

/// Chunks by the number of their first event.
const DATA: TableDefinition<u64, &[u8]> = TableDefinition::new("data");
/// (stream, first timestamp, first number) → (last timestamp, events).
const BY_STREAM: TableDefinition<(u64, i64, u64), (i64, u32)> = TableDefinition::new("by stream");
/// (group, first timestamp, first number) → (stream, last timestamp, events).
const BY_GROUP: TableDefinition<(u64, i64, u64), (u64, i64, u32)> = TableDefinition::new("by group");
/// (group, stream) → summary.
const STREAMS: TableDefinition<(u64, u64), SummaryRow> = TableDefinition::new("streams");
/// `format`, and `next`: the number of the next event.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of these tables; a newer one is refused.
const FORMAT: u64 = 1;
/// Cache of the segment that is written.
const WRITE_CACHE: usize = 32 << 20;
/// Cache of each sealed segment that is read.
const READ_CACHE: usize = 1 << 20;

/// First and last timestamp, last ingestion time, events, bytes.
type SummaryRow = (i64, i64, i64, u64, u64);

/// What a segment holds of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub first: i64,
    pub last: i64,
    pub last_ingestion: i64,
    pub events: u64,
    pub bytes: u64,
}

impl Summary {
    /// The summary of one chunk.
    pub fn of(header: &Header) -> Self {
        Self {
            first: header.first,
            last: header.last,
            last_ingestion: header.ingestion_time,
            events: u64::from(header.count),
            bytes: u64::from(header.bytes),
        }
    }

    /// Both together.
    pub fn merge(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            last_ingestion: self.last_ingestion.max(other.last_ingestion),
            events: self.events + other.events,
            bytes: self.bytes + other.bytes,
        }
    }

    fn from_row(row: SummaryRow) -> Self {
        let (first, last, last_ingestion, events, bytes) = row;
        Self { first, last, last_ingestion, events, bytes }
    }

    fn row(self) -> SummaryRow {
        (self.first, self.last, self.last_ingestion, self.events, self.bytes)
    }
}

/// A chunk to write.
pub(super) struct Placed {
    /// The number of its first event.
    pub sequence: u64,
    pub header: Header,
    pub data: Vec<u8>,
}

enum Handle {
    Writing(Database),
    Reading(ReadOnlyDatabase),
    /// Between two handles, or after the last one failed to open.
    Closed,
}

/// A segment that is open.
pub(super) struct Segment {
    /// Segments are numbered in the order they were made.
    pub number: u64,
    disk: Arc<dyn Disk>,
    handle: RwLock<Handle>,
    /// Held once by the segment and once by each view: a handle is replaced only when nobody reads through it.
    readers: Arc<()>,
    /// Times and bytes of each group, to know without a look-up what is not here.
    groups: Mutex<HashMap<u64, Summary>>,
}

fn name_of(number: u64) -> String {
    format!("segment-{number:010}.redb")
}

/// The number in a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("segment-")?.strip_suffix(".redb")?.parse().ok()
}

impl Segment {
    /// Makes a new segment and opens it for writing. It appears under its name only when it is whole and durable.
    pub fn create(disk: Arc<dyn Disk>, number: u64, next: u64) -> Result<Self, LogError> {
        let (name, new) = (name_of(number), format!("{}.new", name_of(number)));
        let database = Builder::new().set_cache_size(WRITE_CACHE).create_with_backend(Boxed(disk.create(&new)?))?;
        let transaction = database.begin_write()?;
        {
            transaction.open_table(DATA)?;
            transaction.open_table(BY_STREAM)?;
            transaction.open_table(BY_GROUP)?;
            transaction.open_table(STREAMS)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("format", FORMAT)?;
            meta.insert("next", next)?;
        }
        transaction.commit()?;
        disk.rename(&new, &name)?;
        Ok(Self::with(disk, number, Handle::Writing(database)))
    }

    /// Opens a segment for reading; one that was not closed is repaired first.
    pub fn open(disk: Arc<dyn Disk>, number: u64) -> Result<Self, LogError> {
        let handle = Self::open_for_reading(&disk, number)?;
        let segment = Self::with(disk, number, handle);
        segment.check_format()?;
        segment.load_groups()?;
        Ok(segment)
    }

    /// Opens the newest segment for writing.
    pub fn open_for_writing(disk: Arc<dyn Disk>, number: u64) -> Result<Self, LogError> {
        let database = Self::database(&disk, number)?;
        let segment = Self::with(disk, number, Handle::Writing(database));
        segment.check_format()?;
        segment.load_groups()?;
        Ok(segment)
    }

    fn with(disk: Arc<dyn Disk>, number: u64, handle: Handle) -> Self {
        let (handle, groups) = (RwLock::new(handle), Mutex::default());
        Self { number, disk, handle, readers: Arc::new(()), groups }
    }

    fn database(disk: &Arc<dyn Disk>, number: u64) -> Result<Database, LogError> {
        let backend = disk.open(&name_of(number))?;
        Ok(Builder::new().set_cache_size(WRITE_CACHE).create_with_backend(Boxed(backend))?)
    }

    fn open_for_reading(disk: &Arc<dyn Disk>, number: u64) -> Result<Handle, LogError> {
        let open = || -> Result<ReadOnlyDatabase, LogError> {
            let backend = disk.open(&name_of(number))?;
            Ok(Builder::new().set_cache_size(READ_CACHE).open_read_only_with_backend(Boxed(backend))?)
        };
        match open() {
            Ok(database) => Ok(Handle::Reading(database)),
            Err(_) => {
                // It was open for writing when the process ended: opening it so again repairs it.
                Self::database(disk, number)?.close()?;
                Ok(Handle::Reading(open()?))
            }
        }
    }

    /// Turns the segment read-only if nobody reads from it just now. Says whether it is.
    pub fn settle(&self) -> Result<bool, LogError> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*handle, Handle::Reading(_)) {
            return Ok(true);
        }
        if Arc::strong_count(&self.readers) > 1 {
            return Ok(false);
        }
        *handle = Handle::Closed;
        *handle = Self::open_for_reading(&self.disk, self.number)?;
        Ok(true)
    }

    /// Opens the segment for writing again after a failed commit, which leaves the old handle unusable. Says whether
    /// that could be done: not while somebody reads.
    pub fn reopen(&self) -> Result<bool, LogError> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.readers) > 1 {
            return Ok(false);
        }
        *handle = Handle::Closed;
        *handle = Handle::Writing(Self::database(&self.disk, self.number)?);
        Ok(true)
    }

    /// Deletes the file. Views that are open go on reading it.
    pub fn remove(&self) -> Result<(), LogError> {
        Ok(self.disk.remove(&name_of(self.number))?)
    }

    /// A consistent view of what is committed.
    pub fn view(self: &Arc<Self>) -> Result<View, LogError> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = match &*handle {
            Handle::Writing(database) => database.begin_read()?,
            Handle::Reading(database) => database.begin_read()?,
            Handle::Closed => return Err(LogError::Disk(format!("segment {} could not be opened", self.number))),
        };
        Ok(View {
            data: transaction.open_table(DATA)?,
            by_stream: transaction.open_table(BY_STREAM)?,
            by_group: transaction.open_table(BY_GROUP)?,
            streams: transaction.open_table(STREAMS)?,
            number: self.number,
            _reader: self.readers.clone(),
        })
    }

    fn check_format(&self) -> Result<(), LogError> {
        match self.meta("format")? {
            Some(FORMAT) => Ok(()),
            _ => Err(LogError::Newer(name_of(self.number))),
        }
    }

    /// The number of the next event, as of this segment.
    pub fn next_sequence(&self) -> Result<u64, LogError> {
        Ok(self.meta("next")?.unwrap_or(0))
    }

    fn meta(&self, key: &str) -> Result<Option<u64>, LogError> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = match &*handle {
            Handle::Writing(database) => database.begin_read()?,
            Handle::Reading(database) => database.begin_read()?,
            Handle::Closed => return Ok(None),
        };
        let table = transaction.open_table(META)?;
        Ok(table.get(key)?.map(|value| value.value()))
    }

    fn load_groups(&self) -> Result<(), LogError> {
        let mut groups: HashMap<u64, Summary> = HashMap::new();
        self.each_stream(&mut |key, summary| merge_into(&mut groups, key.group, summary))?;
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = groups;
        Ok(())
    }

    /// Calls `visit` with the summary of each stream that has events here.
    pub fn each_stream(&self, visit: &mut dyn FnMut(StreamKey, Summary)) -> Result<(), LogError> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = match &*handle {
            Handle::Writing(database) => database.begin_read()?,
            Handle::Reading(database) => database.begin_read()?,
            Handle::Closed => return Ok(()),
        };
        let table = transaction.open_table(STREAMS)?;
        for row in table.iter()? {
            let (key, value) = row?;
            let (group, stream) = key.value();
            visit(StreamKey { group, stream }, Summary::from_row(value.value()));
        }
        Ok(())
    }

    /// What the segment holds of a group.
    pub fn group(&self, group: u64) -> Option<Summary> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).get(&group).copied()
    }

    /// The bytes of all messages here.
    pub fn bytes(&self) -> u64 {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).values().map(|summary| summary.bytes).sum()
    }

    /// Writes chunks and returns when they are durable. A chunk that is here already is left as it is.
    pub fn write(&self, chunks: &[Placed], next: u64) -> Result<(), LogError> {
        let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let Handle::Writing(database) = &*handle else {
            return Err(LogError::Disk(format!("segment {} is not open for writing", self.number)));
        };
        let transaction = database.begin_write()?;
        let mut streams: HashMap<StreamKey, Summary> = HashMap::new();
        {
            let mut data = transaction.open_table(DATA)?;
            let mut by_stream = transaction.open_table(BY_STREAM)?;
            let mut by_group = transaction.open_table(BY_GROUP)?;
            for Placed { sequence, header, data: bytes } in chunks {
                if data.get(sequence)?.is_some() {
                    continue;
                }
                data.insert(sequence, bytes.as_slice())?;
                by_stream.insert((header.stream, header.first, *sequence), (header.last, header.count))?;
                by_group.insert((header.group, header.first, *sequence), (header.stream, header.last, header.count))?;
                let key = StreamKey { group: header.group, stream: header.stream };
                merge_into(&mut streams, key, Summary::of(header));
            }
            let mut table = transaction.open_table(STREAMS)?;
            for (key, new) in &streams {
                let row = (key.group, key.stream);
                let old = table.get(row)?.map(|value| Summary::from_row(value.value()));
                table.insert(row, old.map_or(*new, |old| old.merge(*new)).row())?;
            }
            transaction.open_table(META)?.insert("next", next)?;
        }
        transaction.commit()?;
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, summary) in streams {
            merge_into(&mut groups, key.group, summary);
        }
        Ok(())
    }
}

fn merge_into<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Summary>, key: K, summary: Summary) {
    map.entry(key).and_modify(|old| *old = old.merge(summary)).or_insert(summary);
}

/// Called with a chunk's number and bytes; says whether to go on.
type Visit<'v> = dyn FnMut(u64, &[u8]) -> Result<bool, LogError> + 'v;

/// A consistent view of one segment.
pub(super) struct View {
    pub number: u64,
    data: ReadOnlyTable<u64, &'static [u8]>,
    by_stream: ReadOnlyTable<(u64, i64, u64), (i64, u32)>,
    by_group: ReadOnlyTable<(u64, i64, u64), (u64, i64, u32)>,
    streams: ReadOnlyTable<(u64, u64), SummaryRow>,
    _reader: Arc<()>,
}

/// Whose chunks an index is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Group(u64),
    Stream(u64),
}

/// An entry of an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub stream: u64,
    pub first: i64,
    pub last: i64,
    pub count: u32,
    pub sequence: u64,
}

impl View {
    /// What the segment holds of a stream.
    pub fn summary(&self, key: StreamKey) -> Result<Option<Summary>, LogError> {
        Ok(self.streams.get((key.group, key.stream))?.map(|value| Summary::from_row(value.value())))
    }

    /// The bytes of a chunk.
    pub fn chunk(&self, sequence: u64) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.data.get(sequence)?.map(|value| value.value().to_vec()))
    }

    /// Calls `visit` with the chunks from a number on, in order, until it says no.
    pub fn each_chunk(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        for row in self.data.range(from..)? {
            let (sequence, data) = row?;
            if !visit(sequence.value(), data.value())? {
                break;
            }
        }
        Ok(())
    }

    /// The first entry whose first timestamp is in `times`, or with `last` the last one.
    pub fn edge(
        &self,
        owner: Owner,
        times: std::ops::RangeInclusive<i64>,
        last: bool,
    ) -> Result<Option<Entry>, LogError> {
        let mut found = None;
        self.entries(owner, times, last, &mut |entry| {
            found = Some(entry);
            false
        })?;
        Ok(found)
    }

    /// Calls `visit` with the entries whose first timestamp is in `times`, in order or in reverse, until it says no.
    pub fn entries(
        &self,
        owner: Owner,
        times: std::ops::RangeInclusive<i64>,
        reverse: bool,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<(), LogError> {
        let (from, to) = times.into_inner();
        if from > to {
            return Ok(());
        }
        match owner {
            Owner::Stream(stream) => {
                let mut rows = self.by_stream.range((stream, from, 0)..=(stream, to, u64::MAX))?;
                while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
                    let (key, value) = row?;
                    let ((_, first, sequence), (last, count)) = (key.value(), value.value());
                    if !visit(Entry { stream, first, last, count, sequence }) {
                        break;
                    }
                }
            }
            Owner::Group(group) => {
                let mut rows = self.by_group.range((group, from, 0)..=(group, to, u64::MAX))?;
                while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
                    let (key, value) = row?;
                    let ((_, first, sequence), (stream, last, count)) = (key.value(), value.value());
                    if !visit(Entry { stream, first, last, count, sequence }) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
