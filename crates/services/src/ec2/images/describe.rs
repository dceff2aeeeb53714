//! Images as DescribeImages shows them.

use api::ec2::{BlockDeviceMapping, DescribeImagesRequest, DescribeImagesResult, EbsBlockDevice, Image};
use domain::{
    AccountId, Region,
    instances::{ARCHITECTURE, MachineImage},
};
use wire::ServiceError;

use super::{CREATED, LocalImage, OWNER, ROOT_DEVICE, check_id, find, local};
use crate::{
    Call,
    ec2::{
        common::{begin, check_filters, matches_any, page},
        tags,
    },
};

/// What all images have in common.
fn any(image: &LocalImage) -> Image {
    Image {
        image_id: Some(image.image_id.clone()),
        name: Some(image.name.clone()),
        architecture: Some(ARCHITECTURE.to_owned()),
        block_device_mappings: Some(vec![BlockDeviceMapping {
            device_name: Some(ROOT_DEVICE.to_owned()),
            ebs: Some(EbsBlockDevice {
                delete_on_termination: Some(true),
                snapshot_id: Some(image.snapshot_id.clone()),
                volume_size: i32::try_from(image.size_gib).ok(),
                volume_type: Some("gp3".into()),
                iops: Some(3000),
                throughput: Some(125),
                encrypted: Some(false),
                ..EbsBlockDevice::default()
            }),
            ..BlockDeviceMapping::default()
        }]),
        ena_support: Some(true),
        hypervisor: Some("xen".into()),
        image_type: Some("machine".into()),
        imds_support: Some("v2.0".into()),
        platform_details: Some("Linux/UNIX".into()),
        root_device_name: Some(ROOT_DEVICE.to_owned()),
        root_device_type: Some("ebs".into()),
        state: Some("available".into()),
        usage_operation: Some("RunInstances".into()),
        virtualization_type: Some("hvm".into()),
        ..Image::default()
    }
}

/// The image that a region has from the beginning.
fn of_region(region: &Region) -> Image {
    let image = local(region);
    let text = "Longshore's local image for ECS container instances: a system container on this machine, in place of \
        Amazon Linux 2023";
    Image {
        description: Some(text.into()),
        creation_date: Some(CREATED.into()),
        image_location: Some(format!("amazon/{}", image.name)),
        image_owner_alias: Some("amazon".into()),
        owner_id: Some(OWNER.into()),
        public: Some(true),
        tags: Some(Vec::new()),
        ..any(&image)
    }
}

/// An image of a user's.
fn of_user(image: &MachineImage) -> Image {
    Image {
        description: image.description.clone(),
        creation_date: Some(wire::Timestamp(image.created_at.millis()).to_rfc3339()),
        image_location: Some(image.location.clone()),
        owner_id: Some(image.scope.account.to_string()),
        public: Some(false),
        tags: tags::shape(&image.tags),
        ..any(&LocalImage::from(image))
    }
}

const FILTERS: [&str; 19] = [
    "architecture",
    "block-device-mapping.device-name",
    "block-device-mapping.volume-type",
    "block-device-mapping.delete-on-termination",
    "creation-date",
    "description",
    "ena-support",
    "hypervisor",
    "image-id",
    "image-type",
    "is-public",
    "name",
    "owner-alias",
    "platform",
    "platform-details",
    "root-device-name",
    "root-device-type",
    "state",
    "virtualization-type",
];

fn values(image: &Image, name: &str) -> Vec<String> {
    let tags = image.tags.as_deref().unwrap_or_default();
    if name == "tag-key" {
        return tags.iter().filter_map(|tag| tag.key.clone()).collect();
    }
    let tag = |key: &str| tags.iter().find(|tag| tag.key.as_deref() == Some(key))?.value.clone();
    let value = match name {
        "architecture" => image.architecture.clone(),
        "block-device-mapping.device-name" | "root-device-name" => image.root_device_name.clone(),
        "block-device-mapping.volume-type" => Some("gp3".to_owned()),
        "block-device-mapping.delete-on-termination" | "ena-support" => Some("true".to_owned()),
        "creation-date" => image.creation_date.clone(),
        "description" => image.description.clone(),
        "hypervisor" => image.hypervisor.clone(),
        "image-id" => image.image_id.clone(),
        "image-type" => image.image_type.clone(),
        "is-public" => image.public.map(|public| public.to_string()),
        "name" => image.name.clone(),
        "owner-alias" => image.image_owner_alias.clone(),
        "owner-id" => image.owner_id.clone(),
        "platform-details" => image.platform_details.clone(),
        "root-device-type" => image.root_device_type.clone(),
        "state" => image.state.clone(),
        "virtualization-type" => image.virtualization_type.clone(),
        _ => name.strip_prefix("tag:").and_then(tag),
    };
    value.into_iter().collect()
}

/// Whether one of these owns an image; whoever is asked by no name is all.
fn is_of(image: &Image, owners: &[String], account: &AccountId) -> bool {
    let own = account.to_string();
    let owns = |owner: &String| {
        let owner = if owner == "self" { own.as_str() } else { owner };
        image.owner_id.as_deref() == Some(owner) || image.image_owner_alias.as_deref() == Some(owner)
    };
    owners.is_empty() || owners.iter().any(owns)
}

/// DescribeImages.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeImagesRequest,
) -> Result<DescribeImagesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &FILTERS)?;
    let (view, scope) = (auth.snapshot(), &auth.scope);
    let ids = input.image_ids.unwrap_or_default();
    for id in &ids {
        check_id(id)?;
        find(&view, scope, id)?;
    }
    let (owners, executable) = (input.owners.unwrap_or_default(), input.executable_users.unwrap_or_default());
    let prefix = scope.prefix();
    let of_users = view.list::<MachineImage>(&prefix).map(|image| of_user(&image));
    let found = std::iter::once(of_region(&scope.region)).chain(of_users).filter(|image| {
        (ids.is_empty() || image.image_id.as_ref().is_some_and(|id| ids.contains(id)))
            && is_of(image, &owners, &scope.account)
            // A public image can be launched by all, and is shared with nobody in particular.
            && (executable.is_empty() || image.public == Some(true) && executable.iter().any(|user| user == "all"))
            && filters.iter().all(|filter| {
                let known = values(image, filter.name.as_deref().unwrap_or_default());
                matches_any(filter.values.as_deref().unwrap_or_default(), &known)
            })
    });
    let found = found.map(|image| (image.image_id.clone().unwrap_or_default(), image)).collect();
    let (images, next_token) = page(&call, found, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeImagesResult { images: Some(images), next_token })
}
