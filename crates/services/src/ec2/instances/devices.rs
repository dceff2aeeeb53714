//! The volumes an instance is launched with: the image's root, as the request changes it, and further ones.

use domain::{
    IdSource, Tags, Timestamp,
    instances::{BlockDevice, ImageLayer, LaunchDevice, Volume, VolumeAttachment},
    network::NetworkInterface,
};
use store::Transaction;
use wire::ServiceError;

use crate::ec2::{
    images::{LocalImage, ROOT_DEVICE},
    volume_types::{self, Performance},
};

/// A volume to make.
pub(super) struct NewDevice {
    device_name: String,
    size_gib: u64,
    performance: Performance,
    snapshot_id: Option<String>,
    layers: Vec<ImageLayer>,
    delete_on_termination: bool,
}

fn mapping(text: String) -> ServiceError {
    ServiceError::new("InvalidBlockDeviceMapping", text)
}

/// What volumes the instance gets, the root first.
pub(super) fn plan(image: &LocalImage, devices: &[LaunchDevice]) -> Result<Vec<NewDevice>, ServiceError> {
    let root = LaunchDevice { device_name: ROOT_DEVICE.to_owned(), ..LaunchDevice::default() };
    let root = devices.iter().find(|device| device.device_name == ROOT_DEVICE).unwrap_or(&root);
    if root.no_device {
        return Err(mapping(format!("The root device '{ROOT_DEVICE}' of an image cannot be left out")));
    }
    let others = devices.iter().filter(|device| device.device_name != ROOT_DEVICE && !device.no_device);
    std::iter::once(root).chain(others).map(|device| new_device(image, device)).collect()
}

fn new_device(image: &LocalImage, device: &LaunchDevice) -> Result<NewDevice, ServiceError> {
    let is_root = device.device_name == ROOT_DEVICE;
    if let Some(id) = device.snapshot_id.as_ref().filter(|id| !is_root || **id != image.snapshot_id) {
        let text = format!("The snapshot '{id:.64}' does not exist.");
        return Err(ServiceError::new("InvalidSnapshot.NotFound", text));
    }
    let size_gib = match device.size_gib {
        Some(size) if is_root && size < image.size_gib => {
            let text = format!(
                "Volume of size {size}GB is smaller than snapshot '{}', expect size>= {}GB",
                image.snapshot_id, image.size_gib
            );
            return Err(mapping(text));
        }
        Some(size) => size,
        None if is_root => image.size_gib,
        None => {
            let text = format!("The device '{}' needs a volume size or a snapshot", device.device_name);
            return Err(ServiceError::new("MissingParameter", text));
        }
    };
    let default_type = if is_root { "gp3" } else { "gp2" };
    let performance =
        volume_types::check(device.volume_type.as_deref(), size_gib, device.iops, device.throughput, default_type)?;
    Ok(NewDevice {
        device_name: device.device_name.clone(),
        size_gib,
        performance,
        snapshot_id: is_root.then(|| image.snapshot_id.clone()),
        layers: if is_root { image.layers.clone() } else { Vec::new() },
        delete_on_termination: device.delete_on_termination.unwrap_or(true),
    })
}

/// Makes the volumes, attached, where the instance's interface is.
pub(super) fn make(
    tx: &mut Transaction,
    interface: &NetworkInterface,
    instance_id: &str,
    devices: &[NewDevice],
    tags: &Tags,
    ids: &mut IdSource,
    now: Timestamp,
) -> Vec<BlockDevice> {
    let mut made = Vec::new();
    for device in devices {
        let volume_id = ids.ec2("vol");
        tx.put(Volume {
            scope: interface.scope.clone(),
            volume_id: volume_id.clone(),
            availability_zone: interface.availability_zone.clone(),
            size_gib: device.size_gib,
            volume_type: device.performance.volume_type.clone(),
            iops: device.performance.iops,
            throughput: device.performance.throughput,
            snapshot_id: device.snapshot_id.clone(),
            layers: device.layers.clone(),
            attachment: Some(VolumeAttachment {
                instance_id: instance_id.to_owned(),
                device_name: device.device_name.clone(),
                delete_on_termination: device.delete_on_termination,
                attached_at: now,
            }),
            client_token: None,
            problem: None,
            made: false,
            modification: None,
            created_at: now,
            tags: tags.clone(),
        });
        made.push(BlockDevice { device_name: device.device_name.clone(), volume_id });
    }
    made
}
