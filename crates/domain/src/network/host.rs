//! What the `host` process of a machine follows, and what it reports back. The server computes the items from the
//! store; `host` makes the kernel agree with them and never opens the store.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::{Cidr, Peer, Protocol};
use crate::instances::{InstanceItem, Machine, VolumeItem, instance_key, volume_key};

/// The name under which `host` follows its slice.
pub const CONSUMER: &str = "host";

/// One item of the slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostItem {
    /// Key `platform`.
    Platform(PlatformItem),
    /// Key `vpc/{id}`.
    Vpc(VpcItem),
    /// Key `sg/{id}`.
    SecurityGroup(SecurityGroupItem),
    /// Key `eni/{id}`.
    Interface(InterfaceItem),
    /// Key `name/{fqdn}`.
    Name(NameItem),
    /// Key `lb/{arn}`.
    LoadBalancer(LoadBalancerItem),
    /// Key `instance/{id}`.
    Instance(Box<InstanceItem>),
    /// Key `volume/{id}`.
    Volume(VolumeItem),
}

impl HostItem {
    /// The item's key in the slice.
    pub fn key(&self) -> String {
        match self {
            Self::Platform(_) => "platform".to_owned(),
            Self::Vpc(vpc) => format!("vpc/{}", vpc.vpc_id),
            Self::SecurityGroup(group) => format!("sg/{}", group.group_id),
            Self::Interface(interface) => format!("eni/{}", interface.interface_id),
            Self::Name(name) => format!("name/{}", name.name),
            Self::LoadBalancer(balancer) => format!("lb/{}", balancer.arn),
            Self::Instance(instance) => instance_key(&instance.instance_id),
            Self::Volume(volume) => volume_key(&volume.volume_id),
        }
    }
}

/// The whole platform's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformItem {
    /// Public addresses come from here. Base plus one is the host's own address towards the VPCs.
    pub public_block: Cidr,
}

/// A VPC in which some interface exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcItem {
    /// `vpc-…`.
    pub vpc_id: String,
    /// Its region's name, for DNS names.
    pub region: String,
    /// Its block. Addresses in it that no interface has are unreachable.
    pub cidr: Cidr,
    /// Base plus two.
    pub resolver: Ipv4Addr,
    /// Whether the resolver answers.
    pub dns_support: bool,
    /// The router's address in each subnet.
    pub gateways: Vec<Ipv4Addr>,
}

/// One rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleItem {
    /// Whether it is about packets that leave.
    pub egress: bool,
    /// Which packets.
    pub protocol: Protocol,
    /// From or to whom.
    pub peer: Peer,
}

/// A security group that some interface has, or that a rule of such a group names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupItem {
    /// `sg-…`.
    pub group_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Sorted, without repetition.
    pub rules: Vec<RuleItem>,
}

/// How an interface reaches what is beyond its VPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Egress {
    /// Not at all: packets are dropped.
    None,
    /// Through an internet gateway, with its own public address, both ways.
    Public {
        /// Its public address.
        address: Ipv4Addr,
    },
    /// Through a NAT gateway, outwards only.
    Nat {
        /// The gateway's public address.
        address: Ipv4Addr,
    },
}

/// An interface that something real has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceItem {
    /// `eni-…`.
    pub interface_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// `0a:…`.
    pub mac_address: String,
    /// Its private address.
    pub address: Ipv4Addr,
    /// Its subnet's prefix length.
    pub prefix: u8,
    /// Its subnet's router.
    pub gateway: Ipv4Addr,
    /// Its security groups, sorted.
    pub security_groups: Vec<String>,
    /// Its way out.
    pub egress: Egress,
    /// Whether packets from and to other addresses are dropped.
    pub source_dest_check: bool,
    /// The EC2 instance (`i-…`) whose task has it; its agent must find it.
    #[serde(default)]
    pub task_of_instance: Option<String>,
}

/// A name the VPCs' resolvers answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameItem {
    /// Lower case, without the final dot.
    pub name: String,
    /// In this VPC the private addresses are answered, elsewhere the public ones; `None`: the private ones everywhere.
    pub vpc_id: Option<String>,
    /// Answered within the VPC.
    pub private_addresses: Vec<Ipv4Addr>,
    /// Answered elsewhere; none there means that the name does not resolve.
    pub public_addresses: Vec<Ipv4Addr>,
}

/// A load balancer that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerItem {
    /// Its ARN.
    pub arn: String,
    /// Its VPC.
    pub vpc_id: String,
    /// Its interfaces; the process lives in the first one's network namespace.
    pub interface_ids: Vec<String>,
    /// Addresses of the host (127.0.0.0/8) at which it may listen.
    pub host_listeners: Vec<SocketAddrV4>,
    /// Ports at which it may listen on all its interfaces.
    pub listener_ports: Vec<u16>,
}

/// Whether an interface is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceState {
    /// Ready, with its security groups.
    Attached,
    /// Not there; `host` goes on trying.
    Failed,
}

/// Whether a load balancer's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancerState {
    /// The process exists.
    Running,
    /// It ended or cannot start; `host` goes on trying.
    Restarting,
}

/// An address at which a load balancer could not be given a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedListener {
    /// The address.
    pub address: SocketAddrV4,
    /// Why, for people.
    pub reason: String,
}

/// What `host` reports, under the key of the item concerned. A newer report replaces an older one of the same key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostReport {
    /// Key `eni/{id}`.
    Interface {
        /// `eni-…`.
        interface_id: String,
        /// Whether it is there.
        state: InterfaceState,
        /// Why it is not.
        reason: Option<String>,
        /// How long it took from the arrival of the item; 0 when it was there already.
        milliseconds: f64,
    },
    /// Key `lb/{arn}`.
    LoadBalancer {
        /// The load balancer's ARN.
        arn: String,
        /// Whether its process runs.
        state: LoadBalancerState,
        /// The process.
        pid: Option<i32>,
        /// Why it does not run.
        reason: Option<String>,
        /// Addresses it could not have.
        refused_listeners: Vec<RefusedListener>,
    },
    /// Key `instance/{id}`.
    Instance {
        /// `i-…`.
        instance_id: String,
        /// Of which boot.
        boot: u64,
        /// What it is.
        machine: Machine,
        /// Why it ended, for people.
        reason: Option<String>,
    },
    /// Key `console/{id}`.
    Console {
        /// `i-…`.
        instance_id: String,
        /// The last 64 KiB of what it has printed, base64.
        output: String,
    },
    /// Key `volume/{id}`.
    Volume {
        /// `vol-…`.
        volume_id: String,
        /// Why its bytes are not there; `None`: they are.
        problem: Option<String>,
    },
    /// Key `platform`.
    Host {
        /// What this machine lacks, for people; empty when all is well.
        problems: Vec<String>,
    },
}
