//! The nouns of a virtual private cloud: VPC, subnet, route table, gateways, security group, network interface and
//! public address, with the rules that need nothing but the nouns themselves.
//!
//! The API that makes them is `services::ec2`; what the kernel must hold for them is [`host::HostItem`], which the
//! `host` process follows. Amazon's behaviour mirrored: <https://docs.aws.amazon.com/vpc/latest/userguide/>.
//!
//! Only IPv4 is carried. IPv6 rules of a security group are kept, as Amazon keeps them in a VPC without an IPv6 block,
//! where they match nothing.

mod cidr;
mod gateway;
pub mod host;
mod interface;
pub mod names;
mod security_group;
mod vpc;

use std::net::Ipv4Addr;

pub use cidr::{Cidr, CidrError};
pub use gateway::{
    Address, InternetGateway, NatGateway, NatGatewayState, NetworkSettings, Route, RouteTable, RouteTableAssociation,
    RouteTarget,
};
pub use interface::{NetworkInterface, NetworkInterfaceOwner, PublicAddress};
pub use security_group::{Peer, Protocol, SecurityGroup, SecurityGroupRule};
pub use vpc::{AddressesExhausted, DhcpOptions, Subnet, Vpc};

/// Where every network interface finds the platform's own API, at the port of `--listen`.
pub const ENDPOINT_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 252);

/// Where every network interface finds the resolver, besides the VPC's base address plus two.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

/// From here the public addresses of all platforms on a machine are taken: the block for benchmarks (RFC 2544), which
/// no public host has.
pub const PUBLIC_RANGE: Cidr = Cidr::literal(Ipv4Addr::new(198, 18, 0, 0), 15);

/// The /22 of [`PUBLIC_RANGE`] that a platform takes its public addresses from unless told otherwise. Two platforms
/// of one machine get the same block once in 128 times; then the second one is given another by configuration.
pub fn public_block(platform: &str) -> Cidr {
    let digits = platform.strip_prefix("ls-").unwrap_or(platform);
    // Any text gives a block; the multiplication spreads ids that differ in one digit only.
    let hash = digits.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let index = (hash ^ (hash >> 16)) % 128;
    Cidr::literal(Ipv4Addr::from(u32::from(PUBLIC_RANGE.first()) + index * 1024), 22)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_has_a_block_within_the_range() {
        for platform in ["000000", "a1b2c3", "ls-a1b2c3", "ffffff", ""] {
            let block = public_block(platform);
            assert_eq!(block.prefix(), 22);
            assert!(PUBLIC_RANGE.contains_block(&block), "{platform}: {block}");
        }
        assert_eq!(public_block("ls-a1b2c3"), public_block("a1b2c3"));
    }
}
