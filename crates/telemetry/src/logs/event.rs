//! Events and where they are.

/// A log stream: numbers that the owner of the names gives out, never the same twice, not even for a stream of the
/// same name that is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The log group's number.
    pub group: u64,
    /// The log stream's number, unique over all groups.
    pub stream: u64,
}

/// An event to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// When it happened, in milliseconds since 1970.
    pub timestamp: i64,
    /// The text.
    pub message: String,
}

/// The place of an event in the order of all events: by time, then by arrival.
///
/// As a *gap* it stands for the place just before the event of that position, whether there is one or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// When the event happened, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its number in the order of arrival, unique in the store.
    pub sequence: u64,
}

impl Position {
    /// Before everything.
    pub const FIRST: Position = Position { timestamp: i64::MIN, sequence: 0 };
    /// After everything.
    pub const LAST: Position = Position { timestamp: i64::MAX, sequence: u64::MAX };

    /// The gap before all events of a time.
    pub fn at(timestamp: i64) -> Self {
        Self { timestamp, sequence: 0 }
    }

    /// The gap just after the event at this position.
    pub fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self::at(self.timestamp.saturating_add(1)),
        }
    }
}

/// An event as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// The stream it belongs to.
    pub stream: u64,
    /// Its time and its number.
    pub position: Position,
    /// When it arrived, in milliseconds since 1970.
    pub ingestion_time: i64,
    /// The text.
    pub message: String,
}
