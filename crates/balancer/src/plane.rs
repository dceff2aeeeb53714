//! The loop that keeps the data plane in step: slices in, sockets, checks and routing out, reports back.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use domain::balancing::slice::{BalancerReport, SliceItem, TargetGroupItem};
use feed::sockets::Place;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    cookie::Key,
    health::Checks,
    listeners::{self, Listeners},
    routing::Routing,
    worker::Workers,
};

/// How long until sockets that could not be opened are tried again: doubling from the first to the last.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The items of a slice.
pub type Items = Arc<Vec<Arc<SliceItem>>>;

/// What the data plane needs of its surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The address on which our own network namespace's sockets listen.
    pub bind: Ipv4Addr,
    /// `host`'s socket, for sockets elsewhere.
    pub provider: Option<PathBuf>,
    /// Worker threads.
    pub workers: usize,
    /// The most client connections at once.
    pub limit: usize,
    /// For trace ids.
    pub seed: u64,
    /// What cookies are sealed with.
    pub key: Arc<Key>,
}

/// Serves the newest of `slices` until its sender goes. Each report is the whole state.
pub async fn run(
    surroundings: Surroundings,
    mut slices: watch::Receiver<Items>,
    reports: mpsc::Sender<BalancerReport>,
) -> io::Result<()> {
    let workers =
        Arc::new(Workers::start(surroundings.workers, surroundings.seed, &surroundings.key, surroundings.limit)?);
    let mut listeners = Listeners::new(workers.clone(), surroundings.provider.clone(), surroundings.limit);
    let mut checks = Checks::default();
    let mut items: Items = slices.borrow_and_update().clone();
    let mut routing: Option<Arc<Routing>> = None;
    let mut reported: Option<BalancerReport> = None;
    let mut work = Work { checks: true, routing: true, sockets: true };
    let mut retry = RETRY.0;
    let mut retry_at = Instant::now();
    loop {
        if work.checks {
            checks.settle(groups(&items));
        }
        if work.routing {
            let health = |group: &str, address, port| checks.state(group, address, port);
            let (known, key) = (routing.as_deref(), &surroundings.key);
            let compiled = Arc::new(Routing::compile(
                items.iter().map(Arc::as_ref),
                &health,
                known,
                key,
                std::time::Instant::now(),
            ));
            workers.route(&compiled);
            routing = Some(compiled);
        }
        // After the routing, so that the first connection of a new listener finds it.
        if work.sockets {
            // `host` may learn of a new listener a moment later than we do: what it refuses at first is not decided.
            listeners.settle(&wanted(&items, surroundings.bind), retry == RETRY.1).await;
            retry_at = Instant::now() + retry;
        }
        let report =
            BalancerReport { listening: listeners.listening(), refused: listeners.refused(), targets: checks.report() };
        if reported.as_ref() != Some(&report) {
            if reports.send(report.clone()).await.is_err() {
                return Ok(());
            }
            reported = Some(report);
        }
        work = tokio::select! {
            changed = slices.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                items = slices.borrow_and_update().clone();
                retry = RETRY.0;
                Work { checks: true, routing: true, sockets: true }
            }
            Some((key, outcome)) = checks.next() => {
                Work { routing: checks.observe(&key, outcome), ..Work::default() }
            }
            () = tokio::time::sleep_until(retry_at), if listeners.incomplete() => {
                retry = (retry * 2).min(RETRY.1);
                Work { sockets: true, ..Work::default() }
            }
        };
    }
}

/// What has to be done because of what happened.
#[derive(Default)]
struct Work {
    checks: bool,
    routing: bool,
    sockets: bool,
}

fn groups(items: &[Arc<SliceItem>]) -> impl Iterator<Item = &TargetGroupItem> {
    items.iter().filter_map(|item| match item.as_ref() {
        SliceItem::TargetGroup(group) => Some(group),
        _ => None,
    })
}

/// Each listener's sockets: our own, and one per further place.
fn wanted(items: &[Arc<SliceItem>], bind: Ipv4Addr) -> BTreeSet<Place> {
    let listeners = items.iter().filter_map(|item| match item.as_ref() {
        SliceItem::Listener(listener) => Some(listener),
        _ => None,
    });
    listeners
        .flat_map(|listener| {
            let elsewhere = listener.places.iter().map(|place| Place {
                place: place.place.clone(),
                address: SocketAddrV4::new(place.address, listener.port),
            });
            std::iter::once(listeners::own_place(bind, listener.port)).chain(elsewhere)
        })
        .collect()
}
