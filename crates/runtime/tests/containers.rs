//! Real containers, as root, from static busybox.
//!
//! The test binary is its own runner, because it is also the binary the runtime re-executes as shim, puller and unpacker: a helper
//! word as first argument must be seen before anything else happens. Without root, or without busybox, it says so and passes nothing.

// The lint's own exception for tests does not see a runner of its own.
#![allow(clippy::unwrap_used)]

#[path = "support/adoption.rs"]
mod adoption;
#[path = "support/collection.rs"]
mod collection;
#[path = "support/images.rs"]
mod images;
#[path = "support/independent.rs"]
mod independent;
#[path = "support/isolation.rs"]
mod isolation;
#[path = "support/lifecycle.rs"]
mod lifecycle;
#[path = "support/limits.rs"]
mod limits;
#[path = "support/output.rs"]
mod output;
#[path = "support/registry.rs"]
mod registry;
#[path = "support/world.rs"]
mod world;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use world::World;

type Test = (&'static str, fn(World) -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($name)), |world| Box::pin($module::$name(world)))),*]
    };
}

const TESTS: &[Test] = tests![
    lifecycle::a_command_runs_and_its_end_is_told,
    lifecycle::created_is_not_running,
    lifecycle::what_cannot_be_executed_is_named,
    lifecycle::signals_and_escalation,
    lifecycle::a_small_init_forwards_and_reaps,
    lifecycle::users_are_the_images_own,
    lifecycle::working_directory_environment_and_files,
    lifecycle::mounts_tmpfs_and_read_only_root,
    lifecycle::commands_inside,
    lifecycle::namespaces_are_shared_when_asked,
    lifecycle::a_deleted_container_leaves_nothing,
    lifecycle::a_released_container_goes_on_where_it_was,
    lifecycle::an_image_with_nothing_but_a_program,
    lifecycle::sixty_layers,
    isolation::first_process_and_exec_are_confined_alike,
    isolation::capabilities_follow_the_specification,
    isolation::forbidden_calls_fail,
    isolation::the_host_is_out_of_reach,
    isolation::disks_cannot_be_read,
    isolation::a_containers_limits_are_not_its_own,
    isolation::a_command_on_its_way_in_cannot_be_reached,
    limits::memory,
    limits::cpu_and_pids,
    limits::ulimits_and_sysctls,
    limits::stats_are_read,
    limits::a_volume_is_full_when_it_is_full,
    limits::the_spare_volume_becomes_the_next_one_of_its_size,
    output::both_streams_in_order,
    output::a_blocking_container_waits,
    output::a_dropping_container_runs_on,
    adoption::a_restarted_caller_finds_everything,
    adoption::a_killed_shim_leaves_the_container_running,
    adoption::destroy_sweeps_up,
    images::an_image_is_pulled_and_run,
    images::platforms,
    images::a_registrys_refusals_are_told_apart,
    images::credentials_go_where_they_belong,
    images::hostile_layers_change_nothing,
    images::downloads_are_shared_and_continued,
    images::an_interrupted_pull_leaves_nothing,
    collection::unused_images_are_collected,
    collection::unused_images_are_kept_within_bounds,
    images::a_full_disk_is_told,
    images::a_pull_stays_in_its_network,
    independent::debians_registry,
];

fn main() {
    if let Some(code) = runtime::dispatch(std::env::args_os()) {
        std::process::exit(code);
    }
    let filter: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if filter.first().is_some_and(|word| word == "adoption-child") {
        adoption::child(&filter);
    }
    if let Some(reason) = world::unable() {
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored (skipped: {reason})\n", TESTS.len());
        return;
    }
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in
        TESTS.iter().filter(|(name, _)| filter.is_empty() || filter.iter().any(|word| name.contains(word.as_str())))
    {
        let world = World::new();
        let sweep = world.sweeper();
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .expect("a tokio runtime");
            runtime.block_on(async {
                tokio::time::timeout(std::time::Duration::from_secs(300), test(world)).await.expect("the test hangs")
            });
        }));
        sweep();
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_ok() { passed += 1 } else { failed.push(name) }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored\n", failed.len());
    if !failed.is_empty() {
        println!("failed: {failed:?}");
        std::process::exit(101);
    }
}
