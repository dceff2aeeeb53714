//! A container instance with what is free on it, counted from the tasks that are there: nothing of it is stored.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

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
    /// What its tasks hold together, which may be more than there is: an instance can come back smaller than it was.
    held_cpu: u64,
    held_memory: u64,
    /// How many have each port: a task that names one and reports it has it twice.
    ports: BTreeMap<HostPort, u32>,
    /// Network interfaces that tasks can have in all; `None` where nothing limits them.
    most_interfaces: Option<u32>,
    interfaces: u32,
    /// How many tasks hold each GPU, by its id: at most one, unless an agent has numbered its GPUs anew.
    gpus: BTreeMap<String, u32>,
    groups: Groups,
}

/// What a task holds of its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held<'a> {
    cpu: u32,
    memory: u32,
    group: &'a str,
    wanted: bool,
    running: bool,
    interface: bool,
}

impl<'a> From<&'a Task> for Held<'a> {
    fn from(task: &'a Task) -> Self {
        Self {
            cpu: task.cpu,
            memory: task.memory,
            group: &task.group,
            wanted: task.desired_status != DesiredStatus::Stopped,
            running: task.last_status == TaskStatus::Running,
            interface: task.interface.is_some(),
        }
    }
}

/// The groups of the tasks on an instance, in the order of their names.
#[derive(Clone, Debug, Default)]
struct Groups {
    names: Vec<String>,
    tasks: Vec<GroupTasks>,
}

/// How many tasks of a group there are.
#[derive(Clone, Copy, Debug, Default)]
struct GroupTasks {
    present: usize,
    /// May be 0: a task that is being stopped is still there for the query language, but is no reason to put its
    /// replacement elsewhere.
    wanted: usize,
}

impl Groups {
    fn add(&mut self, name: &str, wanted: bool) {
        let at = self.find(name).unwrap_or_else(|at| {
            self.names.insert(at, name.to_owned());
            self.tasks.insert(at, GroupTasks::default());
            at
        });
        self.tasks[at].present += 1;
        self.tasks[at].wanted += usize::from(wanted);
    }

    fn remove(&mut self, name: &str, wanted: bool) {
        let Ok(at) = self.find(name) else { return };
        let tasks = &mut self.tasks[at];
        tasks.present = tasks.present.saturating_sub(1);
        tasks.wanted = tasks.wanted.saturating_sub(usize::from(wanted));
        if tasks.present == 0 {
            self.names.remove(at);
            self.tasks.remove(at);
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

/// One holder less.
fn give_back<K: Ord>(holders: &mut BTreeMap<K, u32>, what: K) {
    if let Entry::Occupied(mut holders) = holders.entry(what) {
        *holders.get_mut() -= 1;
        if *holders.get() == 0 {
            holders.remove();
        }
    }
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
            held_cpu: 0,
            held_memory: 0,
            ports: tcp.chain(udp).map(|(protocol, port)| (HostPort { protocol, port }, 1)).collect(),
            most_interfaces: stored.task_interfaces(),
            interfaces: 0,
            gpus: BTreeMap::new(),
            groups: Groups::default(),
            stored,
        }
    }

    /// Counts a task that is on it and not STOPPED.
    pub fn hold(&mut self, task: &Task) {
        let held = Held::from(task);
        self.reserve(held.cpu, held.memory, task.held_ports(), held.interface);
        task.held_gpus().for_each(|gpu| *self.gpus.entry(gpu.to_owned()).or_default() += 1);
        self.groups.add(held.group, held.wanted);
        self.running_tasks += usize::from(held.running);
    }

    /// Counts a task no more that was counted as it is given.
    pub(crate) fn release(&mut self, task: &Task) {
        let held = Held::from(task);
        self.held_cpu = self.held_cpu.saturating_sub(held.cpu.into());
        self.held_memory = self.held_memory.saturating_sub(held.memory.into());
        self.count_free();
        task.held_ports().for_each(|port| give_back(&mut self.ports, port));
        self.interfaces = self.interfaces.saturating_sub(u32::from(held.interface));
        task.held_gpus().for_each(|gpu| give_back(&mut self.gpus, gpu.to_owned()));
        self.groups.remove(held.group, held.wanted);
        self.running_tasks = self.running_tasks.saturating_sub(usize::from(held.running));
    }

    /// Whether a task holds the same in both states.
    pub(crate) fn holds_alike(old: &Task, new: &Task) -> bool {
        Held::from(old) == Held::from(new)
            && old.held_ports().eq(new.held_ports())
            && old.held_gpus().eq(new.held_gpus())
    }

    /// Counts a task that has just been placed on it, so that the next one can be.
    pub fn take(&mut self, demand: &Demand) {
        self.reserve(demand.cpu, demand.memory, demand.host_ports.iter().copied(), demand.network_interface);
        let gpus = self.choose_gpus(demand);
        gpus.into_iter().for_each(|gpu| *self.gpus.entry(gpu).or_default() += 1);
        self.groups.add(&demand.group, true);
    }

    fn reserve(&mut self, cpu: u32, memory: u32, ports: impl Iterator<Item = HostPort>, interface: bool) {
        self.held_cpu += u64::from(cpu);
        self.held_memory += u64::from(memory);
        self.count_free();
        ports.for_each(|port| *self.ports.entry(port).or_default() += 1);
        self.interfaces = self.interfaces.saturating_add(u32::from(interface));
    }

    fn count_free(&mut self) {
        let free = |there: u32, held: u64| u32::try_from(u64::from(there).saturating_sub(held)).unwrap_or_default();
        self.free_cpu = free(self.stored.cpu, self.held_cpu);
        self.free_memory = free(self.stored.memory, self.held_memory);
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
        self.ports.keys().copied()
    }

    /// Whether somebody has that port.
    pub fn holds_port(&self, port: HostPort) -> bool {
        self.ports.contains_key(&port)
    }

    /// Whether one more task can have a network interface.
    pub fn has_free_interface(&self) -> bool {
        self.most_interfaces.is_none_or(|most| self.interfaces < most)
    }

    /// The ids of the GPUs that no task holds, in the order in which they were registered.
    pub fn free_gpus(&self) -> impl Iterator<Item = &str> {
        self.stored.gpus.iter().map(String::as_str).filter(|id| !self.gpus.contains_key(*id))
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
        self.groups.find(name).ok().map(|at| self.groups.tasks[at].wanted)
    }

    /// The groups of its tasks, each with how many are wanted.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        self.groups.names.iter().map(String::as_str).zip(self.groups.tasks.iter().map(|tasks| tasks.wanted))
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
