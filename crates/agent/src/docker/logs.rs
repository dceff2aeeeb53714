//! What a container prints, followed over Docker's API: Docker keeps it in a file of its own, whose size is bounded, and
//! a small file of ours says how much of it was delivered.
//!
//! So lines survive a restart of the agent, and come once more if it died between sending and acknowledging, as with our
//! own runtime. Where they go is the log driver's business.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use runtime::{LogLine, Stream, WhenFull};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api;
use super::client::{Client, EngineError};
use crate::logs::LogDriver;
use crate::state;

/// Where a container's lines are, beside what its log driver keeps.
const CURSOR: &str = "cursor.json";
/// Lines on their way from the engine to the log driver.
const AHEAD: usize = 64;
/// Longer lines are handed out in parts, as our own runtime does; CloudWatch takes no longer event.
const LONGEST_LINE: usize = 256 << 10;
/// Docker's own messages are of 16 KiB.
const LONGEST_MESSAGE: usize = 4 << 20;
/// Before an engine that went away is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// What is kept where the definition wants the container to wait instead of losing lines. Docker's file does not let it
/// wait, so there is room for a long absence of the agent instead.
const BLOCKING: u64 = 256 << 20;

/// Docker's own log configuration of a container whose lines are followed with this driver.
pub fn config(driver: &LogDriver) -> Value {
    let limits = match driver {
        // As the engine's operator has set it.
        LogDriver::None => return json!({}),
        _ => driver.spool(),
    };
    let bytes = match limits.when_full {
        WhenFull::Block => BLOCKING,
        WhenFull::Drop => limits.limit_bytes,
    };
    // Two files: what is dropped is dropped by whole files.
    json!({ "Type": "json-file", "Config": { "max-size": bytes.to_string(), "max-file": "2" } })
}

/// How much was delivered: everything before a time, and of what was printed at that very time so many messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    nanoseconds: u64,
    messages: u64,
}

impl Cursor {
    /// The position after a message of this time.
    fn after(self, nanoseconds: u64) -> Cursor {
        let messages = if nanoseconds == self.nanoseconds { self.messages + 1 } else { 1 };
        Cursor { nanoseconds, messages }
    }

    /// As Docker's API takes it.
    fn since(self) -> String {
        format!("{}.{:09}", self.nanoseconds / 1_000_000_000, self.nanoseconds % 1_000_000_000)
    }
}

/// A container's lines. One follower at a time: two would acknowledge each other's lines.
pub struct Follower {
    lines: mpsc::Receiver<(LogLine, Cursor)>,
    file: PathBuf,
    handed_out: Cursor,
    saved: Cursor,
}

impl Follower {
    /// Goes on where the last one was; `directory` is the container's own on our side.
    pub fn open(client: Client, id: &str, directory: &Path) -> Follower {
        let file = directory.join(CURSOR);
        let saved = match std::fs::create_dir_all(directory).and_then(|()| state::read::<Cursor>(&file)) {
            Ok(saved) => saved.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(container = id, %error, "how much of a container's lines was delivered is not known");
                Cursor::default()
            }
        };
        let (sender, lines) = mpsc::channel(AHEAD);
        tokio::spawn(follow(client, id.to_owned(), saved, sender));
        Follower { lines, file, handed_out: saved, saved }
    }

    /// As [`runtime::LogReader::next`].
    pub async fn next(&mut self, max: usize) -> Option<Vec<LogLine>> {
        let mut received = vec![self.lines.recv().await?];
        while received.len() < max
            && let Ok(next) = self.lines.try_recv()
        {
            received.push(next);
        }
        let mut lines = Vec::with_capacity(received.len());
        for (line, cursor) in received {
            self.handed_out = cursor;
            lines.push(line);
        }
        Some(lines)
    }

    /// As [`runtime::LogReader::acknowledge`].
    pub fn acknowledge(&mut self) -> io::Result<()> {
        if self.handed_out != self.saved {
            state::write(&self.file, &self.handed_out)?;
            self.saved = self.handed_out;
        }
        Ok(())
    }
}

/// Reads until the container has ended and everything was handed over, or nobody takes it any more.
async fn follow(client: Client, id: String, from: Cursor, sender: mpsc::Sender<(LogLine, Cursor)>) {
    let mut reader = Reader { cursor: from, pending: BTreeMap::new() };
    let mut ended = false;
    loop {
        match once(&client, &id, ended, &mut reader, &sender).await {
            Ok(true) if ended => break,
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if error.is_absent() => break,
            Err(error) => {
                tracing::info!(container = id, %error, "a container's lines cannot be read just now");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        }
        // The stream also ends when the engine is restarted, and the container need not have been.
        match client.get::<api::Container>(&format!("/containers/{id}/json")).await {
            Ok(container) if container.state.running => tokio::time::sleep(PAUSE).await,
            // Docker ends the stream a moment before it has written the last line: once more, to the end.
            Ok(_) => ended = true,
            Err(error) if error.is_absent() => break,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    for line in reader.flush() {
        let _ = sender.send((line, reader.cursor)).await;
    }
}

/// One stream from the cursor on, of a container that runs for as long as it does; false once nobody takes lines any more.
async fn once(
    client: &Client,
    id: &str,
    ended: bool,
    reader: &mut Reader,
    sender: &mpsc::Sender<(LogLine, Cursor)>,
) -> Result<bool, EngineError> {
    let since = reader.cursor.since();
    let follow = u8::from(!ended);
    let path = format!("/containers/{id}/logs?follow={follow}&stdout=1&stderr=1&timestamps=1&since={since}");
    let mut messages = Messages { body: client.stream(Method::GET, &path, &[]).await?, rest: BytesMut::new() };
    let mut skip = Skip { of: reader.cursor, seen: 0 };
    while let Some((stream, message)) = messages.next().await? {
        let Some((nanoseconds, content)) = timed(&message) else {
            return Err(EngineError::Unreadable("a line without its time".to_owned()));
        };
        if skip.is_known(nanoseconds) {
            continue;
        }
        for line in reader.take(stream, nanoseconds, content) {
            if sender.send((line, reader.cursor)).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What of a stream was handed over before: Docker begins with everything printed at the cursor's time.
struct Skip {
    of: Cursor,
    seen: u64,
}

impl Skip {
    fn is_known(&mut self, nanoseconds: u64) -> bool {
        if nanoseconds != self.of.nanoseconds {
            return nanoseconds < self.of.nanoseconds;
        }
        self.seen += 1;
        self.seen <= self.of.messages
    }
}

/// Makes lines of messages: a message without a newline goes on in the next one of its stream.
struct Reader {
    cursor: Cursor,
    pending: BTreeMap<bool, (u64, Vec<u8>)>,
}

impl Reader {
    fn take(&mut self, stream: Stream, nanoseconds: u64, content: &[u8]) -> Vec<LogLine> {
        self.cursor = self.cursor.after(nanoseconds);
        let (begun, bytes) = self.pending.entry(stream == Stream::Stderr).or_default();
        if bytes.is_empty() {
            *begun = nanoseconds;
        }
        let complete = content.strip_suffix(b"\n");
        bytes.extend_from_slice(complete.unwrap_or(content));
        if complete.is_none() && bytes.len() < LONGEST_LINE {
            return Vec::new();
        }
        let (begun, bytes) = (*begun, std::mem::take(bytes));
        vec![line(stream, begun, bytes, complete.is_none())]
    }

    /// What was printed last and has no newline.
    fn flush(&mut self) -> Vec<LogLine> {
        let pending = std::mem::take(&mut self.pending).into_iter().filter(|(_, (_, bytes))| !bytes.is_empty());
        let stream = |is_error: bool| if is_error { Stream::Stderr } else { Stream::Stdout };
        pending.map(|(is_error, (begun, bytes))| line(stream(is_error), begun, bytes, false)).collect()
    }
}

fn line(stream: Stream, nanoseconds: u64, bytes: Vec<u8>, partial: bool) -> LogLine {
    let time: SystemTime = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    LogLine { stream, time, bytes, partial }
}

/// A message's time and what follows it. Docker writes all nine digits of the nanoseconds.
fn timed(message: &[u8]) -> Option<(u64, &[u8])> {
    let end = message.iter().position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(message.get(..end)?).ok()?;
    let (seconds, fraction) = text.strip_suffix('Z')?.split_once('.').unwrap_or((text.strip_suffix('Z')?, "0"));
    let seconds = wire::Timestamp::parse(&format!("{seconds}Z"))?.seconds();
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let all = u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?;
    Some((all, message.get(end + 1..)?))
}

/// The messages of a stream of both outputs: each after eight bytes that say which output it is of, and how long it is.
struct Messages {
    body: Incoming,
    rest: BytesMut,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<(Stream, Bytes)>, EngineError> {
        loop {
            if let Some(found) = split(&mut self.rest)? {
                return Ok(Some(found));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(error)) => return Err(EngineError::Unreadable(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}

fn split(rest: &mut BytesMut) -> Result<Option<(Stream, Bytes)>, EngineError> {
    let Some([kind, _, _, _, a, b, c, d]) = rest.first_chunk::<8>().copied() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let stream = match kind {
        0 | 1 => Stream::Stdout,
        2 => Stream::Stderr,
        other => return Err(EngineError::Unreadable(format!("a container has no output {other}"))),
    };
    if length > LONGEST_MESSAGE {
        return Err(EngineError::Unreadable(format!("a message of {length} bytes")));
    }
    if rest.len() < 8 + length {
        return Ok(None);
    }
    rest.advance(8);
    Ok(Some((stream, rest.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn messages_are_taken_apart_wherever_they_are_torn() {
        let bytes = [message(1, "one\n"), message(2, "two\n")].concat();
        let mut rest = BytesMut::new();
        let mut found = Vec::new();
        for byte in bytes {
            rest.extend_from_slice(&[byte]);
            found.extend(split(&mut rest).expect("readable"));
        }
        assert_eq!(found, [(Stream::Stdout, Bytes::from("one\n")), (Stream::Stderr, Bytes::from("two\n"))]);
        let mut hostile = BytesMut::from(&[1, 0, 0, 0, 255, 255, 255, 255][..]);
        assert!(split(&mut hostile).is_err());
        assert!(split(&mut BytesMut::from(&[9, 0, 0, 0, 0, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn a_time_is_read_to_the_nanosecond() {
        let (nanoseconds, content) = timed(b"2026-11-28T13:00:00.000000007Z a b\n").expect("a time");
        assert_eq!((nanoseconds % 1_000_000_000, content), (7, &b"a b\n"[..]));
        assert_eq!(
            Cursor { nanoseconds, messages: 1 }.since().split_once('.').map(|(_, rest)| rest),
            Some("000000007")
        );
        assert_eq!(timed(b"yesterday a\n"), None);
    }

    #[test]
    fn a_long_line_comes_as_one_and_the_outputs_apart() {
        let mut reader = Reader { cursor: Cursor::default(), pending: BTreeMap::new() };
        assert!(reader.take(Stream::Stdout, 5, b"be").is_empty());
        let other = reader.take(Stream::Stderr, 6, b"other\n");
        assert_eq!((other[0].bytes.as_slice(), other[0].stream), (&b"other"[..], Stream::Stderr));
        let whole = reader.take(Stream::Stdout, 7, b"gin\n");
        assert_eq!((whole[0].bytes.as_slice(), whole[0].time), (&b"begin"[..], UNIX_EPOCH + Duration::from_nanos(5)));
        reader.take(Stream::Stdout, 8, b"rest");
        assert_eq!(reader.flush()[0].bytes, b"rest");
    }

    #[test]
    fn what_was_delivered_does_not_come_again() {
        let cursor = Cursor::default().after(5).after(7).after(7);
        assert_eq!(cursor, Cursor { nanoseconds: 7, messages: 2 });
        let mut skip = Skip { of: cursor, seen: 0 };
        let new: Vec<u64> = [7, 7, 7, 8].into_iter().filter(|time| !skip.is_known(*time)).collect();
        assert_eq!(new, [7, 8]);
    }
}
