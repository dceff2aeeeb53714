//! The server's end of an agent's WebSocket, whatever carries it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

/// Telemetry frames are at most 1 MiB; answers are far smaller.
const MESSAGE_LIMIT: usize = 2 << 20;
/// What is read at once: the library clears it for each read, and keeps it for as long as the connection lives.
const READ_BUFFER: usize = 8 << 10;
/// An agent that does not read for this long is gone.
const WRITE: Duration = Duration::from_secs(30);

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

    /// The next text; pings are answered on the way. Safe to give up waiting for.
    pub(super) async fn receive(&mut self) -> Result<String, Over> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(_))) | None => return Err(Over),
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "an agent's connection broke");
                    return Err(Over);
                }
            }
        }
    }

    /// Sends a text.
    pub(super) async fn send(&mut self, text: String) -> Result<(), Over> {
        match tokio::time::timeout(WRITE, self.stream.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Over),
        }
    }

    /// Closes in order, after which an agent reconnects at once.
    pub(super) async fn close(mut self, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: reason.into() };
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stream.close(Some(frame))).await;
    }
}
