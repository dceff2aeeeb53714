//! The bridge's block of addresses: Docker's first one that this machine has no route to, and the addresses in it.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;

use domain::network::Cidr;

/// The length of the prefix of every bridge's block.
const PREFIX: u8 = 16;

/// A block of addresses; the first of its hosts is the gateway, the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    network: u32,
    /// The length of its prefix.
    pub prefix: u8,
}

impl Subnet {
    /// The first of 172.17.0.0/16 to 172.31.0.0/16 that overlaps with nothing the machine routes.
    pub fn choose(routed: &[Cidr]) -> Option<Subnet> {
        let candidates = (17..=31).map(|second| Subnet::of(Ipv4Addr::new(172, second, 0, 1)));
        candidates.into_iter().find(|candidate| !routed.iter().any(|block| candidate.overlaps(block)))
    }

    /// The block an address is in.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.min(32);
        Subnet { network: u32::from(address) & mask(prefix), prefix }
    }

    /// The bridge's block a container's address is in.
    pub fn of(address: Ipv4Addr) -> Subnet {
        Subnet::around(address, PREFIX)
    }

    /// The machine's own address in it.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    /// The next address after `last` that nobody was given, starting over at the end.
    pub fn free(self, last: Option<Ipv4Addr>, given: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        // Neither the block itself, the gateway, nor the broadcast address.
        let (first, end) = (self.network + 2, self.network | !mask(self.prefix));
        let after = last.map(|last| u32::from(last).saturating_add(1)).filter(|next| (first..end).contains(next));
        let start = after.unwrap_or(first);
        let candidates = (start..end).chain(first..start).map(Ipv4Addr::from);
        candidates.into_iter().find(|address| !given.contains(address))
    }

    fn overlaps(self, block: &Cidr) -> bool {
        // The default route leads everywhere and is in nobody's way.
        let shorter = mask(block.prefix().min(self.prefix).min(32));
        block.prefix() > 0 && u32::from(block.first()) & shorter == self.network & shorter
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, second, 0, last)
    }

    #[test]
    fn a_block_that_is_routed_already_is_left_alone() {
        assert_eq!(Subnet::choose(&[]).map(Subnet::gateway), Some(at(17, 1)));
        let docker = Cidr::literal(at(17, 0), 16);
        let narrow = Cidr::literal(Ipv4Addr::new(172, 18, 200, 0), 24);
        let default = Cidr::ANY;
        assert_eq!(Subnet::choose(&[default, docker, narrow]).map(Subnet::gateway), Some(at(19, 1)));
        assert_eq!(Subnet::choose(&[Cidr::literal(at(16, 0), 12)]), None);
    }

    #[test]
    fn addresses_go_round() {
        let subnet = Subnet::around(at(17, 9), 29);
        let mut given = HashSet::new();
        let mut last = None;
        let mut seen = Vec::new();
        while let Some(address) = subnet.free(last, &given) {
            given.insert(address);
            seen.push(address.octets()[3]);
            last = Some(address);
        }
        assert_eq!(seen, [10, 11, 12, 13, 14]);
        given.remove(&at(17, 11));
        assert_eq!(subnet.free(last, &given), Some(at(17, 11)));
        assert_eq!(subnet.free(Some(at(30, 1)), &HashSet::new()), Some(at(17, 10)));
    }
}
