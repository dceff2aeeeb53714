//! Whether a container instance can have a task, and if not, why: resources and attributes first, then constraints.
//! The words are Amazon's: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>.

use crate::{Demand, Instance};

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
    /// No further network interface can be attached. Nothing limits them yet.
    NetworkInterface,
    /// Not enough free GPUs. Nothing asks for them yet.
    Gpu,
    /// A task of the same group is on it.
    DistinctInstance,
    /// An expression does not select it.
    MemberOf,
}

impl Reason {
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
    // Here stand network interfaces and GPUs, once instances say how many they have.
    unless(!demand.distinct_instance || instance.tasks_of(&demand.group) == 0, Reason::DistinctInstance)?;
    unless(demand.member_of.iter().all(|query| instance.selected_by(query)), Reason::MemberOf)
}

fn has_attributes(instance: &Instance, demand: &Demand) -> bool {
    let network = demand.network_interface.then_some(NETWORK_INTERFACE_ATTRIBUTE);
    let mut names = demand.required_attributes.iter().map(String::as_str).chain(network);
    names.all(|name| instance.attribute(name).is_some())
}

/// An instance that does not say where it is can be anywhere.
fn is_in_zone(instance: &Instance, demand: &Demand) -> bool {
    let zone = instance.stored.zone();
    !demand.network_interface
        || demand.zones.is_empty()
        || zone.is_none_or(|zone| demand.zones.iter().any(|wanted| wanted == zone))
}
