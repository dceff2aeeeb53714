//! From lines to log events: lines that belong together become one event, and what is too long becomes several.

use domain::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Most bytes of an event's message: 256 KiB less the 26 bytes Amazon counts for each event.
pub const MESSAGE_LIMIT: usize = (256 << 10) - 26;
/// How long an event of several lines waits for its next line, in milliseconds.
const PATIENCE: i64 = 1_000;

/// A log event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When its first byte was printed.
    pub time: Timestamp,
    /// At least one byte.
    pub message: String,
}

/// Makes events of lines.
#[derive(Debug)]
pub struct Assembler {
    first_line: Option<Regex>,
    open: Option<Event>,
}

impl Assembler {
    /// Each line is an event, unless `first_line` says which lines begin one.
    pub fn new(first_line: Option<Regex>) -> Assembler {
        Assembler { first_line, open: None }
    }

    /// Goes on with an event that was not complete before a restart.
    pub fn resume(&mut self, open: Option<Event>) {
        self.open = open;
    }

    /// The event that still waits for lines.
    pub fn open(&self) -> Option<&Event> {
        self.open.as_ref()
    }

    /// Takes one line in; complete events go to `events`.
    pub fn push(&mut self, line: &[u8], time: Timestamp, events: &mut Vec<Event>) {
        let text = String::from_utf8_lossy(line);
        let Some(first_line) = &self.first_line else {
            split(text.into_owned(), time, events);
            return;
        };
        let begins = first_line.is_match(&text);
        let fits = self.open.as_ref().is_some_and(|open| open.message.len() + text.len() < MESSAGE_LIMIT);
        if begins || !fits {
            self.flush(events);
        }
        match &mut self.open {
            Some(open) => {
                open.message.push('\n');
                open.message.push_str(&text);
            }
            None => self.open = Some(Event { time, message: text.into_owned() }),
        }
    }

    /// Gives up waiting for more lines of an event that is old enough.
    pub fn expire(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        if self.open.as_ref().is_some_and(|open| now.millis().saturating_sub(open.time.millis()) >= PATIENCE) {
            self.flush(events);
        }
    }

    /// Ends the open event.
    pub fn flush(&mut self, events: &mut Vec<Event>) {
        if let Some(open) = self.open.take() {
            split(open.message, open.time, events);
        }
    }
}

/// Amazon takes no empty message and none above its limit.
fn split(message: String, time: Timestamp, events: &mut Vec<Event>) {
    if message.is_empty() {
        return;
    }
    if message.len() <= MESSAGE_LIMIT {
        events.push(Event { time, message });
        return;
    }
    let mut rest = message.as_str();
    while !rest.is_empty() {
        let mut end = rest.len().min(MESSAGE_LIMIT);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, left) = rest.split_at(end);
        events.push(Event { time, message: piece.to_owned() });
        rest = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.message.as_str()).collect()
    }

    #[test]
    fn each_line_is_an_event_and_empty_ones_are_none() {
        let (mut assembler, mut events) = (Assembler::new(None), Vec::new());
        for line in ["a", "", "b"] {
            assembler.push(line.as_bytes(), Timestamp(1), &mut events);
        }
        assert_eq!(messages(&events), ["a", "b"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let (mut assembler, mut events) = (Assembler::new(None), Vec::new());
        let line = "é".repeat(MESSAGE_LIMIT);
        assembler.push(line.as_bytes(), Timestamp(1), &mut events);
        assert!(events.iter().all(|event| event.message.len() <= MESSAGE_LIMIT));
        assert_eq!(messages(&events).concat(), line);
    }

    #[test]
    fn lines_that_belong_together_are_one_event() {
        let (mut assembler, mut events) = (Assembler::new(Regex::new("^INFO").ok()), Vec::new());
        for (time, line) in ["INFO one", "  two", "INFO three"].iter().enumerate() {
            assembler.push(line.as_bytes(), Timestamp(time as i64), &mut events);
        }
        assert_eq!(messages(&events), ["INFO one\n  two"]);
        assembler.expire(Timestamp(500), &mut events);
        assert_eq!(events.len(), 1);
        assembler.expire(Timestamp(2_000), &mut events);
        assert_eq!(messages(&events), ["INFO one\n  two", "INFO three"]);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_stream() {
        let (mut assembler, mut events) = (Assembler::new(None), Vec::new());
        assembler.push(&[b'a', 0xff, b'b'], Timestamp(1), &mut events);
        assert_eq!(messages(&events), ["a\u{fffd}b"]);
    }
}
