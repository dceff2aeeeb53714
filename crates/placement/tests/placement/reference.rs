//! What placement must answer, said as simply as can be: every instance is asked every question, for each task anew.
//! Tests and the benchmark hold [`placement::Fleet`] against it.

use std::collections::HashMap;

use domain::{
    IdSource,
    ecs::{BinpackField, PlacementStrategy},
};
use placement::{Demand, Instance, Reason, filter::NETWORK_INTERFACE_ATTRIBUTE};

/// Whether the instance can have the task; else the first thing that is against it.
pub fn check(instance: &Instance, demand: &Demand) -> Result<(), Reason> {
    let unless = |holds: bool, reason: Reason| if holds { Ok(()) } else { Err(reason) };
    unless(instance.is_active(), Reason::Inactive)?;
    unless(instance.connected, Reason::Agent)?;
    unless(instance.stored.launch_type() == demand.launch_type && has_attributes(instance, demand), Reason::Attribute)?;
    unless(is_in_zone(instance, demand), Reason::Location)?;
    unless(instance.free_cpu >= demand.cpu, Reason::Cpu)?;
    unless(instance.free_memory >= demand.memory, Reason::Memory)?;
    unless(!demand.host_ports.iter().any(|port| instance.holds_port(*port)), Reason::Ports)?;
    unless(!demand.network_interface || instance.has_free_interface(), Reason::NetworkInterface)?;
    unless(instance.free_gpus().count() >= demand.gpus as usize, Reason::Gpu)?;
    unless(!demand.distinct_instance || instance.tasks_of(&demand.group) == 0, Reason::DistinctInstance)?;
    unless(demand.member_of.iter().all(|query| instance.selected_by(query)), Reason::MemberOf)
}

fn has_attributes(instance: &Instance, demand: &Demand) -> bool {
    let network = demand.network_interface.then_some(NETWORK_INTERFACE_ATTRIBUTE);
    let mut names = demand.required_attributes.iter().map(String::as_str).chain(network);
    names.all(|name| instance.attribute(name).is_some())
}

fn is_in_zone(instance: &Instance, demand: &Demand) -> bool {
    let zone = instance.stored.zone();
    !demand.network_interface
        || demand.zones.is_empty()
        || zone.is_none_or(|zone| demand.zones.iter().any(|wanted| wanted == zone))
}

/// Where the preferred one stands, if any can have the task. The instances are in the order of their ARNs.
pub fn place(
    instances: &[Instance],
    demand: &Demand,
    strategy: &[PlacementStrategy],
    random: &mut IdSource,
) -> Option<usize> {
    let mut candidates: Vec<usize> = (0..instances.len()).filter(|at| check(&instances[*at], demand).is_ok()).collect();
    let mut classes = vec![0; instances.len()];
    for step in strategy {
        match step {
            PlacementStrategy::Spread(field) => {
                // Each class so far is divided by the value; tasks count wherever they are.
                let mut numbers = HashMap::new();
                let mut tasks: Vec<usize> = Vec::new();
                for (class, instance) in classes.iter_mut().zip(instances) {
                    *class = *numbers.entry((*class, value(instance, field))).or_insert(tasks.len());
                    if *class == tasks.len() {
                        tasks.push(0);
                    }
                    tasks[*class] += instance.tasks_of(&demand.group);
                }
                // Those without the attribute are one more value, which comes last among equals.
                keep_least(&mut candidates, |at| (tasks[classes[at]], value(&instances[at], field).is_none()));
            }
            PlacementStrategy::Binpack(BinpackField::Cpu) => keep_least(&mut candidates, |at| instances[at].free_cpu),
            PlacementStrategy::Binpack(BinpackField::Memory) => {
                keep_least(&mut candidates, |at| instances[at].free_memory);
            }
            PlacementStrategy::Random => break,
        }
    }
    candidates.get(random.below(candidates.len())).copied()
}

fn value<'a>(instance: &'a Instance, field: &str) -> Option<&'a str> {
    if field == "instanceId" || field == "host" {
        return Some(instance.arn().as_str());
    }
    let attribute = instance.attribute(field.strip_prefix("attribute:").unwrap_or(field))?;
    Some(attribute.value.as_deref().unwrap_or_default())
}

fn keep_least<K: Ord>(candidates: &mut Vec<usize>, key: impl Fn(usize) -> K) {
    if let Some(least) = candidates.iter().map(|at| key(*at)).min() {
        candidates.retain(|at| key(*at) == least);
    }
}
