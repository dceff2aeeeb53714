//! The one image instances are launched from: Longshore's own, optimised for ECS. It has the same id in each region for
//! ever, so that templates written today work tomorrow.

use api::ec2::{BlockDeviceMapping, DescribeImagesRequest, DescribeImagesResult, EbsBlockDevice, Image};
use domain::{Region, instances::ARCHITECTURE};
use wire::ServiceError;

use super::common::{begin, check_filters, matches_any, page};
use crate::Call;

/// The root device of every image.
pub(super) const ROOT_DEVICE: &str = "/dev/xvda";
/// Its size in GiB.
pub(super) const ROOT_SIZE: u64 = 30;
/// The account that owns Amazon's ECS-optimised images, under whose number tools look for them.
const OWNER: &str = "591542846629";
/// The image's version, in the form of Amazon's: release and date.
pub(crate) const VERSION: &str = "2023.0.20261101";
/// Its kernel's line in the name; the kernel that runs is the machine's own.
const KERNEL: &str = "kernel-6.1";
const CREATED: &str = "2026-11-01T00:00:00.000Z";

/// An image as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalImage {
    /// `ami-…`.
    pub(crate) image_id: String,
    /// `snap-…`.
    pub(crate) snapshot_id: String,
    /// E.g. `al2023-ami-ecs-hvm-2023.0.20261101-kernel-6.1-x86_64`.
    pub(crate) name: String,
}

/// A number that follows from a text: the same on every machine and in every version.
pub(super) fn hash(text: &str) -> u64 {
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // Texts that differ in their last byte only differ everywhere after this.
    let mixed = (sum ^ (sum >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// The image of a region.
pub(crate) fn local(region: &Region) -> LocalImage {
    let number = |what: &str| hash(&format!("longshore {what} {region} {ARCHITECTURE}"));
    LocalImage {
        image_id: format!("ami-0{:016x}", number("ecs image")),
        snapshot_id: format!("snap-0{:016x}", number("ecs snapshot")),
        name: format!("al2023-ami-ecs-hvm-{VERSION}-{KERNEL}-{ARCHITECTURE}"),
    }
}

/// The image of this id, or the one that a public parameter (`resolve:ssm:…`) names.
pub(super) fn find(region: &Region, id: &str) -> Result<LocalImage, ServiceError> {
    let image = local(region);
    if let Some(parameter) = id.strip_prefix("resolve:ssm:") {
        let resolved = crate::ssm::public_parameter(region, parameter);
        return match resolved.as_deref() == Some(image.image_id.as_str()) {
            true => Ok(image),
            false => {
                let text = format!("The SSM parameter '{parameter:.256}' does not name an image");
                Err(ServiceError::new("InvalidParameterValue", text))
            }
        };
    }
    check_id(id)?;
    if image.image_id == id {
        return Ok(image);
    }
    Err(ServiceError::new("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist")))
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    let digits = id.strip_prefix("ami-").unwrap_or_default();
    if matches!(digits.len(), 8 | 17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let text = format!("Invalid id: \"{id:.64}\" (expecting \"ami-...\")");
    Err(ServiceError::new("InvalidAMIID.Malformed", text))
}

fn shape(image: &LocalImage) -> Image {
    Image {
        image_id: Some(image.image_id.clone()),
        name: Some(image.name.clone()),
        description: Some(
            "Longshore's local image for ECS container instances: a system container on this machine, in place of \
             Amazon Linux 2023"
                .into(),
        ),
        architecture: Some(ARCHITECTURE.to_owned()),
        block_device_mappings: Some(vec![BlockDeviceMapping {
            device_name: Some(ROOT_DEVICE.to_owned()),
            ebs: Some(EbsBlockDevice {
                delete_on_termination: Some(true),
                snapshot_id: Some(image.snapshot_id.clone()),
                volume_size: i32::try_from(ROOT_SIZE).ok(),
                volume_type: Some("gp3".into()),
                iops: Some(3000),
                throughput: Some(125),
                encrypted: Some(false),
                ..EbsBlockDevice::default()
            }),
            ..BlockDeviceMapping::default()
        }]),
        creation_date: Some(CREATED.into()),
        ena_support: Some(true),
        hypervisor: Some("xen".into()),
        image_location: Some(format!("amazon/{}", image.name)),
        image_owner_alias: Some("amazon".into()),
        image_type: Some("machine".into()),
        imds_support: Some("v2.0".into()),
        owner_id: Some(OWNER.into()),
        platform_details: Some("Linux/UNIX".into()),
        public: Some(true),
        root_device_name: Some(ROOT_DEVICE.to_owned()),
        root_device_type: Some("ebs".into()),
        state: Some("available".into()),
        tags: Some(Vec::new()),
        usage_operation: Some("RunInstances".into()),
        virtualization_type: Some("hvm".into()),
        ..Image::default()
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

fn value(image: &Image, name: &str) -> Option<String> {
    match name {
        "architecture" => image.architecture.clone(),
        "block-device-mapping.device-name" | "root-device-name" => image.root_device_name.clone(),
        "block-device-mapping.volume-type" => Some("gp3".to_owned()),
        "block-device-mapping.delete-on-termination" | "ena-support" | "is-public" => Some("true".to_owned()),
        "creation-date" => image.creation_date.clone(),
        "description" => image.description.clone(),
        "hypervisor" => image.hypervisor.clone(),
        "image-id" => image.image_id.clone(),
        "image-type" => image.image_type.clone(),
        "name" => image.name.clone(),
        "owner-alias" => image.image_owner_alias.clone(),
        "owner-id" => image.owner_id.clone(),
        "platform-details" => image.platform_details.clone(),
        "root-device-type" => image.root_device_type.clone(),
        "state" => image.state.clone(),
        "virtualization-type" => image.virtualization_type.clone(),
        _ => None,
    }
}

/// DescribeImages.
pub(super) async fn list(call: Call, input: DescribeImagesRequest) -> Result<DescribeImagesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &FILTERS)?;
    let ids = input.image_ids.unwrap_or_default();
    for id in &ids {
        check_id(id)?;
        find(&auth.scope.region, id)?;
    }
    let image = local(&auth.scope.region);
    let shown = shape(&image);
    let owners = input.owners.unwrap_or_default();
    let executable = input.executable_users.unwrap_or_default();
    let wanted = (owners.is_empty() || owners.iter().any(|owner| owner == "amazon" || owner == OWNER))
        // A public image can be launched by all, and is shared with nobody in particular.
        && (executable.is_empty() || executable.iter().any(|user| user == "all"))
        && filters.iter().all(|filter| {
            let known = value(&shown, filter.name.as_deref().unwrap_or_default());
            let known: Vec<String> = known.into_iter().collect();
            matches_any(filter.values.as_deref().unwrap_or_default(), &known)
        });
    let found = if wanted { vec![(image.image_id, shown)] } else { Vec::new() };
    let (images, next_token) = page(&call, found, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeImagesResult { images: Some(images), next_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_for_ever_in_its_region() {
        let region: Region = "us-east-1".parse().unwrap();
        let image = local(&region);
        assert_eq!(image, local(&region));
        assert_ne!(image.image_id, local(&"us-east-2".parse().unwrap()).image_id);
        assert!(check_id(&image.image_id).is_ok());
        #[cfg(target_arch = "x86_64")]
        assert_eq!(image.image_id, "ami-0cbff07c782c47e1a");
        assert_eq!(find(&region, &image.image_id).ok(), Some(image));
        for (id, code) in [
            ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
            ("ami-x", "InvalidAMIID.Malformed"),
            ("", "InvalidAMIID.Malformed"),
        ] {
            assert_eq!(find(&region, id).map_err(|error| error.code().to_owned()), Err(code.to_owned()));
        }
    }
}
