//! The slice sorted by VPC, without what cannot be meant: the process that computes the slice has fewer privileges than
//! this one, so nothing from it becomes part of a name or a script unless it has the form it must have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use domain::{
    balancing::network::is_network,
    instances::{InstanceItem, VolumeItem},
    network::{
        Cidr, PUBLIC_RANGE,
        host::{Egress, HostItem, InterfaceItem, LoadBalancerItem, NameItem, SecurityGroupItem, VpcItem},
    },
};
use feed::Slice;

use crate::ruleset::is_id;

/// The largest volume of Amazon's, in GiB.
const MAXIMUM_GIB: u64 = 65_536;
/// More volumes than an instance of Amazon's can have.
const MAXIMUM_VOLUMES: usize = 128;
const MAXIMUM_VCPUS: u32 = 1024;
/// Less than this boots nothing.
const MINIMUM_MIB: u64 = 16;
const MAXIMUM_MIB: u64 = 64 << 20;

/// One VPC with everything in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DesiredVpc {
    pub(crate) item: VpcItem,
    pub(crate) groups: Vec<SecurityGroupItem>,
    pub(crate) interfaces: BTreeMap<String, InterfaceItem>,
}

impl DesiredVpc {
    /// Public addresses that lead into this VPC.
    pub(crate) fn public_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let egress = self.interfaces.values().map(|interface| interface.egress);
        egress
            .filter_map(|egress| match egress {
                Egress::None => None,
                Egress::Public { address } | Egress::Nat { address } => Some(address),
            })
            .collect()
    }
}

/// Everything that must be on this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    /// Whether the server has said so since this process started; what only the disk says removes nothing.
    pub(crate) confirmed: bool,
    pub(crate) block: Option<Cidr>,
    pub(crate) vpcs: BTreeMap<String, DesiredVpc>,
    pub(crate) load_balancers: BTreeMap<String, LoadBalancerItem>,
    pub(crate) names: Vec<NameItem>,
    pub(crate) instances: BTreeMap<String, InstanceItem>,
    pub(crate) volumes: BTreeMap<String, VolumeItem>,
    /// Interfaces whose processes may listen on ports below 1024 without privileges.
    pub(crate) unprivileged_ports: BTreeSet<String>,
    /// Interfaces whose process connects with its clients' addresses.
    pub(crate) speak_for_others: BTreeSet<String>,
    /// Keys of items that were left out because of their form.
    pub(crate) malformed: Vec<String>,
}

/// Sorts a slice.
pub(crate) fn sort(slice: &Slice<HostItem>) -> Desired {
    let mut desired = Desired { confirmed: slice.confirmed, ..Desired::default() };
    for item in slice.items.values() {
        if let HostItem::Vpc(vpc) = item.as_ref() {
            if is_id(&vpc.vpc_id, "vpc-") {
                let entry = DesiredVpc { item: vpc.clone(), groups: Vec::new(), interfaces: BTreeMap::new() };
                desired.vpcs.insert(vpc.vpc_id.clone(), entry);
            } else {
                desired.malformed.push(item.key());
            }
        }
    }
    for (key, item) in &slice.items {
        if !desired.take(item) {
            desired.malformed.push(key.clone());
        }
    }
    for balancer in desired.load_balancers.values() {
        desired.unprivileged_ports.extend(balancer.interface_ids.iter().cloned());
        if is_network(&balancer.arn) {
            desired.speak_for_others.extend(balancer.interface_ids.first().cloned());
        }
    }
    desired
}

impl Desired {
    /// Whether an instance, its console or a volume of this key is in it.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        match key.split_once('/') {
            Some(("instance" | "console", id)) => self.instances.contains_key(id),
            Some(("volume", id)) => self.volumes.contains_key(id),
            _ => false,
        }
    }

    fn take(&mut self, item: &Arc<HostItem>) -> bool {
        match item.as_ref() {
            HostItem::Vpc(_) => return true,
            HostItem::Platform(platform) => {
                if platform.public_block.prefix() > 29 || platform.public_block.prefix() < PUBLIC_RANGE.prefix() {
                    return false;
                }
                self.block = Some(platform.public_block);
            }
            HostItem::SecurityGroup(group) => {
                let Some(vpc) = self.vpcs.get_mut(&group.vpc_id) else { return false };
                vpc.groups.push(group.clone());
            }
            HostItem::Interface(interface) => {
                let Some(vpc) = self.vpcs.get_mut(&interface.vpc_id) else { return false };
                let well_formed = is_id(&interface.interface_id, "eni-")
                    && vpc.item.cidr.contains(interface.address)
                    && vpc.item.cidr.contains(interface.gateway)
                    && interface.prefix <= 32;
                if !well_formed {
                    return false;
                }
                vpc.interfaces.insert(interface.interface_id.clone(), interface.clone());
            }
            HostItem::Name(name) => self.names.push(name.clone()),
            HostItem::Instance(instance) => {
                if !is_instance(instance) {
                    return false;
                }
                self.instances.insert(instance.instance_id.clone(), instance.as_ref().clone());
            }
            HostItem::Volume(volume) => {
                if !is_id(&volume.volume_id, "vol-") || !(1..=MAXIMUM_GIB).contains(&volume.size_gib) {
                    return false;
                }
                self.volumes.insert(volume.volume_id.clone(), volume.clone());
            }
            HostItem::LoadBalancer(balancer) => {
                if !balancer.host_listeners.iter().all(|address| address.ip().is_loopback()) {
                    return false;
                }
                self.load_balancers.insert(balancer.arn.clone(), balancer.clone());
            }
        }
        true
    }
}

/// Whether an instance has the form it must have. What only its metadata says is not used here but for device names.
fn is_instance(item: &InstanceItem) -> bool {
    let hostname = !item.hostname.is_empty()
        && item.hostname.len() <= 63
        && !item.hostname.starts_with(['.', '-'])
        && item.hostname.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    let root_device = item.metadata.block_devices.iter().filter(|(name, _)| name == "root");
    let mut names: Vec<&str> = item.volumes.iter().map(|volume| volume.device_name.as_str()).collect();
    names.extend(root_device.map(|(_, device)| device.as_str()));
    let count = names.len();
    let well_named = names.iter().all(|name| is_device_name(name));
    names.sort_unstable();
    names.dedup();
    is_id(&item.instance_id, "i-")
        && is_id(&item.interface_id, "eni-")
        && is_id(&item.root_volume_id, "vol-")
        && item.volumes.iter().all(|volume| is_id(&volume.volume_id, "vol-"))
        && item.volumes.len() <= MAXIMUM_VOLUMES
        && well_named
        && names.len() == count
        && hostname
        && (1..=MAXIMUM_VCPUS).contains(&item.vcpus)
        && (MINIMUM_MIB..=MAXIMUM_MIB).contains(&item.memory_mib)
}

fn is_device_name(name: &str) -> bool {
    name.strip_prefix("/dev/").is_some_and(|name| {
        // `/dev/fd` and the like are an instance's already.
        (3..=16).contains(&name.len())
            && ["sd", "xvd", "hd", "vd", "nvme"].iter().any(|prefix| name.starts_with(prefix))
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}
