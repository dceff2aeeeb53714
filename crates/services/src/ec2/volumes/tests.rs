//! Volumes from CreateVolume to DeleteVolume, with the host's reports made by hand.

use api::ec2::{operation as op, *};
use domain::instances::Machine;

use super::{attach, create, delete, detach, list, modify};
use crate::{
    ec2::{images, instances::run, observe},
    testing::{Fixture, scope},
};

async fn shown(fixture: &Fixture, id: &str) -> Volume {
    let input = DescribeVolumesRequest { volume_ids: Some(vec![id.to_owned()]), ..Default::default() };
    list(fixture.call(&op::DESCRIBE_VOLUMES), input).await.unwrap().volumes.unwrap().remove(0)
}

#[tokio::test]
async fn a_volume_is_made_attached_grown_detached_and_deleted() {
    let fixture = Fixture::new().await;
    let run = RunInstancesRequest {
        image_id: Some(images::local(&scope().region).image_id),
        min_count: Some(1),
        max_count: Some(1),
        ..Default::default()
    };
    let made = run::run(fixture.call(&op::RUN_INSTANCES), run).await.unwrap();
    let instance = made.instances.unwrap().remove(0);
    let instance_id = instance.instance_id.unwrap();
    let zone = instance.placement.unwrap().availability_zone;
    let now = fixture.platform.clock.now();
    fixture.change(|tx| observe::instance(tx, &instance_id, 1, Machine::Running, None, now)).await;

    let input = || CreateVolumeRequest {
        availability_zone: zone.clone(),
        size: Some(8),
        volume_type: Some("gp3".into()),
        client_token: Some("once".into()),
        ..Default::default()
    };
    let id = create(fixture.call(&op::CREATE_VOLUME), input()).await.unwrap().volume_id.unwrap();
    let again = create(fixture.call(&op::CREATE_VOLUME), input()).await.unwrap();
    assert_eq!((again.volume_id.as_deref(), again.state.as_deref()), (Some(id.as_str()), Some("creating")));
    fixture.change(|tx| observe::volume(tx, &id, None)).await;
    assert_eq!(shown(&fixture, &id).await.state.as_deref(), Some("available"));

    let attachment = |device: &str| AttachVolumeRequest {
        volume_id: Some(id.clone()),
        instance_id: Some(instance_id.clone()),
        device: Some(device.into()),
        ..Default::default()
    };
    let error = attach(fixture.call(&op::ATTACH_VOLUME), attachment("/dev/xvda")).await.map(|_| ()).unwrap_err();
    assert!(error.message().contains("already in use"));
    attach(fixture.call(&op::ATTACH_VOLUME), attachment("/dev/sdf")).await.unwrap();
    let error = attach(fixture.call(&op::ATTACH_VOLUME), attachment("/dev/sdg")).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "VolumeInUse");
    let volume = shown(&fixture, &id).await;
    assert_eq!(volume.attachments.unwrap()[0].device.as_deref(), Some("/dev/sdf"));

    let size = |size| ModifyVolumeRequest { volume_id: Some(id.clone()), size: Some(size), ..Default::default() };
    assert!(modify(fixture.call(&op::MODIFY_VOLUME), size(4)).await.is_err());
    let grown = modify(fixture.call(&op::MODIFY_VOLUME), size(20)).await.unwrap().volume_modification.unwrap();
    assert_eq!((grown.original_size, grown.target_size, grown.target_iops), (Some(8), Some(20), Some(3000)));

    let remove = || DeleteVolumeRequest { volume_id: Some(id.clone()), ..Default::default() };
    let error = delete(fixture.call(&op::DELETE_VOLUME), remove()).await.unwrap_err();
    assert_eq!(error.code(), "VolumeInUse");
    let root = instance.block_device_mappings.unwrap().remove(0).ebs.unwrap().volume_id;
    let input = DetachVolumeRequest { volume_id: root, ..Default::default() };
    let error = detach(fixture.call(&op::DETACH_VOLUME), input).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "OperationNotPermitted");
    let input = DetachVolumeRequest { volume_id: Some(id.clone()), ..Default::default() };
    detach(fixture.call(&op::DETACH_VOLUME), input).await.unwrap();
    delete(fixture.call(&op::DELETE_VOLUME), remove()).await.unwrap();
}
