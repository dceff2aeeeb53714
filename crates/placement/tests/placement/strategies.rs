//! Which instance is preferred.

use std::collections::BTreeSet;

use domain::ecs::{BinpackField, PlacementStrategy};
use placement::{Instance, create_service_default};

use crate::support::*;

pub fn spread(field: &str) -> PlacementStrategy {
    PlacementStrategy::Spread(field.into())
}

pub const CPU: PlacementStrategy = PlacementStrategy::Binpack(BinpackField::Cpu);
pub const MEMORY: PlacementStrategy = PlacementStrategy::Binpack(BinpackField::Memory);

/// Any strategies in any order: each that there is must be here, to be tried against the reference.
pub fn any_strategy() -> impl proptest::strategy::Strategy<Value = Vec<PlacementStrategy>> {
    let steps = vec![
        spread("attribute:ecs.availability-zone"),
        spread("attribute:rack"),
        spread("attribute:nobody"),
        spread("instanceId"),
        spread("host"),
        CPU,
        MEMORY,
        PlacementStrategy::Random,
    ];
    proptest::collection::vec(proptest::sample::select(steps), 0..5)
}

/// The names of all instances that are chosen by one seed or another.
fn chosen(instances: &[Instance], strategy: &[PlacementStrategy]) -> String {
    let choose = |number| place(instances, &demand(100, 100), strategy, &mut seed(number)).unwrap();
    let names: BTreeSet<_> = (0..50).map(|number| choose(number).resource_name().to_owned()).collect();
    names.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_strategy_decides_between_those_that_the_ones_before_leave_equal() {
    let rack = |name: &str, zone: &str, rack: &str| {
        instance(name, 1024, 1024, &[("ecs.availability-zone", zone), ("rack", rack)])
    };
    let zone = "attribute:ecs.availability-zone";
    let zones = [with_tasks(in_zone("a1", "a"), 1), in_zone("a2", "a"), in_zone("b1", "b"), in_zone("b2", "b")];
    let with_none = [with_tasks(in_zone("a", "a"), 1), in_zone("x", ""), in_zone("y", "")];
    let equal_none = [in_zone("a", "a"), in_zone("x", "")];
    let racks = [rack("a1", "a", "1"), with_tasks(rack("a2", "a", "2"), 1), with_tasks(rack("b1", "b", "1"), 1)];
    let sizes = [instance("s", 200, 900, &[]), instance("m", 400, 400, &[]), instance("l", 400, 300, &[])];
    let mut full = zones.clone();
    full[2..].iter_mut().for_each(|instance| instance.free_cpu = 0);

    let check = |instances: &[Instance], strategy: &[PlacementStrategy], expected: &str| {
        assert_eq!(chosen(instances, strategy), expected, "{strategy:?}");
    };
    check(&zones, &[], "a1 a2 b1 b2");
    check(&zones, &[PlacementStrategy::Random], "a1 a2 b1 b2");
    check(&zones, &[spread(zone)], "b1 b2");
    check(&zones, &[spread("instanceId")], "a2 b1 b2");
    check(&zones, &[spread("host")], "a2 b1 b2");
    check(&zones, &[PlacementStrategy::Random, spread(zone)], "a1 a2 b1 b2");
    check(&full, &[spread(zone)], "a1 a2");
    check(&full, &create_service_default(), "a2");
    // Tasks on instances that cannot have this one count all the same.
    let mut away = zones.clone();
    away[0].connected = false;
    check(&away, &[spread(zone)], "b1 b2");
    // Instances without the attribute are one value, the last among equals.
    check(&with_none, &[spread(zone)], "x y");
    check(&equal_none, &[spread(zone)], "a");
    check(&equal_none, &[spread("attribute:unknown")], "a x");
    // Each zone has one task. Rack 1 of zone b has it; rack 1 of zone a is another one and has none.
    check(&racks, &[spread("attribute:rack")], "a1 a2 b1");
    check(&racks, &[spread(zone), spread("attribute:rack")], "a1");
    check(&sizes, &[CPU], "s");
    check(&sizes, &[MEMORY], "l");
    check(&sizes[1..], &[CPU], "l m");
    check(&sizes[1..], &[CPU, MEMORY], "l");
    check(&sizes, &[spread(zone), MEMORY], "l");
}

#[test]
fn tasks_of_other_groups_do_not_count() {
    let mut instances = [in_zone("a", "a"), with_tasks(in_zone("b", "b"), 1)];
    (0..5).for_each(|_| instances[0].take(&placement::Demand { group: "family:f".into(), ..demand(1, 1) }));
    assert_eq!(chosen(&instances, &[spread("instanceId")]), "a");
}

#[test]
fn several_tasks_are_placed_in_one_go() {
    let mut instances = [in_zone("a1", "a"), in_zone("a2", "a"), in_zone("b1", "b"), in_zone("b2", "b")];
    let strategy = create_service_default();
    let mut random = seed(7);
    let mut place = || place_next(&mut instances, &demand(512, 128), &strategy, &mut random);
    let placed: Vec<_> = (0..8).map(|_| place().unwrap().resource_name().to_owned()).collect();
    assert_eq!(placed[..2].iter().map(|name| &name[..1]).collect::<BTreeSet<_>>(), ["a", "b"].into());
    assert_eq!(placed[..4].iter().collect::<BTreeSet<_>>().len(), 4, "each instance has one before any has two");
    assert_eq!(place().unwrap_err().left_out.len(), 4);
}
