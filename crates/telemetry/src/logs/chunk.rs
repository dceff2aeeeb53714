//! Chunks: a few events of one stream, as bytes.
//!
//! All events of a chunk belong to the same second, so that reading can go second by second, and it holds no more
//! than fits a storage page of 32 KiB unless a single event is larger. The header repeats all that the indexes say,
//! so that a chunk can be moved to another segment by itself.

use super::event::NewEvent;

/// The length of the time slices that chunks do not cross, in milliseconds.
pub(super) const SLICE_MS: i64 = 1000;
/// Most bytes of one chunk, unless a single event has more: a 32 KiB page less what the engine needs of it.
const MAX_BYTES: usize = 32 * 1024 - 96;
/// The layout. Another one is refused.
const VERSION: u8 = 1;
/// version, group, stream, ingestion time, first and last timestamp, number of events, bytes of messages.
const HEADER_BYTES: usize = 1 + 5 * 8 + 4 + 4;

/// The slice that a time belongs to, as its first millisecond.
pub(super) fn slice_of(timestamp: i64) -> i64 {
    timestamp.saturating_sub(timestamp.rem_euclid(SLICE_MS))
}

/// What the indexes keep of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub group: u64,
    pub stream: u64,
    pub ingestion_time: i64,
    pub first: i64,
    pub last: i64,
    pub count: u32,
    pub bytes: u32,
}

impl Header {
    /// Reads the header alone.
    pub fn decode(data: &[u8]) -> Result<Self, &'static str> {
        let header = data.get(..HEADER_BYTES).ok_or("it is shorter than its header")?;
        if header.first() != Some(&VERSION) {
            return Err("its version is unknown");
        }
        let long = |at: usize| -> u64 {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(header.get(at..at + 8).unwrap_or(&[0; 8]));
            u64::from_le_bytes(bytes)
        };
        let both = long(41);
        let header = Self {
            group: long(1),
            stream: long(9),
            ingestion_time: long(17).cast_signed(),
            first: long(25).cast_signed(),
            last: long(33).cast_signed(),
            count: u32::try_from(both & u64::from(u32::MAX)).unwrap_or(0),
            bytes: u32::try_from(both >> 32).unwrap_or(0),
        };
        // An event takes at least two bytes, so this also bounds what a broken count makes us allocate.
        if header.count == 0 || header.count as usize > data.len() || header.last < header.first {
            return Err("its header makes no sense");
        }
        Ok(header)
    }
}

/// Cuts events into chunks. The events are brought into the order of their times first; those of the same time stay
/// in the order given.
pub(super) fn cut(group: u64, stream: u64, ingestion_time: i64, mut events: Vec<NewEvent>) -> Vec<(Header, Vec<u8>)> {
    events.sort_by_key(|event| event.timestamp);
    let mut chunks = Vec::new();
    let mut open: Option<(Header, Vec<u8>)> = None;
    for event in events {
        let fits = open.as_ref().is_some_and(|(header, data)| {
            slice_of(header.first) == slice_of(event.timestamp) && data.len() + event.message.len() + 13 <= MAX_BYTES
        });
        if !fits {
            chunks.extend(open.take());
        }
        let (header, data) = open.get_or_insert_with(|| {
            let (first, last) = (event.timestamp, event.timestamp);
            (Header { group, stream, ingestion_time, first, last, count: 0, bytes: 0 }, vec![0; HEADER_BYTES])
        });
        header.last = event.timestamp;
        header.count += 1;
        header.bytes = header.bytes.saturating_add(u32::try_from(event.message.len()).unwrap_or(u32::MAX));
        put_varint(data, event.timestamp.abs_diff(header.first));
        put_varint(data, event.message.len() as u64);
        data.extend_from_slice(event.message.as_bytes());
    }
    chunks.extend(open);
    for (header, data) in &mut chunks {
        seal(header, data);
    }
    chunks
}

fn seal(header: &Header, data: &mut [u8]) {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.push(VERSION);
    for long in [header.group, header.stream] {
        bytes.extend_from_slice(&long.to_le_bytes());
    }
    for long in [header.ingestion_time, header.first, header.last] {
        bytes.extend_from_slice(&long.to_le_bytes());
    }
    bytes.extend_from_slice(&header.count.to_le_bytes());
    bytes.extend_from_slice(&header.bytes.to_le_bytes());
    if let Some(start) = data.get_mut(..HEADER_BYTES) {
        start.copy_from_slice(&bytes);
    }
}

/// A chunk that can be read by index.
pub(super) struct Chunk {
    pub header: Header,
    data: Vec<u8>,
    /// Timestamp, start and length of each message.
    events: Vec<(i64, u32, u32)>,
}

impl Chunk {
    /// Reads a chunk, checking every length in it.
    pub fn decode(data: Vec<u8>) -> Result<Self, &'static str> {
        let header = Header::decode(&data)?;
        let mut events = Vec::with_capacity(header.count as usize);
        let mut at = HEADER_BYTES;
        for _ in 0..header.count {
            let delta = take_varint(&data, &mut at).ok_or("a time is cut off")?;
            let length = take_varint(&data, &mut at).ok_or("a length is cut off")?;
            let timestamp = header.first.checked_add_unsigned(delta).ok_or("a time is out of range")?;
            let length = usize::try_from(length).map_err(|_| "a message is too long")?;
            let end = at.checked_add(length).filter(|end| *end <= data.len()).ok_or("a message is cut off")?;
            let start = u32::try_from(at).map_err(|_| "it is too long")?;
            events.push((timestamp, start, u32::try_from(length).map_err(|_| "it is too long")?));
            at = end;
        }
        if !events.is_sorted_by_key(|event| event.0) || events.last().map(|event| event.0) != Some(header.last) {
            return Err("its times are out of order");
        }
        Ok(Self { header, data, events })
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// The time of an event.
    pub fn timestamp(&self, index: usize) -> Option<i64> {
        self.events.get(index).map(|event| event.0)
    }

    /// The text of an event. Messages were text when they came in; what a broken disk made of them is shown as such.
    pub fn message(&self, index: usize) -> std::borrow::Cow<'_, str> {
        let bytes = self.events.get(index).and_then(|(_, start, length)| {
            let start = *start as usize;
            self.data.get(start..start + *length as usize)
        });
        String::from_utf8_lossy(bytes.unwrap_or_default())
    }
}

fn put_varint(data: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        data.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    data.push(value as u8);
}

fn take_varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(timestamp: i64, message: &str) -> NewEvent {
        NewEvent { timestamp, message: message.to_owned() }
    }

    #[test]
    fn chunks_do_not_cross_seconds_and_read_back() {
        let events = vec![event(2001, "c"), event(999, "a"), event(1000, "b"), event(2001, "d é"), event(-1, "z")];
        let chunks = cut(1, 2, 7, events);
        let read: Vec<_> = chunks
            .iter()
            .map(|(header, data)| {
                let chunk = Chunk::decode(data.clone()).unwrap();
                assert_eq!((chunk.header, chunk.header.ingestion_time), (*header, 7));
                (0..chunk.len())
                    .map(|i| (chunk.timestamp(i).unwrap(), chunk.message(i).into_owned()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let expect = [
            vec![(-1, "z".to_owned())],
            vec![(999, "a".to_owned())],
            vec![(1000, "b".to_owned())],
            vec![(2001, "c".to_owned()), (2001, "d é".to_owned())],
        ];
        assert_eq!(read, expect);
    }

    #[test]
    fn a_chunk_fits_its_page_unless_one_event_does_not() {
        let events = (0..1000).map(|i| event(i / 10, &"x".repeat(300))).chain([event(50, &"y".repeat(1 << 20))]);
        for (header, data) in cut(1, 2, 7, events.collect()) {
            assert!(data.len() <= MAX_BYTES || header.count == 1, "{header:?} has {}", data.len());
        }
    }

    #[test]
    fn a_chunk_cut_anywhere_is_refused() {
        let (_, data) = cut(1, 2, 7, vec![event(5, "hello"), event(6, "world")]).remove(0);
        for length in 0..data.len() {
            assert!(Chunk::decode(data[..length].to_vec()).is_err(), "{length}");
        }
    }
}
