//! Targets whose deregistration delay is over are removed; their load balancer then cuts what is left of their
//! connections.
//!
//! Registering and deregistering is the API's and the task reconciler's. Mirrors
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html#deregistration-delay>.

use std::time::Duration;

use domain::{Clock, Resource, Timestamp, balancing::TargetRegistration};
use store::{Changes, Snapshot, Store, Transaction};

/// How long nothing is done after the store could not commit.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What drains at a point in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drains {
    /// Keys of those whose delay is over.
    pub over: Vec<String>,
    /// When the next one's is.
    pub next: Option<Timestamp>,
}

/// Looks at all draining targets.
pub fn reconcile(view: &Snapshot, now: Timestamp) -> Drains {
    let mut drains = Drains::default();
    for registration in view.find::<TargetRegistration>(TargetRegistration::DRAINING, "yes") {
        match registration.draining_until {
            Some(until) if until <= now => drains.over.push(registration.key()),
            Some(until) => drains.next = Some(drains.next.map_or(until, |next| next.min(until))),
            None => {}
        }
    }
    drains
}

/// Removes those whose delay is over by now. One registered again meanwhile stays.
pub fn remove(tx: &mut Transaction, now: Timestamp) {
    for key in reconcile(tx, now).over {
        tx.delete::<TargetRegistration>(&key);
    }
}

/// Removes drained targets in time, until the store is gone. Sleeps when nothing drains.
pub async fn run(store: Store, clock: Clock) {
    let mut watch = store.watch();
    loop {
        let now = clock.now();
        let drains = reconcile(&store.snapshot(), now);
        if !drains.over.is_empty() {
            let removed: Result<(), store::TransactError<std::convert::Infallible>> = store
                .transact(|tx| {
                    remove(tx, now);
                    Ok(())
                })
                .await;
            if let Err(error) = removed {
                tracing::error!(%error, "drained targets cannot be removed");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
            continue;
        }
        let due = async {
            match drains.next {
                // A little late rather than too early by a rounding.
                Some(next) => tokio::time::sleep(clock.real(next.since(now)) + Duration::from_millis(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = relevant(&mut watch) => if !changed { return },
        }
    }
}

/// Waits for a change of some target; false when the store is gone.
async fn relevant(watch: &mut store::Watch) -> bool {
    loop {
        match watch.next().await {
            Some(Changes::Keys(keys)) if keys.iter().all(|change| change.kind != TargetRegistration::KIND) => {}
            Some(_) => return true,
            None => return false,
        }
    }
}
