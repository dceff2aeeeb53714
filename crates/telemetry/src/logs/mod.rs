//! The events of log streams on disk.
//!
//! A [`LogStore`] is a directory of **segments**, each one redb file. All streams of all groups append to the newest
//! segment, in one thread that commits whatever has come in since the last commit (group commit): one fsync serves
//! thousands of streams, and an append returns only after it. A segment that is full is sealed and from then on read
//! only; space comes back by deleting whole segments ([`LogStore::reclaim`]).
//!
//! Within a segment, events are kept in **chunks**: up to about 32 KB of one stream's events of the same second.
//! Chunks are stored in the order of arrival and found through two small indexes by time: of the stream, and of the
//! group. Reading walks second by second and merges the chunks of that second, so it costs what the page costs,
//! however much the stream or its group holds.
//!
//! Events are ordered by ([`timestamp`](Position::timestamp), [order of arrival](Position::sequence)), in both
//! directions and across streams: what CloudWatch Logs documents for GetLogEvents and FilterLogEvents.

mod chunk;
mod disk;
mod error;
mod event;
mod query;
mod reclaim;
mod segment;
mod stats;
mod store;
mod walk;
mod writer;

pub use disk::{Directory, Disk};
pub use error::LogError;
pub use event::{NewEvent, Position, StoredEvent, StreamKey};
pub use query::{Direction, Page, Query, Streams};
pub use reclaim::{Keep, Reclaimed};
pub use stats::StreamStats;
pub use store::{LogStore, Options};

/// Decodes arbitrary bytes as a chunk.
pub(crate) fn fuzz_chunk(data: &[u8]) {
    if let Ok(chunk) = chunk::Chunk::decode(data.to_vec()) {
        for index in 0..chunk.len() {
            chunk.message(index);
        }
    }
}
