//! One client connection as the request path sees it: who the peer is, and what the idle timeout applies to.
//!
//! A timer per request would be paid for by every request. Instead each read and write notes its time, and one timer
//! per connection looks at the notes when it fires.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::{choice::Counted, routing::Routing, worker::Worker};

/// When bytes last went over a connection, in milliseconds since it was opened. Shared with the socket's wrapper, which
/// must be `Send` for upgrades.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    last: AtomicU64,
}

impl Activity {
    /// A connection opened now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), last: AtomicU64::new(0) })
    }

    /// Bytes went over it.
    pub fn note(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    /// When bytes last went over it.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Now.
    pub fn elapsed(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The target or the client kept silent for longer than the idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// What the connection's timer finds when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again after this long.
    Wait(Duration),
    /// The running request has expired: the request path answers, if it can do so within this time.
    Answer(Duration),
    /// Nothing more to wait for.
    Close,
}

/// How long an expired connection may take to be told so.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is known of a connection when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The listener's port.
    pub port: u16,
    /// Several requests at once.
    pub http2: bool,
    /// With TLS.
    pub secure: bool,
}

/// A client connection.
#[derive(Debug)]
pub struct Client {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The listener's port.
    pub port: u16,
    /// The peer's address, for X-Forwarded-For.
    pub peer_address: HeaderValue,
    /// The peer's address and port, for X-Forwarded-For where the attribute asks for it.
    pub peer_with_port: HeaderValue,
    /// The listener's port, for X-Forwarded-Port.
    pub port_value: HeaderValue,
    /// When bytes last went over it.
    pub activity: Arc<Activity>,
    /// Several requests at once.
    pub http2: bool,
    /// With TLS.
    pub secure: bool,
    in_flight: Cell<u32>,
    idle_since: Cell<u64>,
    body_pending: Cell<bool>,
    responding: Cell<bool>,
    expired: Cell<bool>,
}

impl Client {
    /// A connection just accepted by the listener on `port`.
    pub fn new(worker: Rc<Worker>, activity: Arc<Activity>, ends: Ends) -> Self {
        let Ends { peer, local, port, http2, secure } = ends;
        let value = |text: String| HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            worker,
            peer,
            local,
            port,
            peer_address: value(peer.ip().to_string()),
            peer_with_port: value(peer.to_string()),
            port_value: HeaderValue::from(port),
            activity,
            http2,
            secure,
            in_flight: Cell::new(0),
            idle_since: Cell::new(0),
            body_pending: Cell::new(false),
            responding: Cell::new(false),
            expired: Cell::new(false),
        }
    }

    /// How it speaks HTTP, for X-Forwarded-Proto and locations.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The routing in force now.
    pub fn routing(&self) -> Arc<Routing> {
        self.worker.table().routing.clone()
    }

    /// A request has come; it is in flight until the guard goes.
    pub fn begin(self: &Rc<Self>, has_body: bool) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        self.body_pending.set(has_body);
        self.responding.set(false);
        InFlight { client: self.clone(), counted: None }
    }

    /// The request's body has come to its end.
    pub fn body_received(&self) {
        self.body_pending.set(false);
    }

    /// Whether the request's body is still coming.
    pub fn body_pending(&self) -> bool {
        self.body_pending.get()
    }

    /// The response's head is on its way: from now on all that can be done on expiry is to close.
    pub fn responding(&self) {
        self.responding.set(true);
    }

    /// What the timer does, given the idle timeout.
    pub fn check(&self, idle_timeout: Duration) -> Verdict {
        let idle = u64::try_from(idle_timeout.as_millis()).unwrap_or(u64::MAX);
        let now = self.activity.elapsed();
        let in_flight = self.in_flight.get() > 0;
        // Without a request, partial heads do not count: a client cannot hold a connection by sending a byte at a time.
        let quiet_since = if in_flight { self.activity.last() } else { self.idle_since.get() };
        match quiet_since.saturating_add(idle).checked_sub(now) {
            Some(left) if left > 0 => Verdict::Wait(Duration::from_millis(left)),
            _ if in_flight && !self.responding.get() && !self.expired.get() => {
                self.expired.set(true);
                Verdict::Answer(LAST_WORDS)
            }
            _ => Verdict::Close,
        }
    }

    /// Runs `future`, unless the connection expires first. Expiry is noticed because the timer runs in the same task.
    pub async fn until_expired<T>(&self, future: impl Future<Output = T>) -> Result<T, Expired> {
        if self.http2 {
            // Streams are tasks of their own, and one connection's activity says little about one of them.
            let idle = self.worker.idle_timeout();
            return tokio::time::timeout(idle, future).await.map_err(|_| Expired);
        }
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.expired.get() => Poll::Ready(Err(Expired)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// A request in flight; dropped when its response is out.
#[derive(Debug)]
pub struct InFlight {
    client: Rc<Client>,
    /// That its target has it, where that is counted.
    pub counted: Option<Counted>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let client = &self.client;
        client.in_flight.set(client.in_flight.get().saturating_sub(1));
        client.idle_since.set(client.activity.elapsed());
    }
}
