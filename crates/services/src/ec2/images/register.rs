//! Making an image of an OCI image in the platform's own registry, and taking it back. At Amazon an image is made of
//! snapshots, or of a manifest at the `ImageLocation`: here that is where the OCI image is. What a tag means is decided once.

use api::ec2::{
    BlockDeviceMapping, DeleteSnapshotReturnCode, DeregisterImageRequest, DeregisterImageResult, RegisterImageRequest,
    RegisterImageResult,
};
use domain::{
    Scope,
    instances::{ARCHITECTURE, MachineImage},
    repositories::valid_name,
};
use registry::ImageReference;
use wire::ServiceError;

use super::{ROOT_DEVICE, USERS_ROOT_SIZE, check_id, local, not_found};
use crate::{
    Authorised, Call,
    ec2::{
        common::{begin, invalid_value, refuse, required, unsupported},
        tags,
    },
    ecs::images::ecr_registry,
};

/// Images of an account in a region.
const MAX_IMAGES: usize = 1000;
/// What OCI images are made for, as their authors write it.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

/// RegisterImage.
pub(in crate::ec2) async fn register(
    call: Call,
    input: RegisterImageRequest,
) -> Result<RegisterImageResult, ServiceError> {
    refuse!(input; billing_products, boot_mode, tpm_support, uefi_data, imds_support, kernel_id, ramdisk_id,
        root_device_name, virtualization_type, sriov_net_support, ena_support);
    let name = required(input.name, "Name")?;
    check_name(&name)?;
    let description = input.description.filter(|text| !text.is_empty());
    if let Some(text) = description.as_ref().filter(|text| text.chars().count() > 255) {
        return Err(invalid_value(text, "description", "It must not exceed 255 characters."));
    }
    if let Some(architecture) = input.architecture.filter(|architecture| architecture != ARCHITECTURE) {
        let text = format!("Images of this machine are {ARCHITECTURE}.");
        return Err(invalid_value(&architecture, "architecture", &text));
    }
    let size_gib = root_size(input.block_device_mappings.unwrap_or_default())?;
    let tags = tags::specified(input.tag_specifications, "image")?;
    let location = required(input.image_location, "ImageLocation")?;
    let auth = begin(&call, &["image/*".to_owned()], input.dry_run)?;
    let source = Source::parse(&auth, &location)?;
    call.authorise_action("ecr:BatchGetImage", &[source.scope.arn("ecr", &format!("repository/{}", source.name))])?;
    let registry = &auth.platform().registry;
    let found = registry.root_file_system(&source.scope, &source.name, &source.reference, PLATFORM).await;
    let found = found.map_err(|error| no_image(&location, &error))?;
    let now = auth.now();
    auth.transact(|tx| {
        let prefix = auth.scope.prefix();
        if let Some(known) = tx.list::<MachineImage>(&prefix).find(|image| image.name == name) {
            let text = format!("AMI name {name} is already in use by AMI {}", known.image_id);
            return Err(ServiceError::new("InvalidAMIName.Duplicate", text));
        }
        if tx.list::<MachineImage>(&prefix).count() >= MAX_IMAGES {
            let text = format!("You have reached the limit of {MAX_IMAGES} images.");
            return Err(ServiceError::new("ResourceLimitExceeded", text));
        }
        // From here on its layers are this image's too: until now they must have been somebody's.
        let manifest = ImageReference::Digest(found.manifest.clone());
        registry::images::find(tx, &source.scope, &source.name, &manifest)
            .map_err(|error| no_image(&location, &error))?;
        let (image_id, snapshot_id) = {
            let mut ids = auth.platform().ids();
            (ids.ec2("ami"), ids.ec2("snap"))
        };
        tx.put(MachineImage {
            scope: auth.scope.clone(),
            image_id: image_id.clone(),
            snapshot_id,
            name,
            description,
            location: format!("{}/{}@{}", source.host, source.name, found.manifest),
            layers: found.layers,
            size_gib,
            created_at: now,
            tags,
        });
        Ok(RegisterImageResult { image_id: Some(image_id) })
    })
    .await
}

/// DeregisterImage: instances that were launched from it, and their volumes, stay as they are.
pub(in crate::ec2) async fn deregister(
    call: Call,
    input: DeregisterImageRequest,
) -> Result<DeregisterImageResult, ServiceError> {
    let id = required(input.image_id, "ImageId")?;
    check_id(&id)?;
    let auth = begin(&call, &[format!("image/{id}")], input.dry_run)?;
    if id == local(&auth.scope.region).image_id {
        return Err(ServiceError::new("AuthFailure", format!("Not authorized for image:{id}")));
    }
    auth.transact(|tx| {
        let key = auth.scope.key(&id);
        let image = tx.get::<MachineImage>(&key).ok_or_else(|| not_found(&id))?;
        tx.delete::<MachineImage>(&key);
        // A snapshot is nothing but a name here, and goes with its image.
        let deleted = DeleteSnapshotReturnCode {
            snapshot_id: Some(image.snapshot_id.clone()),
            return_code: Some("success".to_owned()),
        };
        let results = (input.delete_associated_snapshots == Some(true)).then_some(deleted);
        Ok(DeregisterImageResult { r#return: Some(true), delete_snapshot_results: Some(Vec::from_iter(results)) })
    })
    .await
}

fn no_image(location: &str, error: &dyn std::fmt::Display) -> ServiceError {
    ServiceError::new("InvalidManifest", format!("No image can be made of '{location:.256}': {error}"))
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "()[] ./-'@_".contains(letter);
    if (3..=128).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let text = "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, parentheses (()), \
        square brackets ([]), spaces ( ), periods (.), slashes (/), dashes (-), single quotes ('), at-signs (@) and \
        underscores (_)";
    Err(ServiceError::new("InvalidAMIName.Malformed", text))
}

/// The root volume's size, the only thing that can be said of an image's devices.
fn root_size(mappings: Vec<BlockDeviceMapping>) -> Result<u64, ServiceError> {
    let mut size = USERS_ROOT_SIZE;
    for mapping in mappings {
        refuse!(mapping; virtual_name, no_device);
        let name = mapping.device_name.unwrap_or_default();
        if name != ROOT_DEVICE {
            let text = format!("An image has the device '{ROOT_DEVICE}' only, and not '{name:.64}'");
            return Err(ServiceError::new("InvalidBlockDeviceMapping", text));
        }
        let ebs = mapping.ebs.unwrap_or_default();
        refuse!(ebs; iops, snapshot_id, volume_type, kms_key_id, throughput, outpost_arn, encrypted,
            volume_initialization_rate, ebs_card_index);
        if ebs.delete_on_termination == Some(false) {
            return Err(unsupported("delete_on_termination"));
        }
        if let Some(asked) = ebs.volume_size {
            let known = u64::try_from(asked).ok().filter(|size| (1..=16_384).contains(size));
            let why = "It must be between 1 and 16384.";
            size = known.ok_or_else(|| invalid_value(&asked.to_string(), "volumeSize", why))?;
        }
    }
    Ok(size)
}

/// Where an OCI image is.
#[derive(Debug)]
struct Source {
    host: String,
    scope: Scope,
    name: String,
    reference: ImageReference,
}

impl Source {
    fn parse(auth: &Authorised, location: &str) -> Result<Self, ServiceError> {
        let why = "It must name an image in this account's own registry: \
            ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG or …@sha256:….";
        let invalid = || invalid_value(location, "imageLocation", why);
        let (account, region) = ecr_registry(location, &auth.platform().options).ok_or_else(invalid)?;
        let (host, path) = location.split_once('/').ok_or_else(invalid)?;
        let (name, reference) = match path.split_once('@') {
            // What a digest says goes before the tag.
            Some((name, digest)) => (name.split(':').next().unwrap_or_default(), digest),
            None => path.split_once(':').unwrap_or((path, "latest")),
        };
        let reference = ImageReference::parse(reference).filter(|_| valid_name(name)).ok_or_else(invalid)?;
        if account != auth.scope.account {
            return Err(invalid());
        }
        Ok(Self { host: host.to_owned(), scope: Scope { account, region }, name: name.to_owned(), reference })
    }
}

#[cfg(test)]
mod tests {
    use api::ec2::{EbsBlockDevice, operation as op};

    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn names_are_amazons() {
        for name in ["web", "web (1) [a]", "team/web-1.2_x@y'z"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "ab", "wéb", "a:b", &"x".repeat(129)] {
            let refused = check_name(name).map_err(|error| error.code().to_owned());
            assert_eq!(refused, Err("InvalidAMIName.Malformed".to_owned()), "{name}");
        }
    }

    #[test]
    fn the_roots_size_is_all_that_can_be_said_of_devices() {
        let mapping = |device: &str, ebs: EbsBlockDevice| {
            vec![BlockDeviceMapping { device_name: Some(device.into()), ebs: Some(ebs), ..Default::default() }]
        };
        let sized = |size| EbsBlockDevice { volume_size: Some(size), ..Default::default() };
        assert_eq!(root_size(Vec::new()).ok(), Some(USERS_ROOT_SIZE));
        assert_eq!(root_size(mapping("/dev/xvda", sized(3))).ok(), Some(3));
        let encrypted = EbsBlockDevice { encrypted: Some(true), ..Default::default() };
        for (mapping, word) in [
            (mapping("/dev/xvda", sized(0)), "volumeSize"),
            (mapping("/dev/sdf", sized(3)), "/dev/sdf"),
            (mapping("/dev/xvda", encrypted), "Encrypted"),
        ] {
            let refused = root_size(mapping).map_err(|error| error.message().to_owned()).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_location_is_in_the_accounts_own_registry() {
        let fixture = Fixture::new().await;
        let auth = begin(&fixture.call(&op::REGISTER_IMAGE), &[], None).expect("allowed");
        let digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let at = |text: &str| Source::parse(&auth, text).map(|source| (source.name, source.reference)).ok();
        let host = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
        let tagged = |tag: &str| Some(("team/web".to_owned(), ImageReference::Tag(tag.to_owned())));
        assert_eq!(at(&format!("{host}/team/web")), tagged("latest"));
        assert_eq!(at(&format!("{host}/team/web:v1")), tagged("v1"));
        let exact = Some(("team/web".to_owned(), ImageReference::Digest(digest.parse().unwrap())));
        assert_eq!(at(&format!("{host}/team/web:v1@{digest}")), exact);
        for wrong in [
            "busybox",
            "docker.io/busybox",
            &format!("{host}/Web"),
            &format!("{host}/web@sha256:1"),
            &format!("9{host}/web"),
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(at(&format!("999999999999{}/web", &host[12..])), None);
    }
}
