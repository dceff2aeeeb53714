//! Starting, stopping, rebooting and terminating. Only what is asked is written here; `host` does it and reports, and
//! [`settle`] takes back what an instance that is off no longer has.

use std::sync::Arc;

use api::ec2::{
    InstanceStateChange, RebootInstancesRequest, StartInstancesRequest, StartInstancesResult, StopInstancesRequest,
    StopInstancesResult, TerminateInstancesRequest, TerminateInstancesResult,
};
use domain::{
    Resource, Timestamp,
    balancing::TargetRegistration,
    instances::{Instance, InstanceState, Power, StateReason, Volume},
    network::{NetworkInterface, NetworkInterfaceOwner, PublicAddress},
};
use store::Transaction;
use wire::ServiceError;

use super::{named, shape, spot};
use crate::{
    Authorised, Call,
    ec2::{
        allocation::{free_public_address, release_network_interface},
        common::{begin, refuse, unsupported},
    },
};

/// States from which nothing comes back.
pub(in crate::ec2) const GONE: [InstanceState; 2] = [InstanceState::ShuttingDown, InstanceState::Terminated];

fn arns(ids: &[String]) -> Vec<String> {
    ids.iter().map(|id| format!("instance/{id}")).collect()
}

pub(super) fn incorrect_state(id: &str, verb: &str) -> ServiceError {
    let text = format!("The instance '{id}' is not in a state from which it can be {verb}.");
    ServiceError::new("IncorrectInstanceState", text)
}

/// Changes instances, all or none, and says from which state to which.
async fn change(
    auth: &Authorised,
    ids: &[String],
    change: impl Fn(&mut Transaction, &mut Instance) -> Result<(), ServiceError>,
) -> Result<Vec<InstanceStateChange>, ServiceError> {
    auth.transact(|tx| {
        let mut changes = Vec::new();
        for known in named(auth, tx, ids)? {
            let mut instance = Instance::clone(&known);
            change(tx, &mut instance)?;
            changes.push(InstanceStateChange {
                instance_id: Some(instance.instance_id.clone()),
                previous_state: Some(shape::state(known.state())),
                current_state: Some(shape::state(instance.state())),
            });
            if instance != *known {
                tx.put(instance.clone());
                settle(tx, &instance);
            }
        }
        Ok(changes)
    })
    .await
}

/// StartInstances.
pub(in crate::ec2) async fn start(
    call: Call,
    input: StartInstancesRequest,
) -> Result<StartInstancesResult, ServiceError> {
    refuse!(input; additional_info);
    let ids = input.instance_ids.unwrap_or_default();
    let auth = begin(&call, &arns(&ids), input.dry_run)?;
    let now = auth.now();
    let changes = change(&auth, &ids, |tx, instance| match instance.state() {
        InstanceState::Pending | InstanceState::Running => Ok(()),
        InstanceState::Stopped => {
            if !instance.block_devices.iter().any(|device| device.device_name == instance.root_device_name) {
                let text = format!(
                    "Invalid value '{}' for instanceId. Instance does not have a volume attached at root ({})",
                    instance.instance_id, instance.root_device_name
                );
                return Err(ServiceError::new("IncorrectInstanceState", text));
            }
            if instance.public_address {
                assign_public_address(tx, &auth, instance)?;
            }
            instance.power = Power::On;
            instance.boot = instance.boot.saturating_add(1);
            instance.launched_at = now;
            instance.state_reason = None;
            instance.ended_at = None;
            Ok(())
        }
        InstanceState::Stopping | InstanceState::ShuttingDown | InstanceState::Terminated => {
            Err(incorrect_state(&instance.instance_id, "started"))
        }
    });
    Ok(StartInstancesResult { starting_instances: Some(changes.await?) })
}

/// A stopped instance has given its public address back, and gets another one.
fn assign_public_address(tx: &mut Transaction, auth: &Authorised, instance: &Instance) -> Result<(), ServiceError> {
    let key = instance.scope.key(&instance.interface_id);
    if tx.get::<NetworkInterface>(&key).is_none_or(|interface| interface.public_address.is_some()) {
        return Ok(());
    }
    let address = free_public_address(tx, &mut auth.platform().ids())?;
    tx.update::<NetworkInterface>(&key, |interface| {
        interface.public_address = Some(PublicAddress { address, allocation_id: None, association_id: None });
    });
    Ok(())
}

/// StopInstances.
pub(in crate::ec2) async fn stop(call: Call, input: StopInstancesRequest) -> Result<StopInstancesResult, ServiceError> {
    if input.hibernate == Some(true) {
        return Err(unsupported("hibernate"));
    }
    if input.skip_os_shutdown == Some(true) {
        return Err(unsupported("skip_os_shutdown"));
    }
    let ids = input.instance_ids.unwrap_or_default();
    let auth = begin(&call, &arns(&ids), input.dry_run)?;
    let now = auth.now();
    let changes = change(&auth, &ids, |_, instance| match instance.state() {
        InstanceState::Stopping | InstanceState::Stopped => Ok(()),
        InstanceState::Running => {
            if instance.spot.is_some() {
                return Err(spot::not_stopped(&instance.instance_id));
            }
            if instance.disable_api_stop {
                return Err(not_permitted(&instance.instance_id, "stopped", "disableApiStop"));
            }
            instance.power = Power::Off;
            instance.ended_at = Some(now);
            instance.state_reason = Some(user_initiated());
            Ok(())
        }
        InstanceState::Pending | InstanceState::ShuttingDown | InstanceState::Terminated => {
            Err(incorrect_state(&instance.instance_id, "stopped"))
        }
    });
    Ok(StopInstancesResult { stopping_instances: Some(changes.await?) })
}

fn not_permitted(id: &str, verb: &str, attribute: &str) -> ServiceError {
    let text =
        format!("The instance '{id}' may not be {verb}. Modify its '{attribute}' instance attribute and try again.");
    ServiceError::new("OperationNotPermitted", text)
}

fn user_initiated() -> StateReason {
    let code = "Client.UserInitiatedShutdown";
    StateReason { code: code.to_owned(), message: format!("{code}: User initiated shutdown") }
}

/// RebootInstances.
pub(in crate::ec2) async fn reboot(call: Call, input: RebootInstancesRequest) -> Result<(), ServiceError> {
    let ids = input.instance_ids.unwrap_or_default();
    let auth = begin(&call, &arns(&ids), input.dry_run)?;
    let changes = change(&auth, &ids, |_, instance| match instance.state() {
        // It is being booted anyway.
        InstanceState::Pending => Ok(()),
        InstanceState::Running => {
            instance.boot = instance.boot.saturating_add(1);
            Ok(())
        }
        _ => Err(incorrect_state(&instance.instance_id, "rebooted")),
    });
    changes.await.map(|_| ())
}

/// TerminateInstances.
pub(in crate::ec2) async fn terminate(
    call: Call,
    input: TerminateInstancesRequest,
) -> Result<TerminateInstancesResult, ServiceError> {
    if input.skip_os_shutdown == Some(true) {
        return Err(unsupported("skip_os_shutdown"));
    }
    let ids = input.instance_ids.unwrap_or_default();
    let auth = begin(&call, &arns(&ids), input.dry_run)?;
    let now = auth.now();
    let changes = change(&auth, &ids, |_, instance| {
        if GONE.contains(&instance.state()) {
            return Ok(());
        }
        if instance.disable_api_termination {
            return Err(not_permitted(&instance.instance_id, "terminated", "disableApiTermination"));
        }
        terminated(instance, user_initiated(), now);
        Ok(())
    });
    Ok(TerminateInstancesResult { terminating_instances: Some(changes.await?) })
}

/// Asks for an instance's end.
pub(in crate::ec2) fn terminated(instance: &mut Instance, reason: StateReason, now: Timestamp) {
    instance.power = Power::Terminated;
    instance.ended_at = Some(now);
    instance.state_reason = Some(reason);
}

/// Takes back what an instance that is off no longer has: its public address; when it is terminated, all that goes with it.
/// What does not go with it is free again.
pub(in crate::ec2) fn settle(tx: &mut Transaction, instance: &Instance) {
    let state = instance.state();
    if !matches!(state, InstanceState::Stopped | InstanceState::Terminated) {
        return;
    }
    let interfaces: Vec<Arc<NetworkInterface>> =
        tx.find::<NetworkInterface>("owner", instance.instance_id.as_str()).collect();
    for interface in interfaces {
        let goes = matches!(interface.owner, NetworkInterfaceOwner::Instance { delete_on_termination: true, .. });
        if state == InstanceState::Terminated && goes {
            release_network_interface(tx, &instance.scope, &interface.network_interface_id);
            continue;
        }
        let mut left = NetworkInterface::clone(&interface);
        left.public_address = left.public_address.filter(|public| public.allocation_id.is_some());
        if state == InstanceState::Terminated {
            left.owner = NetworkInterfaceOwner::User;
            left.attachment_id = None;
        }
        if left != *interface {
            tx.put(left);
        }
    }
    if state == InstanceState::Stopped {
        return;
    }
    // Load balancers deregister a terminated instance by themselves.
    let targets: Vec<Arc<TargetRegistration>> =
        tx.find(TargetRegistration::BY_EC2_INSTANCE, instance.instance_id.as_str()).collect();
    targets.iter().for_each(|target| tx.delete::<TargetRegistration>(&target.key()));
    let volumes: Vec<Arc<Volume>> = tx.find::<Volume>("instance", instance.instance_id.as_str()).collect();
    for volume in volumes {
        let key = volume.scope.key(&volume.volume_id);
        if volume.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination) {
            tx.delete::<Volume>(&key);
        } else {
            tx.update::<Volume>(&key, |volume| volume.attachment = None);
        }
    }
    // As at Amazon, a terminated instance leaves its cluster.
    crate::ecs::retire_ec2_instance(tx, &instance.instance_id, None);
}
