//! Acknowledged means durable: whatever was acknowledged is there after a power cut at any moment, and what was not
//! is there whole or not at all.
#![allow(missing_docs, clippy::unit_arg, clippy::unwrap_used)]

mod common;

use common::{Boat, ForgetfulDisk, boat, kinds};
use store::{Store, embedded::open_on};

/// Runs transactions until the power goes; gives the number of the last acknowledged one and of the last tried.
async fn sail_until_dark(disk: &ForgetfulDisk) -> (usize, usize) {
    let Ok(journal) = open_on(disk.clone()) else { return (0, 0) };
    let Ok(store) = Store::open(journal, kinds()) else { return (0, 0) };
    let start = store.snapshot().count_all::<Boat>() / 2;
    let mut acknowledged = start;
    for number in start + 1..start + 40 {
        let work = store.transact(|tx| {
            // Two resources in one transaction: after the cut there are both or neither.
            tx.put(boat(&format!("port-{number}"), "a"));
            tx.put(boat(&format!("starboard-{number}"), "b"));
            Ok::<_, ()>(())
        });
        if work.await.is_err() {
            return (acknowledged, number);
        }
        acknowledged = number;
    }
    (acknowledged, acknowledged)
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_power_cut_at_any_moment() {
    let mut cuts_with_work = 0;
    for seed in 0..300_u64 {
        let mut disk = ForgetfulDisk::default();
        // Three lives on one disk: recovery itself is cut short as well.
        let mut acknowledged = 0;
        let mut tried = 0;
        for life in 0..3 {
            disk.light_fuse(u32::try_from(seed * 7 % 331).unwrap() + 20 * life);
            let (now_acknowledged, now_tried) = sail_until_dark(&disk).await;
            acknowledged = acknowledged.max(now_acknowledged);
            tried = tried.max(now_tried);
            disk = disk.after_power_cut(seed * 10 + u64::from(life));
        }
        let store = Store::open(open_on(disk.clone()).unwrap(), kinds()).unwrap();
        let snapshot = store.snapshot();
        let (port, starboard) = (snapshot.count::<Boat>("harbour", "a"), snapshot.count::<Boat>("harbour", "b"));
        assert_eq!(port, starboard, "seed {seed}: half a transaction");
        for number in 1..=acknowledged {
            assert!(snapshot.contains::<Boat>(&format!("port-{number}")), "seed {seed}: lost {number}");
        }
        assert!(port <= tried, "seed {seed}: more than was ever written");
        cuts_with_work += usize::from(acknowledged > 0 && tried > acknowledged);
    }
    assert!(cuts_with_work > 50, "the fuse hardly ever burned in the middle of work: {cuts_with_work}");
}

#[tokio::test]
async fn the_disk_of_these_tests_does_forget_a_directory_that_was_not_synced() {
    let disk = ForgetfulDisk::that_never_syncs_its_directory();
    let store = Store::open(open_on(disk.clone()).unwrap(), kinds()).unwrap();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("lost", "a")))).await.unwrap();
    let found = disk.after_power_cut(1);
    let store = Store::open(open_on(found.clone()).unwrap(), kinds()).unwrap();
    assert_eq!(store.snapshot().count_all::<Boat>(), 0, "without the sync of the directory the file is gone");
}

#[tokio::test]
async fn a_disk_that_fails_for_a_while_loses_nothing_that_was_acknowledged() {
    for operations in 0..40 {
        let disk = ForgetfulDisk::default();
        let store = Store::open(open_on(disk.clone()).unwrap(), kinds()).unwrap();
        store.transact(|tx| Ok::<_, ()>(tx.put(boat("before", "a")))).await.unwrap();
        disk.light_fuse(operations);
        let during = store.transact(|tx| Ok::<_, ()>(tx.put(boat("during", "a")))).await.is_ok();
        disk.repair();
        // Refused while the store reads its journal again, then taken.
        while store.transact(|tx| Ok::<_, ()>(tx.put(boat("after", "a")))).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let seen = |store: &Store| ["before", "during", "after"].map(|name| store.snapshot().contains::<Boat>(name));
        let now = seen(&store);
        assert!(now[0] && now[2] && (now[1] || !during), "{operations}: {now:?} {during}");
        drop(store);
        let store = Store::open(open_on(disk.after_power_cut(1)).unwrap(), kinds()).unwrap();
        assert_eq!(seen(&store), now, "{operations}: memory and disk disagree");
    }
}
