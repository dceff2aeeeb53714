//! What holds for any cluster and any tasks.

use std::collections::{BTreeMap, BTreeSet};

use domain::ecs::{ContainerInstanceStatus, HostPort};
use placement::{Candidate, Demand, Instance, create_service_default, filter, first_to_stop};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    strategies::{CPU, MEMORY, any_strategy},
    support::*,
};

const ZONES: [&str; 4] = ["a", "b", "c", ""];

fn any_cluster() -> impl Strategy<Value = Vec<Instance>> {
    let one = (0u32..2000, 0u32..2000, select(&ZONES[..]), 0u8..40);
    vec(one, 0..8).prop_map(|rows| {
        let build = |(at, (cpu, memory, zone, state)): (usize, (u32, u32, &str, u8))| {
            let type_and_zone = [
                (filter::NETWORK_INTERFACE_ATTRIBUTE, ""),
                ("ecs.instance-type", ["t3.micro", "t3.small"][usize::from(state % 2)]),
                ("ecs.availability-zone", zone),
            ];
            let attributes = if zone.is_empty() { &type_and_zone[..2] } else { &type_and_zone };
            let mut instance = with_gpus(instance(&format!("{at}"), cpu, memory, attributes), state / 10);
            instance.connected = state % 10 != 0;
            if state % 10 == 1 {
                change(&mut instance, |stored| stored.status = ContainerInstanceStatus::Draining);
            }
            instance
        };
        rows.into_iter().enumerate().map(build).collect()
    })
}

fn any_demands() -> impl Strategy<Value = Vec<Demand>> {
    let ports = vec(select(vec![22u16, 80, 81]), 0..2);
    let devices = (select(vec![0u32, 0, 1, 2]), 0u8..3);
    let one = (0u32..700, 0u32..700, ports, 0u8..2, 0u8..4, 0u8..4, devices);
    vec(one, 0..20).prop_map(|rows| {
        type Row = (u32, u32, Vec<u16>, u8, u8, u8, (u32, u8));
        let build = |(cpu, memory, ports, group, distinct, zone, (gpus, interface)): Row| Demand {
            gpus,
            network_interface: interface == 0,
            host_ports: ports.into_iter().map(tcp).collect(),
            group: format!("service:{group}"),
            distinct_instance: distinct == 0,
            member_of: if zone == 0 { vec![query("attribute:ecs.availability-zone in [a, b]")] } else { Vec::new() },
            ..demand(cpu, memory)
        };
        rows.into_iter().map(build).collect()
    })
}

/// Instances of one size, one for each zone named.
fn alike(zones: &[&str]) -> Vec<Instance> {
    zones.iter().enumerate().map(|(at, zone)| in_zone(&format!("{at}"), zone)).collect()
}

/// The difference between the most and the fewest.
fn difference(counts: impl Iterator<Item = usize> + Clone) -> usize {
    counts.clone().max().unwrap_or_default() - counts.min().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_promised_twice_and_what_is_placed_passes(
        cluster in any_cluster(), demands in any_demands(), strategy in any_strategy(), number: u64,
    ) {
        let mut instances = cluster.clone();
        let (mut random, mut again) = (seed(number), seed(number));
        let mut placed: Vec<(String, &Demand)> = Vec::new();
        let mut gpus: BTreeSet<(String, String)> = BTreeSet::new();
        for demand in &demands {
            let before = instances.clone();
            let same = place(&before, demand, &strategy, &mut again);
            let answer = place_next(&mut instances, demand, &strategy, &mut random);
            prop_assert_eq!(&answer, &same, "the same seed gives the same answer");
            match answer {
                Ok(arn) => {
                    let chosen = before.iter().find(|instance| *instance.arn() == arn).unwrap();
                    prop_assert_eq!(check(chosen, demand), Ok(()));
                    let bound = chosen.choose_gpus(demand);
                    prop_assert_eq!(bound.len(), demand.gpus as usize);
                    for id in bound {
                        prop_assert!(chosen.stored.gpus.contains(&id));
                        prop_assert!(gpus.insert((arn.to_string(), id)), "two holders of one GPU");
                    }
                    placed.push((arn.to_string(), demand));
                }
                Err(refusal) => {
                    prop_assert!(before.iter().all(|instance| check(instance, demand).is_err()));
                    let active = before.iter().filter(|instance| instance.is_active()).count();
                    prop_assert_eq!(refusal.left_out.len(), active);
                    let best = refusal.left_out.iter().map(|left_out| left_out.reason).max();
                    prop_assert_eq!(refusal.closest().map(|closest| closest.reason), best);
                }
            }
        }
        // Counted anew, without what the instances say of themselves.
        for instance in &cluster {
            let here: Vec<_> = placed.iter().filter(|(arn, _)| arn == instance.arn().as_str()).collect();
            prop_assert!(here.iter().map(|(_, demand)| demand.cpu).sum::<u32>() <= instance.stored.cpu);
            prop_assert!(here.iter().map(|(_, demand)| demand.memory).sum::<u32>() <= instance.stored.memory);
            let interfaces = here.iter().filter(|(_, demand)| demand.network_interface).count();
            prop_assert!(interfaces <= instance.stored.task_interfaces().unwrap() as usize);
            let ports: Vec<HostPort> = here.iter().flat_map(|(_, demand)| demand.host_ports.clone()).collect();
            prop_assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
            prop_assert!(!ports.contains(&tcp(22)), "a reserved port");
        }
    }

    #[test]
    fn spreading_is_never_off_by_more_than_one_while_there_is_room(
        zones in vec(select(&ZONES[..]), 1..8), tasks in 0usize..30, stopped in 0usize..30, number: u64,
    ) {
        let mut instances = alike(&zones);
        let strategy = create_service_default();
        let mut random = seed(number);
        let mut at: Vec<String> = Vec::new();
        for _ in 0..tasks {
            at.push(place_next(&mut instances, &demand(1, 1), &strategy, &mut random).unwrap().to_string());
        }
        let find = |arn: &String| instances.iter().find(|instance| instance.arn().as_str() == arn).unwrap();
        let zone = |instance: &Instance| instance.attribute(domain::ecs::container_instance::ZONE_ATTRIBUTE).cloned().and_then(|zone| zone.value);
        let differences = |at: &[String]| {
            let mut zones: BTreeMap<_, BTreeMap<&str, usize>> = BTreeMap::new();
            for instance in &instances {
                let here = at.iter().filter(|arn| *arn == instance.arn().as_str()).count();
                zones.entry(zone(instance)).or_default().insert(instance.arn().as_str(), here);
            }
            let within = zones.values().map(|instances| difference(instances.values().copied())).max();
            (difference(zones.values().map(|instances| instances.values().sum())), within.unwrap_or_default())
        };
        let (between, within) = differences(&at);
        prop_assert!(between <= 1 && within <= 1, "placed {between} {within}");

        let task = |arn| Candidate { instance: Some(find(arn)), cpu: 1, memory: 1, rank: 0, protected: false };
        let candidates: Vec<_> = at.iter().map(task).collect();
        let gone = first_to_stop(&candidates, &strategy, stopped, &mut random);
        prop_assert_eq!(gone.len(), stopped.min(tasks));
        let left: Vec<_> = (0..at.len()).filter(|place| !gone.contains(place)).map(|place| at[place].clone()).collect();
        prop_assert_eq!(left.len(), tasks - gone.len(), "none is stopped twice");
        let (between, within) = differences(&left);
        prop_assert!(between <= 1 && within <= 1, "scaled in {between} {within}");
    }

    #[test]
    fn bin_packing_opens_no_other_instance_while_one_fits(
        count in 1usize..8, sizes in vec((1u32..600, 1u32..600), 0..25), by_cpu: bool, number: u64,
    ) {
        let mut instances = alike(&vec![""; count]);
        let mut random = seed(number);
        for (cpu, memory) in sizes {
            let demand = demand(cpu, memory);
            let before = instances.clone();
            let strategy = [if by_cpu { CPU } else { MEMORY }];
            let Ok(arn) = place_next(&mut instances, &demand, &strategy, &mut random) else { continue };
            let is_open = |instance: &&Instance| instance.tasks_of(GROUP) > 0;
            let chosen = before.iter().find(|instance| *instance.arn() == arn).unwrap();
            let fits = before.iter().filter(is_open).any(|instance| check(instance, &demand).is_ok());
            prop_assert!(is_open(&chosen) || !fits);
        }
    }

    #[test]
    fn protected_tasks_never_go_and_the_same_seed_stops_the_same(
        cluster in any_cluster(),
        tasks in vec((0usize..9, 0u32..900, 0usize..3, any::<bool>()), 0..20),
        strategy in any_strategy(),
        count in 0usize..25,
        number: u64,
    ) {
        let candidate = |(at, size, rank, protected): &(usize, u32, usize, bool)| Candidate {
            instance: cluster.get(*at),
            cpu: *size,
            memory: *size,
            rank: *rank,
            protected: *protected,
        };
        let candidates: Vec<_> = tasks.iter().map(candidate).collect();
        let gone = first_to_stop(&candidates, &strategy, count, &mut seed(number));
        prop_assert_eq!(&gone, &first_to_stop(&candidates, &strategy, count, &mut seed(number)));
        let free_to_go = candidates.iter().filter(|candidate| !candidate.protected).count();
        prop_assert_eq!(gone.len(), count.min(free_to_go));
        prop_assert_eq!(gone.iter().collect::<BTreeSet<_>>().len(), gone.len());
        prop_assert!(gone.iter().all(|at| !candidates[*at].protected));
        prop_assert!(gone.iter().map(|at| candidates[*at].rank).is_sorted());
    }
}
