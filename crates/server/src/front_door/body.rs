//! The one body type of the front door's answers, and reading a request's body within bounds.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See [`room`]: half a gibibyte.
const ROOM_KIB: usize = 512 << 10;
/// How long the next part of a body, or the room for it, is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Any error of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body, whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with any body.
pub fn boxed<B>(response: Response<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Why a body could not be read.
pub enum ReadError {
    /// It is longer than it may be.
    TooLarge,
    /// The connection broke.
    Broken,
    /// Nothing of it came for too long.
    Slow,
    /// Too many others are being read.
    NoRoom,
}

/// A body, and the room that it takes as long as this lives.
pub struct Whole {
    /// Its bytes.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Room for the bodies of all requests together, in KiB. They are read before their signatures can be verified, so
/// that whoever can connect could otherwise fill the memory.
pub fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ROOM_KIB))
}

/// The whole body, if it has at most `limit` bytes.
pub async fn read<B>(body: B, limit: usize, room: &Arc<Semaphore>) -> Result<Whole, ReadError>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = within(body.frame()).await.ok_or(ReadError::Slow)? {
        let Ok(data) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
        let length = bytes.len().saturating_add(data.len());
        if length > limit {
            return Err(ReadError::TooLarge);
        }
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(length.div_ceil(1024).saturating_sub(has)).unwrap_or(u32::MAX);
        let more = within(room.clone().acquire_many_owned(more)).await.and_then(Result::ok);
        let more = more.ok_or(ReadError::NoRoom)?;
        match &mut held {
            Some(held) => held.merge(more),
            None => held = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Whole { bytes: bytes.freeze(), _room: held })
}

async fn within<F: Future>(work: F) -> Option<F::Output> {
    tokio::time::timeout(PATIENCE, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_have_bounds_each_and_together() {
        let room = Arc::new(Semaphore::new(4));
        let read = |length: usize| read(Full::new(Bytes::from(vec![0; length])), 3 * 1024, &room);
        assert!(matches!(read(3 * 1024 + 1).await, Err(ReadError::TooLarge)));
        let Ok(first) = read(2 * 1024 + 1).await else { panic!("there was room") };
        assert_eq!((first.bytes.len(), room.available_permits()), (2 * 1024 + 1, 1));
        let waits = tokio::time::timeout(Duration::from_millis(20), read(1025)).await;
        assert!(waits.is_err(), "the room of two KiB is taken");
        drop(first);
        assert!(read(1025).await.is_ok());
        assert_eq!(room.available_permits(), 4);
    }
}
