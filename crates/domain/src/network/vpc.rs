//! VPC and subnet.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::Cidr;
use crate::{Resource, Scope, Tags};

/// A virtual private cloud: one IPv4 block, one router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    /// Account and region.
    pub scope: Scope,
    /// `vpc-…`.
    pub vpc_id: String,
    /// /16 to /28.
    pub cidr: Cidr,
    /// `cidr` itself is associated with the VPC under this id (`vpc-cidr-assoc-…`).
    pub cidr_association_id: String,
    /// Whether it came with the region.
    pub is_default: bool,
    /// `dopt-…`, or `default`.
    pub dhcp_options_id: String,
    /// `acl-…`: the network ACL that came with the VPC and lets everything through.
    pub network_acl_id: String,
    /// Whether the resolver answers.
    pub dns_support: bool,
    /// Whether public addresses have DNS names.
    pub dns_hostnames: bool,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Vpc {
    /// The resolver's address: base plus two.
    pub fn resolver_address(&self) -> Ipv4Addr {
        self.cidr.nth(2).unwrap_or_else(|| self.cidr.first())
    }
}

impl Resource for Vpc {
    const KIND: &'static str = "ec2/vpc";
    fn key(&self) -> String {
        self.scope.key(&self.vpc_id)
    }
}

/// A part of a VPC's block in one availability zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Account and region.
    pub scope: Scope,
    /// `subnet-…`.
    pub subnet_id: String,
    /// The VPC it is part of.
    pub vpc_id: String,
    /// /16 to /28, within the VPC's.
    pub cidr: Cidr,
    /// E.g. `us-east-1a`.
    pub availability_zone: String,
    /// Whether it is the zone's default subnet.
    pub default_for_az: bool,
    /// Whether instances get a public address unless they say otherwise.
    pub map_public_ip_on_launch: bool,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A subnet has no free address left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the subnet has no free address")]
pub struct AddressesExhausted;

impl Subnet {
    /// Addresses that Amazon keeps in each subnet: the network's, the router's, the resolver's, one for later use, and
    /// the broadcast address.
    pub const RESERVED: u64 = 5;

    /// The router's address: base plus one.
    pub fn gateway(&self) -> Ipv4Addr {
        self.cidr.nth(1).unwrap_or_else(|| self.cidr.first())
    }

    /// Whether an interface can have the address: in the block and none of the five reserved ones.
    pub fn is_assignable(&self, address: Ipv4Addr) -> bool {
        let offset = u64::from(u32::from(address).wrapping_sub(u32::from(self.cidr.first())));
        self.cidr.contains(address) && offset >= 4 && offset + 1 < self.cidr.size()
    }

    /// The first assignable address that is not taken, looking from `start` places into the block on and then from its
    /// beginning. A start that differs from call to call keeps an address from being used again at once.
    pub fn free_address(&self, taken: &BTreeSet<Ipv4Addr>, start: usize) -> Result<Ipv4Addr, AddressesExhausted> {
        let count = self.cidr.size().saturating_sub(Self::RESERVED);
        if count == 0 || taken.len() as u64 >= count {
            return Err(AddressesExhausted);
        }
        (0..count)
            .map(|step| (start as u64 + step) % count)
            .filter_map(|index| self.cidr.nth(u32::try_from(index + 4).ok()?))
            .find(|address| !taken.contains(address))
            .ok_or(AddressesExhausted)
    }

    /// `arn:aws:ec2:…:subnet/subnet-…`.
    pub fn arn(&self) -> String {
        self.scope.arn("ec2", &format!("subnet/{}", self.subnet_id)).to_string()
    }
}

impl Resource for Subnet {
    const KIND: &'static str = "ec2/subnet";
    fn key(&self) -> String {
        self.scope.key(&self.subnet_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("vpc", self.vpc_id.clone())]
    }
}

/// What DHCP would tell an instance. One set comes with each region: our own resolver and domain name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOptions {
    /// Account and region.
    pub scope: Scope,
    /// `dopt-…`.
    pub dhcp_options_id: String,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Resource for DhcpOptions {
    const KIND: &'static str = "ec2/dhcp-options";
    fn key(&self) -> String {
        self.scope.key(&self.dhcp_options_id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(cidr: &str) -> Subnet {
        Subnet {
            scope: Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() },
            subnet_id: "subnet-0".into(),
            vpc_id: "vpc-0".into(),
            cidr: cidr.parse().unwrap(),
            availability_zone: "us-east-1a".into(),
            default_for_az: true,
            map_public_ip_on_launch: true,
            tags: Tags::default(),
        }
    }

    #[test]
    fn five_addresses_are_kept() {
        let subnet = subnet("10.0.0.0/28");
        for (address, assignable) in [
            ("10.0.0.0", false),
            ("10.0.0.3", false),
            ("10.0.0.4", true),
            ("10.0.0.14", true),
            ("10.0.0.15", false),
            ("10.0.0.16", false),
        ] {
            assert_eq!(subnet.is_assignable(address.parse().unwrap()), assignable, "{address}");
        }
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 0, 0, 1));
    }

    proptest! {
        #[test]
        fn all_addresses_are_given_once_and_then_none(start in 0usize..1_000_000, prefix in 24u8..=28) {
            let subnet = subnet(&format!("10.0.0.0/{prefix}"));
            let mut taken = BTreeSet::new();
            for _ in 0..subnet.cidr.size() - Subnet::RESERVED {
                let address = subnet.free_address(&taken, start).unwrap();
                prop_assert!(subnet.is_assignable(address));
                prop_assert!(taken.insert(address));
            }
            prop_assert_eq!(subnet.free_address(&taken, start), Err(AddressesExhausted));
        }
    }
}
