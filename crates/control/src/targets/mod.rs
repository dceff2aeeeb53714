//! What a task is to its load balancers: a target of each of its target groups, from ACTIVATING to the end of its
//! deregistration delay.
//!
//! A task with a network interface of its own is found at its address and container port. One on an EC2 instance is found
//! at the instance's address and whichever of its ports the container's port is bound to (dynamic port mapping):
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/alb.html>.
//!
//! To a Classic Load Balancer it is its instance, without a port: listeners name that, and the task has it for itself.
//!
//! - [`drained`]: removing targets that have drained, with a loop of its own.

pub mod drained;

use std::{net::IpAddr, time::Duration};

use domain::{
    Arn, Timestamp,
    balancing::{
        TargetGroup, TargetRegistration,
        classic::{ANY_PORT, is_classic},
        deregister, register,
    },
    ecs::{ContainerInstance, Task},
    instances::Instance,
    network::NetworkInterface,
};
use store::{Snapshot, Transaction};

/// One target that a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: Arn,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    zone: String,
    /// The EC2 instance whose port it is.
    pub(crate) instance_id: Option<String>,
}

impl Target {
    pub(crate) fn key(&self) -> String {
        TargetRegistration::key_of(&self.group, self.address, self.port)
    }
}

/// Where a task is found.
struct Place {
    address: IpAddr,
    zone: String,
    instance_id: Option<String>,
}

impl Place {
    fn of(view: &Snapshot, task: &Task) -> Option<Self> {
        if let Some(interface) = &task.interface {
            let zone = interface.availability_zone.clone();
            return Some(Self { address: interface.private_address.into(), zone, instance_id: None });
        }
        let host = view.get::<ContainerInstance>(task.container_instance_arn.as_ref()?.as_str())?;
        let instance = view.find::<Instance>(Instance::BY_ID, host.ec2_instance_id.as_deref()?).next()?;
        let interface = view.get::<NetworkInterface>(&instance.scope.key(&instance.interface_id))?;
        Some(Self {
            address: interface.private_address.into(),
            zone: instance.availability_zone.clone(),
            instance_id: Some(instance.instance_id.clone()),
        })
    }
}

/// The targets that a task is. Its ports on an instance are known once its agent has reported them.
pub(crate) fn of_task(view: &Snapshot, task: &Task) -> Vec<Target> {
    if task.load_balancers.is_empty() {
        return Vec::new();
    }
    let Some(place) = Place::of(view, task) else { return Vec::new() };
    let target = |balancer: &domain::ecs::TaskLoadBalancer| {
        let port = match place.instance_id {
            None => balancer.container_port,
            Some(_) => task.host_port(&balancer.container_name, balancer.container_port)?,
        };
        let port = if is_classic(&balancer.target_group_arn) { ANY_PORT } else { port };
        Some(Target {
            group: balancer.target_group_arn.clone(),
            address: place.address,
            port,
            zone: place.zone.clone(),
            instance_id: place.instance_id.clone(),
        })
    };
    task.load_balancers.iter().filter_map(target).collect()
}

/// Registers the task where it is a target. Returns the target groups.
pub(crate) fn enter(tx: &mut Transaction, task: &Task, now: Timestamp) -> Vec<Arn> {
    let mut groups = Vec::new();
    for target in of_task(tx, task) {
        if !tx.contains::<TargetGroup>(target.group.as_str()) {
            continue;
        }
        let key = target.key();
        groups.push(target.group.clone());
        let registration = TargetRegistration {
            target_group: target.group,
            address: target.address,
            port: target.port,
            instance_id: target.instance_id,
            availability_zone: Some(target.zone),
            registered_at: now,
            draining_until: None,
        };
        let existing = tx.get::<TargetRegistration>(&key).map(|existing| TargetRegistration::clone(&existing));
        tx.put(register(existing, registration));
    }
    groups
}

/// Lets the task's targets drain. Returns the target groups.
pub(crate) fn leave(tx: &mut Transaction, task: &Task, now: Timestamp) -> Vec<Arn> {
    let mut groups = Vec::new();
    for target in of_task(tx, task) {
        let key = target.key();
        let Some(existing) = tx.get::<TargetRegistration>(&key).filter(|existing| existing.draining_until.is_none())
        else {
            continue;
        };
        let group = target.group;
        let delay =
            tx.get::<TargetGroup>(group.as_str()).map_or(0, |group| group.attributes.deregistration_delay_seconds);
        match deregister(TargetRegistration::clone(&existing), Duration::from_secs(delay.into()), now) {
            Some(draining) => tx.put(draining),
            None => tx.delete::<TargetRegistration>(&key),
        }
        groups.push(group);
    }
    groups
}

/// Removes the task's targets, whatever is left of their delay.
pub(crate) fn remove(tx: &mut Transaction, task: &Task) {
    of_task(tx, task).iter().for_each(|target| tx.delete::<TargetRegistration>(&target.key()));
}

/// How far a task's targets are on their way out.
pub(crate) enum Draining {
    NotYet,
    Until(Timestamp),
    Done,
}

/// How far the task's targets are on their way out.
pub(crate) fn draining(view: &Snapshot, task: &Task) -> Draining {
    let mut latest = None;
    let targets = of_task(view, task);
    for registration in targets.iter().filter_map(|target| view.get::<TargetRegistration>(&target.key())) {
        match registration.draining_until {
            None => return Draining::NotYet,
            Some(until) => latest = latest.max(Some(until)),
        }
    }
    latest.map_or(Draining::Done, Draining::Until)
}
