//! Making a task: a host by placement, a network interface in one of the subnets if it has one, then the task itself, in
//! the caller's transaction. RunTask, StartTask and the service reconciler all come here, so that the rules exist once.

use std::{collections::HashMap, sync::Arc};

use domain::{
    Arn, IdSource, Tags, Timestamp,
    ecs::{DesiredStatus, NewTask, Task, TaskInterface, TaskNetwork, status::failure},
    network::{NetworkInterfaceOwner, Subnet, names},
};
use placement::Fleets;
use store::{Snapshot, Transaction};

use super::roles;
use crate::ec2::{NetworkError, NewInterface, allocate_network_interface, release_network_interface};

/// Why a task was not made. Nothing was written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// No Fargate host has room: RunTask tells it in `failures`.
    #[error("{}", failure::CAPACITY)]
    Capacity,
    /// No container instance takes it: RunTask tells for each of them why.
    #[error("{0}")]
    NotPlaced(placement::Refusal),
    /// A placement constraint that was checked when it was given cannot be read any more.
    #[error("Invalid placement constraint expression: {0}.")]
    Constraint(placement::query::QueryError),
    /// One of its roles does not exist.
    #[error(
        "ECS was unable to assume the role '{0}' that was provided for this task. Please verify that the role being passed has the proper trust relationship and permissions and that your IAM user has permissions to pass this role."
    )]
    Role(String),
    /// No network interface could be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Makes a task where placement puts it; a `container_instance_arn` that is given is where StartTask wants it.
pub fn launch(
    tx: &mut Transaction,
    fleets: &Fleets,
    new: NewTask<'_>,
    network: Option<&TaskNetwork>,
    ids: &mut IdSource,
    now: Timestamp,
) -> Result<Task, LaunchError> {
    check_roles(tx, &new)?;
    let (instance, gpu_ids) = choose(tx, fleets, &new, network, ids)?;
    let zone = new.zone.clone();
    let mut task = Task::new(NewTask { container_instance_arn: Some(instance), gpu_ids, ..new }, ids, now);
    let Some(network) = network else {
        tx.put(task.clone());
        return Ok(task);
    };
    let mut refused = NetworkError::SubnetNotFound(String::new());
    for subnet in subnets(tx, &task, network, zone.as_deref(), ids) {
        let attachment_id = ids.uuid();
        let interface = NewInterface {
            subnet_id: subnet.clone(),
            security_groups: network.security_groups.clone(),
            assign_public_address: network.assign_public_ip,
            private_address: None,
            description: task.scope.arn("ecs", &format!("attachment/{attachment_id}")).to_string(),
            owner: NetworkInterfaceOwner::Task { arn: task.arn.to_string() },
            requester_managed: true,
            tags: Tags::default(),
        };
        match allocate_network_interface(tx, &task.scope, interface, ids, now) {
            Ok(interface) => {
                task.interface = Some(TaskInterface {
                    attachment_id,
                    private_dns_name: names::private_dns_name(&task.scope.region, interface.private_address),
                    network_interface_id: interface.network_interface_id,
                    subnet_id: interface.subnet_id,
                    availability_zone: interface.availability_zone,
                    mac_address: interface.mac_address,
                    private_address: interface.private_address,
                    attached: false,
                });
                tx.put(task.clone());
                return Ok(task);
            }
            // Another subnet may have room.
            Err(full @ NetworkError::SubnetFull) => refused = full,
            Err(other) => return Err(other.into()),
        }
    }
    Err(refused.into())
}

/// The container instance that gets the task, and which of its GPUs the task gets.
fn choose(
    view: &Snapshot,
    fleets: &Fleets,
    new: &NewTask<'_>,
    network: Option<&TaskNetwork>,
    ids: &mut IdSource,
) -> Result<(Arn, Vec<String>), LaunchError> {
    if new.compute.is_fargate() {
        let hosts = placement::fargate_hosts(view);
        let host = placement::place_on_fargate(&hosts, new.memory).map_err(|_| LaunchError::Capacity)?;
        return Ok((host.arn.clone(), Vec::new()));
    }
    let mut demand = placement::Demand::of(new, super::compute::read_time).map_err(LaunchError::Constraint)?;
    let subnets = network.iter().flat_map(|network| &network.subnets);
    let zone = |id: &String| Some(view.get::<Subnet>(&new.cluster.scope.key(id))?.availability_zone.clone());
    demand.zones = subnets.filter_map(zone).collect();
    let by_default = placement::create_service_default();
    let strategy = match &new.placement.strategy[..] {
        [] if new.service.is_some() => &by_default[..],
        strategy => strategy,
    };
    let chosen = fleets.ask(view, &new.cluster.arn, |fleet| {
        let chosen = match &new.container_instance_arn {
            Some(arn) => fleet.place_on(arn, &demand),
            None => fleet.place(&demand, strategy, ids),
        };
        chosen.map(|instance| (instance.arn().clone(), instance.choose_gpus(&demand)))
    });
    chosen.map_err(LaunchError::NotPlaced)
}

/// A task whose roles are not there would run without the permissions that it was given.
fn check_roles(view: &Snapshot, new: &NewTask<'_>) -> Result<(), LaunchError> {
    let (overrides, definition) = (&new.overrides, new.definition);
    let task = overrides.task_role_arn.as_ref().or(definition.task_role_arn.as_ref());
    let execution = overrides.execution_role_arn.as_ref().or(definition.execution_role_arn.as_ref());
    let account = &new.cluster.scope.account;
    match task.into_iter().chain(execution).find(|role| roles::find(view, account, role).is_none()) {
        Some(role) => Err(LaunchError::Role(role.clone())),
        None => Ok(()),
    }
}

/// Gives back what a task that is over holds in the network.
pub fn release(tx: &mut Transaction, task: &Task) {
    if let Some(interface) = &task.interface {
        release_network_interface(tx, &task.scope, &interface.network_interface_id);
    }
}

/// The subnets to try, in one zone only if that is asked for: first those whose zone has the fewest tasks of the same service, equal ones in random order.
fn subnets(view: &Snapshot, task: &Task, network: &TaskNetwork, only: Option<&str>, ids: &mut IdSource) -> Vec<String> {
    let mut in_zone: HashMap<String, usize> = HashMap::new();
    if let Some(service) = &task.service_arn {
        // One that is being stopped is no reason to put its replacement elsewhere.
        let wanted = |other: &Arc<Task>| other.desired_status == DesiredStatus::Running;
        for other in view.find::<Task>(Task::OF_SERVICE, service.as_str()).filter(wanted) {
            if let Some(interface) = &other.interface {
                *in_zone.entry(interface.availability_zone.clone()).or_default() += 1;
            }
        }
    }
    let mut subnets: Vec<(usize, usize, String)> = network
        .subnets
        .iter()
        .filter_map(|id| {
            let zone = view.get::<Subnet>(&task.scope.key(id)).map(|subnet| subnet.availability_zone.clone());
            if only.is_some_and(|only| zone.as_deref() != Some(only)) {
                return None;
            }
            let tasks = zone.and_then(|zone| in_zone.get(&zone).copied()).unwrap_or(0);
            Some((tasks, ids.below(1 << 16), id.clone()))
        })
        .collect();
    subnets.sort();
    subnets.into_iter().map(|(_, _, id)| id).collect()
}
