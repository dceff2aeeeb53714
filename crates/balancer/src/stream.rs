//! A client's socket, with TLS or without, that notes when bytes go over it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::client::Activity;

/// How bytes go over the socket.
#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// Does the same to either.
macro_rules! either {
    ($transport:expr, $stream:ident => $work:expr) => {
        match $transport {
            Transport::Plain($stream) => $work,
            Transport::Secure($stream) => $work,
        }
    };
}

/// The socket and its notes.
#[derive(Debug)]
pub struct ClientStream {
    transport: Transport,
    activity: Arc<Activity>,
}

impl ClientStream {
    /// Wraps an accepted socket.
    pub fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { transport: Transport::Plain(stream), activity }
    }

    /// Wraps a socket after its handshake.
    pub fn secure(stream: TlsStream<TcpStream>, activity: Arc<Activity>) -> Self {
        Self { transport: Transport::Secure(Box::new(stream)), activity }
    }

    /// The socket itself.
    pub fn socket(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Secure(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = either!(&mut self.transport, stream => Pin::new(stream).poll_read(cx, buffer));
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.transport, stream => Pin::new(stream).poll_write(cx, bytes));
        if written.is_ready() {
            self.activity.note();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = either!(&mut self.transport, stream => Pin::new(stream).poll_write_vectored(cx, slices));
        if written.is_ready() {
            self.activity.note();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        either!(&self.transport, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.transport, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut self.transport, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
