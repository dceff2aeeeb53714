//! One health check: a connection of its own, and a GET over it if that is what is asked for.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use domain::balancing::{HealthCheck, HealthCheckProtocol, ProtocolVersion};
use http::{HeaderValue, Request, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{tcp, tls::targets};

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with a status that the matcher takes, or connected where that is all that is asked for.
    Passed,
    /// Answered with another one.
    Mismatch(u16),
    /// Not answered in time.
    Timeout,
    /// No connection, or no HTTP.
    Failed,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("no connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("no response: {0}")]
    Http(#[from] hyper::Error),
    #[error("the path cannot be asked for: {0}")]
    Request(#[from] http::Error),
}

/// Checks `address` once.
pub async fn check(
    address: SocketAddr,
    settings: &HealthCheck,
    version: ProtocolVersion,
    proxy_protocol: bool,
) -> Outcome {
    let timeout = Duration::from_secs(u64::from(settings.timeout_seconds.max(1)));
    let outcome = async {
        let mut stream = TcpStream::connect(address).await?;
        if proxy_protocol {
            stream.write_all(&tcp::header::local()).await?;
        }
        match settings.protocol {
            HealthCheckProtocol::Tcp => Ok(None),
            HealthCheckProtocol::Http => status(stream, address, &settings.path, version).await.map(Some),
            HealthCheckProtocol::Https => {
                let stream = targets::connect(stream, version).await?;
                status(stream, address, &settings.path, version).await.map(Some)
            }
        }
    };
    match tokio::time::timeout(timeout, outcome).await {
        Ok(Ok(None)) => Outcome::Passed,
        Ok(Ok(Some(status))) if settings.matcher.matches(status) => Outcome::Passed,
        Ok(Ok(Some(status))) => Outcome::Mismatch(status),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "health check failed");
            Outcome::Failed
        }
        Err(_) => Outcome::Timeout,
    }
}

async fn status(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
    path: &str,
    version: ProtocolVersion,
) -> Result<u16, CheckError> {
    let io = TokioIo::new(stream);
    let builder = Request::get(match version {
        ProtocolVersion::Http1 => path.to_owned(),
        ProtocolVersion::Http2 => format!("http://{address}{path}"),
    });
    let mut request = builder
        .header(header::USER_AGENT, HeaderValue::from_static("ELB-HealthChecker/2.0"))
        .header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, compressed"))
        .body(Empty::<Bytes>::new())?;
    match version {
        ProtocolVersion::Http1 => {
            request
                .headers_mut()
                .insert(header::HOST, HeaderValue::from_str(&address.to_string()).map_err(http::Error::from)?);
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            let (mut sender, connection) = http1::handshake(io).await?;
            let connection = AbortOnDrop(tokio::spawn(connection));
            let response = sender.send_request(request).await?;
            drop(connection);
            Ok(response.status().as_u16())
        }
        ProtocolVersion::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let connection = AbortOnDrop(tokio::spawn(connection));
            let response = sender.send_request(request).await?;
            drop(connection);
            Ok(response.status().as_u16())
        }
    }
}

/// Closes a check's connection, also when the check itself is given up.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
