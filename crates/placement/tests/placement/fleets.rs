//! A fleet answers as its instances do when each is asked, whatever has become of them since it was made.

use std::{collections::BTreeMap, sync::Arc};

use domain::{
    Arn, Timestamp,
    ecs::{ContainerInstanceStatus, LaunchType, PlacementStrategy, container_instance::EXTERNAL_ATTRIBUTE},
};
use placement::{Demand, Fleet, Instance, Reason, filter::NETWORK_INTERFACE_ATTRIBUTE, query::Query};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    reference,
    strategies::{any_strategy, spread},
    support::*,
};

/// What instances and tasks are of, so that they meet often.
const ZONES: [&str; 4] = ["a", "b", "c", ""];
const RACKS: [&str; 6] = ["1", "2", "10", "1.5", "x", ""];
/// With one interface for tasks, with two, with as many as one wants.
const TYPES: [&str; 4] = ["t3.micro", "t3.small", "none.such", ""];
const GROUPS: [&str; 3] = ["service:web", "service:db", "family:job"];
const QUERIES: [&str; 24] = [
    "attribute:ecs.availability-zone in [a, b]",
    "attribute:ecs.availability-zone !in [a, c]",
    "attribute:ecs.availability-zone == a or attribute:rack > 1",
    "attribute:rack != 1",
    "attribute:rack =~ 1.*",
    "attribute:rack !~ 1.*",
    "attribute:rack <= 10 and not(attribute:rack == x)",
    "attribute:rack exists",
    "attribute:rack !exists or attribute:ecs.availability-zone == b",
    "attribute:nobody exists",
    "attribute:nobody !exists",
    "attribute:nobody != 1",
    "not(attribute:nobody != 1)",
    "agentConnected == true",
    "agentConnected != true",
    "agentVersion >= 1.92",
    "agentVersion < 1.92",
    "ec2InstanceId =~ i-[0-9]*[02468]",
    "registeredAt > 1970-01-01",
    "runningTasksCount > 0",
    "task:group == service:web",
    "task:group != service:web",
    "task:group =~ service:.*",
    "task:group !~ service:.* and task:group !in [family:other]",
];

fn epoch(text: &str) -> Option<Timestamp> {
    (text == "1970-01-01T00:00:00Z").then_some(Timestamp(0))
}

#[derive(Clone, Debug)]
struct Row {
    name: u8,
    size: (u32, u32),
    zone: &'static str,
    rack: &'static str,
    /// One digit each for status, kind, connection, version, registration and such.
    odds: [u8; 6],
    kind: &'static str,
    gpus: u8,
    /// Group, port, whether it has that, a GPU, an interface.
    tasks: Vec<(usize, u16, [bool; 3])>,
}

fn any_row() -> impl Strategy<Value = Row> {
    let size = (select(vec![0u32, 100, 900, 1024, 2048]), select(vec![0u32, 100, 900, 1024, 2048, 1 << 20]));
    let tasks = vec((0usize..GROUPS.len(), select(vec![80u16, 81, 8080]), any::<[bool; 3]>()), 0..4);
    let odds = proptest::array::uniform6(0u8..8);
    let devices = (select(&TYPES[..]), select(vec![0u8, 0, 1, 3]));
    (0u8..150, size, select(&ZONES[..]), select(&RACKS[..]), odds, devices, tasks).prop_map(
        |(name, size, zone, rack, odds, (kind, gpus), tasks)| Row { name, size, zone, rack, odds, kind, gpus, tasks },
    )
}

impl Row {
    fn instance(&self) -> Instance {
        let mut stored = stored(&self.name.to_string(), self.size.0, self.size.1, &[]);
        let mut add = |name: &str, value: &str| stored.attributes.push(attribute(name, value));
        // Zone and rack are sometimes there without a value.
        if !self.zone.is_empty() || self.odds[0] > 5 {
            add("ecs.availability-zone", self.zone);
        }
        if !self.rack.is_empty() || self.odds[0] > 3 {
            add("rack", self.rack);
        }
        if !self.kind.is_empty() {
            add("ecs.instance-type", self.kind);
        }
        if self.odds[1] == 0 {
            add("rack", "another of the same name");
        }
        if self.odds[1] == 1 {
            add(EXTERNAL_ATTRIBUTE, "");
        }
        if self.odds[2] > 2 {
            add(NETWORK_INTERFACE_ATTRIBUTE, "");
        }
        if self.odds[3] == 0 {
            stored.status = ContainerInstanceStatus::Draining;
        }
        stored.agent_version = ["1.92.0", "1.91.9", "", "1.100"][usize::from(self.odds[4] % 4)].into();
        stored.registered_at = Timestamp(i64::from(self.odds[5] % 3) - 1);
        if self.odds[5] == 7 {
            stored.ec2_instance_id = None;
        }
        stored.gpus = (0..self.gpus).map(|number| number.to_string()).collect();
        let mut instance = Instance::empty(Arc::new(stored), self.odds[3] != 1);
        for (group, port, [port_too, gpu_too, network_interface]) in &self.tasks {
            let host_ports = if *port_too { vec![tcp(*port)] } else { Vec::new() };
            let (network_interface, gpus) = (*network_interface, u32::from(*gpu_too));
            let group = GROUPS[*group].into();
            instance.take(&Demand { host_ports, group, network_interface, gpus, ..demand(50, 60) });
        }
        instance.running_tasks = self.tasks.len() / 2;
        instance
    }
}

fn any_demand() -> impl Strategy<Value = Demand> {
    let size = (select(vec![0u32, 1, 100, 500, 1025]), select(vec![0u32, 1, 100, 500, 1025, 4096]));
    let queries = vec(select(&QUERIES[..]), 0..3);
    let zones = vec(select(&ZONES[..]), 0..3);
    (size, 0usize..GROUPS.len() + 1, vec(select(vec![22u16, 80, 81, 443]), 0..2), queries, zones, 0u8..40).prop_map(
        |((cpu, memory), group, ports, queries, zones, odds)| Demand {
            host_ports: ports.into_iter().map(tcp).collect(),
            required_attributes: if odds % 7 == 0 { vec!["rack".into()] } else { Vec::new() },
            launch_type: if odds == 1 { LaunchType::External } else { LaunchType::Ec2 },
            group: GROUPS.get(group).copied().unwrap_or("family:new").into(),
            network_interface: odds % 5 == 0,
            gpus: [1, 0, 2, 0, 0, 0, 0][usize::from(odds % 7)],
            zones: zones.into_iter().map(str::to_owned).collect(),
            distinct_instance: odds % 6 == 0,
            member_of: queries.iter().map(|text| Query::parse(text, epoch).unwrap()).collect(),
            ..demand(cpu, memory)
        },
    )
}

/// What becomes of a fleet between two placements.
#[derive(Clone, Debug)]
enum Change {
    Put(Row),
    Remove(u8),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![3 => any_row().prop_map(Change::Put), 1 => (0u8..150).prop_map(Change::Remove)]
}

/// Asks both, and expects the same answer to everything.
fn same(fleet: &Fleet, instances: &[Instance], demand: &Demand, strategy: &[PlacementStrategy], number: u64) {
    let expected = reference::place(instances, demand, strategy, &mut seed(number)).map(|at| &instances[at]);
    let answer = fleet.place(demand, strategy, &mut seed(number));
    assert_eq!(answer.as_ref().ok().map(|found| found.arn()), expected.map(Instance::arn), "{strategy:?} {demand:?}");
    if let Err(refusal) = &answer {
        let left_out = instances.iter().filter_map(|one| Some((one, reference::check(one, demand).err()?)));
        let left_out: Vec<_> = left_out.filter(|(_, reason)| *reason != Reason::Inactive).collect();
        let told = refusal.left_out.iter().map(|left_out| (left_out.arn(), left_out.reason));
        assert_eq!(
            told.collect::<Vec<_>>(),
            left_out.iter().map(|(one, reason)| (one.arn(), *reason)).collect::<Vec<_>>()
        );
        let most = left_out.iter().map(|(_, reason)| *reason).max();
        assert_eq!(refusal.closest().map(|closest| closest.reason), most);
    }
    for instance in instances {
        assert_eq!(check_in(fleet, instance, demand), reference::check(instance, demand));
    }
}

/// Every expression selects of a fleet whom it selects one by one.
fn same_selection(fleet: &Fleet, instances: &[Instance]) {
    for text in QUERIES {
        let query = Query::parse(text, epoch).unwrap();
        let asks = Demand { member_of: vec![query.clone()], ..demand(0, 0) };
        for instance in instances.iter().filter(|one| reference::check(one, &demand(0, 0)).is_ok()) {
            assert_eq!(check_in(fleet, instance, &asks).is_ok(), instance.selected_by(&query), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_fleet_answers_as_its_instances_do(
        first in vec(any_row(), 0..100),
        rounds in vec((vec(any_change(), 0..4), any_demand(), any_strategy(), any::<u64>()), 0..8),
    ) {
        let mut instances: BTreeMap<Arn, Instance> = BTreeMap::new();
        let mut fleet = Fleet::default();
        let apply = |change: &Change, fleet: &mut Fleet, instances: &mut BTreeMap<Arn, Instance>| match change {
            Change::Put(row) => {
                let instance = row.instance();
                fleet.put(instance.clone());
                instances.insert(instance.arn().clone(), instance);
            }
            Change::Remove(name) => {
                let arn = stored(&name.to_string(), 0, 0, &[]).arn;
                fleet.remove(&arn);
                instances.remove(&arn);
            }
        };
        first.into_iter().for_each(|row| apply(&Change::Put(row), &mut fleet, &mut instances));
        for (changes, demand, strategy, number) in &rounds {
            changes.iter().for_each(|change| apply(change, &mut fleet, &mut instances));
            let now: Vec<Instance> = instances.values().cloned().collect();
            prop_assert_eq!(fleet.len(), now.len());
            same(&fleet, &now, demand, strategy, *number);
            let placed = fleet.place(demand, strategy, &mut seed(*number)).ok().cloned();
            if let Some(mut instance) = placed {
                instance.take(demand);
                fleet.put(instance.clone());
                instances.insert(instance.arn().clone(), instance);
            }
        }
        same_selection(&fleet, &instances.into_values().collect::<Vec<_>>());
    }

    /// Small clusters where everything fits, so that nothing but spreading decides, and much is equal.
    #[test]
    fn spreads_divide_further_as_they_do_one_by_one(
        rows in vec((select(&["a", "b", ""][..]), select(&["1", "2", ""][..]), 0usize..3), 1..12),
        fields in vec(select(&["attribute:ecs.availability-zone", "attribute:rack", "attribute:nobody"][..]), 1..4),
        number: u64,
    ) {
        let build = |(at, (zone, rack, tasks)): (usize, &(&str, &str, usize))| {
            let attributes = [("ecs.availability-zone", *zone), ("rack", *rack)];
            let given: Vec<_> = attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            with_tasks(instance(&format!("{at:02}"), 1024, 1024, &given), *tasks)
        };
        let instances: Vec<Instance> = rows.iter().enumerate().map(build).collect();
        let strategy: Vec<_> = fields.iter().map(|field| spread(field)).collect();
        same(&fleet(&instances), &instances, &demand(1, 1), &strategy, number);
    }
}
