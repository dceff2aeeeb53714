//! Runs the reconcilers: waits for changes and for keys that are due, plans on a snapshot, commits in one transaction
//! for many keys. No polling: an idle platform does nothing.
//!
//! A reconciler that panics on one key does not stop the others, and a driver that dies is started again; both are seen
//! in [`Status`], which `/health` shows.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::{Clock, IdSource};
use futures_util::FutureExt;
use store::{Changes, Snapshot, Store, Watch};

use crate::{Key, Launcher, Plan, Step, commit, queue::Queue, reconcile, watching};

/// How many keys are planned for one transaction.
const BATCH: usize = 128;

/// How long a key is left alone after its reconciler panicked, and a driver after it died.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// How one part of the reconcilers is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Whether it does its work.
    pub alive: bool,
    /// For people.
    pub detail: String,
}

#[derive(Default)]
struct Gauges {
    running: AtomicBool,
    waiting: AtomicUsize,
    looked_at: AtomicU64,
    committed: AtomicU64,
    panics: AtomicU64,
    restarts: AtomicU64,
}

/// The running reconcilers. They stop when it is dropped.
pub struct Handle {
    gauges: Arc<Gauges>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl Handle {
    /// How the reconcilers are.
    pub fn status(&self) -> Vec<Status> {
        let gauges = &self.gauges;
        let number = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        vec![Status {
            name: "reconcilers".to_owned(),
            alive: gauges.running.load(Ordering::Relaxed),
            detail: format!(
                "{} keys wait, {} looked at, {} plans committed, {} panics, {} restarts",
                gauges.waiting.load(Ordering::Relaxed),
                number(&gauges.looked_at),
                number(&gauges.committed),
                number(&gauges.panics),
                number(&gauges.restarts),
            ),
        }]
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Starts the reconcilers on the current tokio runtime.
pub fn start(store: Store, clock: Clock, launcher: Arc<dyn Launcher>, ids: IdSource) -> Handle {
    let gauges = Arc::new(Gauges::default());
    let driver = Arc::new(Driver { store, clock, launcher, ids: Mutex::new(ids), gauges: gauges.clone() });
    let supervisor = tokio::spawn(async move {
        loop {
            driver.gauges.running.store(true, Ordering::Relaxed);
            let outcome = AssertUnwindSafe(driver.run()).catch_unwind().await;
            driver.gauges.running.store(false, Ordering::Relaxed);
            match outcome {
                Ok(()) => return,
                Err(_) => {
                    driver.gauges.restarts.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("the reconcilers died and are started again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Handle { gauges, supervisor }
}

struct Driver {
    store: Store,
    clock: Clock,
    launcher: Arc<dyn Launcher>,
    ids: Mutex<IdSource>,
    gauges: Arc<Gauges>,
}

impl Driver {
    /// Runs until the store is gone.
    async fn run(&self) {
        // The watch comes first: what changes after it is told, what changed before is in the snapshot.
        let mut watch = self.store.watch();
        let mut queue = Queue::default();
        let now = self.clock.now();
        watching::everything(&self.store.snapshot()).into_iter().for_each(|key| queue.push(key, now));
        loop {
            if !self.wait(&mut watch, &mut queue).await {
                return;
            }
            self.work(&mut queue).await;
            self.gauges.waiting.store(queue.len(), Ordering::Relaxed);
        }
    }

    /// Waits until a key is due. Returns whether the store is still there.
    async fn wait(&self, watch: &mut Watch, queue: &mut Queue) -> bool {
        loop {
            let due = queue.next_at().map(|at| self.clock.real(at.since(self.clock.now())));
            if due == Some(Duration::ZERO) {
                // What has been told already is taken along, so that it is planned for once.
                while let Some(changes) = watch.next().now_or_never() {
                    let Some(changes) = changes else { return false };
                    self.enqueue(&changes, queue);
                }
                return true;
            }
            tokio::select! {
                changes = watch.next() => match changes {
                    Some(changes) => self.enqueue(&changes, queue),
                    None => return false,
                },
                () = tokio::time::sleep(due.unwrap_or(Duration::MAX / 4).min(Duration::from_secs(86_400))) => {}
            }
        }
    }

    fn enqueue(&self, changes: &Changes, queue: &mut Queue) {
        let view = self.store.snapshot();
        let now = self.clock.now();
        match changes {
            Changes::Keys(changes) => {
                let keys = changes.iter().flat_map(|change| watching::concerned(&view, change));
                keys.for_each(|key| queue.push(key, now));
            }
            Changes::Lagged => watching::everything(&view).into_iter().for_each(|key| queue.push(key, now)),
        }
    }

    /// Plans and commits for the keys that are due.
    async fn work(&self, queue: &mut Queue) {
        let now = self.clock.now();
        let keys = queue.take(now, BATCH);
        let view = self.store.snapshot();
        let mut steps: Vec<(Key, Step)> = Vec::new();
        for key in keys {
            self.gauges.looked_at.fetch_add(1, Ordering::Relaxed);
            let plan = self.plan(&view, &key, queue);
            if let Some(at) = plan.again_at {
                queue.push(key.clone(), at);
            }
            steps.extend(plan.step.map(|step| (key, step)));
        }
        if steps.is_empty() {
            return;
        }
        let committed = self
            .store
            .transact(|tx| {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                for (_, step) in &steps {
                    commit(tx, step, &*self.launcher, queue, &mut ids, now);
                }
                Ok::<(), std::convert::Infallible>(())
            })
            .await;
        match committed {
            Ok(()) => drop(self.gauges.committed.fetch_add(steps.len() as u64, Ordering::Relaxed)),
            Err(error) => {
                tracing::error!(%error, "reconciliation could not be saved");
                // The store may recover; nothing is lost, since the same plans will be made again.
                let later = now + Duration::from_secs(1);
                steps.into_iter().for_each(|(key, _)| queue.push(key, later));
            }
        }
    }

    fn plan(&self, view: &Snapshot, key: &Key, queue: &mut Queue) -> Plan {
        let now = self.clock.now();
        catch_unwind(AssertUnwindSafe(|| reconcile(view, key, now))).unwrap_or_else(|_| {
            self.gauges.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(?key, "a reconciler panicked");
            queue.push(key.clone(), now + AFTER_PANIC);
            Plan::default()
        })
    }
}
