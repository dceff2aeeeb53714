//! What was acknowledged survives a power cut at any moment; what was not is there as a whole append or not at all.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulated_disk;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use simulated_disk::SimulatedDisk;
use telemetry::logs::{Direction, Keep, LogStore, NewEvent, Options, Position, Query, StreamKey, Streams};

const OPTIONS: Options = Options { segment_bytes: 6_000, queue_bytes: 1 << 20, least_rewrite: 1_000 };
const FOREVER: i64 = i64::MAX / 2;

/// Appends, each known by its number: the events' messages are `{number}/{index}`.
fn events(number: usize) -> Vec<NewEvent> {
    let count = 1 + number % 7;
    let at = |index: usize| 1_000 * i64::try_from(number / 3).unwrap() + i64::try_from(index * 400).unwrap();
    (0..count)
        .map(|index| NewEvent {
            timestamp: at(index),
            message: format!("{number}/{index} {}", "x".repeat(number * 37 % 300)),
        })
        .collect()
}

fn key(number: usize) -> StreamKey {
    StreamKey { group: 1, stream: 10 + (number % 5) as u64 }
}

/// The streams that are deleted on the way, to have something to give back.
fn keep(key: StreamKey) -> Keep {
    if key.stream >= 12 { Keep::Nothing } else { Keep::Everything }
}

async fn read_all(store: &LogStore) -> Vec<String> {
    let mut messages = Vec::new();
    let mut gap = Position::FIRST;
    loop {
        let query = Query {
            group: 1,
            streams: Streams::All,
            direction: Direction::Forward,
            gap,
            start: 0,
            end: FOREVER,
            matching: None,
            limit: 50,
            bytes: 1 << 20,
            work: usize::MAX,
        };
        let page = store.read(query).await.unwrap();
        messages.extend(page.events.into_iter().map(|event| event.message));
        gap = page.resume;
        if page.exhausted {
            return messages;
        }
    }
}

/// Appends until the power goes, giving space back now and then; returns which appends were acknowledged.
async fn live(disk: &SimulatedDisk, from: usize, acknowledged: &mut Vec<usize>) -> usize {
    let Ok(store) = LogStore::open_on(Arc::new(disk.clone()), OPTIONS) else { return from };
    let store = Arc::new(store);
    let mut number = from;
    while !disk.is_dead() && number < from + 200 {
        // Several at once, so that they share a commit.
        let appends: Vec<_> = (number..number + 4)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { (number, store.append(key(number), 5, events(number)).await.is_ok()) })
            })
            .collect();
        for append in appends {
            let (number, ok) = append.await.unwrap();
            if ok {
                acknowledged.push(number);
            }
        }
        number += 4;
        if number.is_multiple_of(40) {
            let _ = store.reclaim(keep).await;
        }
    }
    number
}

fn check(messages: &[String], acknowledged: &[usize], attempted: usize) {
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    for message in messages {
        let number: usize = message.split('/').next().unwrap().parse().unwrap();
        *found.entry(number).or_default() += 1;
        assert!(events(number).iter().any(|event| event.message == *message), "{message} was never appended");
    }
    for number in acknowledged.iter().filter(|number| keep(key(**number)) == Keep::Everything) {
        assert_eq!(found.get(number), Some(&events(*number).len()), "append {number} was acknowledged");
    }
    for (number, count) in found {
        assert!(number < attempted);
        assert_eq!(count, events(number).len(), "append {number} is there in part");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_events_survive_power_cuts(
        first in 5..1500i64, second in 5..1500i64, kept in prop::collection::vec(any::<bool>(), 1..64), mode in 0..3u8,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let mut picks = kept.iter().cycle();
            let mut pick = move || match mode { 0 => false, 1 => true, _ => *picks.next().unwrap() };
            let mut acknowledged = Vec::new();
            let disk = SimulatedDisk::new(first);
            let attempted = live(&disk, 0, &mut acknowledged).await;
            let disk = disk.after_power_cut(second, &mut pick);
            let attempted = live(&disk, attempted, &mut acknowledged).await;
            let disk = disk.after_power_cut(i64::MAX, &mut pick);
            let store = LogStore::open_on(Arc::new(disk), OPTIONS).unwrap();
            check(&read_all(&store).await, &acknowledged, attempted);
            // Everything goes on, and giving back what is gone leaves the rest alone.
            store.append(key(attempted), 5, events(attempted)).await.unwrap();
            acknowledged.push(attempted);
            store.reclaim(keep).await.unwrap();
            store.reclaim(keep).await.unwrap();
            check(&read_all(&store).await, &acknowledged, attempted + 1);
        });
    }
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_forgets_nothing() {
    let disk = SimulatedDisk::new(i64::MAX);
    let store = LogStore::open_on(Arc::new(disk.clone()), OPTIONS).unwrap();
    let mut acknowledged = Vec::new();
    for number in 0..60 {
        // Twice the disk is full for a while, once just where a segment rolls.
        disk.fill((20..25).contains(&number) || (40..43).contains(&number));
        if store.append(key(number), 5, events(number)).await.is_ok() {
            acknowledged.push(number);
        }
    }
    assert!(acknowledged.len() < 60 && acknowledged.contains(&26) && acknowledged.contains(&59), "{acknowledged:?}");
    check(&read_all(&store).await, &acknowledged, 60);
    drop(store);
    let store = LogStore::open_on(Arc::new(disk), OPTIONS).unwrap();
    check(&read_all(&store).await, &acknowledged, 60);
}
