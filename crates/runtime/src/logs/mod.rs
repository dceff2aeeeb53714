//! What a container prints, kept on disk until somebody has taken it.
//!
//! The shim appends chunks to numbered segment files ([`spool`]); the caller reads them as lines ([`LogReader`]) and acknowledges, which
//! deletes whole segments and remembers the rest in a small file. So lines survive a restart of the caller and come once more
//! if it died between sending and acknowledging. The files together never exceed the container's limit; beyond it the
//! container waits or loses output, as its specification says. Where lines go, and how they are batched, is the caller's.

mod reader;
mod record;
pub(crate) mod spool;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use reader::LogReader;

/// Which of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was printed.
    pub stream: Stream,
    /// When the chunk with its first byte was read from the container.
    pub time: SystemTime,
    /// Without the newline (a carriage return before it stays).
    pub bytes: Vec<u8>,
    /// Whether it goes on in the next line of the same stream, because it is longer than 256 KiB.
    pub partial: bool,
}
