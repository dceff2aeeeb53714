//! The server's end of an agent's WebSocket, whatever carries it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

pub(super) use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Telemetry frames are at most 1 MiB; answers are far smaller.
const MESSAGE_LIMIT: usize = 2 << 20;
/// What is read at once: the library clears it for each read, and keeps it for as long as the connection lives.
const READ_BUFFER: usize = 8 << 10;
/// An agent that does not read for this long is gone.
const WRITE: Duration = Duration::from_secs(30);
/// How long, and how much, an agent may still send after it was told why its connection ends: a connection that is cut
/// with unread bytes loses what was said last.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_BYTES: u64 = 64 << 20;

/// An open connection.
pub(super) struct Socket<S> {
    stream: WebSocketStream<S>,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Over;

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a connection after its handshake.
    pub(super) async fn new(io: S) -> Socket<S> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        Socket { stream: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await }
    }

    /// The next text; pings are answered on the way. Safe to give up waiting for. What is no message of the protocol ends
    /// the connection with a code that says why, after which an agent does not come back at once.
    pub(super) async fn receive(&mut self) -> Result<String, Over> {
        loop {
            let (code, reason) = match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Binary(_))) => (CloseCode::Unsupported, "only text is understood"),
                Some(Ok(Message::Close(_))) => {
                    // The answer to it is written already, and has yet to be sent.
                    let _ = tokio::time::timeout(FAREWELL, self.stream.flush()).await;
                    return Err(Over);
                }
                None => return Err(Over),
                Some(Ok(_)) => continue,
                Some(Err(Error::Capacity(_))) => (CloseCode::Size, "the message is too long"),
                Some(Err(Error::Protocol(error))) if error != ProtocolError::ResetWithoutClosingHandshake => {
                    (CloseCode::Protocol, "the frame is malformed")
                }
                Some(Err(Error::Utf8(_))) => (CloseCode::Invalid, "the text is not UTF-8"),
                Some(Err(error)) => {
                    tracing::debug!(%error, "an agent's connection broke");
                    return Err(Over);
                }
            };
            tracing::info!(reason, "an agent's connection is closed");
            let _ = tokio::time::timeout(FAREWELL, self.farewell(code, reason)).await;
            return Err(Over);
        }
    }

    async fn farewell(&mut self, code: CloseCode, reason: &'static str) {
        let _ = self.stream.close(Some(CloseFrame { code, reason: reason.into() })).await;
        let mut rest = self.stream.get_mut().take(FAREWELL_BYTES);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }

    /// Sends a text.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Over> {
        match tokio::time::timeout(WRITE, self.stream.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }

    /// Closes in order. After [`CloseCode::Normal`] and [`CloseCode::Away`] an agent reconnects at once, after the others
    /// it waits a while.
    pub(super) async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stream.close(Some(frame))).await;
    }
}

/// A text of an agent, as long as one that is meant well.
pub(super) fn short(text: &str) -> String {
    text.chars().take(128).collect()
}
