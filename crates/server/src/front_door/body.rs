//! The one body type of the front door's answers, and reading a request's body within bounds.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

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
}

/// How long a client may take for a body, of which the largest has some megabytes.
const PATIENCE: Duration = Duration::from_secs(300);

/// The whole body, if it has at most `limit` bytes.
pub async fn read(body: Incoming, limit: usize) -> Result<Bytes, ReadError> {
    match tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ReadError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(ReadError::Broken),
    }
}
