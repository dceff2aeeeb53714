//! The records of a segment file: a header of sixteen bytes, then the content.
//!
//! A record is written with one call, so a reader sees a torn one only after a crash of the host or on a full disk; what is not whole
//! yet is read again later.

use super::Stream;

/// Length of a header.
pub(super) const HEADER: usize = 16;
/// No record is longer.
pub(super) const MAXIMUM: usize = 1 << 16;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Output of a stream.
    Data(Stream),
    /// Output of a stream was dropped here; the content is the number of bytes.
    Gap(Stream),
    /// Nothing comes after this.
    End,
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub kind: Kind,
    pub length: usize,
    pub nanoseconds: u64,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data(Stream::Stdout) => 1u8,
            Kind::Data(Stream::Stderr) => 2,
            Kind::Gap(Stream::Stdout) => 3,
            Kind::Gap(Stream::Stderr) => 4,
            Kind::End => 5,
        };
        let mut bytes = [0; HEADER];
        bytes[0] = kind;
        bytes[4..8].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[8..].copy_from_slice(&self.nanoseconds.to_le_bytes());
        bytes
    }

    /// `None` if this is no header of ours.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let [kind, 0, 0, 0, a, b, c, d, time @ ..] = bytes else { return None };
        let kind = match kind {
            1 => Kind::Data(Stream::Stdout),
            2 => Kind::Data(Stream::Stderr),
            3 => Kind::Gap(Stream::Stdout),
            4 => Kind::Gap(Stream::Stderr),
            5 => Kind::End,
            _ => return None,
        };
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        (length <= MAXIMUM).then_some(Self { kind, length, nanoseconds: u64::from_le_bytes(*time) })
    }
}

/// The file name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The reverse of [`name`].
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 10)?.parse().ok()
}
