//! Everything that was appended is read back, in order, by every way of paging.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulated_disk;

use std::{collections::HashSet, sync::Arc};

use proptest::prelude::*;
use simulated_disk::SimulatedDisk;
use telemetry::{
    Pattern,
    logs::{Direction, Keep, LogStore, NewEvent, Options, Position, Query, StoredEvent, StreamKey, Streams},
};

const GROUP: u64 = 7;

#[derive(Clone, Debug)]
struct Append {
    stream: u64,
    events: Vec<(i64, String)>,
}

fn append() -> impl Strategy<Value = Append> {
    let times = prop_oneof![0..50i64, 900..1100i64, Just(5_000), 0..100_000i64];
    let event = (times, prop_oneof![4 => "[a-c]{1,8}", 1 => "[a-c]{2000}"]);
    (0..4u64, prop::collection::vec(event, 1..12)).prop_map(|(stream, events)| Append { stream, events })
}

#[derive(Clone, Debug)]
struct Asked {
    streams: Option<Vec<u64>>,
    indexed: bool,
    direction: Direction,
    start: i64,
    end: i64,
    pattern: Option<&'static str>,
    limit: usize,
    bytes: usize,
    work: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let streams = prop::option::of(prop::sample::subsequence(vec![0, 1, 2, 3, 9], 0..5));
    let range = prop_oneof![Just((0, 1_000_000)), (0..2_000i64, 0..3_000i64), Just((5_000, 5_001))];
    let pattern = prop::option::of(prop::sample::select(vec!["ab", "-c", "\"zz\""]));
    let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Backward)];
    (streams, any::<bool>(), direction, range, pattern, 1..30usize, 100..6_000usize, 1..20_000usize).prop_map(
        |(streams, indexed, direction, (start, end), pattern, limit, bytes, work)| Asked {
            streams,
            indexed,
            direction,
            start,
            end,
            pattern,
            limit,
            bytes,
            work,
        },
    )
}

impl Asked {
    fn query(&self, gap: Position) -> Query {
        let streams = match &self.streams {
            None => Streams::All,
            Some(streams) if self.indexed => Streams::Few(streams.clone()),
            Some(streams) => Streams::Among(Arc::new(streams.iter().copied().collect::<HashSet<_>>())),
        };
        Query {
            group: GROUP,
            streams,
            direction: self.direction,
            gap,
            start: self.start,
            end: self.end,
            matching: self.pattern.map(|text| Arc::new(Pattern::parse(text).unwrap())),
            limit: self.limit,
            bytes: self.bytes,
            work: self.work,
        }
    }

    fn wants(&self, stream: u64, time: i64, message: &str) -> bool {
        self.streams.as_ref().is_none_or(|streams| streams.contains(&stream))
            && (self.start..self.end).contains(&time)
            && self.pattern.is_none_or(|text| Pattern::parse(text).unwrap().matches(message))
    }
}

/// Reads page after page until the end.
async fn read_all(store: &LogStore, asked: &Asked) -> Vec<StoredEvent> {
    let mut gap = match asked.direction {
        Direction::Forward => Position::FIRST,
        Direction::Backward => Position::LAST,
    };
    let mut events = Vec::new();
    for _ in 0..10_000 {
        let page = store.read(asked.query(gap)).await.unwrap();
        assert!(page.events.len() <= asked.limit);
        let bytes: usize = page.events.iter().map(|event| event.message.len() + 26).sum();
        assert!(page.events.len() == 1 || bytes <= asked.bytes);
        events.extend(page.events);
        if page.exhausted {
            // The end stays the end, and its token stays the same.
            let again = store.read(asked.query(page.resume)).await.unwrap();
            assert_eq!((again.events.len(), again.resume, again.exhausted), (0, page.resume, true));
            return events;
        }
        assert_ne!(page.resume, gap, "a page without progress");
        gap = page.resume;
    }
    panic!("paging does not end");
}

async fn filled(disk: &SimulatedDisk, options: Options, appends: &[Append]) -> LogStore {
    let store = LogStore::open_on(Arc::new(disk.clone()), options).unwrap();
    for (index, append) in appends.iter().enumerate() {
        let events = append
            .events
            .iter()
            .map(|(timestamp, message)| NewEvent { timestamp: *timestamp, message: message.clone() });
        let key = StreamKey { group: GROUP, stream: append.stream };
        store.append(key, index as i64, events.collect()).await.unwrap();
        // A neighbour that must not be seen.
        let events = vec![NewEvent { timestamp: 5_000, message: "zz".to_owned() }];
        store.append(StreamKey { group: GROUP + 1, stream: 100 }, 0, events).await.unwrap();
    }
    store
}

/// (stream, time, message) in the order of reading.
fn expected(appends: &[Append], asked: &Asked) -> Vec<(u64, i64, String)> {
    let mut all = Vec::new();
    for append in appends {
        let mut events = append.events.clone();
        events.sort_by_key(|event| event.0);
        all.extend(events.into_iter().map(|(time, message)| (append.stream, time, message)));
    }
    all.sort_by_key(|(_, time, _)| *time);
    all.retain(|(stream, time, message)| asked.wants(*stream, *time, message));
    if asked.direction == Direction::Backward {
        all.reverse();
    }
    all
}

fn plain(events: Vec<StoredEvent>) -> Vec<(u64, i64, String)> {
    events.into_iter().map(|event| (event.stream, event.position.timestamp, event.message)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_read_back_in_order(
        appends in prop::collection::vec(append(), 0..30),
        asked in prop::collection::vec(asked(), 1..6),
        segment_bytes in prop_oneof![Just(u64::MAX), 1_000..50_000u64],
        reopen in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = Options { segment_bytes, ..Options::default() };
            let disk = SimulatedDisk::new(i64::MAX);
            let mut store = filled(&disk, options, &appends).await;
            if reopen {
                drop(store);
                store = LogStore::open_on(Arc::new(disk), options).unwrap();
            }
            for asked in &asked {
                assert_eq!(plain(read_all(&store, asked).await), expected(&appends, asked), "{asked:?}");
            }
            let bytes: usize = appends.iter().flat_map(|append| &append.events).map(|event| event.1.len()).sum();
            assert_eq!(store.group_bytes(GROUP), bytes as u64);
        });
    }

    #[test]
    fn giving_space_back_leaves_what_is_kept(
        appends in prop::collection::vec(append(), 1..40), asked in asked(), since in 0..3_000i64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let options = Options { segment_bytes: 3_000, least_rewrite: 100, ..Options::default() };
            let disk = SimulatedDisk::new(i64::MAX);
            let store = filled(&disk, options, &appends).await;
            let keep = move |key: StreamKey| match key.stream {
                0 => Keep::Nothing,
                1 => Keep::Since(since),
                _ if key.group != GROUP => Keep::Nothing,
                _ => Keep::Everything,
            };
            let before = store.segments();
            let reclaimed = store.reclaim(keep).await.unwrap();
            assert!(reclaimed.segments == 0 || reclaimed.bytes > 0, "{reclaimed:?} of {before}");
            let kept = Asked { streams: Some(vec![1, 2, 3]), start: since, ..asked };
            assert_eq!(plain(read_all(&store, &kept).await), expected(&appends, &kept), "{reclaimed:?}");
            assert_eq!(store.stream_stats(0), None);
            assert_eq!(store.group_bytes(GROUP + 1), 0);
        });
    }
}

#[tokio::test]
async fn streams_are_listed_by_their_last_event() {
    let store = LogStore::open_on(Arc::new(SimulatedDisk::new(i64::MAX)), Options::default()).unwrap();
    for (stream, time) in [(1, Some(50)), (2, Some(10)), (3, None), (4, Some(99))] {
        let key = StreamKey { group: GROUP, stream };
        store.register(key);
        if let Some(timestamp) = time {
            let event = NewEvent { timestamp, message: "m".to_owned() };
            store.append(key, 1, vec![event]).await.unwrap();
        }
    }
    let streams = |after, descending, limit| -> Vec<u64> {
        store.streams_by_last_event(GROUP, after, descending, limit).into_iter().map(|(_, stream)| stream).collect()
    };
    assert_eq!(streams(None, false, 9), [3, 2, 1, 4]);
    assert_eq!(streams(None, true, 2), [4, 1]);
    assert_eq!(streams(Some((50, 1)), true, 9), [2, 3]);
    store.forget(1);
    assert_eq!(streams(None, true, 9), [4, 2, 3]);
}

#[tokio::test]
async fn ten_thousand_chunks_of_one_moment_are_paged_through_both_ways() {
    let store = LogStore::open_on(Arc::new(SimulatedDisk::new(i64::MAX)), Options::default()).unwrap();
    let mut appends = Vec::new();
    for number in 0..12_000u64 {
        let event = NewEvent { timestamp: 1_500, message: format!("{number}") };
        appends.push(store.append(StreamKey { group: GROUP, stream: number % 3 }, 1, vec![event]));
    }
    futures_join(appends).await;
    for direction in [Direction::Forward, Direction::Backward] {
        let asked = Asked {
            streams: None,
            indexed: false,
            direction,
            start: 0,
            end: 9_999,
            pattern: None,
            limit: 10_000,
            bytes: 1 << 20,
            work: usize::MAX,
        };
        let events = read_all(&store, &asked).await;
        let distinct: HashSet<&str> = events.iter().map(|event| event.message.as_str()).collect();
        assert_eq!((events.len(), distinct.len()), (12_000, 12_000));
        let ordered = |pair: &[StoredEvent]| match direction {
            Direction::Forward => pair[0].position < pair[1].position,
            Direction::Backward => pair[0].position > pair[1].position,
        };
        assert!(events.windows(2).all(ordered));
    }
}

/// Waits for all; they run together, so that they share commits.
async fn futures_join(appends: Vec<impl Future<Output = Result<(), telemetry::LogError>>>) {
    let mut appends: Vec<_> = appends.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        appends.retain_mut(|append| match append.as_mut().poll(context) {
            std::task::Poll::Ready(result) => {
                result.unwrap();
                false
            }
            std::task::Poll::Pending => true,
        });
        if appends.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
