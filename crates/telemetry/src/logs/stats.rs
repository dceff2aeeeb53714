//! What is known of each stream without reading: times, bytes, and the order by last event.
//!
//! Kept in memory for every stream that exists, some 150 bytes each, as the store keeps the stream itself.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use super::{event::StreamKey, segment::Summary};

/// What is known of a stream that has events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// Time of its oldest event, in milliseconds since 1970.
    pub first_event: i64,
    /// Time of its newest event.
    pub last_event: i64,
    /// When it last received something.
    pub last_ingestion: i64,
    /// How many events it has.
    pub events: u64,
    /// The bytes of their messages.
    pub bytes: u64,
}

/// The time that a stream without events is ordered by.
const NO_EVENT: i64 = i64::MIN;

#[derive(Default)]
pub(super) struct Stats {
    streams: HashMap<u64, (u64, Option<Summary>)>,
    groups: HashMap<u64, Group>,
}

#[derive(Default)]
struct Group {
    bytes: u64,
    /// (time of the last event, stream).
    by_last_event: BTreeSet<(i64, u64)>,
}

impl Stats {
    /// Makes a stream known, if it is not.
    pub fn register(&mut self, key: StreamKey) {
        if !self.streams.contains_key(&key.stream) {
            self.set(key, None);
        }
    }

    /// Takes in what was written to a stream.
    pub fn add(&mut self, key: StreamKey, new: Summary) {
        let old = self.streams.get(&key.stream).and_then(|(_, summary)| *summary);
        self.set(key, Some(old.map_or(new, |old| old.merge(new))));
    }

    /// Replaces what is known of a stream.
    pub fn set(&mut self, key: StreamKey, new: Option<Summary>) {
        let old = self.streams.insert(key.stream, (key.group, new));
        let group = self.groups.entry(key.group).or_default();
        if let Some((_, old)) = old {
            group.by_last_event.remove(&(old.map_or(NO_EVENT, |old| old.last), key.stream));
            group.bytes = group.bytes.saturating_sub(old.map_or(0, |old| old.bytes));
        }
        group.by_last_event.insert((new.map_or(NO_EVENT, |new| new.last), key.stream));
        group.bytes += new.map_or(0, |new| new.bytes);
    }

    /// Whether the stream exists, as far as is known here.
    pub fn knows(&self, stream: u64) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Forgets a stream that was deleted.
    pub fn forget(&mut self, stream: u64) {
        let Some((group_id, summary)) = self.streams.remove(&stream) else { return };
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        group.by_last_event.remove(&(summary.map_or(NO_EVENT, |summary| summary.last), stream));
        group.bytes = group.bytes.saturating_sub(summary.map_or(0, |summary| summary.bytes));
        if group.by_last_event.is_empty() {
            self.groups.remove(&group_id);
        }
    }

    /// All streams that are known.
    pub fn keys(&self) -> Vec<StreamKey> {
        self.streams.iter().map(|(stream, (group, _))| StreamKey { group: *group, stream: *stream }).collect()
    }

    pub fn stream(&self, stream: u64) -> Option<StreamStats> {
        let summary = self.streams.get(&stream)?.1?;
        Some(StreamStats {
            first_event: summary.first,
            last_event: summary.last,
            last_ingestion: summary.last_ingestion,
            events: summary.events,
            bytes: summary.bytes,
        })
    }

    pub fn group_bytes(&self, group: u64) -> u64 {
        self.groups.get(&group).map_or(0, |group| group.bytes)
    }

    pub fn by_last_event(
        &self,
        group: u64,
        after: Option<(i64, u64)>,
        descending: bool,
        limit: usize,
    ) -> Vec<(i64, u64)> {
        let Some(group) = self.groups.get(&group) else { return Vec::new() };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        if descending {
            group.by_last_event.range((Bound::Unbounded, after)).rev().take(limit).copied().collect()
        } else {
            group.by_last_event.range((after, Bound::Unbounded)).take(limit).copied().collect()
        }
    }
}
