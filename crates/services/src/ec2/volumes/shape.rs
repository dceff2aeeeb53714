//! A volume as DescribeVolumes shows it, and its filters.

use domain::instances::Volume;

use crate::ec2::{common::Filterable, facts::zone_id, instances::shape::time, tags};

/// Amazon's word for how a volume is.
pub(super) fn state(volume: &Volume) -> &'static str {
    match (&volume.attachment, &volume.problem) {
        (_, Some(_)) => "error",
        (Some(_), None) => "in-use",
        (None, None) if volume.made => "available",
        (None, None) => "creating",
    }
}

/// Who has it. `word` is Amazon's for how far that is.
pub(super) fn attachment(volume: &Volume, word: &str) -> api::ec2::VolumeAttachment {
    let Some(attachment) = &volume.attachment else { return api::ec2::VolumeAttachment::default() };
    api::ec2::VolumeAttachment {
        volume_id: Some(volume.volume_id.clone()),
        instance_id: Some(attachment.instance_id.clone()),
        device: Some(attachment.device_name.clone()),
        delete_on_termination: Some(attachment.delete_on_termination),
        attach_time: Some(time(attachment.attached_at)),
        state: Some(word.to_owned()),
        ..api::ec2::VolumeAttachment::default()
    }
}

fn attachment_word(volume: &Volume) -> &'static str {
    if volume.made { "attached" } else { "attaching" }
}

pub(super) fn integer(value: u64) -> Option<i32> {
    i32::try_from(value).ok()
}

/// The volume.
pub(super) fn volume(volume: &Volume) -> api::ec2::Volume {
    let attached = volume.attachment.iter().map(|_| attachment(volume, attachment_word(volume)));
    api::ec2::Volume {
        volume_id: Some(volume.volume_id.clone()),
        availability_zone: Some(volume.availability_zone.clone()),
        availability_zone_id: Some(zone_id(&volume.availability_zone)),
        size: integer(volume.size_gib),
        volume_type: Some(volume.volume_type.clone()),
        iops: volume.iops.and_then(integer),
        throughput: volume.throughput.and_then(integer),
        snapshot_id: Some(volume.snapshot_id.clone().unwrap_or_default()),
        encrypted: Some(false),
        multi_attach_enabled: Some(false),
        state: Some(state(volume).to_owned()),
        create_time: Some(time(volume.created_at)),
        attachments: Some(attached.collect()),
        tags: tags::shape(&volume.tags),
        ..api::ec2::Volume::default()
    }
}

/// The filters of DescribeVolumes.
pub(super) const FILTERS: Filterable<Volume> = Filterable {
    names: &[
        "attachment.attach-time",
        "attachment.delete-on-termination",
        "attachment.device",
        "attachment.instance-id",
        "attachment.status",
        "availability-zone",
        "availability-zone-id",
        "create-time",
        "encrypted",
        "multi-attach-enabled",
        "size",
        "snapshot-id",
        "status",
        "volume-id",
        "volume-type",
    ],
    values: |_, volume, name| {
        let attachment = volume.attachment.as_ref();
        let one = match name {
            "attachment.attach-time" => {
                attachment.map(|attachment| wire::Timestamp(attachment.attached_at.millis()).to_rfc3339())
            }
            "attachment.delete-on-termination" => {
                attachment.map(|attachment| attachment.delete_on_termination.to_string())
            }
            "attachment.device" => attachment.map(|attachment| attachment.device_name.clone()),
            "attachment.instance-id" => attachment.map(|attachment| attachment.instance_id.clone()),
            "attachment.status" => attachment.map(|_| attachment_word(volume).to_owned()),
            "availability-zone" => Some(volume.availability_zone.clone()),
            "availability-zone-id" => Some(zone_id(&volume.availability_zone)),
            "create-time" => Some(wire::Timestamp(volume.created_at.millis()).to_rfc3339()),
            "encrypted" | "multi-attach-enabled" => Some("false".to_owned()),
            "size" => Some(volume.size_gib.to_string()),
            "snapshot-id" => volume.snapshot_id.clone(),
            "status" => Some(state(volume).to_owned()),
            "volume-type" => Some(volume.volume_type.clone()),
            _ => Some(volume.volume_id.clone()),
        };
        one.into_iter().collect()
    },
};
