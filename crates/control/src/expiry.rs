//! Resources that are removed at a time of their own: drained targets, instances that ended long ago.

use std::time::Duration;

use domain::{Clock, Resource, Timestamp};
use store::{Changes, Snapshot, Store, Transaction, Watch};

/// How long nothing is done after the store could not commit.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What is due at a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Keys of those whose time is over.
    pub over: Vec<String>,
    /// When the next one's is.
    pub next: Option<Timestamp>,
}

impl Due {
    /// Counts in one whose time is over at `until`.
    pub(crate) fn add(&mut self, key: String, until: Timestamp, now: Timestamp) {
        if until <= now {
            self.over.push(key);
        } else {
            self.next = Some(self.next.map_or(until, |next| next.min(until)));
        }
    }
}

/// Removes resources of kind `T` in time, until the store is gone: `remove` whenever `reconcile` finds some that are over.
/// Sleeps when there is none. `what` names them for the log.
pub(crate) async fn run<T: Resource>(
    store: Store,
    clock: Clock,
    reconcile: fn(&Snapshot, Timestamp) -> Due,
    remove: fn(&mut Transaction, Timestamp),
    what: &'static str,
) {
    let mut watch = store.watch();
    loop {
        let now = clock.now();
        let due = reconcile(&store.snapshot(), now);
        if !due.over.is_empty() {
            let removed: Result<(), store::TransactError<std::convert::Infallible>> = store
                .transact(|tx| {
                    remove(tx, now);
                    Ok(())
                })
                .await;
            if let Err(error) = removed {
                tracing::error!(%error, "{what} cannot be removed");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            continue;
        }
        let next = async {
            match due.next {
                // A little late rather than too early by a rounding.
                Some(next) => tokio::time::sleep(clock.real(next.since(now)) + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = next => {}
            changed = relevant::<T>(&mut watch) => if !changed { return },
        }
    }
}

/// Waits for a change of some `T`; false when the store is gone.
async fn relevant<T: Resource>(watch: &mut Watch) -> bool {
    loop {
        match watch.next().await {
            Some(Changes::Keys(keys)) if keys.iter().all(|change| change.kind != T::KIND) => {}
            Some(_) => return true,
            None => return false,
        }
    }
}
