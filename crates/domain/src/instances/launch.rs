//! What an instance is launched with: said by RunInstances, kept by a launch template's version, and both together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ShutdownBehavior;
use crate::Tags;

/// An instance profile as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileReference {
    /// By its ARN.
    Arn(String),
    /// By its name.
    Name(String),
}

/// The primary network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchInterface {
    /// Where.
    pub subnet_id: Option<String>,
    /// Ids of security groups.
    pub groups: Vec<String>,
    /// Whether it gets a public address; the subnet's own setting otherwise.
    pub associate_public_address: Option<bool>,
    /// Whether it goes with the instance; yes unless said.
    pub delete_on_termination: Option<bool>,
    /// Free text.
    pub description: Option<String>,
    /// The private address wanted.
    pub private_address: Option<String>,
}

/// A block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchDevice {
    /// E.g. `/dev/xvda`.
    pub device_name: String,
    /// Whether there must be none under this name.
    pub no_device: bool,
    /// Whether it goes with the instance; yes unless said.
    pub delete_on_termination: Option<bool>,
    /// In GiB.
    pub size_gib: Option<u64>,
    /// `gp3`, ….
    pub volume_type: Option<String>,
    /// As asked for.
    pub iops: Option<u64>,
    /// As asked for, in MiB/s.
    pub throughput: Option<u64>,
    /// The snapshot it is made from.
    pub snapshot_id: Option<String>,
    /// `false` only: nothing is encrypted here.
    pub encrypted: Option<bool>,
}

/// How an instance may ask for its metadata, as far as a request says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchMetadata {
    /// Whether a session token is asked for.
    pub tokens_required: Option<bool>,
    /// 1 to 64.
    pub hop_limit: Option<u8>,
    /// Whether there are answers at all.
    pub enabled: Option<bool>,
    /// Whether the instance's tags can be read.
    pub tags: Option<bool>,
}

/// That an instance is a Spot Instance. What is said of it has only one value each: it is asked for once, and terminated when
/// it is interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpot {
    /// `one-time`, when it was said.
    pub kind: Option<String>,
    /// `terminate`, when it was said.
    pub interruption_behavior: Option<String>,
}

/// What an instance is launched with, as far as it was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaunchData {
    /// `ami-…`, or `resolve:ssm:` and a parameter.
    pub image_id: Option<String>,
    /// E.g. `t3.micro`.
    pub instance_type: Option<String>,
    /// A key pair.
    pub key_name: Option<String>,
    /// Base64.
    pub user_data: Option<String>,
    /// Its profile.
    pub profile: Option<ProfileReference>,
    /// Ids of security groups.
    pub security_group_ids: Vec<String>,
    /// Names of security groups of the default VPC.
    pub security_groups: Vec<String>,
    /// Its subnet.
    pub subnet_id: Option<String>,
    /// Its private address.
    pub private_address: Option<String>,
    /// Its zone.
    pub availability_zone: Option<String>,
    /// `default`, when it was said.
    pub tenancy: Option<String>,
    /// Its primary interface, in place of subnet and groups.
    pub interface: Option<LaunchInterface>,
    /// Its volumes.
    pub block_devices: Vec<LaunchDevice>,
    /// How it may ask for its metadata.
    pub metadata: Option<LaunchMetadata>,
    /// What becomes of it when it shuts itself down.
    pub shutdown_behavior: Option<ShutdownBehavior>,
    /// Whether TerminateInstances is refused.
    pub disable_api_termination: Option<bool>,
    /// Whether StopInstances is refused.
    pub disable_api_stop: Option<bool>,
    /// Kept and shown.
    pub ebs_optimized: Option<bool>,
    /// `false` only: there is no detailed monitoring.
    pub monitoring: Option<bool>,
    /// `unlimited` only: processor time is not rationed.
    pub cpu_credits: Option<String>,
    /// Whether it is a Spot Instance.
    pub spot: Option<LaunchSpot>,
    /// Tags by the type of resource that gets them.
    pub tags: BTreeMap<String, Tags>,
}

impl LaunchData {
    /// This over `base`: what is said here counts, what is not is taken from there. Groups count as one thing, devices by
    /// their names, tags by their keys.
    #[must_use]
    pub fn over(self, base: LaunchData) -> LaunchData {
        let own_groups = !self.security_group_ids.is_empty() || !self.security_groups.is_empty();
        let mut block_devices = base.block_devices;
        for device in self.block_devices {
            match block_devices.iter_mut().find(|known| known.device_name == device.device_name) {
                Some(known) => *known = device,
                None => block_devices.push(device),
            }
        }
        let mut tags = base.tags;
        for (resource, own) in self.tags {
            let merged = tags.entry(resource).or_default();
            own.iter().for_each(|tag| merged.set_unchecked(tag.key.clone(), tag.value.clone()));
        }
        let metadata = match (self.metadata, base.metadata) {
            (Some(own), Some(base)) => Some(LaunchMetadata {
                tokens_required: own.tokens_required.or(base.tokens_required),
                hop_limit: own.hop_limit.or(base.hop_limit),
                enabled: own.enabled.or(base.enabled),
                tags: own.tags.or(base.tags),
            }),
            (own, base) => own.or(base),
        };
        LaunchData {
            image_id: self.image_id.or(base.image_id),
            instance_type: self.instance_type.or(base.instance_type),
            key_name: self.key_name.or(base.key_name),
            user_data: self.user_data.or(base.user_data),
            profile: self.profile.or(base.profile),
            security_group_ids: if own_groups { self.security_group_ids } else { base.security_group_ids },
            security_groups: if own_groups { self.security_groups } else { base.security_groups },
            subnet_id: self.subnet_id.or(base.subnet_id),
            private_address: self.private_address.or(base.private_address),
            availability_zone: self.availability_zone.or(base.availability_zone),
            tenancy: self.tenancy.or(base.tenancy),
            interface: self.interface.or(base.interface),
            block_devices,
            metadata,
            shutdown_behavior: self.shutdown_behavior.or(base.shutdown_behavior),
            disable_api_termination: self.disable_api_termination.or(base.disable_api_termination),
            disable_api_stop: self.disable_api_stop.or(base.disable_api_stop),
            ebs_optimized: self.ebs_optimized.or(base.ebs_optimized),
            monitoring: self.monitoring.or(base.monitoring),
            cpu_credits: self.cpu_credits.or(base.cpu_credits),
            spot: self.spot.or(base.spot),
            tags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_over_its_template() {
        let device = |name: &str, size: u64| LaunchDevice {
            device_name: name.into(),
            size_gib: Some(size),
            ..LaunchDevice::default()
        };
        let tags = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            BTreeMap::from([("instance".to_owned(), Tags::from_request(pairs).unwrap())])
        };
        let template = LaunchData {
            image_id: Some("ami-1".into()),
            instance_type: Some("t3.micro".into()),
            security_groups: vec!["web".into()],
            block_devices: vec![device("/dev/xvda", 30), device("/dev/sdf", 5)],
            tags: tags(&[("a", "1"), ("b", "1")]),
            ..LaunchData::default()
        };
        let request = LaunchData {
            instance_type: Some("t3.large".into()),
            security_group_ids: vec!["sg-1".into()],
            block_devices: vec![device("/dev/sdf", 9)],
            tags: tags(&[("b", "2")]),
            ..LaunchData::default()
        };
        let both = request.over(template);
        assert_eq!((both.image_id.as_deref(), both.instance_type.as_deref()), (Some("ami-1"), Some("t3.large")));
        assert_eq!((both.security_group_ids.len(), both.security_groups.len()), (1, 0));
        assert_eq!(both.block_devices, [device("/dev/xvda", 30), device("/dev/sdf", 9)]);
        assert_eq!(both.tags, tags(&[("a", "1"), ("b", "2")]));
    }
}
