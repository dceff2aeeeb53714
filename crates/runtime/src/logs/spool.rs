//! The writing side: bounded segment files.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Stream;
use super::record::{self, HEADER, Header, Kind, MAXIMUM};
use crate::container::{LogLimits, WhenFull};
use crate::files;

/// What a record takes beside its content, with the records of gaps that may come before it.
const RESERVE: usize = 3 * HEADER + 16;

/// Whether output should be read from the container now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Yes,
    No,
}

/// The spool of one container, held by its shim.
pub(crate) struct Spool {
    directory: PathBuf,
    when_full: WhenFull,
    limit: u64,
    segment_limit: u64,
    /// Number and size of the segments not yet seen to be deleted; the last one is being written.
    segments: VecDeque<(u64, u64)>,
    file: Option<File>,
    /// Dropped bytes of each stream that no record tells of yet.
    pending_gap: [u64; 2],
    full: bool,
}

impl Spool {
    pub(crate) fn create(directory: &Path, limits: &LogLimits) -> io::Result<Self> {
        files::private_directory(directory)?;
        let mut spool = Self {
            directory: directory.to_path_buf(),
            when_full: limits.when_full,
            limit: limits.limit_bytes,
            // Space comes back by whole segments, so there are several.
            segment_limit: (limits.limit_bytes / 4).clamp(64 << 10, 4 << 20),
            segments: VecDeque::new(),
            file: None,
            pending_gap: [0; 2],
            full: false,
        };
        spool.rotate()?;
        Ok(spool)
    }

    /// With blocking writes, whether a chunk of each stream fits. A spool that drops always has room.
    pub(crate) fn room(&mut self) -> Room {
        if self.when_full == WhenFull::Drop {
            return Room::Yes;
        }
        // One chunk of each stream may be read before this is asked again.
        self.full = !self.fits(2 * (MAXIMUM + RESERVE));
        if self.full { Room::No } else { Room::Yes }
    }

    /// Whether the container waits for space.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Keeps a chunk, or counts it as dropped.
    pub(crate) fn append(&mut self, stream: Stream, chunk: &[u8], nanoseconds: u64) {
        for part in chunk.chunks(MAXIMUM) {
            if !self.keep(stream, part, nanoseconds) {
                let gap = &mut self.pending_gap[stream as usize];
                *gap = gap.saturating_add(part.len() as u64);
            }
        }
    }

    /// Tells the reader that nothing will follow.
    pub(crate) fn finish(&mut self) {
        let now = files::now_nanoseconds();
        self.tell_gaps(now);
        // On a full disk the reader learns of the end from the shim's absence.
        let _ = self.write(Header { kind: Kind::End, length: 0, nanoseconds: now }, &[]);
    }

    fn keep(&mut self, stream: Stream, part: &[u8], nanoseconds: u64) -> bool {
        // Room for a gap's record is always left.
        if !self.fits(part.len() + RESERVE) || !self.tell_gaps(nanoseconds) {
            return false;
        }
        self.write(Header { kind: Kind::Data(stream), length: part.len(), nanoseconds }, part).is_ok()
    }

    fn tell_gaps(&mut self, nanoseconds: u64) -> bool {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let dropped = self.pending_gap[stream as usize];
            if dropped > 0 {
                let written =
                    self.write(Header { kind: Kind::Gap(stream), length: 8, nanoseconds }, &dropped.to_le_bytes());
                if written.is_err() {
                    return false;
                }
                self.pending_gap[stream as usize] = 0;
            }
        }
        true
    }

    fn fits(&mut self, length: usize) -> bool {
        let length = length as u64;
        if self.used() + length > self.limit {
            // Only now is it worth asking the disk what the reader has deleted.
            let directory = &self.directory;
            let current = self.segments.back().map_or(0, |segment| segment.0);
            self.segments.retain(|(number, _)| *number == current || directory.join(record::name(*number)).exists());
        }
        self.used() + length <= self.limit
    }

    fn used(&self) -> u64 {
        self.segments.iter().map(|(_, size)| size).sum()
    }

    fn write(&mut self, header: Header, content: &[u8]) -> io::Result<()> {
        let length = (HEADER + content.len()) as u64;
        if self.segments.back().is_none_or(|(_, size)| size + length > self.segment_limit && *size > 0) {
            self.rotate()?;
        }
        let (Some(file), Some((_, size))) = (&mut self.file, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment"));
        };
        let encoded = header.encode();
        let written = file.write_vectored(&[IoSlice::new(&encoded), IoSlice::new(content)]);
        match written {
            Ok(count) if count as u64 == length => {
                *size += length;
                Ok(())
            }
            result => {
                // A part of a record (the disk is full) is taken back, for a reader would trip over it.
                file.set_len(*size)?;
                Err(result.err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC)))
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let next = self.segments.back().map_or(0, |(number, _)| number + 1);
        let path = self.directory.join(record::name(next));
        self.file = Some(OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?);
        self.segments.push_back((next, 0));
        Ok(())
    }
}
