//! Measures placement alone, on one core: `cargo xtask bench placement`, or
//! `cargo run --release -p placement --example placement_bench`.
//!
//! 50 kinds of tasks take turns on a fleet in three zones, each spread over zones, then packed by memory, with an
//! expression of its own; 32 attributes to an instance, about ten tasks. Each placement counts on its instance before
//! the next one, a task elsewhere ends, and now and then an instance drains, comes back, or is given another attribute.
//! Some of the answers are compared with those of the reference that the tests have, whose time is the other side.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "../../tests/placement/reference.rs"]
mod reference;
mod stored;
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../../tests/placement/support.rs"]
mod support;
mod world;

use std::time::{Duration, Instant};

use world::{Spent, World};

const SIZES: [usize; 7] = [50, 100, 200, 500, 1_000, 2_000, 5_000];
/// Of which the median is told.
const ROUNDS: usize = 5;
const PLACEMENTS: usize = 20_000;
/// How many answers of a size are compared with the reference's, which is slow.
const SAMPLES: usize = 200;
const REFUSALS: usize = 200;

/// What one size of fleet gave: times are per placement.
struct Row {
    instances: usize,
    tasks: usize,
    build: Duration,
    /// Choosing alone.
    choose: Duration,
    /// With the changes to the fleet that follow: the task counted where it is, another one ended, instances changed.
    changed: Duration,
    /// With what the benchmark itself does to know what is then on an instance.
    whole: Duration,
    reference: Duration,
    refuse: Duration,
    /// Of all placements, in percent.
    refused: f64,
}

fn main() {
    const COLUMNS: [(&str, &str); 11] = [
        ("", "instances"),
        ("", "tasks"),
        ("choosing", "per second"),
        ("with changes", "per second"),
        ("whole loop", "per second"),
        ("choosing", "µs"),
        ("reference", "µs"),
        ("", "ratio"),
        ("a refusal", "µs"),
        ("new fleet", "ms"),
        ("refused", "%"),
    ];
    println!("{}", COLUMNS.map(|(above, _)| format!("{above:>13}")).concat());
    println!("{}", COLUMNS.map(|(_, below)| format!("{below:>13}")).concat());
    let mut rows = Vec::new();
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    for size in &sizes {
        let row = measure(*size);
        let cells = [
            row.instances.to_string(),
            row.tasks.to_string(),
            format!("{:.0}", 1e6 / micros(row.choose)),
            format!("{:.0}", 1e6 / micros(row.changed)),
            format!("{:.0}", 1e6 / micros(row.whole)),
            format!("{:.2}", micros(row.choose)),
            format!("{:.1}", micros(row.reference)),
            format!("{:.0}", micros(row.reference) / micros(row.choose)),
            format!("{:.1}", micros(row.refuse)),
            format!("{:.2}", micros(row.build) / 1e3),
            format!("{:.1}", row.refused),
        ];
        println!("{}", cells.map(|cell| format!("{cell:>13}")).concat());
        rows.push(row);
    }
    if rows.len() > 1 {
        plot(&rows);
    }
    println!("\nThrough the store, tasks placed one after the other in one transaction:");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for size in sizes {
        let times = runtime.block_on(stored::measure(world::registered_instances(size), 500));
        println!(
            "{size:>12} instances: read whole {:.2} ms, then each task {:.1} µs, of which its place {:.1} µs",
            micros(times.read) / 1e3,
            micros(times.each),
            micros(times.place)
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(instances: usize) -> Row {
    let mut world = World::new(instances);
    let start = Instant::now();
    world.make_fleet();
    let build = start.elapsed();
    world.fill();
    let tasks = world.tasks();
    let mut rounds: Vec<Spent> = (0..ROUNDS).map(|_| world.run(PLACEMENTS)).collect();
    rounds.sort_by_key(|spent| spent.whole);
    let spent = &rounds[ROUNDS / 2];
    let refused = world.refused as f64 * 100.0 / (ROUNDS * PLACEMENTS) as f64;
    let per = |time: Duration, times: usize| time.div_f64(times as f64);
    Row {
        instances,
        tasks,
        build,
        choose: per(spent.choosing, PLACEMENTS),
        changed: per(spent.choosing + spent.changing, PLACEMENTS),
        whole: per(spent.whole, PLACEMENTS),
        reference: per(world.compare(SAMPLES), SAMPLES),
        refuse: per(world.refuse(REFUSALS), REFUSALS),
        refused,
    }
}

/// Microseconds by number of instances, both in powers: what is linear goes up by one step to the right.
fn plot(rows: &[Row]) {
    const WIDTH: usize = 61;
    const HEIGHT: usize = 25;
    let least = rows.iter().map(|row| micros(row.choose)).fold(f64::MAX, f64::min).log10().floor();
    let most = rows.iter().map(|row| micros(row.reference)).fold(0.0, f64::max).log10().ceil();
    let sizes = || rows.iter().map(|row| row.instances);
    let (first, last) = sizes().fold((usize::MAX, 0), |(first, last), size| (first.min(size), last.max(size)));
    let (first, last) = ((first as f64).log10(), (last as f64).log10());
    let mut canvas = vec![vec![' '; WIDTH]; HEIGHT];
    let mut dot = |instances: usize, micros: f64, sign: char| {
        let across = ((instances as f64).log10() - first) / (last - first) * (WIDTH - 1) as f64;
        let up = (micros.log10() - least) / (most - least) * (HEIGHT - 1) as f64;
        canvas[HEIGHT - 1 - (up.round() as usize).min(HEIGHT - 1)][across.round() as usize] = sign;
    };
    for row in rows {
        dot(row.instances, micros(row.reference), 'r');
        dot(row.instances, micros(row.refuse), 'x');
        dot(row.instances, micros(row.changed), 'c');
        dot(row.instances, micros(row.choose), 'f');
    }
    println!("\nµs by instances: f choosing, c with changes, x a refusal, r the reference");
    for (at, line) in canvas.iter().enumerate() {
        let value = most - (most - least) * at as f64 / (HEIGHT - 1) as f64;
        let label = if at % 4 == 0 { format!("{:.1}", 10f64.powf(value)) } else { String::new() };
        println!("{label:>9} |{}", line.iter().collect::<String>().trim_end());
    }
    println!("{:>9} +{}", "", "-".repeat(WIDTH));
    let mut axis = vec![' '; WIDTH + 4];
    for size in sizes() {
        let across = ((size as f64).log10() - first) / (last - first) * (WIDTH - 1) as f64;
        size.to_string().chars().enumerate().for_each(|(at, digit)| axis[across.round() as usize + at] = digit);
    }
    println!("{:>9}  {}", "", axis.iter().collect::<String>().trim_end());
}
