//! Output reaches the reader, bounded on the way.

use std::time::{Duration, Instant};

use runtime::{LogLimits, Stream, WhenFull};

use crate::world::{World, printed};

pub async fn both_streams_in_order(world: World) {
    let runtime = world.runtime().await;
    let container = runtime
        .create(
            "one",
            world
                .spec("one", &["/bin/sh", "-c", "echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c; printf no-newline"]),
        )
        .await
        .unwrap();
    container.start().await.unwrap();
    let mut logs = container.logs();
    let mut lines = Vec::new();
    while let Some(more) = logs.next(10).await.unwrap() {
        lines.extend(more);
        logs.acknowledge().unwrap();
    }
    let seen: Vec<(Stream, String)> =
        lines.iter().map(|line| (line.stream, String::from_utf8_lossy(&line.bytes).into_owned())).collect();
    let expected =
        [(Stream::Stdout, "a"), (Stream::Stderr, "b"), (Stream::Stdout, "c"), (Stream::Stdout, "no-newline")];
    assert_eq!(seen, expected.map(|(stream, text)| (stream, text.to_owned())));
    assert!(lines.windows(2).all(|pair| pair[0].time <= pair[1].time));
}

pub async fn a_blocking_container_waits(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("one", &["/bin/sh", "-c", "seq 200000; echo end >&2"]);
    spec.logs = LogLimits { limit_bytes: 256 << 10, when_full: WhenFull::Block };
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    // Nobody reads: it must stand still, and the disk must not fill.
    assert!(tokio::time::timeout(Duration::from_secs(1), container.wait()).await.is_err());
    let spool: u64 = std::fs::read_dir(container.directory().join("spool"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(spool <= 256 << 10, "{spool}");
    let (out, err) = printed(&container).await;
    assert_eq!(container.wait().await.code, Some(0));
    assert!(out.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=200_000), "lines are missing or out of order");
    assert_eq!(err, "end\n");
}

pub async fn a_dropping_container_runs_on(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("one", &["/bin/sh", "-c", "yes 0123456789 | head -c 49999994; echo end >&2"]);
    spec.logs = LogLimits { limit_bytes: 1 << 20, when_full: WhenFull::Drop };
    let container = runtime.create("one", spec).await.unwrap();
    let began = Instant::now();
    container.start().await.unwrap();
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(container.directory().join("shim.json")).unwrap()).unwrap();
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", shim["pid"])).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    let mut highest = 0;
    while tokio::time::timeout(Duration::from_millis(50), container.wait()).await.is_err() {
        highest = highest.max(resident());
    }
    assert_eq!(container.wait().await.code, Some(0));
    println!("    50 MB without a reader: {:?}, shim's own memory at most {highest} KiB", began.elapsed());
    assert!(highest < 8 << 10, "{highest} KiB");
    let mut logs = container.logs();
    let mut kept = 0;
    while let Some(lines) = logs.next(10_000).await.unwrap() {
        for line in lines.iter().filter(|line| line.stream == Stream::Stdout) {
            assert_eq!(line.bytes, b"0123456789");
            kept += 11;
        }
    }
    assert!(
        logs.dropped_bytes() + kept >= 49_900_000 && kept < 1 << 20,
        "{kept} kept, {} dropped",
        logs.dropped_bytes()
    );
}
