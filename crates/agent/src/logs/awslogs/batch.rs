//! Batches within the limits of `PutLogEvents`: 10,000 events, 1 MiB with 26 bytes added for each event, 24 hours, in
//! order of time.

use super::lines::Event;

/// Most events.
const EVENTS: usize = 10_000;
/// Most bytes.
const BYTES: usize = 1 << 20;
/// What Amazon adds for each event.
const OVERHEAD: usize = 26;
/// Most milliseconds between the first and the last event; a minute less than the 24 hours allowed.
const SPAN: i64 = (24 * 60 - 1) * 60 * 1000;

/// Events on their way.
#[derive(Debug, Default)]
pub struct Batch {
    events: Vec<Event>,
    bytes: usize,
    first: i64,
    last: i64,
}

impl Batch {
    /// Takes an event in, or gives it back if the batch is full for it.
    pub fn push(&mut self, event: Event) -> Result<(), Event> {
        let bytes = event.message.len() + OVERHEAD;
        let time = event.time.millis();
        if self.events.is_empty() {
            (self.first, self.last) = (time, time);
        }
        let (first, last) = (self.first.min(time), self.last.max(time));
        let full = self.events.len() >= EVENTS || self.bytes + bytes > BYTES || last.saturating_sub(first) > SPAN;
        if full && !self.events.is_empty() {
            return Err(event);
        }
        (self.first, self.last) = (first, last);
        self.bytes += bytes;
        self.events.push(event);
        Ok(())
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether it is worth delivering now.
    pub fn is_large(&self) -> bool {
        self.bytes > BYTES / 2 || self.events.len() > EVENTS / 2
    }

    /// The events, in order of time as Amazon wants them; equal times keep their order.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(self).events;
        events.sort_by_key(|event| event.time);
        events
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;

    use super::*;

    fn event(time: i64, length: usize) -> Event {
        Event { time: Timestamp(time), message: "x".repeat(length) }
    }

    #[test]
    fn a_batch_stays_within_amazons_bytes() {
        let mut batch = Batch::default();
        let mut taken = 0;
        while batch.push(event(0, 100_000)).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 10);
        assert!(batch.is_large());
        assert_eq!(batch.take().len(), 10);
        assert!(batch.is_empty() && batch.push(event(0, 1)).is_ok());
    }

    #[test]
    fn a_batch_stays_within_amazons_count_and_day() {
        let mut batch = Batch::default();
        assert!(batch.push(event(0, 1)).is_ok());
        assert!(batch.push(event(24 * 3_600_000, 1)).is_err());
        for _ in 1..EVENTS {
            assert!(batch.push(event(5, 1)).is_ok());
        }
        assert!(batch.push(event(5, 1)).is_err());
    }

    #[test]
    fn events_leave_in_order_of_time() {
        let mut batch = Batch::default();
        for time in [3, 1, 2] {
            assert!(batch.push(event(time, 1)).is_ok());
        }
        let times: Vec<i64> = batch.take().iter().map(|event| event.time.millis()).collect();
        assert_eq!(times, [1, 2, 3]);
    }
}
