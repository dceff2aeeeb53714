//! The reconcilers on one Fargate host with three services, and a daemon service alone: small enough to ask for single
//! things. What comes of everything together is in [`crate::world`].

mod daemons;
mod host;
mod world;

use std::time::Duration;

use domain::ecs::{DesiredStatus, StopCode, TaskStatus, status::reason};
use world::{PATIENCE, World};

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
    for seed in 0..30 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
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

/// A world with one task for each service, of which no agent has heard yet.
fn unheard(seed: u64) -> World {
    let mut world = World::new(seed);
    world.scale_all(1);
    world.pass(Duration::ZERO);
    let tasks = world.tasks();
    assert!(!tasks.is_empty() && tasks.iter().all(|(status, ..)| *status == TaskStatus::Provisioning), "{tasks:?}");
    world
}

#[test]
fn a_task_whose_interface_never_comes_is_given_up() {
    let mut world = unheard(1);
    world.pass(PATIENCE - Duration::from_secs(1));
    assert!(world.tasks().iter().all(|(status, ..)| *status == TaskStatus::Provisioning));
    // A control plane that was away gives its hosts the whole time again.
    world.crash();
    world.pass(PATIENCE - Duration::from_secs(1));
    assert!(world.tasks().iter().all(|(status, ..)| *status == TaskStatus::Provisioning));
    world.pass(Duration::from_secs(1));
    let timeout = (TaskStatus::Stopping, Some(StopCode::TaskFailedToStart), Some(reason::NETWORK_TIMEOUT.to_owned()));
    assert!(world.tasks().contains(&timeout), "{:?}", world.tasks());
    // Its host confirms the end, and the service goes on.
    world.settle();
    world.assert_settled();
}

#[test]
fn a_task_that_its_absent_host_never_began_is_given_up_and_others_are_not() {
    let mut world = World::new(2);
    world.scale_all(1);
    world.settle();
    world.assert_settled();
    let running = world.tasks();
    world.disconnect();
    world.pass(Duration::from_secs(3_000));
    assert_eq!(world.tasks(), running, "tasks run on without an agent");

    let mut world = unheard(2);
    world.disconnect();
    world.pass(PATIENCE);
    let over = (TaskStatus::Stopped, Some(StopCode::TaskFailedToStart), Some(reason::NETWORK_TIMEOUT.to_owned()));
    assert!(world.tasks().iter().all(|task| *task == over), "nobody has to confirm it: {:?}", world.tasks());
}

#[test]
fn tasks_of_a_host_that_comes_back_as_another_are_replaced() {
    let mut world = World::new(3);
    world.scale_all(2);
    world.settle();
    world.replace_host();
    world.settle();
    world.assert_settled();
    assert!(world.all_on_the_host());
    let lost = |task: &(TaskStatus, Option<StopCode>, Option<String>)| task.1 == Some(StopCode::TerminationNotice);
    assert_eq!(world.tasks().into_iter().filter(lost).count(), 6, "{:?}", world.tasks());
}

#[test]
fn a_task_that_recovers_before_the_commit_is_not_replaced_in_place_of_another() {
    let mut world = World::new(4);
    world.scale_all(3);
    world.settle();
    world.assert_settled();
    let running = DesiredStatus::Running;
    assert_eq!(world.one_recovers_while_another_fails(), [running, running], "the plan was made from something else");
    // It is planned again: the one that fails goes.
    world.settle();
    world.assert_settled();
}
