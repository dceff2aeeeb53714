//! Publisher and follower over a real socket: what the consumer sees is what was published, whatever dies between.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use feed::{FollowOptions, Follower, Publisher, Slice};
use tokio::time::timeout;

type Items = BTreeMap<String, u64>;

fn items(pairs: &[(&str, u64)]) -> Items {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

fn plain(slice: &Slice<u64>) -> Items {
    slice.items.iter().map(|(key, value)| (key.clone(), **value)).collect()
}

fn follower(directory: &Path) -> Follower<u64> {
    Follower::start(FollowOptions {
        socket: directory.join("feed.sock"),
        consumer: "host".into(),
        cache: Some(directory.join("host.json")),
    })
}

fn publisher(directory: &Path) -> Publisher {
    Publisher::bind(&directory.join("feed.sock"), |_, _| true).expect("the socket can be bound")
}

async fn until(follower: &mut Follower<u64>, wanted: &Items) -> Arc<Slice<u64>> {
    let seen = async {
        loop {
            let slice = follower.changed().await;
            if slice.known && plain(&slice) == *wanted {
                return slice;
            }
        }
    };
    timeout(Duration::from_secs(10), seen).await.expect("the slice never became what was published")
}

#[tokio::test]
async fn a_snapshot_then_deltas() {
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    let mut follower = follower(directory.path());
    assert!(!follower.changed().await.known, "nothing is known before the first publication");
    for step in [items(&[("a", 1), ("b", 2)]), items(&[("a", 1), ("b", 3), ("c", 4)]), items(&[("c", 4)]), items(&[])] {
        publisher.publish("host", &step).unwrap();
        let slice = until(&mut follower, &step).await;
        follower.acknowledge(slice.revision);
    }
    let acknowledged = async {
        while publisher.status()[0].acknowledged < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), acknowledged).await.unwrap();
}

#[tokio::test]
async fn publishing_the_same_again_sends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    let mut follower = follower(directory.path());
    let same = items(&[("a", 1)]);
    publisher.publish("host", &same).unwrap();
    until(&mut follower, &same).await;
    publisher.publish("host", &same).unwrap();
    assert!(timeout(Duration::from_millis(100), follower.changed()).await.is_err());
}

#[tokio::test]
async fn the_server_may_restart_and_the_consumer_may_restart_without_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = publisher(directory.path());
    let mut consumer = follower(directory.path());
    let old = items(&[("a", 1), ("gone", 2)]);
    first.publish("host", &old).unwrap();
    until(&mut consumer, &old).await;
    drop(first);
    let second = publisher(directory.path());
    // A server that has not yet computed the slice takes nothing away.
    assert!(timeout(Duration::from_millis(300), consumer.changed()).await.is_err());
    assert_eq!(plain(&consumer.slice()), old);
    let new = items(&[("a", 1), ("b", 5)]);
    second.publish("host", &new).unwrap();
    until(&mut consumer, &new).await;
    let kept = async {
        while !std::fs::read_to_string(directory.path().join("host.json")).is_ok_and(|text| text.contains("\"b\"")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), kept).await.expect("the slice is never kept");
    drop(consumer);
    drop(second);
    let alone = follower(directory.path());
    assert!(alone.slice().known);
    assert_eq!(plain(&alone.slice()), new);
}

#[tokio::test]
async fn reports_come_again_until_they_are_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    let first = publisher(directory.path());
    let consumer = follower(directory.path());
    for number in 0..200 {
        assert!(consumer.report(&format!("eni/{number}"), &number));
    }
    assert!(consumer.report("eni/0", &"newer"));
    let lost = timeout(Duration::from_secs(10), first.next_report()).await.unwrap().unwrap();
    assert_eq!(lost.consumer, "host");
    drop((lost, first));
    let second = publisher(directory.path());
    let mut seen = BTreeMap::new();
    while seen.len() < 200 {
        let report = timeout(Duration::from_secs(10), second.next_report()).await.unwrap().unwrap();
        seen.insert(report.key.clone(), report.body.clone());
        report.confirm();
    }
    assert_eq!(seen["eni/0"], "newer");
    drop(second);
    // A confirmation may have been lost with the second server: that report comes once more, and then none does.
    let third = publisher(directory.path());
    let quiet = async {
        while let Ok(report) = timeout(Duration::from_millis(500), third.next_report()).await {
            report.unwrap().confirm();
        }
    };
    timeout(Duration::from_secs(30), quiet).await.expect("confirmed reports come again and again");
}

#[tokio::test]
async fn a_consumer_that_may_not_follow_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let publisher = Publisher::bind(&directory.path().join("feed.sock"), |consumer, _| consumer != "host").unwrap();
    publisher.publish("host", &items(&[("a", 1)])).unwrap();
    let mut consumer = follower(directory.path());
    consumer.changed().await;
    assert!(timeout(Duration::from_millis(300), consumer.changed()).await.is_err());
    assert!(!consumer.slice().known);
}

#[tokio::test]
async fn a_consumer_far_behind_is_brought_up_to_date_by_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let publisher = publisher(directory.path());
    // More deletions than are remembered, while the consumer is away and comes back.
    let many: Items = (0..5000).map(|number| (format!("k{number}"), number)).collect();
    publisher.publish("host", &many).unwrap();
    let mut consumer = follower(directory.path());
    until(&mut consumer, &many).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    drop(consumer);
    publisher.publish("host", &items(&[("z", 0)])).unwrap();
    let mut consumer = follower(directory.path());
    until(&mut consumer, &items(&[("z", 0)])).await;
}
