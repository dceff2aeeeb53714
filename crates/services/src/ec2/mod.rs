//! EC2's face of the network (ec2Query): VPCs, subnets, route tables, gateways, security groups, network interfaces,
//! and the facts about regions and zones that tools ask for. Instances are another issue's.
//!
//! Rules that need nothing but the nouns are in `domain::network`; the kernel follows through [`host_slice`].

mod allocation;
mod default_vpc;
mod host_slice;

use domain::network::{
    Address, DhcpOptions, InternetGateway, NatGateway, NetworkInterface, NetworkSettings, RouteTable, SecurityGroup,
    Subnet, Vpc,
};

pub use allocation::{NetworkError, NewInterface, allocate_network_interface, configure, release_network_interface};
pub use default_vpc::ensure_region;
pub use host_slice::host_slice;

/// The kinds of resources this service keeps.
pub fn kinds(kinds: store::Kinds) -> store::Kinds {
    kinds
        .durable::<Vpc>()
        .durable::<Subnet>()
        .durable::<DhcpOptions>()
        .durable::<RouteTable>()
        .durable::<InternetGateway>()
        .durable::<NatGateway>()
        .durable::<Address>()
        .durable::<NetworkSettings>()
        .durable::<SecurityGroup>()
        .durable::<NetworkInterface>()
}
