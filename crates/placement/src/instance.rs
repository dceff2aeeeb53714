//! A container instance with what is free on it, counted from the tasks that are there: nothing of it is stored.

use std::{collections::BTreeSet, sync::Arc};

use domain::{
    Arn,
    ecs::{
        AgentConnection, Attribute, ContainerInstance, ContainerInstanceStatus, DesiredStatus, HostPort, Task,
        TaskStatus, TransportProtocol,
    },
};
use store::Snapshot;

use crate::{
    Demand,
    query::{self, Query},
};

/// A container instance and what placement has to know of the tasks on it. A task that is not STOPPED holds its
/// resources.
#[derive(Clone, Debug)]
pub struct Instance {
    /// What is registered.
    pub stored: Arc<ContainerInstance>,
    /// Whether its agent is connected.
    pub connected: bool,
    /// CPU units that no task holds.
    pub free_cpu: u32,
    /// MiB that no task holds.
    pub free_memory: u32,
    /// How many of its tasks are RUNNING.
    pub running_tasks: usize,
    ports: BTreeSet<HostPort>,
    /// Network interfaces that tasks can have in all; `None` where nothing limits them.
    most_interfaces: Option<u32>,
    interfaces: u32,
    /// The ids of the GPUs that tasks hold.
    gpus: BTreeSet<String>,
    groups: Groups,
}

/// The groups of the tasks on an instance, in the order of their names.
#[derive(Clone, Debug, Default)]
struct Groups {
    names: Vec<String>,
    /// For each name how many tasks are wanted there. May be 0: a task that is being stopped is still there for the
    /// query language, but is no reason to put its replacement elsewhere.
    wanted: Vec<usize>,
}

impl Groups {
    fn add(&mut self, name: &str, wanted: usize) {
        match self.find(name) {
            Ok(at) => self.wanted[at] += wanted,
            Err(at) => {
                self.names.insert(at, name.to_owned());
                self.wanted.insert(at, wanted);
            }
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.names.binary_search_by(|known| known.as_str().cmp(name))
    }
}

/// The instances of a cluster that are not INACTIVE, in the order of their ARNs.
pub fn instances(view: &Snapshot, cluster: &Arn) -> Vec<Instance> {
    view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, cluster.as_str())
        .map(|stored| instance(view, stored))
        .collect()
}

/// One instance, as StartTask names it.
pub fn instance(view: &Snapshot, stored: Arc<ContainerInstance>) -> Instance {
    let arn = stored.arn.clone();
    let mut instance = Instance::empty(stored, view.contains::<AgentConnection>(arn.as_str()));
    view.find::<Task>(Task::ON_INSTANCE, arn.as_str()).for_each(|task| instance.hold(&task));
    instance
}

impl Instance {
    /// An instance without tasks.
    pub fn empty(stored: Arc<ContainerInstance>, connected: bool) -> Self {
        let tcp = stored.reserved_ports.iter().map(|port| (TransportProtocol::Tcp, *port));
        let udp = stored.reserved_udp_ports.iter().map(|port| (TransportProtocol::Udp, *port));
        Self {
            connected,
            free_cpu: stored.cpu,
            free_memory: stored.memory,
            running_tasks: 0,
            ports: tcp.chain(udp).map(|(protocol, port)| HostPort { protocol, port }).collect(),
            most_interfaces: stored.task_interfaces(),
            interfaces: 0,
            gpus: BTreeSet::new(),
            groups: Groups::default(),
            stored,
        }
    }

    /// Counts a task that is on it and not STOPPED.
    pub fn hold(&mut self, task: &Task) {
        self.reserve(task.cpu, task.memory, task.held_ports(), task.interface.is_some());
        self.gpus.extend(task.held_gpus().map(str::to_owned));
        self.groups.add(&task.group, usize::from(task.desired_status != DesiredStatus::Stopped));
        self.running_tasks += usize::from(task.last_status == TaskStatus::Running);
    }

    /// Counts a task that has just been placed on it, so that the next one can be.
    pub fn take(&mut self, demand: &Demand) {
        self.reserve(demand.cpu, demand.memory, demand.host_ports.iter().copied(), demand.network_interface);
        let gpus = self.choose_gpus(demand);
        self.gpus.extend(gpus);
        self.groups.add(&demand.group, 1);
    }

    fn reserve(&mut self, cpu: u32, memory: u32, ports: impl Iterator<Item = HostPort>, interface: bool) {
        self.free_cpu = self.free_cpu.saturating_sub(cpu);
        self.free_memory = self.free_memory.saturating_sub(memory);
        self.ports.extend(ports);
        self.interfaces = self.interfaces.saturating_add(u32::from(interface));
    }

    /// Its ARN.
    pub fn arn(&self) -> &Arn {
        &self.stored.arn
    }

    /// Whether it takes new tasks, as far as people have said.
    pub fn is_active(&self) -> bool {
        self.stored.status == ContainerInstanceStatus::Active
    }

    /// The attribute of that name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.stored.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The ports that nobody else can have: reserved ones and those of tasks, in order.
    pub fn held_ports(&self) -> impl Iterator<Item = HostPort> + '_ {
        self.ports.iter().copied()
    }

    /// Whether somebody has that port.
    pub fn holds_port(&self, port: HostPort) -> bool {
        self.ports.contains(&port)
    }

    /// Whether one more task can have a network interface.
    pub fn has_free_interface(&self) -> bool {
        self.most_interfaces.is_none_or(|most| self.interfaces < most)
    }

    /// The ids of the GPUs that no task holds, in the order in which they were registered.
    pub fn free_gpus(&self) -> impl Iterator<Item = &str> {
        self.stored.gpus.iter().map(String::as_str).filter(|id| !self.gpus.contains(*id))
    }

    /// How many GPUs no task holds.
    pub(crate) fn count_free_gpus(&self) -> u32 {
        u32::try_from(self.free_gpus().count()).unwrap_or(u32::MAX)
    }

    /// The ids of the GPUs that a task gets that is placed here: the first that are free.
    pub fn choose_gpus(&self, demand: &Demand) -> Vec<String> {
        self.free_gpus().take(demand.gpus as usize).map(str::to_owned).collect()
    }

    /// How many tasks of a group are wanted on it: those whose desired status is STOPPED no longer count.
    pub fn tasks_of(&self, group: &str) -> usize {
        self.group(group).unwrap_or(0)
    }

    /// As [`Self::tasks_of`], with none where no task of the group is there at all.
    pub(crate) fn group(&self, name: &str) -> Option<usize> {
        self.groups.find(name).ok().map(|at| self.groups.wanted[at])
    }

    /// The groups of its tasks, each with how many are wanted.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups.names.iter().map(String::as_str).zip(self.groups.wanted.iter().copied())
    }

    /// Whether an expression of the cluster query language selects it.
    pub fn selected_by(&self, query: &Query) -> bool {
        query.matches(&query::Instance {
            attributes: &self.stored.attributes,
            agent_connected: self.connected,
            agent_version: &self.stored.agent_version,
            ec2_instance_id: self.stored.ec2_instance_id.as_deref(),
            registered_at: self.stored.registered_at,
            running_tasks: self.running_tasks,
            task_groups: &self.groups.names,
        })
    }
}
