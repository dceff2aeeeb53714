//! What a task needs of a container instance.

use domain::{
    Timestamp,
    ecs::{HostPort, LaunchType, NetworkMode, NewTask, PlacementConstraint, container_instance::ZONE_ATTRIBUTE},
};

use crate::query::{Query, QueryError};

/// What a task needs. Expressions are read once here and then asked of every instance.
#[derive(Clone, Debug)]
pub struct Demand {
    /// CPU units.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// Ports of the instance that nobody else may have.
    pub host_ports: Vec<HostPort>,
    /// Names of attributes that the instance must have, whatever their values.
    pub required_attributes: Vec<String>,
    /// EXTERNAL tasks go to machines outside EC2, EC2 tasks to the others, FARGATE tasks to none of them.
    pub launch_type: LaunchType,
    /// Its group, e.g. `service:web`: what `distinctInstance` and spreading count.
    pub group: String,
    /// Whether it gets a network interface of its own.
    pub network_interface: bool,
    /// How many GPUs its containers have together.
    pub gpus: u32,
    /// The availability zones of the subnets that its network interface may be in; empty for any.
    pub zones: Vec<String>,
    /// Whether no other task of its group may be on the instance.
    pub distinct_instance: bool,
    /// All of them must select the instance.
    pub member_of: Vec<Query>,
}

impl Demand {
    /// What a task that is to be made needs, its definition's constraints included; [`Self::zones`] is left empty.
    /// `read_time` reads an ISO 8601 time with its zone, see [`Query::parse`].
    ///
    /// # Errors
    /// When an expression of a `memberOf` constraint cannot be read.
    pub fn of(new: &NewTask<'_>, read_time: fn(&str) -> Option<Timestamp>) -> Result<Self, QueryError> {
        let definition = new.definition;
        let mut demand = Self {
            cpu: new.cpu,
            memory: new.memory,
            host_ports: definition.host_ports(),
            required_attributes: definition.requires_attributes.clone(),
            launch_type: new.compute.host_kind(),
            group: new.group().into_owned(),
            network_interface: definition.network_mode == NetworkMode::Awsvpc,
            gpus: definition.gpus_with(&new.overrides),
            zones: Vec::new(),
            distinct_instance: false,
            member_of: Vec::new(),
        };
        if let Some(zone) = &new.zone {
            demand.member_of.push(Query::parse(&format!("attribute:{ZONE_ATTRIBUTE} == {zone}"), read_time)?);
        }
        for constraint in definition.placement_constraints.iter().chain(&new.placement.constraints) {
            match constraint {
                PlacementConstraint::DistinctInstance => demand.distinct_instance = true,
                PlacementConstraint::MemberOf(text) => demand.member_of.push(Query::parse(text, read_time)?),
            }
        }
        Ok(demand)
    }
}
