//! Measures the log store on the disk of a directory: how fast it takes events in, what they take up, how fast they
//! are read. `cargo run --release -p telemetry --example append_bench -- DIRECTORY`

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use telemetry::{
    Pattern,
    logs::{Direction, LogStore, NewEvent, Position, Query, StreamKey, Streams},
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn line(number: u64) -> String {
    format!(
        "10.0.{}.{} - - [22/Nov/2026:20:00:00 +0000] \"GET /orders/{number} HTTP/1.1\" 200 {} \"-\" \"client/1.0\" {:x}",
        number % 256,
        number / 256 % 256,
        number % 5000,
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    )
}

fn bytes_in(directory: &Path) -> Result<u64> {
    std::fs::read_dir(directory)?.try_fold(0, |sum, entry| Ok(sum + entry?.metadata()?.len()))
}

/// Appends `batches` batches of `size` events from each of `streams` streams at once.
async fn append(store: &Arc<LogStore>, group: u64, streams: u64, batches: u64, size: u64) -> Result<Vec<Duration>> {
    let mut tasks = Vec::new();
    for stream in 0..streams {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut waits = Vec::new();
            for batch in 0..batches {
                let event = |index: u64| {
                    let number = (batch * size + index) * streams + stream;
                    let timestamp = i64::try_from(1_700_000_000_000 + number / 100).unwrap_or(0);
                    NewEvent { timestamp, message: line(number) }
                };
                let events: Vec<NewEvent> = (0..size).map(event).collect();
                let start = Instant::now();
                store.append(StreamKey { group, stream: group * 1_000_000 + stream }, 1, events).await?;
                waits.push(start.elapsed());
            }
            Ok::<_, telemetry::LogError>(waits)
        }));
    }
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    waits.sort();
    Ok(waits)
}

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::args().nth(1).ok_or("usage: append_bench DIRECTORY")?;
    let directory = Path::new(&directory);
    let store = Arc::new(LogStore::open(directory)?);
    for (group, streams, batches, size, what) in [
        (1, 1, 60, 6_000, "1 stream, batches of 6,000"),
        (2, 8, 10, 6_000, "8 streams, batches of 6,000"),
        (3, 1_000, 20, 10, "1,000 streams, batches of 10"),
    ] {
        let (before, start) = (bytes_in(directory)?, Instant::now());
        let waits = append(&store, group, streams, batches, size).await?;
        let seconds = start.elapsed().as_secs_f64();
        let (events, bytes) = (streams * batches * size, store.group_bytes(group));
        let disk = bytes_in(directory)?.saturating_sub(before);
        let at = |part: f64| waits.get((waits.len() as f64 * part) as usize).copied().unwrap_or_default();
        println!(
            "{what}: {:.1} MB/s, {:.0} appends/s, p50 {:?}, p99 {:?}; {} bytes a message, {} on disk",
            bytes as f64 / 1e6 / seconds,
            waits.len() as f64 / seconds,
            at(0.5),
            at(0.99),
            bytes / events,
            disk / events,
        );
    }
    for (pattern, what) in [(None, "read"), (Some("\"/orders/77 \""), "search")] {
        let (start, mut gap, mut found, mut pages) = (Instant::now(), Position::FIRST, 0, 0);
        loop {
            let query = Query {
                group: 2,
                streams: Streams::All,
                direction: Direction::Forward,
                gap,
                start: 0,
                end: i64::MAX,
                matching: pattern.map(Pattern::parse).transpose()?.map(Arc::new),
                limit: 10_000,
                bytes: 1 << 20,
                work: 32 << 20,
            };
            let page = store.read(query).await?;
            (gap, found, pages) = (page.resume, found + page.events.len(), pages + 1);
            if page.exhausted {
                break;
            }
        }
        let rate = store.group_bytes(2) as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("{what} 8 streams interleaved: {found} events in {pages} pages, {rate:.0} MB/s");
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{peak}");
    Ok(())
}
