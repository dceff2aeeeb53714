//! A blob, or a part of one, as a response's body: the next piece is read while the last one is sent.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::Blob;

/// How many bytes are read at once.
const PIECE_BYTES: usize = 512 * 1024;

/// Sends the bytes of a blob from one offset to another.
pub struct BlobBody {
    blob: Arc<dyn Blob>,
    /// What is not being read yet.
    next: u64,
    end: u64,
    /// What has not been given to the client yet.
    remaining: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

impl BlobBody {
    /// The bytes from `start` up to `end`, which must not be beyond the blob's.
    pub fn new(blob: Arc<dyn Blob>, start: u64, end: u64) -> Self {
        let mut body = Self { blob, next: start, end, remaining: end.saturating_sub(start), reading: None };
        body.read_on();
        body
    }

    fn read_on(&mut self) {
        let length = PIECE_BYTES.min(usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(PIECE_BYTES));
        self.reading = (length > 0).then(|| {
            let (blob, offset) = (self.blob.clone(), self.next);
            tokio::task::spawn_blocking(move || blob.read(offset, length))
        });
        self.next += length as u64;
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(reading) = self.reading.as_mut() else { return Poll::Ready(None) };
        let piece = ready!(Pin::new(reading).poll(context)).map_err(io::Error::other).and_then(|piece| piece);
        let expected = self.remaining.min(PIECE_BYTES as u64);
        let piece = match piece {
            Ok(piece) if piece.len() as u64 == expected => piece,
            // The length is promised already: break off rather than send less.
            Ok(_) => {
                self.reading = None;
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            Err(error) => {
                self.reading = None;
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.remaining -= piece.len() as u64;
        self.read_on();
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Memory(Vec<u8>);

    impl Blob for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            let start = usize::try_from(offset).unwrap().min(self.0.len());
            Ok(self.0[start..(start + length).min(self.0.len())].to_vec())
        }
    }

    #[tokio::test]
    async fn a_part_is_sent_whole_over_several_pieces() {
        let content: Vec<u8> = (0..2 * PIECE_BYTES + 100).map(|n| (n % 251) as u8).collect();
        let blob: Arc<dyn Blob> = Arc::new(Memory(content.clone()));
        for (start, end) in [(0, content.len()), (7, PIECE_BYTES + 9), (3, 4), (5, 5)] {
            let body = BlobBody::new(blob.clone(), start as u64, end as u64);
            assert_eq!(body.collect().await.unwrap().to_bytes(), content[start..end]);
        }
    }

    #[tokio::test]
    async fn a_blob_that_ends_early_breaks_off() {
        let body = BlobBody::new(Arc::new(Memory(vec![0; 10])), 0, 20);
        assert!(body.collect().await.is_err());
    }
}
