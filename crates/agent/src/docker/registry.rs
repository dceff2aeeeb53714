//! The platform's registry where Docker Engine can pull from it: at a port of the loopback, which every engine takes
//! without TLS.
//!
//! A registry is told apart by the name it is asked by, and which names there are only the platform knows; its certificate
//! may be signed by an authority that only the agent trusts. So the agent listens, one port for each registry, and asks
//! the platform itself, as it does for everything else. Only reading is let through, and who may read is still the
//! registry's business: the engine logs in with the keys that the agent gives it for one pull.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_rustls::TlsConnector;

use crate::aws::Client;

/// Connections of the engine at once; it fetches three layers of an image at the same time.
const CONNECTIONS: usize = 64;
/// To reach the platform.
const CONNECT: Duration = Duration::from_secs(30);

type Body = Either<Incoming, Full<Bytes>>;

/// The registries that were needed so far.
pub struct Registries {
    platform: Client,
    ports: Mutex<HashMap<(String, String), u16>>,
}

impl Registries {
    /// None yet.
    pub fn new(platform: Client) -> Registries {
        Registries { platform, ports: Mutex::default() }
    }

    /// Where the engine reaches the registry of an account in a region: `127.0.0.1:{port}`.
    pub async fn reach(&self, account: &str, region: &str) -> std::io::Result<String> {
        let key = (account.to_owned(), region.to_owned());
        let mut ports = self.ports.lock().await;
        let port = match ports.get(&key) {
            Some(port) => *port,
            None => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                let port = listener.local_addr()?.port();
                let authority = &self.platform.endpoint().authority;
                let own = authority.rsplit_once(':').map_or("443", |(_, port)| port);
                let name = format!("{account}.dkr.ecr.{region}.localhost:{own}");
                let name = HeaderValue::from_str(&name).map_err(std::io::Error::other)?;
                tokio::spawn(listen(listener, Arc::new((self.platform.clone(), name))));
                ports.insert(key, port);
                port
            }
        };
        Ok(format!("{}:{port}", Ipv4Addr::LOCALHOST))
    }
}

async fn listen(listener: TcpListener, upstream: Arc<(Client, HeaderValue)>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let upstream = upstream.clone();
                async move { Ok::<_, Infallible>(answer(&upstream.0, &upstream.1, request).await) }
            });
            let mut server = server::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60)).max_buf_size(64 << 10);
            // An engine that gives up a pull breaks its connection.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
            drop(permit);
        });
    }
}

async fn answer(platform: &Client, name: &HeaderValue, request: Request<Incoming>) -> Response<Body> {
    let refuse = |status: StatusCode, why: String| {
        let mut response = Response::new(Either::Right(Full::new(Bytes::from(why))));
        *response.status_mut() = status;
        response
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) || !request.uri().path().starts_with("/v2/") {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "this is for pulling images\n".to_owned());
    }
    match pass_on(platform, name, request).await {
        Ok(response) => response.map(Either::Left),
        Err(why) => {
            tracing::warn!(why, "the platform's registry does not answer");
            refuse(StatusCode::BAD_GATEWAY, format!("the platform's registry does not answer: {why}\n"))
        }
    }
}

async fn pass_on(
    platform: &Client,
    name: &HeaderValue,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, String> {
    let (mut head, _) = request.into_parts();
    head.headers.insert(header::HOST, name.clone());
    for hop in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE] {
        head.headers.remove(hop);
    }
    let exchange = async {
        let stream = connect(platform).await?;
        let (mut sender, connection) =
            client::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let body = Empty::<Bytes>::new().boxed();
        sender.send_request(Request::from_parts(head, body)).await.map_err(|error| error.to_string())
    };
    tokio::time::timeout(CONNECT, exchange).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(platform: &Client) -> Result<Box<dyn Stream>, String> {
    let endpoint = platform.endpoint();
    let default = if endpoint.secure { ":443" } else { ":80" };
    let bare = endpoint.authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
    let authority = if bare { format!("{}{default}", endpoint.authority) } else { endpoint.authority.clone() };
    let socket = TcpStream::connect(&authority).await.map_err(|error| format!("{authority}: {error}"))?;
    let _ = socket.set_nodelay(true);
    if !endpoint.secure {
        return Ok(Box::new(socket));
    }
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).trim_matches(['[', ']']);
    let host = ServerName::try_from(host.to_owned()).map_err(|error| format!("{authority}: {error}"))?;
    let secured = TlsConnector::from(platform.tls().clone()).connect(host, socket).await;
    Ok(Box::new(secured.map_err(|error| format!("{authority}: {error}"))?))
}
