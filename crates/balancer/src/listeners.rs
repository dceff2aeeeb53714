//! Listening sockets: our own network namespace's are opened here, those of the host and of the load balancer's other
//! interfaces are asked of `host`. What cannot be opened is tried again.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener as StdTcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use domain::balancing::slice::RefusedSocket;
use feed::sockets::{self, Place};
use tokio::{net::TcpListener, task::AbortHandle};

use crate::worker::Workers;

/// The place of sockets in our own network namespace.
pub const OWN: &str = "own";

/// All listening sockets.
#[derive(Debug)]
pub struct Listeners {
    workers: Arc<Workers>,
    provider: Option<PathBuf>,
    limit: usize,
    open: BTreeMap<Place, AbortHandle>,
    refused: BTreeMap<Place, Refusal>,
}

/// Why a socket is not open.
#[derive(Debug)]
struct Refusal {
    reason: String,
    pending: bool,
}

impl Refusal {
    fn decided(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), pending: false }
    }

    fn pending(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), pending: true }
    }
}

impl Listeners {
    /// None yet. `provider` is `host`'s socket; `limit` is the most connections served at once.
    pub fn new(workers: Arc<Workers>, provider: Option<PathBuf>, limit: usize) -> Self {
        Self { workers, provider, limit, open: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// Closes what is not wanted and opens what is. Only with `last_word` is what `host` refuses taken as decided.
    pub async fn settle(&mut self, wanted: &BTreeSet<Place>, last_word: bool) {
        self.open.retain(|place, task| {
            let keep = wanted.contains(place);
            if !keep {
                task.abort();
            }
            keep
        });
        self.refused.clear();
        let missing: Vec<Place> = wanted.iter().filter(|place| !self.open.contains_key(place)).cloned().collect();
        let (own, foreign): (Vec<Place>, Vec<Place>) = missing.into_iter().partition(|place| place.place == OWN);
        for place in own {
            let socket = StdTcpListener::bind(place.address).map_err(Refusal::decided);
            self.take(place, socket);
        }
        // `host` answers at most so many at once.
        for places in foreign.chunks(sockets::MAX_PLACES) {
            for (place, socket) in self.ask(places.to_vec()).await {
                self.take(
                    place,
                    socket.map_err(|refusal| Refusal { pending: refusal.pending || !last_word, ..refusal }),
                );
            }
        }
    }

    /// Whether something wanted is not open.
    pub fn incomplete(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Ports on which all wanted sockets are open.
    pub fn listening(&self) -> Vec<u16> {
        let mut ports: BTreeSet<u16> = self.open.keys().map(|place| place.address.port()).collect();
        for place in self.refused.keys() {
            ports.remove(&place.address.port());
        }
        ports.into_iter().collect()
    }

    /// What could not be opened.
    pub fn refused(&self) -> Vec<RefusedSocket> {
        let refused = |(place, refusal): (&Place, &Refusal)| RefusedSocket {
            place: place.place.clone(),
            address: place.address,
            reason: refusal.reason.clone(),
            pending: refusal.pending,
        };
        self.refused.iter().map(refused).collect()
    }

    async fn ask(&self, places: Vec<Place>) -> Vec<(Place, Result<StdTcpListener, Refusal>)> {
        let Some(provider) = self.provider.clone() else {
            let refuse = |place| (place, Err(Refusal::decided("there is no host process to open it")));
            return places.into_iter().map(refuse).collect();
        };
        let asked = places.clone();
        let answers = tokio::task::spawn_blocking(move || sockets::request(&provider, &asked)).await;
        match answers.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(answers) => {
                let mut answers: BTreeMap<Place, Result<StdTcpListener, Refusal>> =
                    answers.into_iter().map(|answer| (answer.place, answer.socket.map_err(Refusal::decided))).collect();
                let answer = |place: Place| {
                    let socket = answers
                        .remove(&place)
                        .unwrap_or_else(|| Err(Refusal::pending("the host process did not answer")));
                    (place, socket)
                };
                places.into_iter().map(answer).collect()
            }
            Err(error) => {
                let refuse =
                    |place| (place, Err(Refusal::pending(format!("the host process cannot be asked: {error}"))));
                places.into_iter().map(refuse).collect()
            }
        }
    }

    fn take(&mut self, place: Place, socket: Result<StdTcpListener, Refusal>) {
        let opened = socket.and_then(|socket| {
            socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)).map_err(Refusal::decided)
        });
        match opened {
            Ok(listener) => {
                let task = accept(listener, place.address.port(), self.workers.clone(), self.limit);
                self.open.insert(place, tokio::spawn(task).abort_handle());
            }
            Err(refusal) => {
                let (address, reason) = (place.address, &refusal.reason);
                if refusal.pending {
                    tracing::debug!(place = place.place, %address, reason, "cannot listen yet");
                } else {
                    tracing::warn!(place = place.place, %address, reason, "cannot listen");
                }
                self.refused.insert(place, refusal);
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for task in self.open.values() {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, port: u16, workers: Arc<Workers>, limit: usize) {
    loop {
        // At the limit clients wait in the kernel's queue.
        while workers.connections() >= limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let accepted = listener.accept().await.and_then(|(stream, _)| stream.into_std());
        match accepted {
            Ok(stream) => workers.serve(stream, port),
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The place in our own network namespace for a port.
pub fn own_place(address: Ipv4Addr, port: u16) -> Place {
    Place { place: OWN.into(), address: SocketAddrV4::new(address, port) }
}
