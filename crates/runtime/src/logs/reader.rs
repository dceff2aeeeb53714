//! The reading side: chunks become lines, and what was acknowledged is forgotten.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde::{Deserialize, Serialize};

use super::record::{self, HEADER, Header, Kind};
use super::{LogLine, Stream};
use crate::container::Inner;
use crate::files;

/// Longer lines are handed out in parts; CloudWatch takes no longer event.
const MAXIMUM_LINE: usize = 256 << 10;
/// Where the reader is, beside the segments.
const CURSOR: &str = "cursor.json";
/// How soon new output is looked for, at first and at rest.
const BUSY: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_millis(200);

/// A position between two records, with what of a line came before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    segment: u64,
    offset: u64,
    dropped: u64,
    stdout: Pending,
    stderr: Pending,
}

/// The beginning of a line whose end was not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    #[serde(with = "encoded", default)]
    bytes: Vec<u8>,
    nanoseconds: u64,
    /// After a gap: what comes before the next newline is the rest of a line whose beginning was dropped.
    skip: bool,
}

mod encoded {
    use super::{Deserialize, Engine};

    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

/// Reads one container's output as lines. One reader at a time: two would acknowledge each other's lines.
pub struct LogReader {
    directory: PathBuf,
    cursor: Cursor,
    file: Option<(u64, File)>,
    /// The first segment that may still be on disk.
    oldest: u64,
    ended: bool,
    owner: Option<Arc<Inner>>,
}

impl LogReader {
    pub(crate) fn open(directory: &Path, owner: Option<Arc<Inner>>) -> Self {
        let saved = fs::read(directory.join(CURSOR)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let cursor: Cursor = saved.unwrap_or_default();
        Self { directory: directory.to_path_buf(), oldest: cursor.segment, cursor, file: None, ended: false, owner }
    }

    /// The next lines, about `max` of them (a chunk of up to 64 KiB is not torn). Waits until there is one; `None` when the container has
    /// ended and everything was handed out. A cancelled call loses nothing.
    ///
    /// # Errors
    /// If the spool cannot be read, for instance because the container was deleted.
    pub async fn next(&mut self, max: usize) -> io::Result<Option<Vec<LogLine>>> {
        let mut pause = BUSY;
        loop {
            // Asked before reading: what was printed before the end is on disk by then.
            let owner_gone = self.owner.as_ref().is_some_and(|owner| owner.output_is_complete());
            let lines = self.read(max.max(1))?;
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            if self.ended || owner_gone {
                let rest = self.flush();
                self.ended = true;
                return Ok(if rest.is_empty() { None } else { Some(rest) });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(IDLE);
        }
    }

    /// Forgets everything handed out so far: deletes whole segments, and saves the position in the current one.
    ///
    /// # Errors
    /// If the position cannot be written (a full disk): the lines will come again after a restart.
    pub fn acknowledge(&mut self) -> io::Result<()> {
        // First the position, then the segments before it: the other order could lose the position's meaning.
        let text = serde_json::to_vec(&self.cursor)?;
        files::replace(&self.directory.join(CURSOR), &text, 0o600)?;
        while self.oldest < self.cursor.segment {
            match fs::remove_file(self.directory.join(record::name(self.oldest))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.oldest += 1,
            }
        }
        Ok(())
    }

    /// How many bytes were dropped because the spool was full, of those the reading has come past.
    pub fn dropped_bytes(&self) -> u64 {
        self.cursor.dropped
    }

    fn read(&mut self, max: usize) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        while lines.len() < max && !self.ended {
            let Some((header, content)) = self.record()? else { break };
            self.cursor.offset += (HEADER + content.len()) as u64;
            match header.kind {
                Kind::Data(stream) => self.pending(stream).split(stream, &content, header.nanoseconds, &mut lines),
                Kind::Gap(stream) => {
                    let count = content.as_slice().try_into().map_or(0, u64::from_le_bytes);
                    self.cursor.dropped = self.cursor.dropped.saturating_add(count);
                    let pending = self.pending(stream);
                    // A line is dropped as a whole.
                    pending.bytes.clear();
                    pending.skip = true;
                }
                Kind::End => self.ended = true,
            }
        }
        if self.ended {
            lines.extend(self.flush());
        }
        Ok(lines)
    }

    fn pending(&mut self, stream: Stream) -> &mut Pending {
        match stream {
            Stream::Stdout => &mut self.cursor.stdout,
            Stream::Stderr => &mut self.cursor.stderr,
        }
    }

    /// The last lines need no newline.
    fn flush(&mut self) -> Vec<LogLine> {
        let mut lines = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = self.pending(stream);
            if !pending.bytes.is_empty() {
                lines.push(pending.line(stream, false));
            }
        }
        lines
    }

    /// The record at the position, if it is whole.
    fn record(&mut self) -> io::Result<Option<(Header, Vec<u8>)>> {
        loop {
            let mut header = [0; HEADER];
            match self.read_at(&mut header, 0)? {
                None => return Ok(None),
                Some(true) => {}
                Some(false) => {
                    // The writer has moved on only if the next segment exists, and then this one is complete.
                    if !self.directory.join(record::name(self.cursor.segment + 1)).exists() {
                        return Ok(None);
                    }
                    if self.read_at(&mut header, 0)? != Some(true) {
                        self.cursor.segment += 1;
                        self.cursor.offset = 0;
                        continue;
                    }
                }
            }
            let Some(header) = Header::decode(&header) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("segment {} is damaged at {}", self.cursor.segment, self.cursor.offset),
                ));
            };
            let mut content = vec![0; header.length];
            return Ok((self.read_at(&mut content, HEADER as u64)? == Some(true)).then_some((header, content)));
        }
    }

    /// Reads at the position; `None` without a segment, `Some(false)` if it is not that long.
    fn read_at(&mut self, buffer: &mut [u8], beyond: u64) -> io::Result<Option<bool>> {
        self.segment()?;
        let offset = self.cursor.offset + beyond;
        self.file
            .as_ref()
            .filter(|(number, _)| *number == self.cursor.segment)
            .map(|(_, file)| read_exact(file, buffer, offset))
            .transpose()
    }

    /// Opens the segment at the position, or the first one left if the position was never saved.
    fn segment(&mut self) -> io::Result<()> {
        if self.file.as_ref().is_some_and(|(number, _)| *number == self.cursor.segment) {
            return Ok(());
        }
        match File::open(self.directory.join(record::name(self.cursor.segment))) {
            Ok(file) => self.file = Some((self.cursor.segment, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(first) = self.first_after() else { return Ok(()) };
                self.cursor.segment = first;
                self.cursor.offset = 0;
                self.file = Some((first, File::open(self.directory.join(record::name(first)))?));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn first_after(&self) -> Option<u64> {
        let names = fs::read_dir(&self.directory).ok()?;
        names
            .flatten()
            .filter_map(|entry| record::number(entry.file_name().to_str()?))
            .filter(|number| *number > self.cursor.segment)
            .min()
    }
}

impl Pending {
    fn split(&mut self, stream: Stream, mut content: &[u8], nanoseconds: u64, lines: &mut Vec<LogLine>) {
        while !content.is_empty() {
            let newline = content.iter().position(|byte| *byte == b'\n');
            let (piece, rest) = content.split_at(newline.map_or(content.len(), |at| at + 1));
            content = rest;
            if self.skip {
                self.skip = newline.is_none();
                continue;
            }
            if self.bytes.is_empty() {
                self.nanoseconds = nanoseconds;
            }
            let mut piece = piece.strip_suffix(b"\n").unwrap_or(piece);
            while self.bytes.len() + piece.len() > MAXIMUM_LINE {
                let (head, tail) = piece.split_at(MAXIMUM_LINE.saturating_sub(self.bytes.len()));
                self.bytes.extend_from_slice(head);
                lines.push(self.line(stream, true));
                piece = tail;
            }
            self.bytes.extend_from_slice(piece);
            if newline.is_some() {
                lines.push(self.line(stream, false));
            }
        }
    }

    fn line(&mut self, stream: Stream, partial: bool) -> LogLine {
        LogLine {
            stream,
            time: files::from_nanoseconds(self.nanoseconds),
            bytes: std::mem::take(&mut self.bytes),
            partial,
        }
    }
}

/// Whether the file was long enough.
fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
