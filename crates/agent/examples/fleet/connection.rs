//! One connection to the API that is kept alive, with one call at a time: as an agent's or an SDK's, without the cost of a
//! general client.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::{Operation, Reflect, exchange};

use crate::World;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connection; it is opened with the first call, and again when the server has closed it meanwhile.
pub struct Connection {
    world: Arc<World>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer's status and the place of its body in the buffer.
struct Head {
    status: u16,
    body: usize,
    length: usize,
}

impl Connection {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, stream: None, buffer: Vec::new() }
    }

    /// One signed call.
    pub async fn call<O: Reflect + Default>(
        &mut self,
        operation: &'static Operation,
        input: &(dyn Reflect + Sync),
    ) -> Result<O, String> {
        let failed = |what: String| format!("{}: {what}", operation.name);
        let protocol = operation.service.protocols.first().copied().ok_or_else(|| failed("no protocol".to_owned()))?;
        let request = self.signed(exchange::encode_request(operation, protocol, input));
        let (status, body) = self.exchange(&request).await.map_err(failed)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        let mut output = O::default();
        exchange::decode_response(operation, status, &headers, body, &mut output)
            .map_err(|error| failed(format!("{}: {}", error.code(), error.message())))?;
        Ok(output)
    }

    /// An unsigned page.
    pub async fn page(&mut self, path: &str) -> Result<String, String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.world.authority);
        let (status, body) = self.exchange(request.as_bytes()).await?;
        if status != 200 {
            return Err(format!("{path}: HTTP {status}"));
        }
        Ok(String::from_utf8_lossy(body).into_owned())
    }

    fn signed(&self, request: http::Request<Vec<u8>>) -> Vec<u8> {
        let (mut parts, body) = request.into_parts();
        if let Ok(host) = HeaderValue::from_str(&self.world.authority) {
            parts.headers.insert(header::HOST, host);
        }
        let keys = &self.world.keys;
        wire::sigv4::sign("POST", parts.uri.path(), "", &mut parts.headers, &body, keys, agent::aws::now());
        let mut head = format!("POST {} HTTP/1.1\r\ncontent-length: {}\r\n", parts.uri.path(), body.len());
        for (name, value) in &parts.headers {
            // Writing to a string cannot fail.
            let _ = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8]), String> {
        let kept = self.stream.is_some();
        let head = match self.attempt(request).await {
            // The server closes what is idle for long; nothing was sent on it that counts.
            Err(_) if kept => self.attempt(request).await?,
            outcome => outcome?,
        };
        let body = self.buffer.get(head.body..head.body + head.length).unwrap_or_default();
        Ok((head.status, body))
    }

    async fn attempt(&mut self, request: &[u8]) -> Result<Head, String> {
        let outcome = tokio::time::timeout(PATIENCE, self.send(request)).await;
        let outcome = outcome.map_err(|_| "no answer within a minute".to_owned()).and_then(|outcome| outcome);
        if outcome.is_err() {
            self.stream = None;
        }
        outcome
    }

    async fn send(&mut self, request: &[u8]) -> Result<Head, String> {
        let failed = |error: std::io::Error| error.to_string();
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.world.authority).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                self.stream.insert(stream)
            }
        };
        stream.write_all(request).await.map_err(failed)?;
        self.buffer.clear();
        loop {
            if stream.read_buf(&mut self.buffer).await.map_err(failed)? == 0 {
                return Err("the connection was closed".to_owned());
            }
            if let Some(head) = head(&self.buffer)? {
                while self.buffer.len() < head.body + head.length {
                    if stream.read_buf(&mut self.buffer).await.map_err(failed)? == 0 {
                        return Err("the connection was closed".to_owned());
                    }
                }
                return Ok(head);
            }
        }
    }
}

/// Reads an answer's head, if it is there in full. The platform's answers have a length.
fn head(buffer: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let length = lines.find_map(|line| line.strip_prefix("content-length:")).and_then(|text| text.trim().parse().ok());
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some(Head { status, body: end + 4, length })),
        _ => Err("an answer without a status or a length".to_owned()),
    }
}
