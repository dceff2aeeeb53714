//! The reconcilers, the committer and the store in a seeded simulation: a host that reports late, twice and out of
//! order, containers that fail, users who change their mind, and a control plane that dies between any two commits.
//!
//! What must hold after every commit is in [`World::commit`]; what must hold once everything is quiet in
//! [`World::assert_settled`]. More seeds: `LONGSHORE_SEEDS=10000`; one seed again: `LONGSHORE_SEED=17`.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

mod host;
mod log;
mod world;

use world::World;

/// Steps with faults, before things are left to settle.
const STEPS: usize = 250;

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.assert_settled();
    world.scale_all(0);
    world.settle();
    world.assert_settled();
    world.delete_all();
    world.settle();
    world.assert_gone();
}

#[test]
fn services_keep_their_promise_under_faults() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(seed) = number("LONGSHORE_SEED") {
        return run(seed);
    }
    for seed in 0..number("LONGSHORE_SEEDS").unwrap_or(30) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails: run it alone with LONGSHORE_SEED={seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed: u64| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        world.describe()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}
