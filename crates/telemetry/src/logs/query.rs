//! What can be asked of a log store, and the shape of the answer.

use std::{collections::HashSet, sync::Arc};

use super::event::{Position, StoredEvent};
use crate::pattern::Pattern;

/// The way a page is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the oldest to the newest.
    Forward,
    /// From the newest to the oldest.
    Backward,
}

/// Which streams of the group.
#[derive(Clone, Debug)]
pub enum Streams {
    /// All of them.
    All,
    /// A few, each found through its own index: right for up to some hundreds.
    Few(Vec<u64>),
    /// Many, picked from the group's index.
    Among(Arc<HashSet<u64>>),
}

/// A page to read.
#[derive(Clone, Debug)]
pub struct Query {
    /// The log group.
    pub group: u64,
    /// Which of its streams.
    pub streams: Streams,
    /// The way to read.
    pub direction: Direction,
    /// The gap to start from: events after it (or before it, when reading backward).
    pub gap: Position,
    /// Only events of this time or later.
    pub start: i64,
    /// Only events before this time.
    pub end: i64,
    /// Only events that match.
    pub matching: Option<Arc<Pattern>>,
    /// Most events on the page.
    pub limit: usize,
    /// Most bytes on the page; each event counts its message and 26. One event is returned even if it alone is larger.
    pub bytes: usize,
    /// Most bytes to look at. A page can be empty because of it, and then is not the last one.
    pub work: usize,
}

/// A page that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The events in the order they were read.
    pub events: Vec<StoredEvent>,
    /// The gap up to which everything was looked at. Where nothing was found it is the gap that was given.
    pub resume: Position,
    /// Whether the end of what there is was reached.
    pub exhausted: bool,
}
