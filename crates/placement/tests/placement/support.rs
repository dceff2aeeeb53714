//! Instances, definitions and demands to begin with; tests change what they are about.

use std::sync::Arc;

use domain::{
    Arn, IdSource, Scope, Tags, Timestamp,
    ecs::{
        Attribute, Cluster, Compute, ContainerDefinition, ContainerInstance, ContainerInstanceStatus, HostPort,
        LaunchType, NetworkMode, NewTask, Placement, PlacementStrategy, TaskDefinition, TaskDefinitionStatus,
        TransportProtocol, names,
    },
};
use placement::{Demand, Fleet, Instance, Reason, Refusal, query::Query};

pub const GROUP: &str = "service:web";

pub fn scope() -> Scope {
    Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

pub fn cluster() -> Cluster {
    Cluster::new(&scope(), "c", Tags::default(), Timestamp(0))
}

pub fn no_time(_: &str) -> Option<Timestamp> {
    None
}

pub fn query(text: &str) -> Query {
    Query::parse(text, no_time).unwrap()
}

pub fn tcp(port: u16) -> HostPort {
    HostPort { protocol: TransportProtocol::Tcp, port }
}

pub fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: (!value.is_empty()).then(|| value.to_owned()) }
}

pub fn stored(name: &str, cpu: u32, memory: u32, attributes: &[(&str, &str)]) -> ContainerInstance {
    ContainerInstance {
        arn: scope().arn("ecs", &format!("container-instance/c/{name}")),
        scope: scope(),
        cluster_arn: cluster().arn,
        ec2_instance_id: Some(format!("i-{name}")),
        status: ContainerInstanceStatus::Active,
        cpu,
        memory,
        reserved_ports: vec![22],
        reserved_udp_ports: Vec::new(),
        gpus: Vec::new(),
        attributes: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        tags: Tags::default(),
        registered_at: Timestamp(0),
        agent_version: "1.92.0".into(),
        runtime_version: String::new(),
        agent_hash: String::new(),
        client_token: None,
    }
}

/// An empty instance.
pub fn instance(name: &str, cpu: u32, memory: u32, attributes: &[(&str, &str)]) -> Instance {
    Instance::empty(Arc::new(stored(name, cpu, memory, attributes)), true)
}

/// With so many GPUs, `GPU-0` and so on.
pub fn with_gpus(mut instance: Instance, gpus: u8) -> Instance {
    change(&mut instance, |stored| stored.gpus = (0..gpus).map(|number| format!("GPU-{number}")).collect());
    instance
}

/// An empty instance of 1024 CPU units and 1024 MiB in a zone; in none if that is empty.
pub fn in_zone(name: &str, zone: &str) -> Instance {
    let attributes = [("ecs.availability-zone", zone)];
    instance(name, 1024, 1024, if zone.is_empty() { &[] } else { &attributes })
}

/// With `tasks` small tasks of the group on it.
pub fn with_tasks(mut instance: Instance, tasks: usize) -> Instance {
    (0..tasks).for_each(|_| instance.take(&demand(1, 1)));
    instance
}

pub fn change(instance: &mut Instance, change: impl FnOnce(&mut ContainerInstance)) {
    change(Arc::make_mut(&mut instance.stored));
}

/// What an EC2 task needs that asks for nothing special.
pub fn demand(cpu: u32, memory: u32) -> Demand {
    Demand {
        cpu,
        memory,
        host_ports: Vec::new(),
        required_attributes: Vec::new(),
        launch_type: LaunchType::Ec2,
        group: GROUP.into(),
        network_interface: false,
        gpus: 0,
        zones: Vec::new(),
        distinct_instance: false,
        member_of: Vec::new(),
    }
}

pub fn definition() -> TaskDefinition {
    TaskDefinition {
        arn: names::task_definition(&scope(), "f", 1),
        scope: scope(),
        family: "f".into(),
        revision: 1,
        status: TaskDefinitionStatus::Active,
        task_role_arn: None,
        execution_role_arn: None,
        network_mode: NetworkMode::Bridge,
        has_network_mode: true,
        cpu: Some(128),
        memory: Some(256),
        requires_compatibilities: Vec::new(),
        compatibilities: Vec::new(),
        requires_attributes: Vec::new(),
        cpu_architecture: None,
        operating_system_family: None,
        ephemeral_storage: None,
        placement_constraints: Vec::new(),
        container_definitions: vec![ContainerDefinition::new("app", "i")],
        tags: Tags::default(),
        registered_at: Timestamp(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    }
}

/// What a test needs to make a [`NewTask`], which only borrows.
pub struct Parts {
    pub cluster: Cluster,
    pub definition: TaskDefinition,
    pub compute: Compute,
    pub placement: Placement,
}

pub fn parts() -> Parts {
    Parts {
        cluster: cluster(),
        definition: definition(),
        compute: Compute::by_launch_type(LaunchType::Ec2),
        placement: Placement::default(),
    }
}

impl Parts {
    pub fn new_task(&self, group: &str, on: Option<&Arn>) -> NewTask<'_> {
        NewTask {
            cluster: &self.cluster,
            definition: &self.definition,
            cpu: self.definition.cpu.unwrap_or_default(),
            memory: self.definition.memory.unwrap_or_default(),
            overrides: Default::default(),
            compute: &self.compute,
            placement: &self.placement,
            group: group.into(),
            started_by: None,
            service: None,
            container_instance_arn: on.cloned(),
            zone: None,
            gpu_ids: Vec::new(),
            load_balancers: Vec::new(),
            image_digests: Default::default(),
            tags: Tags::default(),
        }
    }
}

pub fn seed(seed: u64) -> IdSource {
    IdSource::from_seed(seed)
}

pub fn fleet(instances: &[Instance]) -> Fleet {
    let mut fleet = Fleet::default();
    instances.iter().for_each(|instance| fleet.put(instance.clone()));
    fleet
}

/// What is against an instance, if anything is.
pub fn check(instance: &Instance, demand: &Demand) -> Result<(), Reason> {
    check_in(&fleet(std::slice::from_ref(instance)), instance, demand)
}

/// What is against an instance of a fleet.
pub fn check_in(fleet: &Fleet, instance: &Instance, demand: &Demand) -> Result<(), Reason> {
    // Instances that are not ACTIVE explain nothing.
    let reason = |refusal: Refusal| refusal.left_out.first().map_or(Reason::Inactive, |left_out| left_out.reason);
    fleet.place_on(instance.arn(), demand).map(|_| ()).map_err(reason)
}

pub fn place(
    instances: &[Instance],
    demand: &Demand,
    strategy: &[PlacementStrategy],
    random: &mut IdSource,
) -> Result<Arn, Refusal> {
    fleet(instances).place(demand, strategy, random).map(|instance| instance.arn().clone())
}

/// Places a task and counts it where it is, so that the next one can be placed.
pub fn place_next(
    instances: &mut [Instance],
    demand: &Demand,
    strategy: &[PlacementStrategy],
    random: &mut IdSource,
) -> Result<Arn, Refusal> {
    let arn = place(instances, demand, strategy, random)?;
    instances.iter_mut().filter(|instance| *instance.arn() == arn).for_each(|instance| instance.take(demand));
    Ok(arn)
}
