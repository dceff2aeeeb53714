//! Serves one client connection: HTTP/1 or HTTP/2, agreed upon in TLS's handshake, or without TLS told apart by the first
//! bytes, HTTP/2 with prior knowledge.

use std::{future::poll_fn, io, pin::Pin, pin::pin, rc::Rc, task::Poll, time::Duration};

use hyper::{body::Incoming, server::conn, service::Service};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::server::TlsStream;

use crate::{
    body::ResponseBody,
    client::{Activity, Client, Ends, Verdict},
    proxy::{self, Abort},
    stream::ClientStream,
    tcp,
    tls::{self, Tls},
    worker::{LocalExecutor, Worker},
};

/// The largest head of a request: a request line of 16 KiB and headers of 64 KiB.
const REQUEST_HEAD: usize = 80 * 1024;

/// How long a client may take for the bytes that tell HTTP/2 from HTTP/1, once it has sent the first of them.
const PREFACE_TIME: Duration = Duration::from_secs(1);

/// Serves until the client leaves or is left.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, port: u16) -> io::Result<()> {
    if worker.table().routing.tcp.as_ref().is_some_and(|table| table.carries(port)) {
        return tcp::flow::serve(worker, stream, port).await;
    }
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    stream.set_nodelay(true)?;
    let security = worker.table().routing.listener(port).and_then(|listener| listener.tls.clone());
    let activity = Activity::new();
    let (stream, http2, secure) = match security {
        Some(security) => {
            let (stream, http2) = shake_hands(&worker, &security, stream).await?;
            (ClientStream::secure(stream, activity.clone()), http2, true)
        }
        None => {
            let http2 = worker.table().routing.attributes.http2
                && tokio::time::timeout(worker.idle_timeout(), speaks_http2(&stream)).await.unwrap_or(Ok(false))?;
            (ClientStream::new(stream, activity.clone()), http2, false)
        }
    };
    let client = Rc::new(Client::new(worker.clone(), activity, Ends { peer, local, port, http2, secure }));
    let io = TokioIo::new(stream);
    let owner = client.clone();
    let service = hyper::service::service_fn(move |request| proxy::respond(owner.clone(), request));
    let outcome = if http2 {
        let connection = conn::http2::Builder::new(LocalExecutor)
            .max_header_list_size(u32::try_from(REQUEST_HEAD).unwrap_or(u32::MAX))
            .serve_connection(io, service);
        drive(&client, connection).await
    } else {
        drive(&client, worker.http1.serve_connection(io, service).with_upgrades()).await
    };
    if let Err(error) = outcome {
        tracing::trace!(%peer, %error, "the connection ended");
    }
    Ok(())
}

/// Makes the handshake, and tells whether HTTP/2 follows.
async fn shake_hands(worker: &Worker, security: &Tls, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
    let config = security.config().ok_or_else(|| io::Error::other("the listener has no usable certificate"))?;
    let stream = worker.handshakes.accept(stream, config).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
    Ok((stream, http2))
}

/// How HTTP/1 is read.
pub fn http1() -> conn::http1::Builder {
    let mut builder = conn::http1::Builder::new();
    // The connection's own timer does what the header's would do, at no cost per request. One buffer for head and body is
    // cheaper than two vectors (`writev`); the option that gathers pipelined responses would never send those after which a
    // connection is closed while bytes of the client are unread, such as the 400 to what is no request.
    builder.header_read_timeout(None).max_buf_size(128 * 1024).max_header_size(REQUEST_HEAD).writev(false);
    builder
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI ";
    let mut deadline = None;
    loop {
        let mut bytes = [0; 4];
        let count = stream.peek(&mut bytes).await?;
        let seen = bytes.get(..count).unwrap_or_default();
        if count == 0 || seen == PREFACE || !PREFACE.starts_with(seen) {
            return Ok(seen == PREFACE);
        }
        if *deadline.get_or_insert_with(|| Instant::now() + PREFACE_TIME) < Instant::now() {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection that can be asked to end after the requests it has.
trait Connection: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Connection for conn::http1::UpgradeableConnection<TokioIo<ClientStream>, S>
where
    S: Service<http::Request<Incoming>, Response = http::Response<ResponseBody>, Error = Abort>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for conn::http2::Connection<TokioIo<ClientStream>, S, LocalExecutor>
where
    S: Service<http::Request<Incoming>, Response = http::Response<ResponseBody>, Error = Abort>,
    S::Future: 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs the connection together with its timer, in one task: the request path sees at once that it has expired.
async fn drive(client: &Client, connection: impl Connection) -> hyper::Result<()> {
    let opened = Instant::now();
    let mut finishing = false;
    let mut timer = pin!(tokio::time::sleep(client.worker.idle_timeout()));
    let mut connection = pin!(connection);
    poll_fn(|context| {
        while timer.as_mut().poll(context).is_ready() {
            let attributes = &client.worker.table().routing.attributes;
            let keep_alive = Duration::from_secs(u64::from(attributes.client_keep_alive_seconds));
            if !finishing && opened.elapsed() >= keep_alive {
                finishing = true;
                connection.as_mut().finish();
            }
            match client.check(client.worker.idle_timeout()) {
                Verdict::Wait(left) => {
                    let until_old = keep_alive.saturating_sub(opened.elapsed());
                    let wait = if finishing || until_old.is_zero() { left } else { left.min(until_old) };
                    timer.as_mut().reset(Instant::now() + wait);
                }
                Verdict::Answer(left) => {
                    timer.as_mut().reset(Instant::now() + left);
                    break;
                }
                Verdict::Close => return Poll::Ready(Ok(())),
            }
        }
        connection.as_mut().poll(context)
    })
    .await
}
