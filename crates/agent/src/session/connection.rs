//! One WebSocket connection: the signed handshake, how a refusal reads, and how a connection ended.

use std::sync::Arc;
use std::time::Duration;

use domain::IdSource;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use wire::sigv4::Keys;

use crate::aws;

/// Connect and handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A write that takes longer has lost its connection.
const WRITE: Duration = Duration::from_secs(30);
/// Payloads are tens of kilobytes; this is a bound on a hostile server.
const MESSAGE_LIMIT: usize = 16 << 20;
/// What is read at once. The library's own 128 KiB are cleared for each read, most of which are of some hundred bytes.
const READ_BUFFER: usize = 16 << 10;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The control plane says that this instance is deregistered.
    #[error("the control plane says this container instance is inactive: {0}")]
    Inactive(String),
    /// The keys are not, or no longer, good.
    #[error("refused: {0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// In order: reconnect at once.
    InOrder(String),
    /// Not in order: reconnect after a pause.
    Broken(String),
}

/// What a connection goes over: TCP, or TLS over it.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// An open connection.
pub struct Connection {
    stream: WebSocketStream<Box<dyn Socket>>,
}

/// The parts of a session's URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether it speaks TLS.
    pub secure: bool,
    /// `host:port`.
    pub authority: String,
    /// Ends with `/ws`.
    pub path: String,
    /// Encoded pairs.
    pub query: String,
}

impl Target {
    /// `endpoint` as DiscoverPollEndpoint gives it, and the session's own parameters.
    pub fn new(endpoint: &str, parameters: &[(&str, String)]) -> Result<Target, String> {
        let (secure, rest) = match endpoint.split_once("://") {
            Some(("http" | "ws", rest)) => (false, rest),
            Some(("https" | "wss", rest)) => (true, rest),
            _ => return Err(format!("the endpoint {endpoint} is not of the form http://… or https://…")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let slash = if path.is_empty() || path.ends_with('/') { "" } else { "/" };
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", wire::percent_encode(value))).collect();
        Ok(Target {
            secure,
            authority: authority.to_owned(),
            path: format!("/{path}{slash}ws"),
            query: pairs.join("&"),
        })
    }

    /// The headers of a signed GET on this URL with `body`.
    pub fn signed_headers(&self, body: &[u8], keys: &Keys) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&self.authority).map_err(|error| error.to_string())?;
        headers.insert(http::header::HOST, host);
        wire::sigv4::sign("GET", &self.path, &self.query, &mut headers, body, keys, aws::now());
        Ok(headers)
    }
}

impl Connection {
    /// Connects, signs, upgrades.
    pub async fn open(target: &Target, keys: &Keys, tls: &Arc<ClientConfig>) -> Result<Connection, Refused> {
        match tokio::time::timeout(HANDSHAKE, Self::handshake(target, keys, tls)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Refused::Failed("no handshake within 30 seconds".to_owned())),
        }
    }

    async fn handshake(target: &Target, keys: &Keys, tls: &Arc<ClientConfig>) -> Result<Connection, Refused> {
        let failed = |what: String| Refused::Failed(what);
        let url = format!("ws://{}{}?{}", target.authority, target.path, target.query);
        let mut request = url.into_client_request().map_err(|error| failed(error.to_string()))?;
        for (name, value) in target.signed_headers(b"", keys).map_err(failed)? {
            if let Some(name) = name {
                request.headers_mut().insert(name, value);
            }
        }
        request.headers_mut().insert(http::header::USER_AGENT, HeaderValue::from_static(crate::USER_AGENT));
        let unreachable = |error: std::io::Error| failed(format!("{}: {error}", target.authority));
        let socket = TcpStream::connect(&target.authority).await.map_err(unreachable)?;
        let _ = socket.set_nodelay(true);
        let socket: Box<dyn Socket> = if target.secure {
            let name = target.authority.rsplit_once(':').map_or(target.authority.as_str(), |(name, _)| name);
            let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
            let name = name.map_err(|error| failed(format!("{}: {error}", target.authority)))?;
            Box::new(TlsConnector::from(tls.clone()).connect(name, socket).await.map_err(unreachable)?)
        } else {
            Box::new(socket)
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(MESSAGE_LIMIT))
            .max_frame_size(Some(MESSAGE_LIMIT));
        match client_async_with_config(request, socket, Some(config)).await {
            Ok((stream, _)) => Ok(Connection { stream }),
            Err(SocketError::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err(refusal(response.status().as_u16(), &String::from_utf8_lossy(body)))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Sends one text frame.
    pub async fn send(&mut self, text: String) -> Result<(), Ended> {
        match tokio::time::timeout(WRITE, self.stream.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Ended::Broken(error.to_string())),
            Err(_) => Err(Ended::Broken("a write took longer than 30 seconds".to_owned())),
        }
    }

    /// The next text frame; pings are answered on the way and do not count as messages.
    pub async fn receive(&mut self) -> Result<String, Ended> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(SocketError::ConnectionClosed | SocketError::AlreadyClosed)) | None => {
                    return Err(Ended::InOrder("end of stream".to_owned()));
                }
                Some(Err(error)) => return Err(broken(&error)),
            }
        }
    }

    /// Closes in order.
    pub async fn close(mut self, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: reason.into() };
        let _ = tokio::time::timeout(Duration::from_secs(2), self.stream.close(Some(frame))).await;
    }
}

/// Close codes 1000, 1001, 1006 and 1011 and an end of the stream are orderly for Amazon's agent.
fn closed(frame: Option<CloseFrame>) -> Ended {
    let Some(frame) = frame else { return Ended::InOrder("closed".to_owned()) };
    let text = format!("closed with {}: {}", u16::from(frame.code), frame.reason);
    match u16::from(frame.code) {
        1000 | 1001 | 1006 | 1011 => Ended::InOrder(text),
        _ => Ended::Broken(text),
    }
}

fn broken(error: &SocketError) -> Ended {
    let end_of_stream = match error {
        SocketError::Io(error) => error.kind() == std::io::ErrorKind::UnexpectedEof,
        SocketError::Protocol(error) => {
            matches!(error, tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
        }
        _ => false,
    };
    if end_of_stream { Ended::InOrder("end of stream".to_owned()) } else { Ended::Broken(error.to_string()) }
}

/// A refusal's body is `{"<ErrorType>": "<text>"}` or an envelope of that type.
fn refusal(status: u16, body: &str) -> Refused {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let named = |name: &str| {
        let enveloped = ["type", "__type"].iter().any(|key| value.get(*key).and_then(|v| v.as_str()) == Some(name));
        let text = value.get(name).or_else(|| value.get("message"));
        (enveloped || value.get(name).is_some()).then(|| text.map(|text| text.to_string()).unwrap_or_default())
    };
    if let Some(text) = named("InactiveInstanceException") {
        return Refused::Inactive(text);
    }
    let mut text: String = body.chars().take(500).collect();
    text.insert_str(0, &format!("HTTP {status} "));
    if matches!(status, 401 | 403) || body.contains("ExpiredToken") || body.contains("UnrecognizedClient") {
        return Refused::Denied(text);
    }
    Refused::Failed(text)
}

/// A random part of `most`, for times that must not be the same everywhere.
pub fn by_chance(most: Duration, ids: &mut IdSource) -> Duration {
    let chance = u32::from_str_radix(&ids.hex(4), 16).unwrap_or(0);
    most.mul_f64(f64::from(chance) / 65536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_url_is_amazons() {
        let target = Target::new(
            "http://127.0.0.1:4580/acs",
            &[("clusterArn", "default".into()), ("dockerVersion", "DockerVersion: 1+a".into())],
        );
        let target = target.expect("a target");
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:4580", "/acs/ws"));
        assert_eq!(target.query, "clusterArn=default&dockerVersion=DockerVersion%3A%201%2Ba");
        assert!(!target.secure && Target::new("https://h/", &[]).expect("a target").secure);
        assert_eq!(Target::new("http://h/", &[]).expect("a target").path, "/ws");
        assert_eq!(Target::new("http://h", &[]).expect("a target").path, "/ws");
        assert!(Target::new("ftp://h", &[]).is_err());
    }

    #[test]
    fn an_inactive_instance_is_told_apart_from_other_refusals() {
        let plain = r#"{"InactiveInstanceException":"gone"}"#;
        let enveloped = r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#;
        assert!(matches!(refusal(400, plain), Refused::Inactive(_)));
        assert!(matches!(refusal(400, enveloped), Refused::Inactive(_)));
        assert!(matches!(refusal(403, "{}"), Refused::Denied(_)));
        assert!(matches!(refusal(400, r#"{"__type":"ExpiredTokenException"}"#), Refused::Denied(_)));
        assert!(matches!(refusal(503, "busy"), Refused::Failed(_)));
    }

    #[test]
    fn only_some_close_codes_are_orderly() {
        let frame = |code: u16| Some(CloseFrame { code: CloseCode::from(code), reason: "".into() });
        for code in [1000, 1001, 1011] {
            assert!(matches!(closed(frame(code)), Ended::InOrder(_)), "{code}");
        }
        for code in [1002, 1008, 4000] {
            assert!(matches!(closed(frame(code)), Ended::Broken(_)), "{code}");
        }
        assert!(matches!(closed(None), Ended::InOrder(_)));
    }

    #[test]
    fn the_handshake_signs_host_and_date() {
        let target = Target::new("http://h:1/acs/", &[("a", "b c".into())]).expect("a target");
        let keys = Keys {
            access_key_id: "AKIA".into(),
            secret_access_key: "s".into(),
            session_token: None,
            region: "us-east-1".into(),
            service: "ecs".into(),
        };
        let headers = target.signed_headers(b"", &keys).expect("headers");
        let text = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(text.contains("SignedHeaders=host;x-amz-date,"), "{text}");
    }
}
