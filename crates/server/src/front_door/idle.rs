//! Ends connections that nothing goes over, so that clients who are silent cannot take all connections there are. The HTTP
//! library bounds the head of a request only, and neither what comes before its first byte nor a client that stops reading.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// When bytes last went over a connection, and how many of its requests are being handled.
pub struct Activity {
    opened: Instant,
    /// In milliseconds after `opened`.
    last: AtomicU64,
    handled: AtomicUsize,
}

impl Activity {
    /// Of a connection that has just been opened.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), last: AtomicU64::new(0), handled: AtomicUsize::new(0) })
    }

    fn note(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// A request is being handled for as long as what this returns lives.
    pub fn handling(self: &Arc<Self>) -> Handling {
        self.handled.fetch_add(1, Ordering::Relaxed);
        Handling(self.clone())
    }

    /// Returns when nothing has happened for `limit`.
    pub async fn silence(&self, limit: Duration) {
        while let Some(left) = self.left(self.opened.elapsed(), limit) {
            tokio::time::sleep(left).await;
        }
    }

    /// How long, this long after the connection was opened, it may still be silent; `None` when that is over.
    fn left(&self, now: Duration, limit: Duration) -> Option<Duration> {
        let quiet = now.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
        let left = limit.saturating_sub(quiet);
        match self.handled.load(Ordering::Relaxed) {
            0 => (!left.is_zero()).then_some(left),
            _ => Some(left.max(limit / 2)),
        }
    }
}

/// See [`Activity::handling`].
pub struct Handling(Arc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.note();
        self.0.handled.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that notes what goes over it.
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    /// Watches a connection.
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn noting<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.activity.note();
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.noting(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noting(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noting(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_connection_without_bytes_or_requests_is_silent() {
        let activity = Activity::new();
        let at = |seconds| activity.left(Duration::from_secs(seconds), LIMIT);
        assert_eq!((at(0), at(59), at(60)), (Some(LIMIT), Some(Duration::from_secs(1)), None));
        activity.last.store(30_000, Ordering::Relaxed);
        assert_eq!((at(60), at(90)), (Some(LIMIT / 2), None));
        let handling = activity.handling();
        assert!(at(1000).is_some());
        drop(handling);
        assert!(at(1000).is_none());
    }

    #[tokio::test]
    async fn what_goes_over_a_connection_is_noted() {
        let activity = Activity::new();
        let (mut near, far) = tokio::io::duplex(64);
        let mut watched = Watched::new(far, activity.clone());
        tokio::time::sleep(Duration::from_millis(5)).await;
        tokio::io::AsyncWriteExt::write_all(&mut near, b"x").await.unwrap();
        assert_eq!(activity.last.load(Ordering::Relaxed), 0);
        tokio::io::AsyncReadExt::read_u8(&mut watched).await.unwrap();
        assert!(activity.last.load(Ordering::Relaxed) >= 5);
    }
}
