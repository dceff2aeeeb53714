//! The meeting place: every resource of the platform, in memory as immutable snapshots, on disk through a small seam.
//!
//! - Readers take a [`Snapshot`]: cheap, consistent, never changing.
//! - Writers call [`Store::transact`] with a closure that reads and writes a [`Transaction`]; closures run one after
//!   the other on the newest state, many are made durable together, and the call returns when its own is.
//! - Followers take a [`Watch`] and learn which keys changed; what changed in them they read from a snapshot.
//!
//! The seam to the disk is [`Journal`]: `load` everything, `append` a batch. It never answers queries, so that a journal on
//! another engine (etcd) needs no more than that. The embedded one is [`embedded::open`], on redb.
//!
//! Kinds marked volatile ([`Kinds::volatile`]) live in snapshots and watches like all others and never reach the disk:
//! connection state, target health, readings.

pub mod embedded;
mod journal;
mod kinds;
pub mod memory;
mod snapshot;
mod transaction;
mod watch;
mod writer;

pub use journal::{Batch, Journal, JournalError, Revision, Write};
pub use kinds::Kinds;
pub use snapshot::Snapshot;
pub use transaction::Transaction;
pub use watch::{Change, Changes, Watch};
pub use writer::{OpenError, Store, TransactError};
