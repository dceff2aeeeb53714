//! Which container instances can have a task, and if not, why: resources and attributes first, then constraints.
//! The words are Amazon's: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>.

use crate::{
    Demand,
    fleet::{
        index::Index,
        slots::{Bits, Slot},
    },
};

/// The attribute of instances that can attach a network interface for a task.
pub const NETWORK_INTERFACE_ATTRIBUTE: &str = "ecs.capability.task-eni";

/// Why an instance cannot have a task, in the order in which it is asked: of two instances the one with the greater
/// reason has passed more filters, and is the closer match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is not ACTIVE.
    Inactive,
    /// Its agent is not connected.
    Agent,
    /// It is not of the launch type's kind, or lacks a required attribute.
    Attribute,
    /// It is in none of the availability zones of the task's subnets.
    Location,
    /// Not enough free CPU units.
    Cpu,
    /// Not enough free memory.
    Memory,
    /// Somebody else has a port that the task needs.
    Ports,
    /// No further network interface can be attached.
    NetworkInterface,
    /// Not enough free GPUs.
    Gpu,
    /// A task of the same group is on it.
    DistinctInstance,
    /// An expression does not select it.
    MemberOf,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 11] = [
        Self::Inactive,
        Self::Agent,
        Self::Attribute,
        Self::Location,
        Self::Cpu,
        Self::Memory,
        Self::Ports,
        Self::NetworkInterface,
        Self::Gpu,
        Self::DistinctInstance,
        Self::MemberOf,
    ];

    /// As in `failures[].reason` of RunTask and StartTask.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "INACTIVE",
            Self::Agent => "AGENT",
            Self::Attribute => "ATTRIBUTE",
            Self::Location => "LOCATION",
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::Ports => "RESOURCE:PORTS",
            Self::NetworkInterface => "RESOURCE:ENI",
            Self::Gpu => "RESOURCE:GPU",
            Self::DistinctInstance => "DistinctInstance placement constraint unsatisfied.",
            Self::MemberOf => "MemberOf placement constraint unsatisfied.",
        }
    }

    /// As in a service's event, behind the instance's id and without the full stop. Four reasons have words of their
    /// own there, all others are quoted.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>
    pub fn phrase(self) -> String {
        match self {
            Self::Cpu => "has insufficient CPU units available".to_owned(),
            Self::Memory => "has insufficient memory available".to_owned(),
            Self::Ports => "is already using a port required by your task".to_owned(),
            Self::Attribute => "is missing an attribute required by your task".to_owned(),
            other => format!("encountered error \"{}\"", other.as_str()),
        }
    }
}

/// Keeps the instances that can have the task.
pub(crate) fn keep(index: &Index, demand: &Demand, among: &mut Bits) {
    for reason in Reason::ALL {
        if among.is_empty() {
            return;
        }
        keep_without(reason, index, demand, among);
    }
}

/// Tells of each instance that cannot have the task the first thing that is against it.
pub(crate) fn explain(index: &Index, demand: &Demand, mut among: Bits, mut tell: impl FnMut(Slot, Reason)) {
    for reason in Reason::ALL {
        let mut left_out = among.clone();
        keep_without(reason, index, demand, &mut among);
        left_out.subtract(&among);
        left_out.iter().for_each(|slot| tell(slot, reason));
    }
}

/// Keeps the instances that this reason is not against.
fn keep_without(reason: Reason, index: &Index, demand: &Demand, among: &mut Bits) {
    match reason {
        Reason::Inactive => among.intersect(&index.active),
        Reason::Agent => among.intersect(&index.connected),
        Reason::Attribute => keep_with_attributes(index, demand, among),
        Reason::Location => keep_in_zones(index, demand, among),
        Reason::Cpu => index.free_cpu.keep_at_least(demand.cpu, among),
        Reason::Memory => index.free_memory.keep_at_least(demand.memory, among),
        Reason::Ports => {
            let held = demand.host_ports.iter().filter_map(|port| index.port(*port));
            held.for_each(|slots| among.subtract_few(slots));
        }
        Reason::NetworkInterface if demand.network_interface => among.subtract_few(&index.no_free_interface),
        Reason::Gpu if demand.gpus > 0 => index.free_gpus.keep_at_least(demand.gpus, among),
        // Most tasks have neither.
        Reason::NetworkInterface | Reason::Gpu => {}
        Reason::DistinctInstance => {
            if let Some(group) = index.group(&demand.group).filter(|_| demand.distinct_instance) {
                group.keep_without(among);
            }
        }
        Reason::MemberOf => demand.member_of.iter().for_each(|query| query.keep(index, among)),
    }
}

fn keep_with_attributes(index: &Index, demand: &Demand, among: &mut Bits) {
    let of_kind = index.launch_types.get(demand.launch_type.as_str());
    let network = demand.network_interface.then_some(NETWORK_INTERFACE_ATTRIBUTE);
    let names = demand.required_attributes.iter().map(String::as_str).chain(network);
    let with = names.map(|name| index.attribute(name).map(|column| column.present()));
    for slots in std::iter::once(of_kind).chain(with) {
        match slots {
            Some(slots) => among.intersect_few(slots),
            None => *among = Bits::default(),
        }
    }
}

/// An instance that does not say where it is can be anywhere.
fn keep_in_zones(index: &Index, demand: &Demand, among: &mut Bits) {
    if !demand.network_interface || demand.zones.is_empty() {
        return;
    }
    let mut anywhere = among.clone();
    anywhere.subtract_few(index.zones.present());
    let wanted = demand.zones.iter().filter_map(|zone| index.zones.get(zone));
    wanted.for_each(|slots| anywhere.unite_few(slots));
    among.intersect(&anywhere);
}
