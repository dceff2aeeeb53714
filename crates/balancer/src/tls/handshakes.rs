//! The bounds of handshakes: each has so much time, and when too many are waiting the one that has waited longest goes. So
//! clients that never finish theirs take no place from those that do.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    sync::Arc,
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{net::TcpStream, sync::oneshot};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A worker's handshakes that are going on.
#[derive(Debug)]
pub struct Handshakes {
    most: usize,
    /// By the order in which they began. Dropping one's sender ends it.
    waiting: RefCell<BTreeMap<u64, oneshot::Sender<()>>>,
    next: Cell<u64>,
}

impl Handshakes {
    /// At most so many at once.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), waiting: RefCell::default(), next: Cell::new(0) }
    }

    /// Makes one.
    pub async fn accept(&self, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
        let (_place, crowded_out) = self.enter();
        tokio::select! {
            biased;
            done = tokio::time::timeout(HANDSHAKE_TIME, TlsAcceptor::from(config).accept(stream)) => {
                done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
            _ = crowded_out => Err(io::Error::other("too many handshakes were waiting")),
        }
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let (sender, crowded_out) = oneshot::channel();
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.most {
            waiting.pop_first();
        }
        waiting.insert(number, sender);
        (Place { handshakes: self, number }, crowded_out)
    }
}

/// A handshake's place among those that are waiting.
struct Place<'a> {
    handshakes: &'a Handshakes,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.handshakes.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_goes() {
        let handshakes = Handshakes::new(2);
        let (first, mut first_out) = handshakes.enter();
        let (second, mut second_out) = handshakes.enter();
        let (third, mut third_out) = handshakes.enter();
        let out =
            |receiver: &mut oneshot::Receiver<()>| receiver.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert!(out(&mut first_out) && !out(&mut second_out) && !out(&mut third_out));
        drop(first);
        drop(third);
        let (_fourth, mut fourth_out) = handshakes.enter();
        assert!(!out(&mut second_out) && !out(&mut fourth_out));
        drop(second);
        assert_eq!(handshakes.waiting.borrow().len(), 1);
    }
}
