//! What `host` must know of an instance to boot it and to answer its metadata requests, also while the control plane
//! is away. Computed from the store by the server; items are part of [`crate::network::host::HostItem`].

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{ImageLayer, MetadataOptions};

/// The key of an instance's item and of the report on it.
pub fn instance_key(instance_id: &str) -> String {
    format!("instance/{instance_id}")
}

/// The key of a volume's item and of the report on it.
pub fn volume_key(volume_id: &str) -> String {
    format!("volume/{volume_id}")
}

/// An instance that is on, or that must be switched off and is not yet known to be. One that is not in the slice has
/// nothing on the machine but its volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceItem {
    /// `i-…`.
    pub instance_id: String,
    /// Whether it must run.
    pub on: bool,
    /// How often it has been switched on or rebooted, counted from 1. What runs with a smaller number is ended first. One that
    /// ended by itself is not booted again with the same number.
    pub boot: u64,
    /// Its primary interface, `eni-…`; the interface's own item is in the slice too while the instance is.
    pub interface_id: String,
    /// Processors of its type: a limit.
    pub vcpus: u32,
    /// Memory of its type, in MiB: a limit.
    pub memory_mib: u64,
    /// Its host name, e.g. `ip-172-31-0-9.ec2.internal`.
    pub hostname: String,
    /// The volume that is its root.
    pub root_volume_id: String,
    /// Its other volumes.
    pub volumes: Vec<AttachedVolume>,
    /// Its region, e.g. `us-east-1`.
    pub region: String,
    /// What it may ask about itself.
    pub metadata: Metadata,
}

/// A volume as an instance sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedVolume {
    /// `vol-…`; its own item is in the slice too.
    pub volume_id: String,
    /// Its name inside, e.g. `/dev/sdf`.
    pub device_name: String,
}

/// An EBS volume whose bytes must exist on this machine. One that is not in a confirmed slice is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeItem {
    /// `vol-…`.
    pub volume_id: String,
    /// Its size in GiB. A larger one than before grows it.
    pub size_gib: u64,
    /// What it is filled from when it is made, the lowest layer first: then it is the root of instances whose programs are
    /// on it. One without is made empty.
    #[serde(default)]
    pub layers: Vec<ImageLayer>,
}

/// What an instance is told at 169.254.169.254.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// How it may ask.
    pub options: MetadataOptions,
    /// `ami-…`.
    pub image_id: String,
    /// Its place among the instances launched with it, from 0.
    pub launch_index: u32,
    /// `r-…`.
    pub reservation_id: String,
    /// E.g. `t3.micro`.
    pub instance_type: String,
    /// E.g. `us-east-1a`.
    pub availability_zone: String,
    /// E.g. `use1-az1`.
    pub availability_zone_id: String,
    /// Its primary interface's.
    pub mac_address: String,
    /// Its private address.
    pub private_address: Ipv4Addr,
    /// Its public address, if it has one.
    pub public_address: Option<Ipv4Addr>,
    /// E.g. `ec2-198-18-0-9.compute-1.amazonaws.com`.
    pub public_hostname: Option<String>,
    /// Its account.
    pub account: String,
    /// `vpc-…`.
    pub vpc_id: String,
    /// The VPC's block.
    pub vpc_cidr: String,
    /// `subnet-…`.
    pub subnet_id: String,
    /// The subnet's block.
    pub subnet_cidr: String,
    /// Names of its security groups.
    pub security_groups: Vec<String>,
    /// Ids of its security groups.
    pub security_group_ids: Vec<String>,
    /// Name of its key pair, if it has one, and the public key.
    pub key: Option<(String, String)>,
    /// What RunInstances was given as UserData, base64.
    pub user_data: Option<String>,
    /// ARN and id of its instance profile, if it has one.
    pub profile: Option<(String, String)>,
    /// The name of the profile's role, under which its credentials are found.
    pub role: Option<String>,
    /// Its tags, for when `options` lets it read them.
    pub tags: Vec<(String, String)>,
    /// Block devices as `block-device-mapping` names them: `ami` or `root` or `ebs1` → device name.
    pub block_devices: Vec<(String, String)>,
    /// Whether it is a Spot Instance.
    #[serde(default)]
    pub spot: bool,
    /// When it will be interrupted, e.g. `2026-11-28T10:20:30Z`: from the notice on.
    #[serde(default)]
    pub interruption: Option<String>,
    /// The instance identity document, JSON as Amazon lays it out.
    pub identity_document: String,
    /// The platform's signature of it. RegisterContainerInstance asks for both.
    pub identity_signature: String,
}

impl std::fmt::Display for InstanceItem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (boot {})", self.instance_id, self.boot)
    }
}
