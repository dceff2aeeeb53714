//! Where requests come from: the address of `--listen` (plain on loopback, TLS elsewhere), and the socket at which
//! `host` hands over what tasks and instances send to their VPC's endpoint.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use domain::instances::METADATA_ADDRESS;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
};

use super::{
    FrontDoor, Peer,
    idle::{Activity, Watched},
    metadata,
    tls::Tls,
};

/// How many connections may be open at once, over all listeners: 5,000 agents have three each, and the others their room.
const MAX_CONNECTIONS: usize = 24_576;
/// File descriptors that are left for everything else.
const OTHER_FILES: usize = 1_024;
/// How long a client may take to send its request's head, or a `PROXY` line.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nothing may go over a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest `PROXY` line (version 1 of the protocol).
const MAX_PROXY_LINE: usize = 107;

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// A place where requests arrive.
pub enum Listener {
    /// Plain HTTP, only ever on loopback.
    Plain(TcpListener),
    /// HTTPS.
    Tls(TcpListener, Tls),
    /// Connections from inside VPCs, each beginning with a `PROXY TCP4 …` line; and `host`'s own questions on behalf of
    /// the instance metadata service, whose line has that service's address as its destination.
    Vpc(UnixListener),
}

/// Serves a listener for ever.
pub async fn serve(front_door: Arc<FrontDoor>, listener: Listener, connections: Arc<Semaphore>) {
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let front_door = front_door.clone();
        let accepted = match &listener {
            Listener::Plain(listener) => listener.accept().await.map(|(stream, peer)| {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let on_host = peer.ip().is_loopback();
                    connection(front_door, stream, Peer { address: peer.ip(), on_host, secure: false }).await;
                    drop(permit);
                });
            }),
            Listener::Tls(listener, tls) => {
                let tls = tls.clone();
                listener.accept().await.map(|(stream, peer)| {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(async move {
                        // A socket for both kinds of addresses shows an IPv4 peer as `::ffff:127.0.0.1`.
                        if peer.ip().to_canonical().is_loopback() && is_plain(&stream).await {
                            connection(front_door, stream, Peer { address: peer.ip(), on_host: true, secure: false })
                                .await;
                        } else if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                            connection(front_door, stream, Peer { address: peer.ip(), on_host: false, secure: true })
                                .await;
                        }
                        drop(permit);
                    });
                })
            }
            Listener::Vpc(listener) => listener.accept().await.map(|(mut stream, _)| {
                tokio::spawn(async move {
                    let line = tokio::time::timeout(HEAD_TIMEOUT, proxy_line(&mut stream)).await;
                    match line {
                        Ok(Ok((_, METADATA_ADDRESS))) => metadata::serve(front_door, stream).await,
                        Ok(Ok((source, _))) => {
                            let peer = Peer { address: IpAddr::V4(source), on_host: false, secure: false };
                            connection(front_door, stream, peer).await;
                        }
                        _ => {}
                    }
                    drop(permit);
                });
            }),
        };
        if let Err(error) = accepted {
            // Out of file descriptors, most likely: those who hold them will end.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether a client from loopback, which need not, does not begin with a TLS handshake.
async fn is_plain(stream: &TcpStream) -> bool {
    let mut first = [0];
    let peeked = tokio::time::timeout(HEAD_TIMEOUT, stream.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1))) && first != [TLS_HANDSHAKE]
}

/// The semaphore that bounds how many connections are open at once: they must leave file descriptors for logs and layers.
pub fn connection_limit() -> Arc<Semaphore> {
    let files = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(files, _)| usize::try_from(files).ok());
    let most = files.map_or(MAX_CONNECTIONS, |files| files.saturating_sub(OTHER_FILES).max(files / 2));
    Arc::new(Semaphore::new(most.min(MAX_CONNECTIONS)))
}

async fn connection(
    front_door: Arc<FrontDoor>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(1 << 20);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(128);
    let activity = Activity::new();
    let stream = Watched::new(stream, activity.clone());
    let watch = activity.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (front_door, handling) = (front_door.clone(), activity.handling());
        async move {
            let response = front_door.handle(peer, request).await;
            drop(handling);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    // How a connection ended is of interest to its client only.
    tokio::select! {
        _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {}
        () = watch.silence(IDLE_TIMEOUT) => {}
    }
}

/// Reads `PROXY TCP4 {source} {destination} {port} {port}\r\n` and gives source and destination, byte by byte so that nothing of
/// what follows is taken.
async fn proxy_line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    let mut line = Vec::with_capacity(MAX_PROXY_LINE);
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_PROXY_LINE {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line).unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let prefix = (words.next(), words.next());
    let mut address = || words.next().and_then(|word| word.parse().ok());
    match (prefix, address(), address()) {
        ((Some("PROXY"), Some("TCP4")), Some(source), Some(destination)) => Ok((source, destination)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Opens the address of `--listen` and, where that is another one, loopback for the platform's own processes. Ports below
/// 1024 take root, whom the control plane leaves right after.
pub fn open(listen: SocketAddr) -> io::Result<Vec<std::net::TcpListener>> {
    let ip = listen.ip();
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listen.port());
    let own = Some(loopback).filter(|_| !ip.is_loopback() && !ip.is_unspecified());
    let opened = [listen].into_iter().chain(own).map(|address| {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    opened.collect()
}

/// Takes the open sockets: TLS unless they are loopback's.
pub fn bind(sockets: Vec<std::net::TcpListener>, keys: &std::path::Path) -> io::Result<Vec<Listener>> {
    let listener = |socket: std::net::TcpListener| {
        let ip = socket.local_addr()?.ip();
        let socket = TcpListener::from_std(socket)?;
        Ok(if ip.is_loopback() { Listener::Plain(socket) } else { Listener::Tls(socket, Tls::generate(ip, keys)?) })
    };
    sockets.into_iter().map(listener).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_proxy_line_names_the_source_and_takes_no_more() {
        let mut bytes: &[u8] = b"PROXY TCP4 172.31.0.9 169.254.169.252 4711 4580\r\nPOST / HTTP/1.1\r\n";
        let expected = (Ipv4Addr::new(172, 31, 0, 9), Ipv4Addr::new(169, 254, 169, 252));
        assert_eq!(proxy_line(&mut bytes).await.unwrap(), expected);
        assert_eq!(bytes, b"POST / HTTP/1.1\r\n");
        for wrong in
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 x\r\n", b"PROXY TCP4 10.0.0.1\r\n", b"PROXY", &[b'x'; 300]]
        {
            assert!(proxy_line(&mut &*wrong).await.is_err());
        }
    }
}
