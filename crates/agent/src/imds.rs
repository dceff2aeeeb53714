//! The metadata service of an EC2 instance, asked as Amazon's own tools do: with a session token (IMDSv2).

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::instances::METADATA_ADDRESS;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One question, from the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// No answer is longer: user data has 16 KiB, doubled at most by its coding.
const ANSWER_LIMIT: usize = 64 << 10;
/// How long a session token is asked for, in seconds: Amazon's longest.
const TOKEN_LIFE: u64 = 21_600;
/// A token is used for a little less than it works.
const TOKEN_USE: Duration = Duration::from_secs(TOKEN_LIFE - 300);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// Nobody answers there, or not in time.
    #[error("the instance metadata service does not answer: {0}")]
    Unreachable(String),
    /// It answers, but not this.
    #[error("the instance metadata service refuses {path}: {status}")]
    Refused {
        /// What was asked for.
        path: String,
        /// What it said.
        status: StatusCode,
    },
}

/// A client with its session token.
pub struct Imds {
    address: SocketAddr,
    token: Mutex<Option<(String, Instant)>>,
}

impl Default for Imds {
    fn default() -> Imds {
        Imds::at(SocketAddr::from((METADATA_ADDRESS, 80)))
    }
}

impl Imds {
    /// Of the service at that address.
    pub fn at(address: SocketAddr) -> Imds {
        Imds { address, token: Mutex::new(None) }
    }

    /// What is below `/latest/`; `None` when there is no such thing.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, ImdsError> {
        let path = format!("/latest/{path}");
        let token = self.token().await?;
        let (status, body) = self.ask(Method::GET, &path, ("x-aws-ec2-metadata-token", &token)).await?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            status => {
                // A token that does not work any more, most likely: the next question comes with another.
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(ImdsError::Refused { path, status })
            }
        }
    }

    /// The same as text, without the line's end.
    pub async fn text(&self, path: &str) -> Result<Option<String>, ImdsError> {
        Ok(self.get(path).await?.map(|body| String::from_utf8_lossy(&body).trim_end().to_owned()))
    }

    /// Text that every instance has.
    pub async fn required(&self, path: &str) -> Result<String, ImdsError> {
        let missing = || ImdsError::Refused { path: path.to_owned(), status: StatusCode::NOT_FOUND };
        self.text(path).await?.ok_or_else(missing)
    }

    async fn token(&self) -> Result<String, ImdsError> {
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((token, _)) = known.filter(|(_, since)| since.elapsed() < TOKEN_USE) {
            return Ok(token);
        }
        let path = "/latest/api/token";
        let life = TOKEN_LIFE.to_string();
        let (status, body) = self.ask(Method::PUT, path, ("x-aws-ec2-metadata-token-ttl-seconds", &life)).await?;
        if status != StatusCode::OK {
            return Err(ImdsError::Refused { path: path.to_owned(), status });
        }
        let token = String::from_utf8_lossy(&body).into_owned();
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    async fn ask(&self, method: Method, path: &str, header: (&str, &str)) -> Result<(StatusCode, Bytes), ImdsError> {
        let asked = tokio::time::timeout(TIMEOUT, exchange(self.address, method, path, header)).await;
        match asked {
            Ok(outcome) => outcome.map_err(|error| ImdsError::Unreachable(error.to_string())),
            Err(_) => Err(ImdsError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }
}

async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    header: (&str, &str),
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address.ip().to_string())
        .header(header.0, header.1)
        .body(Empty::<Bytes>::new())?;
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::select! {
        outcome = asking => outcome,
        // The connection ends with its answer still to be read only when it fails.
        Err(error) = connection => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request by its first line and the token it came with.
    async fn service(answers: fn(&str) -> (u16, &'static str)) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.expect("a request");
                let (status, body) = answers(&String::from_utf8_lossy(&buffer[..count]));
                let response = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(response.as_bytes()).await.expect("sent");
            }
        });
        address
    }

    #[tokio::test]
    async fn it_asks_with_a_token() {
        let address = service(|request| {
            let token = request.contains("x-aws-ec2-metadata-token: T1");
            match request.split(' ').take(2).collect::<Vec<_>>().join(" ").as_str() {
                "PUT /latest/api/token" => (200, "T1"),
                "GET /latest/meta-data/instance-id" if token => (200, "i-1\n"),
                "GET /latest/user-data" if token => (404, ""),
                _ => (401, ""),
            }
        })
        .await;
        let imds = Imds::at(address);
        assert_eq!(imds.required("meta-data/instance-id").await.expect("known"), "i-1");
        assert!(imds.get("user-data").await.expect("an answer").is_none());
        assert!(matches!(imds.get("meta-data/other").await, Err(ImdsError::Refused { .. })));
        assert!(imds.token.lock().expect("a lock").is_none());
    }

    #[tokio::test]
    async fn nobody_there_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        assert!(matches!(Imds::at(address).get("x").await, Err(ImdsError::Unreachable(_))));
    }
}
