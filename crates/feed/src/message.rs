//! The lines that publisher and consumer exchange: one JSON object each, ended by a newline.

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::net::{UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf};
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec, LinesCodecError};

use crate::MAX_LINE;

/// The version of this protocol; another one is refused.
pub(crate) const VERSION: u32 = 1;

/// From the consumer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromConsumer {
    /// The first line.
    Hello {
        version: u32,
        consumer: String,
        /// Whose revision `revision` is, if the consumer has a slice already.
        epoch: Option<String>,
        revision: u64,
    },
    /// Everything up to this revision has been acted upon.
    Acknowledge { revision: u64 },
    /// A report; sent again on every new connection until it is confirmed by its number.
    Report { number: u64, key: String, body: Value },
}

/// From the publisher. A step is `Begin`, any number of `Put` and `Delete`, and `End`; it counts only as a whole.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromPublisher {
    /// A step begins; `snapshot` means that it replaces everything.
    Begin { epoch: String, snapshot: bool },
    /// An item is new or changed.
    Put { key: String, value: Value },
    /// An item is gone.
    Delete { key: String },
    /// The step is complete.
    End { revision: u64 },
    /// The report with this number is durable.
    Confirm { number: u64 },
}

/// What can go wrong with one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("the other side closed the connection")]
    Closed,
    #[error(transparent)]
    Line(#[from] LinesCodecError),
    #[error("not a message of this protocol: {0}")]
    Json(#[from] serde_json::Error),
}

pub(crate) type Reader = FramedRead<OwnedReadHalf, LinesCodec>;
pub(crate) type Writer = FramedWrite<OwnedWriteHalf, LinesCodec>;

/// The two halves of a connection, as lines of bounded length.
pub(crate) fn lines(stream: UnixStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (
        FramedRead::new(read, LinesCodec::new_with_max_length(MAX_LINE)),
        FramedWrite::new(write, LinesCodec::new_with_max_length(MAX_LINE)),
    )
}

/// The next message. Safe to cancel.
pub(crate) async fn receive<M: DeserializeOwned>(
    reader: &mut (impl Stream<Item = Result<String, LinesCodecError>> + Unpin),
) -> Result<M, LineError> {
    let line = reader.next().await.ok_or(LineError::Closed)??;
    Ok(serde_json::from_str(&line)?)
}

/// Queues a message; what is queued leaves with [`flush`], or earlier when there is much of it.
pub(crate) async fn send<M: Serialize>(
    writer: &mut (impl Sink<String, Error = LinesCodecError> + Unpin),
    message: &M,
) -> Result<(), LineError> {
    Ok(writer.feed(serde_json::to_string(message)?).await?)
}

/// Sends what is queued.
pub(crate) async fn flush(writer: &mut (impl Sink<String, Error = LinesCodecError> + Unpin)) -> Result<(), LineError> {
    Ok(SinkExt::<String>::flush(writer).await?)
}
