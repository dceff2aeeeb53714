//! Connections to one target, kept by one worker: never shared between threads, so there is nothing to lock.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use domain::balancing::ProtocolVersion;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};

use crate::{body::RequestBody, tls::targets, worker::LocalExecutor};

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a target's response, as Amazon's.
const RESPONSE_HEAD: usize = 32 * 1024;

/// The read buffer's bound: large enough that big bodies are moved in few pieces.
const READ_BUFFER: usize = 128 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No answer within [`CONNECT_TIMEOUT`].
    #[error("the target did not accept the connection in time")]
    Timeout,
    /// Refused, reset or unreachable.
    #[error("the target cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// HTTP could not be started on it.
    #[error("the target does not speak HTTP: {0}")]
    Handshake(#[from] hyper::Error),
}

/// A connection's sending half.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// A handle of a shared connection.
    Http2(http2::SendRequest<RequestBody>),
}

impl Sender {
    /// Sends a request. A request that never left comes back within the error.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// The connections to one target.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    version: ProtocolVersion,
    secure: bool,
    idle: RefCell<Vec<(http1::SendRequest<RequestBody>, Instant)>>,
    shared: RefCell<Option<http2::SendRequest<RequestBody>>>,
    tasks: RefCell<HashMap<u64, AbortHandle>>,
    next_task: Cell<u64>,
    state: Cell<State>,
}

/// What the routing says of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may get requests.
    Used,
    /// Nothing leads to it any more: running requests finish, nothing is kept.
    Retired,
    /// It is no longer registered: nothing goes on.
    Closed,
}

impl Pool {
    /// An empty pool.
    pub fn new(address: SocketAddr, version: ProtocolVersion, secure: bool) -> Rc<Self> {
        Rc::new(Self {
            address,
            version,
            secure,
            idle: RefCell::default(),
            shared: RefCell::default(),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            state: Cell::new(State::Used),
        })
    }

    /// What the target speaks.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Whether that goes over TLS.
    pub fn secure(&self) -> bool {
        self.secure
    }

    /// The target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection that is open and free, the most recently used first.
    pub fn checkout(&self) -> Option<Sender> {
        if self.version == ProtocolVersion::Http2 {
            let mut shared = self.shared.borrow_mut();
            if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
                *shared = None;
            }
            return shared.clone().map(Sender::Http2);
        }
        let mut idle = self.idle.borrow_mut();
        while let Some((sender, _)) = idle.pop() {
            if sender.is_ready() {
                return Some(Sender::Http1(sender));
            }
        }
        None
    }

    /// A new connection. With `upgrades` it can become a tunnel, and is not kept.
    pub async fn connect(self: &Rc<Self>, upgrades: bool) -> Result<Sender, ConnectError> {
        let opened = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            if self.secure {
                self.start(targets::connect(stream, self.version).await?, upgrades).await
            } else {
                self.start(stream, upgrades).await
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, opened).await.map_err(|_| ConnectError::Timeout)?
    }

    /// Starts HTTP over an open connection.
    async fn start<S>(self: &Rc<Self>, stream: S, upgrades: bool) -> Result<Sender, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        if self.version == ProtocolVersion::Http2 {
            let (sender, connection) = http2::Builder::new(LocalExecutor).handshake(io).await?;
            self.run(connection);
            *self.shared.borrow_mut() = Some(sender.clone());
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) =
            http1::Builder::new().max_buf_size(READ_BUFFER).max_header_size(RESPONSE_HEAD).handshake(io).await?;
        if upgrades {
            self.run(connection.with_upgrades());
        } else {
            self.run(connection);
        }
        Ok(Sender::Http1(sender))
    }

    /// Runs something that ends when the target is gone.
    pub fn run(self: &Rc<Self>, task: impl Future + 'static) {
        let id = self.next_task.get();
        self.next_task.set(id.wrapping_add(1));
        let pool = self.clone();
        let handle = tokio::task::spawn_local(async move {
            let _ = task.await;
            pool.tasks.borrow_mut().remove(&id);
        });
        if self.state.get() == State::Closed {
            handle.abort();
        } else {
            self.tasks.borrow_mut().insert(id, handle.abort_handle());
        }
    }

    /// Keeps a connection for the next request.
    fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        if self.state.get() == State::Used && !sender.is_closed() {
            self.idle.borrow_mut().push((sender, Instant::now()));
        }
    }

    /// Closes connections that have not been used for `timeout`.
    pub fn sweep(&self, timeout: Duration) {
        self.idle.borrow_mut().retain(|(sender, since)| !sender.is_closed() && since.elapsed() < timeout);
    }

    /// No rule leads to the target's group any more: what runs may finish.
    pub fn retire(&self) {
        self.state.set(State::Retired);
        self.idle.borrow_mut().clear();
        *self.shared.borrow_mut() = None;
    }

    /// The target is gone: all its connections and tunnels are cut.
    pub fn close(&self) {
        self.retire();
        self.state.set(State::Closed);
        for (_, task) in self.tasks.borrow_mut().drain() {
            task.abort();
        }
    }
}

/// A connection lent to one exchange. Dropped before [`Lease::finished`], it is closed, since what is still to come
/// over it belongs to nobody.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    sender: Option<Sender>,
    last: bool,
}

impl Lease {
    /// Lends a connection. If this is its `last` exchange, it does not go back.
    pub fn new(pool: Rc<Pool>, sender: Sender, last: bool) -> Self {
        Self { pool, sender: Some(sender), last }
    }

    /// The exchange is over: the connection goes back to the pool.
    pub fn finished(&mut self) {
        match self.sender.take().filter(|_| !self.last) {
            Some(Sender::Http1(sender)) if sender.is_ready() => self.pool.keep(sender),
            Some(Sender::Http1(mut sender)) => {
                // The body is here, but the connection has not come round to saying that it is free.
                let pool = self.pool.clone();
                tokio::task::spawn_local(async move {
                    if sender.ready().await.is_ok() {
                        pool.keep(sender);
                    }
                });
            }
            Some(Sender::Http2(_)) | None => {}
        }
    }
}
