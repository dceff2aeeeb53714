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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use store::Kinds;

    use super::*;

    fn target(port: u16, draining_until: Option<i64>) -> TargetRegistration {
        TargetRegistration {
            target_group: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/1".parse().unwrap(),
            address: IpAddr::from([10, 0, 0, 1]),
            port,
            availability_zone: None,
            registered_at: Timestamp(0),
            draining_until: draining_until.map(Timestamp),
        }
    }

    async fn store(directory: &tempfile::TempDir, targets: Vec<TargetRegistration>) -> Store {
        let kinds = Kinds::new().durable::<TargetRegistration>();
        let store = Store::open(store::embedded::open(directory.path()).unwrap(), kinds).unwrap();
        let done: Result<(), store::TransactError<()>> = store
            .transact(|tx| {
                targets.into_iter().for_each(|target| tx.put(target));
                Ok(())
            })
            .await;
        done.unwrap();
        store
    }

    #[tokio::test]
    async fn those_whose_delay_is_over_go_and_the_next_one_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            store(&directory, vec![target(1, None), target(2, Some(10)), target(3, Some(30)), target(4, Some(20))])
                .await;
        let drains = reconcile(&store.snapshot(), Timestamp(10));
        assert_eq!(drains, Drains { over: vec![target(2, None).key()], next: Some(Timestamp(20)) });
    }

    #[tokio::test]
    async fn the_loop_removes_them_and_leaves_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let soon = (clock.now() + Duration::from_millis(50)).millis();
        let store = store(&directory, vec![target(1, None), target(2, Some(0)), target(3, Some(soon))]).await;
        let running = tokio::spawn(run(store.clone(), clock));
        while store.snapshot().count_all::<TargetRegistration>() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(store.snapshot().contains::<TargetRegistration>(&target(1, None).key()));
        running.abort();
    }
}
