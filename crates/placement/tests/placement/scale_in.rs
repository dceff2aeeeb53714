//! Which tasks of a service go.

use domain::ecs::PlacementStrategy;
use placement::{Candidate, Instance, create_service_default, first_to_stop};

use crate::{
    strategies::{CPU, MEMORY, spread},
    support::*,
};

fn on(instance: &Instance) -> Candidate<'_> {
    Candidate { instance: Some(instance), cpu: 100, memory: 100, rank: 0, protected: false }
}

#[test]
fn spreading_takes_from_where_the_most_are() {
    let (a1, a2, b, none) = (in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b", "b"), in_zone("x", ""));
    let zone = "attribute:ecs.availability-zone";
    let check = |tasks: &[&Instance], strategy: &[PlacementStrategy], expected: &[usize]| {
        let candidates: Vec<_> = tasks.iter().map(|instance| on(instance)).collect();
        let stopped = first_to_stop(&candidates, strategy, expected.len(), &mut seed(1));
        assert_eq!(stopped, expected, "{strategy:?}");
    };
    check(&[&b, &a1, &a2], &[spread(zone)], &[1, 0, 2]);
    check(&[&b, &a1, &a2, &a2], &create_service_default(), &[2, 1, 0, 3]);
    check(&[&a1, &a2, &a2], &[spread("instanceId")], &[1, 0, 2]);
    // Equal ones go in the order given; those without the attribute before the others.
    check(&[&a1, &b], &[spread(zone)], &[0, 1]);
    check(&[&a1, &none], &[spread(zone)], &[1, 0]);
    check(&[&b, &a1], &[], &[0, 1]);
}

#[test]
fn bin_packing_empties_the_instance_that_has_the_most_left() {
    let (full, empty) = (instance("full", 100, 500, &[]), instance("empty", 900, 400, &[]));
    let tasks = [on(&full), on(&empty), on(&empty), on(&full)];
    assert_eq!(first_to_stop(&tasks, &[CPU], 3, &mut seed(1)), [1, 2, 0]);
    assert_eq!(first_to_stop(&tasks, &[MEMORY], 3, &mut seed(1)), [0, 3, 1]);
    let large = Candidate { cpu: 900, ..on(&full) };
    assert_eq!(first_to_stop(&[on(&empty), large], &[CPU], 1, &mut seed(1)), [0]);
    let larger = Candidate { cpu: 901, ..on(&full) };
    assert_eq!(first_to_stop(&[on(&empty), larger], &[CPU], 1, &mut seed(1)), [1]);
    // What a task leaves counts for the next one: 510 alone would be less than the other's 570.
    let (one, other) = (instance("one", 500, 500, &[]), instance("other", 550, 550, &[]));
    let of_size = |instance, size| Candidate { cpu: size, memory: size, ..on(instance) };
    let tasks = [of_size(&other, 20), of_size(&one, 10), of_size(&one, 100)];
    assert_eq!(first_to_stop(&tasks, &[CPU], 2, &mut seed(1)), [2, 1]);
    assert_eq!(first_to_stop(&tasks, &[MEMORY], 2, &mut seed(1)), [2, 1]);
}

#[test]
fn protected_tasks_stay_and_lower_ranks_go_first() {
    let (a, b) = (in_zone("a", "a"), in_zone("b", "b"));
    let strategy = [spread("instanceId")];
    let protected = Candidate { protected: true, ..on(&a) };
    assert_eq!(first_to_stop(&[protected, protected], &strategy, 2, &mut seed(1)), Vec::<usize>::new());
    // The protected one counts: its neighbour goes before the one that is alone.
    assert_eq!(first_to_stop(&[on(&b), protected, on(&a)], &strategy, 3, &mut seed(1)), [2, 0]);
    let serves = |instance| Candidate { rank: 1, ..on(instance) };
    assert_eq!(first_to_stop(&[serves(&a), serves(&a), on(&b)], &strategy, 2, &mut seed(1)), [2, 0]);
}

#[test]
fn tasks_without_an_instance_go_in_their_order() {
    let task = Candidate { instance: None, cpu: u32::MAX, memory: u32::MAX, rank: 0, protected: false };
    for strategy in [vec![], create_service_default(), vec![CPU], vec![MEMORY, spread("host")]] {
        assert_eq!(first_to_stop(&[task; 3], &strategy, 2, &mut seed(1)), [0, 1]);
    }
    assert_eq!(first_to_stop(&[task; 3], &[PlacementStrategy::Random], 9, &mut seed(1)).len(), 3);
    assert_eq!(first_to_stop(&[], &create_service_default(), 9, &mut seed(1)), Vec::<usize>::new());
}
