//! A blob, or a part of one, as a response's body.
//!
//! What is in the page cache is copied where the response is written, without another thread; what is not is read by a
//! thread that may wait for the disk. The few buffers are used again and again: fresh memory for each piece would cost
//! as much as the copying.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::Blob;

/// How many bytes are read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// How many unused buffers are kept.
const MAX_BUFFERS: usize = 4;

/// Sends the bytes of a blob from one offset to another.
pub struct BlobBody {
    blob: Arc<dyn Blob>,
    next: u64,
    end: u64,
    buffers: Buffers,
    reading: Option<JoinHandle<io::Result<Piece>>>,
}

impl BlobBody {
    /// The bytes from `start` up to `end`, which must not be beyond the blob's.
    pub fn new(blob: Arc<dyn Blob>, start: u64, end: u64) -> Self {
        Self { blob, next: start, end, buffers: Buffers::default(), reading: None }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let left = this.end.saturating_sub(this.next);
        if left == 0 {
            return Poll::Ready(None);
        }
        if this.reading.is_none() {
            let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let mut piece = this.buffers.take(length);
            if let Some(count) = this.blob.read_at_hand(this.next, piece.space()) {
                piece.length = count.min(length);
                return Poll::Ready(Some(Ok(this.sent(piece))));
            }
            let (blob, offset) = (this.blob.clone(), this.next);
            this.reading = Some(tokio::task::spawn_blocking(move || {
                piece.length = blob.read(offset, piece.space())?;
                Ok(piece)
            }));
        }
        let Some(reading) = this.reading.as_mut() else { return Poll::Ready(None) };
        let piece = ready!(Pin::new(reading).poll(context)).map_err(io::Error::other).and_then(|piece| piece);
        this.reading = None;
        Poll::Ready(Some(match piece {
            // The length is promised already: break off rather than send less.
            Ok(piece) if piece.length == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(piece) => Ok(this.sent(piece)),
            Err(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.next))
    }
}

impl BlobBody {
    fn sent(&mut self, piece: Piece) -> Frame<Bytes> {
        self.next += piece.length as u64;
        Frame::data(Bytes::from_owner(piece))
    }
}

/// Buffers that are not in use.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// A buffer for so many bytes.
    fn take(&self, length: usize) -> Piece {
        let buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = buffer.unwrap_or_default();
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        Piece { buffer, length, home: self.clone() }
    }
}

/// A buffer with some bytes of the blob; it goes back to the others when they are sent.
struct Piece {
    buffer: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl Piece {
    /// Where the bytes go.
    fn space(&mut self) -> &mut [u8] {
        let length = self.length;
        self.buffer.get_mut(..length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut buffers = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < MAX_BUFFERS {
            buffers.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A blob in memory, of which every other piece is at hand.
    struct Memory(Vec<u8>);

    impl Blob for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let start = usize::try_from(offset).unwrap().min(self.0.len());
            let count = buffer.len().min(self.0.len() - start);
            buffer[..count].copy_from_slice(&self.0[start..start + count]);
            Ok(count)
        }
        fn read_at_hand(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
            // Less than was asked for, as the page cache may give.
            let half = buffer.len().div_ceil(2);
            offset.is_multiple_of(2).then(|| self.read(offset, &mut buffer[..half]).unwrap()).filter(|count| *count > 0)
        }
    }

    #[tokio::test]
    async fn a_part_is_sent_whole_over_several_pieces() {
        let content: Vec<u8> = (0..3 * PIECE_BYTES + 101).map(|n| (n % 251) as u8).collect();
        let blob: Arc<dyn Blob> = Arc::new(Memory(content.clone()));
        for (start, end) in [(0, content.len()), (7, PIECE_BYTES + 9), (3, 4), (4, 5), (5, 5)] {
            let body = BlobBody::new(blob.clone(), start as u64, end as u64);
            assert_eq!(body.size_hint().exact(), Some((end - start) as u64));
            assert!(body.collect().await.unwrap().to_bytes() == content[start..end], "{start}..{end}");
        }
    }

    #[tokio::test]
    async fn a_blob_that_ends_early_breaks_off() {
        let body = BlobBody::new(Arc::new(Memory(vec![0; 10])), 0, 20);
        assert!(body.collect().await.is_err());
    }
}
