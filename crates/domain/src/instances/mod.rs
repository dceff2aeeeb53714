//! The nouns of local EC2 instances: the instance, its EBS volumes, and what the `host` process makes of them.
//!
//! The API that makes them is `services::ec2`; `host` boots a system container for every [`InstanceItem`] it follows.
//! Amazon's behaviour mirrored: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>.

mod console;
mod instance;
mod launch;
mod launch_template;
mod machine_image;
mod slice;
mod types;
mod volume;

pub use console::ConsoleOutput;
pub use instance::{
    BlockDevice, Instance, InstanceState, Machine, MetadataOptions, Observed, Power, ProfileAssociation,
    ShutdownBehavior, Spot, StateReason,
};
pub use launch::{LaunchData, LaunchDevice, LaunchInterface, LaunchMetadata, LaunchSpot, ProfileReference};
pub use launch_template::{LaunchTemplate, LaunchTemplateVersion};
pub use machine_image::{ImageLayer, MachineImage};
pub use slice::{AttachedVolume, InstanceItem, Metadata, VolumeItem, instance_key, volume_key};
pub use types::{ARCHITECTURE, InstanceType, default_instance_type, instance_type, instance_types, max_interfaces};
pub use volume::{Volume, VolumeAttachment, VolumeModification};

use std::net::Ipv4Addr;

/// Where an instance finds the network namespaces of the interfaces that its tasks have in awsvpc mode, each by its
/// interface's id.
pub const INTERFACES_DIRECTORY: &str = "/run/longshore/interfaces";

/// Where an instance finds what is known of it (IMDS).
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
