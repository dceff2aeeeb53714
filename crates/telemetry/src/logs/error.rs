//! What can go wrong with stored events.

use std::io;

/// A failure of the log store. None of these is the caller's mistake.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The disk refused: full, read-only, broken. Nothing of the call was kept.
    #[error("log segments: {0}")]
    Disk(String),
    /// A stored chunk does not read as one.
    #[error("log segment {segment}: a chunk cannot be read: {reason}")]
    Corrupt {
        /// The segment's number.
        segment: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A newer Longshore wrote this directory.
    #[error("log segment {0} was written by a newer version of Longshore")]
    Newer(String),
    /// The store is shutting down.
    #[error("the log store is closed")]
    Closed,
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

macro_rules! from_engine {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for LogError {
            fn from(error: redb::$kind) -> Self {
                Self::Disk(error.to_string())
            }
        }
    )*};
}

from_engine!(Error, DatabaseError, TransactionError, TableError, StorageError, CommitError);
