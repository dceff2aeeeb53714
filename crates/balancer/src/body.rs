//! Bodies on their way through: streamed both ways, never gathered.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    client::{Client, InFlight},
    pool::Lease,
};

/// A request's body: notes when all of it has come, which decides between 408 and 504.
#[derive(Debug)]
pub struct RequestBody {
    inner: Incoming,
    client: Rc<Client>,
}

impl RequestBody {
    /// The body of a request of `client`.
    pub fn new(inner: Incoming, client: Rc<Client>) -> Self {
        Self { inner, client }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || (frame.is_ready() && self.inner.is_end_stream()) {
            self.client.body_received();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response's body: one of our own, or a target's.
#[derive(Debug)]
pub enum ResponseBody {
    /// Made by the load balancer.
    Whole {
        /// What is left to send.
        bytes: Option<Bytes>,
        /// Keeps the request in flight.
        guard: InFlight,
    },
    /// A target's.
    Target {
        /// The stream.
        inner: Incoming,
        /// The connection it comes over, given back at the end.
        lease: Lease,
        /// Keeps the request in flight.
        guard: InFlight,
    },
}

impl ResponseBody {
    /// A body that is here in whole.
    pub fn whole(bytes: Bytes, guard: InFlight) -> Self {
        Self::Whole { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), guard }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Target { inner, lease, .. } => {
                let frame = Pin::new(&mut *inner).poll_frame(cx);
                match &frame {
                    Poll::Ready(None) => lease.finished(),
                    Poll::Ready(Some(Ok(_))) if inner.is_end_stream() => lease.finished(),
                    _ => {}
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.is_none(),
            Self::Target { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { bytes, .. } => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(0))
            }
            Self::Target { inner, .. } => inner.size_hint(),
        }
    }
}
