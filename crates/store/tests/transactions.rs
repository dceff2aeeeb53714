//! What readers, writers and followers of the store can rely on, whatever its journal stands on (`journals.rs`).
#![allow(missing_docs, clippy::unit_arg, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Boat, Weather, boat, kinds};
use store::{Changes, JournalError, Store, TransactError, embedded, memory::Memory};

fn store() -> Store {
    Store::open(Memory::default(), kinds()).unwrap()
}

fn names(store: &Store, harbour: &str) -> Vec<String> {
    store.snapshot().find::<Boat>("harbour", harbour).map(|boat| boat.name.clone()).collect()
}

#[tokio::test]
async fn indexes_follow_their_resource() {
    let store = store();
    store
        .transact(|tx| {
            tx.put(boat("anna", "kiel"));
            tx.put(boat("bert", "kiel"));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("anna", "bremen")))).await.unwrap();
    assert_eq!((names(&store, "kiel"), names(&store, "bremen")), (vec!["bert".into()], vec!["anna".into()]));
    store.transact(|tx| Ok::<_, ()>(tx.delete::<Boat>("anna"))).await.unwrap();
    assert_eq!(names(&store, "bremen"), Vec::<String>::new());
    assert_eq!(store.snapshot().count::<Boat>("harbour", "bremen"), 0);
}

#[tokio::test]
async fn listing_pages_by_key() {
    let store = store();
    store
        .transact(|tx| {
            ["a/1", "a/2", "a/3", "b/1"].iter().for_each(|name| tx.put(boat(name, "x")));
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    let snapshot = store.snapshot();
    let list = |prefix: &str, after: &str| -> Vec<String> {
        snapshot.list_after::<Boat>(prefix, after).map(|boat| boat.name.clone()).collect()
    };
    assert_eq!(list("a/", ""), ["a/1", "a/2", "a/3"]);
    assert_eq!(list("a/", "a/1"), ["a/2", "a/3"]);
    assert_eq!(list("a/", "a/11"), ["a/2", "a/3"], "a key deleted between two pages");
    assert_eq!(list("a/", "a/3"), Vec::<String>::new());
    assert_eq!(list("", ""), ["a/1", "a/2", "a/3", "b/1"]);
}

#[tokio::test]
async fn what_an_index_gives_is_read_in_pages() {
    let store = Store::open(Memory::default(), kinds()).unwrap();
    let boats = ["a", "b", "c"].map(|name| boat(name, "kiel")).into_iter().chain([boat("bb", "bremen")]);
    store.transact(|tx| Ok::<_, ()>(boats.for_each(|boat| tx.put(boat)))).await.unwrap();
    let snapshot = store.snapshot();
    let after = |after: &str| -> Vec<String> {
        snapshot.find_after::<Boat>("harbour", "kiel", after).map(|boat| boat.name.clone()).collect()
    };
    assert_eq!(after(""), ["a", "b", "c"]);
    assert_eq!((after("a"), after("bb")), (vec!["b".into(), "c".into()], vec!["c".into()]));
    assert_eq!(after("c"), Vec::<String>::new());
}

#[tokio::test]
async fn clearing_leaves_nothing_in_memory_or_on_disk() {
    let journal = Memory::default();
    let store = Store::open(journal.clone(), kinds()).unwrap();
    store
        .transact(|tx| {
            tx.put(boat("anna", "kiel"));
            tx.put(Weather { place: "kiel".into(), wind: 7 });
            Ok::<_, ()>(())
        })
        .await
        .unwrap();
    store.transact(|tx| Ok::<_, ()>(tx.clear())).await.unwrap();
    let empty = |store: &Store| {
        let snapshot = store.snapshot();
        snapshot.count_all::<Boat>() == 0 && snapshot.count_all::<Weather>() == 0 && names(store, "kiel").is_empty()
    };
    assert!(empty(&store));
    drop(store);
    assert!(empty(&Store::open(journal.clone(), kinds()).unwrap()));
}

#[tokio::test]
async fn a_refused_transaction_leaves_nothing() {
    let store = store();
    let refused = store
        .transact(|tx| {
            tx.put(boat("anna", "kiel"));
            Err::<(), _>("no")
        })
        .await;
    assert!(matches!(refused, Err(TransactError::Refused("no"))));
    assert_eq!(store.snapshot().count_all::<Boat>(), 0);
}

#[tokio::test]
async fn what_a_snapshot_shows_never_changes() {
    let store = store();
    let before = store.snapshot();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("anna", "kiel")))).await.unwrap();
    assert_eq!((before.count_all::<Boat>(), store.snapshot().count_all::<Boat>()), (0, 1));
}

#[tokio::test]
async fn transactions_that_run_together_do_not_lose_updates() {
    let store = store();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("counter", "0")))).await.unwrap();
    let increments = (0..200).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .transact(|tx| {
                    tx.update::<Boat>("counter", |boat| {
                        boat.harbour = (boat.harbour.parse::<u32>().unwrap() + 1).to_string();
                    });
                    Ok::<_, ()>(())
                })
                .await
                .unwrap();
        })
    });
    for increment in increments.collect::<Vec<_>>() {
        increment.await.unwrap();
    }
    assert_eq!(store.snapshot().get::<Boat>("counter").unwrap().harbour, "200");
}

#[tokio::test]
async fn volatile_resources_are_seen_and_followed_and_gone_after_a_restart() {
    let journal = Memory::default();
    let store = Store::open(journal.clone(), kinds()).unwrap();
    let mut watch = store.watch();
    store.transact(|tx| Ok::<_, ()>(tx.put(Weather { place: "kiel".into(), wind: 7 }))).await.unwrap();
    let Some(Changes::Keys(changes)) = watch.next().await else { panic!("no change") };
    assert_eq!((changes[0].kind, changes[0].key.as_str()), ("test/weather", "kiel"));
    assert_eq!(store.snapshot().get::<Weather>("kiel").unwrap().wind, 7);
    assert_eq!(store.snapshot().revision(), 0, "no durable commit for a volatile resource");
    drop(store);
    let store = Store::open(journal.clone(), kinds()).unwrap();
    assert_eq!(store.snapshot().count_all::<Weather>(), 0);
}

#[tokio::test]
async fn a_watch_sees_every_key_that_changed() {
    let store = store();
    let mut watch = store.watch();
    for number in 0..50 {
        store.transact(|tx| Ok::<_, ()>(tx.put(boat(&format!("{number:02}"), "x")))).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 50 {
        match watch.next().await.unwrap() {
            Changes::Keys(changes) => seen.extend(changes.iter().map(|change| change.key.clone())),
            Changes::Lagged => panic!("fifty changes are not too many"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_the_store_goes_on_when_there_is_room_again() {
    let journal = Memory::default();
    journal.set_full(true);
    let store = Store::open(journal.clone(), kinds()).unwrap();
    let failed = store.transact(|tx| Ok::<_, ()>(tx.put(boat("anna", "kiel")))).await;
    assert!(matches!(failed, Err(TransactError::NotDurable(_))), "{failed:?}");
    assert_eq!(store.snapshot().count_all::<Boat>(), 0, "what is not durable is not seen");
    journal.set_full(false);
    // Refused while the store reads its journal again, then taken.
    let seen = loop {
        let tried = store.transact(|tx| {
            tx.put(boat("bert", "kiel"));
            Ok::<_, ()>(tx.contains::<Boat>("anna"))
        });
        match tried.await {
            Ok(seen) => break seen,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    assert!(!seen, "a later transaction must not build on what was lost");
    assert_eq!(names(&store, "kiel"), ["bert"]);
}

#[tokio::test]
async fn a_data_directory_serves_one_platform_at_a_time_and_keeps_its_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let store = Store::open(embedded::open(&path).unwrap(), kinds()).unwrap();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("anna", "kiel")))).await.unwrap();
    let second = embedded::open(&path).err().expect("a second platform on the same data");
    assert!(matches!(second, JournalError::InUse(_)), "{second}");
    drop(store);
    let store = Store::open(embedded::open(&path).unwrap(), kinds()).unwrap();
    assert_eq!((names(&store, "kiel"), store.snapshot().revision()), (vec!["anna".to_owned()], 1));
}

#[tokio::test]
async fn what_a_transaction_wrote_before_it_refused_or_panicked_is_undone() {
    let store = Store::open(Memory::default(), kinds()).unwrap();
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("anna", "kiel")))).await.unwrap();
    let work = |tx: &mut store::Transaction| {
        tx.put(boat("berta", "kiel"));
        tx.put(boat("anna", "bremen"));
        tx.delete::<Boat>("berta");
        tx.clear();
        tx.put(boat("anna", "hamburg"));
        assert_eq!(tx.count::<Boat>("harbour", "kiel"), 0);
    };
    store.transact(|tx| Err::<(), _>(work(tx))).await.unwrap_err();
    let panics = tokio::spawn({
        let store = store.clone();
        async move {
            let panics = |tx: &mut store::Transaction| -> Result<(), ()> {
                work(tx);
                panic!("on purpose")
            };
            store.transact(panics).await
        }
    });
    assert!(panics.await.unwrap_err().is_panic());
    store.transact(|tx| Ok::<_, ()>(tx.put(boat("clara", "kiel")))).await.unwrap();
    let snapshot = store.snapshot();
    let boats: Vec<_> = snapshot.list::<Boat>("").map(|boat| (boat.name.clone(), boat.harbour.clone())).collect();
    assert_eq!(boats, [("anna".into(), "kiel".into()), ("clara".into(), "kiel".to_owned())]);
    assert_eq!((snapshot.count::<Boat>("harbour", "kiel"), snapshot.count::<Boat>("harbour", "bremen")), (2, 0));
    assert_eq!(snapshot.count::<Boat>("harbour", "hamburg"), 0);
}
