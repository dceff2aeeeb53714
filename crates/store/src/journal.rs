//! The seam between the store and what keeps it: load everything once, then append batches.

/// Counts the batches ever appended; 0 is an empty journal.
pub type Revision = u64;

/// One write of a batch. Values are JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put {
        /// The resource's kind.
        kind: &'static str,
        /// The resource's key.
        key: String,
        /// The resource as JSON.
        value: Vec<u8>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The resource's kind.
        kind: &'static str,
        /// The resource's key.
        key: String,
    },
}

/// Writes that become durable together or not at all.
pub type Batch = Vec<Write>;

/// Why the journal could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Somebody else has appended meanwhile: this process is no longer the only writer.
    #[error("the store is at revision {found}, not at {expected}: another writer has appended to it")]
    Conflict {
        /// Where this writer thought it was.
        expected: Revision,
        /// Where it is.
        found: Revision,
    },
    /// It is in use by another process.
    #[error("{0} is in use by another process: stop the other platform first, or use another data directory")]
    InUse(String),
    /// The engine below failed: a full disk, a damaged file.
    #[error("{0}")]
    Engine(String),
}

/// What keeps the store, on whatever engine. It may block: its first `load` runs on the thread that opens the store,
/// everything after that on a thread of its own.
pub trait Journal: Send + 'static {
    /// Gives every resource to `each` as kind, key and JSON value, and returns the journal's revision.
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, JournalError>;

    /// Makes a batch durable, if the journal is at `expected`, and returns the new revision. After an error the batch is
    /// there whole or not at all, and only the next `load`, which must come before the next `append`, tells which. All transactions
    /// that wait become one batch, so a batch has no bound: an engine that has one must write it in parts that count together.
    fn append(&mut self, batch: &[Write], expected: Revision) -> Result<Revision, JournalError>;
}

impl Journal for Box<dyn Journal> {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, JournalError> {
        (**self).load(each)
    }

    fn append(&mut self, batch: &[Write], expected: Revision) -> Result<Revision, JournalError> {
        (**self).append(batch, expected)
    }
}
