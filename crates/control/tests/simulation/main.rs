//! The whole control plane in a seeded simulation: reconcilers, committer, queue, placement and store are the real ones;
//! agents, machines, balancers and users are made up by a seed.
//!
//! Each seed has at least three services, 20 container instances in three zones, 100 tasks, two deployments and five
//! mishaps. What must always hold is in [`properties`], what must hold at the end in `world::settle`, what goes wrong in
//! [`coverage::Fault`], and what the simulation is tried with itself in [`planted`].
//!
//! - One seed, with all that happens in it: `LONGSHORE_SEED=17 cargo test -p control --test simulation seeds -- --nocapture`
//! - More of them: `LONGSHORE_SEEDS=10000`, in an optimised build.
//! - [`small`] has smaller worlds for single questions.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

mod coverage;
mod nouns;
mod planted;
mod properties;
mod small;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use coverage::Coverage;
use planted::Bug;
use world::World;

/// Threads that run seeds.
const THREADS: usize = 2;

/// Seeds of an ordinary run: what fits into two minutes of a processor, optimised, at a fifth of a second each; without
/// optimisation a few. Ten thousand take half an hour of two processors.
const SEEDS: u64 = if cfg!(debug_assertions) { 24 } else { 600 };

/// In so many everything must have happened.
const ENOUGH: u64 = 200;

/// In how many seeds a planted bug must show.
const SEEDS_FOR_A_BUG: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Lives one seed. What went wrong, if anything did.
fn live(seed: u64, bug: Option<Bug>) -> Result<Coverage, String> {
    let mut world = World::new(seed, bug, false);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    match outcome {
        Ok(outcome) => outcome.map(|()| world.coverage),
        Err(_) => Err("a panic".to_owned()),
    }
}

/// The same again, with everything that happens in it.
fn tell(seed: u64, bug: Option<Bug>) -> String {
    let mut world = World::new(seed, bug, true);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    format!("{}\n{}\nseed {seed}: {outcome:?}", world.trace(), world.describe())
}

#[test]
fn services_keep_their_promise_in_all_seeds() {
    if let Some(seed) = number("LONGSHORE_SEED") {
        println!("{}", tell(seed, None));
        live(seed, None).unwrap();
        return;
    }
    let seeds = number("LONGSHORE_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new(Coverage::default());
    let begin = Instant::now();
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            match live(seed, None) {
                Ok(coverage) => all.lock().unwrap().merge(coverage),
                Err(what) => {
                    failed.store(true, Ordering::Relaxed);
                    let trace = tell(seed, None);
                    let end: Vec<&str> = trace.lines().collect();
                    let end = end[end.len().saturating_sub(80)..].join("\n");
                    panic!(
                        "{end}\nseed {seed} fails: {what}\nall of it: LONGSHORE_SEED={seed} cargo test -p control \
                         --test simulation seeds -- --nocapture"
                    );
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(work)));
    });
    let all = all.into_inner().unwrap();
    println!(
        "{all}{:.1} seeds a second; LONGSHORE_SEEDS runs more of them",
        all.seeds as f64 / begin.elapsed().as_secs_f64()
    );
    // In a few seeds what is rare may be missing.
    if seeds >= ENOUGH {
        assert_eq!(all.missing(), Default::default(), "never happened");
    } else {
        println!("never happened: {:?}", all.missing());
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed: u64| tell(seed, None);
    assert!(history(7) == history(7));
    assert!(history(7) != history(8));
}

#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("LONGSHORE_BUG").ok();
    let wanted = |bug: &Bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"));
    let bugs: Vec<Bug> = Bug::ALL.into_iter().filter(wanted).collect();
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    let work = || {
        while let Some(bug) = bugs.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()).copied() {
            let found = (0..SEEDS_FOR_A_BUG).find_map(|seed| Some((seed, live(seed, Some(bug)).err()?)));
            match found {
                Some((seed, what)) => println!("{bug:?}: seed {seed}: {what}"),
                None => missed.lock().unwrap().push(bug),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(work)));
    });
    assert_eq!(missed.into_inner().unwrap(), [], "planted, and not found");
}
