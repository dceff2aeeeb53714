//! The images instances are launched from: Longshore's own, optimised for ECS, which has the same id in each region for
//! ever, so that templates written today work tomorrow; and those that users have made of OCI images.

mod describe;
mod register;

use domain::{
    Region, Scope,
    instances::{ARCHITECTURE, ImageLayer, MachineImage},
};
use store::Snapshot;
use wire::ServiceError;

pub(super) use self::{
    describe::list,
    register::{deregister, register},
};

/// The root device of every image.
pub(super) const ROOT_DEVICE: &str = "/dev/xvda";
/// Its size in GiB.
const ROOT_SIZE: u64 = 30;
/// The same for images of users who have not said it.
const USERS_ROOT_SIZE: u64 = 8;
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
    /// The size of the root device in GiB; an instance may ask for more.
    pub(crate) size_gib: u64,
    /// What the root device is filled from; nothing for an image whose programs are the machine's.
    pub(crate) layers: Vec<ImageLayer>,
}

impl From<&MachineImage> for LocalImage {
    fn from(image: &MachineImage) -> Self {
        Self {
            image_id: image.image_id.clone(),
            snapshot_id: image.snapshot_id.clone(),
            name: image.name.clone(),
            size_gib: image.size_gib,
            layers: image.layers.clone(),
        }
    }
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

/// The image that a region has from the beginning.
pub(crate) fn local(region: &Region) -> LocalImage {
    let number = |what: &str| hash(&format!("longshore {what} {region} {ARCHITECTURE}"));
    LocalImage {
        image_id: format!("ami-0{:016x}", number("ecs image")),
        snapshot_id: format!("snap-0{:016x}", number("ecs snapshot")),
        name: format!("al2023-ami-ecs-hvm-{VERSION}-{KERNEL}-{ARCHITECTURE}"),
        size_gib: ROOT_SIZE,
        layers: Vec::new(),
    }
}

/// The image of this id, or the one that a public parameter (`resolve:ssm:…`) names.
pub(super) fn find(view: &Snapshot, scope: &Scope, id: &str) -> Result<LocalImage, ServiceError> {
    let region = &scope.region;
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
    let own = view.get::<MachineImage>(&scope.key(id));
    own.map(|own| LocalImage::from(&*own)).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ServiceError {
    ServiceError::new("InvalidAMIID.NotFound", format!("The image id '[{id:.64}]' does not exist"))
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    let digits = id.strip_prefix("ami-").unwrap_or_default();
    if matches!(digits.len(), 8 | 17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let text = format!("Invalid id: \"{id:.64}\" (expecting \"ami-...\")");
    Err(ServiceError::new("InvalidAMIID.Malformed", text))
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
        let view = store::Store::open(store::memory::Memory::default(), store::Kinds::new()).unwrap().snapshot();
        let scope = Scope { account: "123456789012".parse().unwrap(), region };
        assert_eq!(find(&view, &scope, &image.image_id).ok(), Some(image));
        for (id, code) in [
            ("ami-0123456789abcdef0", "InvalidAMIID.NotFound"),
            ("ami-x", "InvalidAMIID.Malformed"),
            ("", "InvalidAMIID.Malformed"),
        ] {
            assert_eq!(find(&view, &scope, id).map_err(|error| error.code().to_owned()), Err(code.to_owned()));
        }
    }
}
