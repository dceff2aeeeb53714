//! Names of kernel objects and DNS names. Every process that meets in the kernel (`host`, the agent, `down`) takes them
//! from here, so that two platforms on one machine never touch each other's.

use std::{net::Ipv4Addr, path::PathBuf};

use crate::Region;

/// Where network namespaces have their names, as `ip netns` has them.
pub const NETNS_DIRECTORY: &str = "/run/netns";

/// The six hexadecimal digits of a platform's instance id, which may be given with its `ls-` in front.
pub fn digits(platform: &str) -> &str {
    platform.strip_prefix("ls-").unwrap_or(platform)
}

/// The prefix of every network namespace of a platform: `ls-{digits}-`.
pub fn netns_prefix(platform: &str) -> String {
    format!("ls-{}-", digits(platform))
}

/// The network namespace of a VPC's router or of a network interface, by its Amazon id.
pub fn netns(platform: &str, id: &str) -> String {
    format!("{}{id}", netns_prefix(platform))
}

/// The file that stands for [`netns`].
pub fn netns_path(platform: &str, id: &str) -> PathBuf {
    PathBuf::from(NETNS_DIRECTORY).join(netns(platform, id))
}

/// The prefix of every link of a platform in the host's own network namespace: `ls{digits}`.
pub fn link_prefix(platform: &str) -> String {
    format!("ls{}", digits(platform))
}

/// The link from the host to a VPC's router: 15 characters, all that the kernel allows.
pub fn vpc_link(platform: &str, vpc_id: &str) -> String {
    format!("{}{}", link_prefix(platform), tail(vpc_id, 7))
}

/// The router's end of a network interface's link, unique within the router: `e` and 14 digits of the interface's id.
pub fn interface_link(interface_id: &str) -> String {
    format!("e{}", tail(interface_id, 14))
}

/// The nftables table of a platform, in the host's and in the routers' network namespaces: `ls_{digits}`.
pub fn table(platform: &str) -> String {
    format!("ls_{}", digits(platform))
}

/// The domain of private DNS names: `ec2.internal` in us-east-1, `{region}.compute.internal` elsewhere.
pub fn dns_domain(region: &Region) -> String {
    match region.as_str() {
        "us-east-1" => "ec2.internal".to_owned(),
        region => format!("{region}.compute.internal"),
    }
}

/// The private DNS name of an address, e.g. `ip-10-0-0-5.ec2.internal`.
pub fn private_dns_name(region: &Region, address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}.{}", dns_domain(region))
}

/// The public DNS name of an address, e.g. `ec2-198-18-0-5.compute-1.amazonaws.com`.
pub fn public_dns_name(region: &Region, address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    match region.as_str() {
        "us-east-1" => format!("ec2-{a}-{b}-{c}-{d}.compute-1.amazonaws.com"),
        region => format!("ec2-{a}-{b}-{c}-{d}.{region}.compute.amazonaws.com"),
    }
}

fn tail(id: &str, count: usize) -> &str {
    // Ids are ASCII; another text is used whole rather than cut within a character.
    id.get(id.len().saturating_sub(count)..).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_fit_the_kernels_limit() {
        assert_eq!(vpc_link("ls-a1b2c3", "vpc-0123456789abcdef0"), "lsa1b2c3abcdef0");
        assert_eq!(interface_link("eni-0123456789abcdef0"), "e3456789abcdef0");
        assert!(vpc_link("a1b2c3", "vpc-0123456789abcdef0").len() <= 15);
        assert!(interface_link("eni-0123456789abcdef0").len() <= 15);
    }

    #[test]
    fn namespaces_carry_the_platform() {
        assert_eq!(netns("ls-a1b2c3", "eni-01"), "ls-a1b2c3-eni-01");
        assert_eq!(netns_path("a1b2c3", "vpc-01").to_str(), Some("/run/netns/ls-a1b2c3-vpc-01"));
    }
}
