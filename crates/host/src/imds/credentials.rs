//! A role's credentials, which only the server can give: asked for over its socket, as the instance in question.

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::instances::METADATA_ADDRESS;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncWriteExt, net::UnixStream};

/// How long the server may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// No set of credentials is longer.
const LIMIT: usize = 64 << 10;
/// How long a set is repeated without asking again: many processes of an instance ask at once.
const FRESH: Duration = Duration::from_secs(60);

/// Asks, and remembers the last answer of each instance.
pub(super) struct Credentials {
    server: PathBuf,
    /// By instance and role.
    last: Mutex<BTreeMap<(String, String), (Instant, Bytes)>>,
}

impl Credentials {
    pub(super) fn new(server: PathBuf) -> Self {
        Self { server, last: Mutex::default() }
    }

    /// JSON as the metadata service has it; `None` when the server says that there are none.
    pub(super) async fn of(&self, instance_id: &str, role: &str, address: Ipv4Addr) -> io::Result<Option<Bytes>> {
        let key = (instance_id.to_owned(), role.to_owned());
        let known = self.last.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((_, body)) = known.as_ref().filter(|(since, _)| since.elapsed() < FRESH) {
            return Ok(Some(body.clone()));
        }
        let asked = tokio::time::timeout(TIMEOUT, self.ask(instance_id, address)).await;
        match asked.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
            Ok((StatusCode::OK, body)) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                // Instances come and go: what was asked for long ago is of no use to anybody.
                last.retain(|_, (since, _)| since.elapsed() < Duration::from_secs(6 * 3600));
                last.insert(key, (Instant::now(), body.clone()));
                Ok(Some(body))
            }
            Ok((StatusCode::NOT_FOUND, _)) => Ok(None),
            Ok((status, _)) => known.map(|(_, body)| Some(body)).ok_or_else(|| io::Error::other(status.to_string())),
            // The server is away: the last set works for hours.
            Err(error) => known.map(|(_, body)| Some(body)).ok_or(error),
        }
    }

    async fn ask(&self, instance_id: &str, address: Ipv4Addr) -> io::Result<(StatusCode, Bytes)> {
        let mut stream = UnixStream::connect(&self.server).await?;
        // The destination says what this is about: only `host` can write such a line.
        let line = format!("PROXY TCP4 {address} {METADATA_ADDRESS} 0 80\r\n");
        stream.write_all(line.as_bytes()).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let request = Request::get(format!("/instances/{instance_id}/credentials"))
            .header(http::header::HOST, METADATA_ADDRESS.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let asking = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LIMIT).collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        tokio::select! {
            outcome = asking => outcome,
            Err(error) = connection => Err(io::Error::other(error)),
        }
    }
}
