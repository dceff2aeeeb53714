//! EBS volumes: made, attached to instances, grown and deleted. Snapshots are not kept, so that a volume begins empty.

mod modify;
mod shape;

pub(super) use modify::{list as list_modifications, modify};

use std::sync::Arc;

use api::ec2::{
    AttachVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, DescribeVolumesRequest, DescribeVolumesResult,
    DetachVolumeRequest,
};
use domain::instances::{BlockDevice, Instance, InstanceState, Volume, VolumeAttachment};
use store::Transaction;
use wire::ServiceError;

use super::{
    common::{Query, begin, describe, find, invalid_value, refuse, required, unsupported},
    facts::zone_id,
    instances::{self, request::check_device_name},
    tags, volume_types,
};
use crate::Call;

/// Volumes of an account in a region.
const MAX_VOLUMES: usize = 1000;
/// Block devices of one instance.
const MAX_DEVICES: usize = 28;

fn positive(value: Option<i32>, name: &str) -> Result<Option<u64>, ServiceError> {
    let read = |value: i32| {
        let number = u64::try_from(value).ok().filter(|number| *number > 0);
        number.ok_or_else(|| invalid_value(&value.to_string(), name, "It must be greater than 0."))
    };
    value.map(read).transpose()
}

/// CreateVolume.
pub(super) async fn create(call: Call, input: CreateVolumeRequest) -> Result<api::ec2::Volume, ServiceError> {
    refuse!(input; kms_key_id, outpost_arn, volume_initialization_rate, operator);
    if input.encrypted == Some(true) {
        return Err(unsupported("encrypted"));
    }
    if input.multi_attach_enabled == Some(true) {
        return Err(unsupported("multi_attach_enabled"));
    }
    if let Some(id) = input.snapshot_id.filter(|id| !id.is_empty()) {
        let text = format!("The snapshot '{id:.64}' does not exist.");
        return Err(ServiceError::new("InvalidSnapshot.NotFound", text));
    }
    let zones = call.scope.availability_zones();
    let zone = match (input.availability_zone, input.availability_zone_id) {
        (Some(zone), _) => zones.into_iter().find(|known| *known == zone).ok_or(zone),
        (None, Some(id)) => zones.into_iter().find(|known| zone_id(known) == id).ok_or(id),
        (None, None) => return required(None, "availabilityZone"),
    };
    let zone = zone.map_err(|unknown| {
        let text = format!("The zone '{unknown:.64}' does not exist.");
        ServiceError::new("InvalidZone.NotFound", text)
    })?;
    let size = required(positive(input.size, "size")?, "size")?;
    let (iops, throughput) = (positive(input.iops, "iops")?, positive(input.throughput, "throughput")?);
    let performance = volume_types::check(input.volume_type.as_deref(), size, iops, throughput, "gp2")?;
    let tags = tags::specified(input.tag_specifications, "volume")?;
    let auth = begin(&call, &["volume/*".to_owned()], input.dry_run)?;
    let (client_token, now) = (input.client_token.filter(|token| !token.is_empty()), auth.now());
    auth.transact(|tx| {
        let prefix = call.scope.prefix();
        let known =
            tx.list::<Volume>(&prefix).find(|volume| client_token.is_some() && volume.client_token == client_token);
        if let Some(known) = known {
            if (known.size_gib, &known.availability_zone) != (size, &zone) {
                let text = "Arguments on this idempotent request are inconsistent with arguments used in previous \
                    request(s).";
                return Err(ServiceError::new("IdempotentParameterMismatch", text));
            }
            return Ok(shape::volume(&known));
        }
        if tx.list::<Volume>(&prefix).count() >= MAX_VOLUMES {
            let text = format!("You have reached the limit of {MAX_VOLUMES} volumes.");
            return Err(ServiceError::new("VolumeLimitExceeded", text));
        }
        let volume = Volume {
            scope: call.scope.clone(),
            volume_id: auth.platform().ids().ec2("vol"),
            availability_zone: zone,
            size_gib: size,
            volume_type: performance.volume_type,
            iops: performance.iops,
            throughput: performance.throughput,
            snapshot_id: None,
            layers: Vec::new(),
            attachment: None,
            client_token,
            problem: None,
            made: false,
            modification: None,
            created_at: now,
            tags,
        };
        tx.put(volume.clone());
        Ok(shape::volume(&volume))
    })
    .await
}

/// DescribeVolumes.
pub(super) async fn list(call: Call, input: DescribeVolumesRequest) -> Result<DescribeVolumesResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.volume_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let view = auth.snapshot();
    let (volumes, next_token) = describe(&call, &view, query, &shape::FILTERS)?;
    Ok(DescribeVolumesResult { volumes: Some(volumes.iter().map(|one| shape::volume(one)).collect()), next_token })
}

/// AttachVolume: to an instance of the same zone, under a name that it has not yet.
pub(super) async fn attach(call: Call, input: AttachVolumeRequest) -> Result<api::ec2::VolumeAttachment, ServiceError> {
    refuse!(input; ebs_card_index);
    let id = required(input.volume_id, "VolumeId")?;
    let instance_id = required(input.instance_id, "InstanceId")?;
    let device = required(input.device, "Device")?;
    check_device_name(&device)?;
    let auth = begin(&call, &[format!("volume/{id}"), format!("instance/{instance_id}")], input.dry_run)?;
    let now = auth.now();
    auth.transact(|tx| {
        let volume = find::<Volume>(&call, tx, &id)?;
        let mut instance = Instance::clone(&*instances::one(&call, tx, &instance_id)?);
        if volume.attachment.is_some() {
            return Err(ServiceError::new("VolumeInUse", format!("{id} is already attached to an instance")));
        }
        if volume.problem.is_some() {
            return Err(ServiceError::new("IncorrectState", format!("{id} is not 'available'.")));
        }
        if !matches!(instance.state(), InstanceState::Running | InstanceState::Stopped | InstanceState::Stopping) {
            let text = format!("Instance '{instance_id}' is not 'running'.");
            return Err(ServiceError::new("IncorrectState", text));
        }
        if volume.availability_zone != instance.availability_zone {
            let text = format!("The volume '{id}' is not in the same availability zone as instance '{instance_id}'");
            return Err(ServiceError::new("InvalidVolume.ZoneMismatch", text));
        }
        if instance.block_devices.iter().any(|known| known.device_name == device) {
            return Err(invalid_value(&device, "device", &format!("{device} is already in use")));
        }
        if instance.block_devices.len() >= MAX_DEVICES {
            let text = format!("An instance cannot have more than {MAX_DEVICES} block devices.");
            return Err(ServiceError::new("AttachmentLimitExceeded", text));
        }
        let attachment = VolumeAttachment {
            instance_id: instance_id.clone(),
            device_name: device.clone(),
            delete_on_termination: false,
            attached_at: now,
        };
        let attached = Volume { attachment: Some(attachment), ..Volume::clone(&volume) };
        instance.block_devices.push(BlockDevice { device_name: device.clone(), volume_id: id.clone() });
        let shown = shape::attachment(&attached, "attaching");
        tx.put(instance);
        tx.put(attached);
        Ok(shown)
    })
    .await
}

/// DetachVolume: not the root of an instance that is not stopped.
pub(super) async fn detach(call: Call, input: DetachVolumeRequest) -> Result<api::ec2::VolumeAttachment, ServiceError> {
    let id = required(input.volume_id, "VolumeId")?;
    let auth = begin(&call, &[format!("volume/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let volume = find::<Volume>(&call, tx, &id)?;
        let attachment = volume.attachment.as_ref().filter(|attachment| {
            input.instance_id.as_ref().is_none_or(|wanted| *wanted == attachment.instance_id)
                && input.device.as_ref().is_none_or(|wanted| *wanted == attachment.device_name)
        });
        let Some(attachment) = attachment else {
            return Err(match (&volume.attachment, &input.instance_id) {
                (Some(_), _) => {
                    let text = format!("The volume '{id}' is not attached there.");
                    ServiceError::new("InvalidAttachment.NotFound", text)
                }
                (None, _) => ServiceError::new("IncorrectState", format!("Volume '{id}' is in the 'available' state.")),
            });
        };
        let shown = shape::attachment(&volume, "detaching");
        release(tx, &call, &volume, attachment)?;
        Ok(shown)
    })
    .await
}

fn release(
    tx: &mut Transaction,
    call: &Call,
    volume: &Arc<Volume>,
    attachment: &VolumeAttachment,
) -> Result<(), ServiceError> {
    if let Some(instance) = tx.get::<Instance>(&call.scope.key(&attachment.instance_id)) {
        let is_root = attachment.device_name == instance.root_device_name;
        if is_root && instance.state() != InstanceState::Stopped {
            let text =
                format!("Unable to detach root volume '{}' from instance '{}'", volume.volume_id, instance.instance_id);
            return Err(ServiceError::new("OperationNotPermitted", text));
        }
        let mut left = Instance::clone(&instance);
        left.block_devices.retain(|device| device.volume_id != volume.volume_id);
        tx.put(left);
    }
    tx.put(Volume { attachment: None, ..Volume::clone(volume) });
    Ok(())
}

/// DeleteVolume: one that no instance has.
pub(super) async fn delete(call: Call, input: DeleteVolumeRequest) -> Result<(), ServiceError> {
    let id = required(input.volume_id, "VolumeId")?;
    let auth = begin(&call, &[format!("volume/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let volume = find::<Volume>(&call, tx, &id)?;
        if let Some(attachment) = &volume.attachment {
            let text = format!("Volume {id} is currently attached to {}", attachment.instance_id);
            return Err(ServiceError::new("VolumeInUse", text));
        }
        tx.delete::<Volume>(&call.scope.key(&id));
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests;
