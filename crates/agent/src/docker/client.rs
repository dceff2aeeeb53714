//! Docker Engine's API over its Unix socket: the transport, and the engine's own errors.
//!
//! One connection for each request: there are few, they are local, and a stream that is dropped ends with its connection.
//! Which requests there are is said where they are made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

/// Where Docker Engine listens when `DOCKER_HOST` does not say.
const SOCKET: &str = "/var/run/docker.sock";
/// For an answer that is not waited for on purpose. Docker may take minutes to make a container on a busy disk, which is what Amazon's
/// agent allows for it.
pub const TIMEOUT: Duration = Duration::from_secs(4 * 60);
/// For the first byte of a stream.
const STREAM: Duration = Duration::from_secs(60);
/// No document that is asked for is longer.
const ANSWER_LIMIT: usize = 16 << 20;
/// The longest line of a stream of JSON.
const LINE_LIMIT: usize = 1 << 20;
/// Letters of an error; the control plane takes fewer.
const LONGEST_MESSAGE: usize = 2000;
/// The newest version of the API that this client knows; an older engine is spoken to in its own.
const NEWEST: Version = Version(1, 44);
/// Docker 17.03: the first with everything that is asked for here.
const OLDEST: Version = Version(1, 25);

/// A version of the API, such as 1.41.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// `1.41`.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, minor) = text.split_once('.')?;
        Some(Version(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It says no, in its own words; Docker's command line and Amazon's agent show them like this.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It does not answer.
    #[error("Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running? ({why})", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What happened.
        why: String,
    },
    /// What it says cannot be read.
    #[error("the Docker daemon's answer cannot be read: {0}")]
    Unreadable(String),
}

impl EngineError {
    /// Whether what was asked for is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, EngineError::Refused { status: 404, .. })
    }
}

#[derive(Deserialize)]
struct Message {
    message: String,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Found {
    version: String,
    api_version: String,
    #[serde(rename = "MinAPIVersion")]
    min_api_version: String,
}

/// An engine.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    spoken: Version,
    /// The engine's own version, such as `20.10.24`.
    pub engine: String,
    /// The newest version of the API that it speaks.
    pub newest: Version,
}

impl Client {
    /// Finds out what the engine speaks. `host` is `DOCKER_HOST`.
    pub async fn connect(host: Option<&str>) -> Result<Client, String> {
        let socket = socket(host)?;
        let mut client = Client { socket, spoken: OLDEST, engine: String::new(), newest: OLDEST };
        let request = client.request(Method::GET, "/version".to_owned(), &[], Bytes::new());
        let answer = client.answer(request?, Some(TIMEOUT)).await.map_err(|error| error.to_string())?;
        let found: Found = read(answer).await.map_err(|error| error.to_string())?;
        let unreadable = || format!("the Docker daemon's API version {:?} is unknown", found.api_version);
        client.newest = Version::parse(&found.api_version).ok_or_else(unreadable)?;
        client.spoken = client.newest.min(NEWEST);
        let least = Version::parse(&found.min_api_version).unwrap_or(OLDEST);
        if client.spoken < OLDEST || client.spoken < least {
            let engine = &found.version;
            return Err(format!(
                "Docker Engine {engine} speaks its API from {} to {}, and this agent from {}.{} to {}.{}",
                found.min_api_version, found.api_version, OLDEST.0, OLDEST.1, NEWEST.0, NEWEST.1
            ));
        }
        client.engine = found.version;
        Ok(client)
    }

    /// A document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        read(self.send(Method::GET, path, &[], Bytes::new(), Some(TIMEOUT)).await?).await
    }

    /// Posts JSON; what is answered is a document.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, EngineError> {
        let body = Bytes::from(body.to_string());
        read(self.send(Method::POST, path, &[], body, Some(TIMEOUT)).await?).await
    }

    /// Asks for something to be done. Without a bound on time where that may take as long as it wants.
    pub async fn act(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Option<Duration>,
    ) -> Result<(), EngineError> {
        let answer = self.send(method, path, &[], body, limit).await?;
        // Waiting for a container has the head of its answer at once, and the rest at the end.
        Limited::new(answer.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map(drop)
            .map_err(|error| EngineError::Unreadable(error.to_string()))
    }

    /// A stream of bytes, from its beginning.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
    ) -> Result<Incoming, EngineError> {
        Ok(self.send(method, path, headers, Bytes::new(), Some(STREAM)).await?.into_body())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, EngineError> {
        let target = format!("/v{}.{}{path}", self.spoken.0, self.spoken.1);
        let request = self.request(method, target, headers, body).map_err(EngineError::Unreadable)?;
        let answer = self.answer(request, limit).await?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let text = text(answer).await?;
        let message = serde_json::from_slice::<Message>(&text).map(|said| said.message);
        let message = message.unwrap_or_else(|_| String::from_utf8_lossy(&text).trim().to_owned());
        let message = message.chars().take(LONGEST_MESSAGE).collect();
        Err(EngineError::Refused { status: status.as_u16(), message })
    }

    fn request(
        &self,
        method: Method,
        target: String,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, "docker");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if !body.is_empty() {
            let kind = if body.first() == Some(&b'{') { "application/json" } else { "application/x-tar" };
            request = request.header(header::CONTENT_TYPE, kind);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, EngineError> {
        let lost = |why: String| EngineError::Unreachable { socket: self.socket.clone(), why };
        let exchange = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| lost(error.to_string()))?;
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| lost(error.to_string()))?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|error| lost(error.to_string()))
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, exchange)
                .await
                .unwrap_or_else(|_| Err(lost(format!("no answer within {} s", limit.as_secs())))),
            None => exchange.await,
        }
    }
}

/// The socket that `DOCKER_HOST` names. An engine elsewhere would be another machine than the one this instance offers.
fn socket(host: Option<&str>) -> Result<PathBuf, String> {
    match host.filter(|host| !host.is_empty()) {
        None => Ok(SOCKET.into()),
        Some(host) => match host.strip_prefix("unix://").map(Path::new) {
            Some(path) if path.is_absolute() => Ok(path.to_owned()),
            _ => Err(format!("DOCKER_HOST={host}: the engine must be this machine's own, as in unix://{SOCKET}")),
        },
    }
}

async fn text(answer: Response<Incoming>) -> Result<Bytes, EngineError> {
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect();
    match tokio::time::timeout(TIMEOUT, body).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(EngineError::Unreadable(error.to_string())),
        Err(_) => Err(EngineError::Unreadable("it does not end".to_owned())),
    }
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, EngineError> {
    serde_json::from_slice(&text(answer).await?).map_err(|error| EngineError::Unreadable(error.to_string()))
}

/// The documents of a stream of JSON, each on a line of its own.
pub struct Documents {
    body: Incoming,
    rest: BytesMut,
}

impl Documents {
    /// Of a stream.
    pub fn new(body: Incoming) -> Documents {
        Documents { body, rest: BytesMut::new() }
    }

    /// The next one; `None` at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, EngineError> {
        let unreadable = |error: &dyn std::fmt::Display| EngineError::Unreadable(error.to_string());
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(|error| unreadable(&error));
            }
            if self.rest.len() > LINE_LIMIT {
                return Err(unreadable(&"a line of it is too long"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(error)) => return Err(unreadable(&error)),
                None if self.rest.is_empty() => return Ok(None),
                // The last one need not have a newline.
                None => self.rest.extend_from_slice(b"\n"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_this_machines_own() {
        assert_eq!(socket(None), Ok(PathBuf::from("/var/run/docker.sock")));
        assert_eq!(socket(Some("unix:///run/x.sock")), Ok(PathBuf::from("/run/x.sock")));
        for elsewhere in ["tcp://10.0.0.1:2375", "ssh://x", "unix://x.sock", "/run/x.sock"] {
            assert!(socket(Some(elsewhere)).expect_err(elsewhere).starts_with("DOCKER_HOST="));
        }
    }

    #[test]
    fn versions_are_numbers() {
        assert!(Version::parse("1.9") < Version::parse("1.41"));
        assert_eq!(Version::parse("1"), None);
    }
}
