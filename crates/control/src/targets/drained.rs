//! Targets whose deregistration delay is over are removed; their load balancer then cuts what is left of their
//! connections.
//!
//! Registering and deregistering is the API's and the task reconciler's. Mirrors
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html#deregistration-delay>.

use domain::{Clock, Resource, Timestamp, balancing::TargetRegistration};
use store::{Snapshot, Store, Transaction};

use crate::expiry::{self, Due};

/// Looks at all draining targets.
pub fn reconcile(view: &Snapshot, now: Timestamp) -> Due {
    let mut due = Due::default();
    for registration in view.find::<TargetRegistration>(TargetRegistration::DRAINING, "yes") {
        if let Some(until) = registration.draining_until {
            due.add(registration.key(), until, now);
        }
    }
    due
}

/// Removes those whose delay is over by now. One registered again meanwhile stays.
pub fn remove(tx: &mut Transaction, now: Timestamp) {
    for key in reconcile(tx, now).over {
        tx.delete::<TargetRegistration>(&key);
    }
}

/// Removes drained targets in time, until the store is gone.
pub async fn run(store: Store, clock: Clock) {
    expiry::run::<TargetRegistration>(store, clock, reconcile, remove, "drained targets").await;
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use store::Kinds;

    use super::*;

    fn target(port: u16, draining_until: Option<i64>) -> TargetRegistration {
        TargetRegistration {
            target_group: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/1".parse().unwrap(),
            address: IpAddr::from([10, 0, 0, 1]),
            port,
            instance_id: None,
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
        assert_eq!(drains, Due { over: vec![target(2, None).key()], next: Some(Timestamp(20)) });
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
