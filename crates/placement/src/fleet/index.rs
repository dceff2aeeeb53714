//! What is kept of a fleet's instances so that all of them can be asked at once. It follows the instances: it holds
//! nothing but what they say, and nothing of what was asked.

use std::collections::HashMap;

use domain::{
    Timestamp,
    ecs::{ContainerInstance, HostPort, Task},
};

use super::{
    amounts::Amounts,
    column::Column,
    groups::Group,
    slots::{Bits, Slot, SlotSet},
};
use crate::Instance;

/// Sets of instances by everything that filters, strategies and expressions ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// All instances.
    pub(crate) all: Bits,
    /// Those that are ACTIVE.
    pub(crate) active: Bits,
    /// Those whose agent is connected.
    pub(crate) connected: Bits,
    /// By launch type, as the API names it.
    pub(crate) launch_types: Column<String>,
    /// By availability zone.
    pub(crate) zones: Column<String>,
    /// By the agent's version.
    pub(crate) agent_versions: Column<String>,
    /// By the id of the EC2 instance.
    pub(crate) ec2_instance_ids: Column<String>,
    /// By the time of their registration.
    pub(crate) registered_at: Column<Timestamp>,
    /// By the number of RUNNING tasks.
    pub(crate) running_tasks: Column<usize>,
    /// Free CPU units.
    pub(crate) free_cpu: Amounts,
    /// Free MiB.
    pub(crate) free_memory: Amounts,
    /// Free GPUs; nothing is kept where no instance has one.
    pub(crate) free_gpus: Amounts,
    /// Those on which no further task can have a network interface.
    pub(crate) no_free_interface: SlotSet,
    attributes: HashMap<String, Column<String>>,
    ports: HashMap<HostPort, SlotSet>,
    groups: HashMap<String, Group>,
}

/// What the tasks on an instance leave of it, and how many run: all that is indexed of them but ports and groups.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    free_cpu: u32,
    free_memory: u32,
    free_gpus: u32,
    running_tasks: usize,
    no_free_interface: bool,
}

impl Figures {
    pub(crate) fn of(instance: &Instance) -> Self {
        Self {
            free_cpu: instance.free_cpu,
            free_memory: instance.free_memory,
            free_gpus: instance.count_free_gpus(),
            running_tasks: instance.running_tasks,
            no_free_interface: !instance.has_free_interface(),
        }
    }
}

impl Index {
    /// The instances by the value of an attribute. One without a value has the empty one.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Column<String>> {
        self.attributes.get(name)
    }

    /// The instances on which somebody has that port.
    pub(crate) fn port(&self, port: HostPort) -> Option<&SlotSet> {
        self.ports.get(&port)
    }

    /// The tasks of a group, if there are any.
    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Every group that has tasks.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&String, &Group)> {
        self.groups.iter()
    }

    /// Goes from what was in a slot to what is there now.
    pub(crate) fn change(&mut self, slot: Slot, old: Option<&Instance>, new: Option<&Instance>) {
        self.all.set(slot, new.is_some());
        self.active.set(slot, new.is_some_and(Instance::is_active));
        self.connected.set(slot, new.is_some_and(|new| new.connected));
        let (old_stored, new_stored) = (old.map(|old| &*old.stored), new.map(|new| &*new.stored));
        // What is registered changes seldom, and is the same object while it does not.
        let same = matches!((old_stored, new_stored), (Some(old), Some(new)) if std::ptr::eq(old, new));
        if !same {
            old_stored.into_iter().for_each(|old| self.forget_registered(slot, old));
            new_stored.into_iter().for_each(|new| self.add_registered(slot, new));
        }
        self.change_figures(slot, old.map(Figures::of), new.map(Figures::of));
        self.change_ports(slot, old, new);
        self.change_groups(slot, old, new);
    }

    /// Some tasks are counted otherwise on the instance of a slot: what they hold is looked at, and nothing else of it.
    pub(crate) fn recount<'a>(
        &mut self,
        slot: Slot,
        before: Figures,
        now: &Instance,
        tasks: impl Iterator<Item = &'a Task>,
    ) {
        self.change_figures(slot, Some(before), Some(Figures::of(now)));
        for task in tasks {
            task.held_ports().for_each(|port| self.set_port(slot, port, now.holds_port(port)));
            self.set_group(slot, &task.group, now.group(&task.group));
        }
    }

    fn change_figures(&mut self, slot: Slot, old: Option<Figures>, new: Option<Figures>) {
        let (was, now) = (old.unwrap_or_default(), new.unwrap_or_default());
        if old.is_none() || (was.free_cpu, was.free_memory) != (now.free_cpu, now.free_memory) {
            self.free_cpu.set(slot, now.free_cpu);
            self.free_memory.set(slot, now.free_memory);
        }
        if was.free_gpus != now.free_gpus {
            self.free_gpus.set(slot, now.free_gpus);
        }
        let running = |figures: Option<Figures>| figures.map(|figures| figures.running_tasks);
        if running(old) != running(new) {
            running(old).iter().for_each(|running| self.running_tasks.remove(slot, running));
            running(new).iter().for_each(|running| self.running_tasks.insert(slot, running));
        }
        match (was.no_free_interface, now.no_free_interface) {
            (false, true) => drop(self.no_free_interface.insert(slot)),
            (true, false) => drop(self.no_free_interface.remove(slot)),
            _ => {}
        }
    }

    fn add_registered(&mut self, slot: Slot, new: &ContainerInstance) {
        self.launch_types.insert(slot, new.launch_type().as_str());
        new.zone().into_iter().for_each(|zone| self.zones.insert(slot, zone));
        self.agent_versions.insert(slot, &*new.agent_version);
        new.ec2_instance_id.iter().for_each(|id| self.ec2_instance_ids.insert(slot, id));
        self.registered_at.insert(slot, &new.registered_at);
        for attribute in &new.attributes {
            let value = attribute.value.as_deref().unwrap_or_default();
            // Of several of one name the first counts: a column keeps what it has.
            match self.attributes.get_mut(&attribute.name) {
                Some(column) => column.insert(slot, value),
                None => {
                    let mut column = Column::default();
                    column.insert(slot, value);
                    self.attributes.insert(attribute.name.clone(), column);
                }
            }
        }
    }

    fn forget_registered(&mut self, slot: Slot, old: &ContainerInstance) {
        self.launch_types.remove(slot, old.launch_type().as_str());
        old.zone().into_iter().for_each(|zone| self.zones.remove(slot, zone));
        self.agent_versions.remove(slot, &*old.agent_version);
        old.ec2_instance_id.iter().for_each(|id| self.ec2_instance_ids.remove(slot, id));
        self.registered_at.remove(slot, &old.registered_at);
        for attribute in &old.attributes {
            let Some(column) = self.attributes.get_mut(&attribute.name) else { continue };
            column.remove(slot, attribute.value.as_deref().unwrap_or_default());
            if column.is_empty() {
                self.attributes.remove(&attribute.name);
            }
        }
    }

    fn change_ports(&mut self, slot: Slot, old: Option<&Instance>, new: Option<&Instance>) {
        let lacks = |instance: Option<&Instance>, port| !instance.is_some_and(|instance| instance.holds_port(port));
        for port in old.iter().flat_map(|old| old.held_ports()).filter(|port| lacks(new, *port)) {
            self.set_port(slot, port, false);
        }
        for port in new.iter().flat_map(|new| new.held_ports()).filter(|port| lacks(old, *port)) {
            self.set_port(slot, port, true);
        }
    }

    fn set_port(&mut self, slot: Slot, port: HostPort, held: bool) {
        if held {
            self.ports.entry(port).or_default().insert(slot);
        } else if let Some(slots) = self.ports.get_mut(&port) {
            slots.remove(slot);
            if slots.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    fn change_groups(&mut self, slot: Slot, old: Option<&Instance>, new: Option<&Instance>) {
        let mut before = old.iter().flat_map(|old| old.groups()).peekable();
        // Both are in the order of the groups' names.
        for (name, now) in new.iter().flat_map(|new| new.groups()) {
            while let Some((gone, _)) = before.next_if(|(old, _)| *old < name) {
                self.set_group(slot, gone, None);
            }
            if before.next_if(|(old, _)| *old == name).is_some_and(|(_, was)| was == now) {
                continue;
            }
            self.set_group(slot, name, Some(now));
        }
        before.for_each(|(gone, _)| self.set_group(slot, gone, None));
    }

    /// How many tasks of a group are wanted there; none if there is no task of it.
    fn set_group(&mut self, slot: Slot, name: &str, wanted: Option<usize>) {
        match self.groups.get_mut(name) {
            Some(group) => {
                group.set(slot, wanted);
                if group.is_empty() {
                    self.groups.remove(name);
                }
            }
            None if wanted.is_some() => {
                let mut group = Group::default();
                group.set(slot, wanted);
                self.groups.insert(name.to_owned(), group);
            }
            None => {}
        }
    }
}
