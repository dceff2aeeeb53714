//! IPv4 address blocks in CIDR notation.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// The text is not an IPv4 block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not of the form `a.b.c.d/n`.
    #[error("'{0}' is not a valid CIDR block")]
    Syntax(String),
    /// Bits are set beyond the prefix.
    #[error("'{given}' has bits set beyond its prefix; did you mean {canonical}?")]
    HostBits {
        /// The text as given.
        given: String,
        /// The block that contains it.
        canonical: String,
    },
}

/// An IPv4 block, always in canonical form: no bits are set beyond the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: u32,
    prefix: u8,
}

impl Cidr {
    /// Everything: `0.0.0.0/0`.
    pub const ANY: Cidr = Cidr { address: 0, prefix: 0 };

    /// A block known when the program is written; bits beyond the prefix are cleared, a prefix above 32 is 32.
    pub const fn literal(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { address: u32::from_be_bytes(address.octets()) & mask(prefix), prefix }
    }

    /// The block of one address.
    pub const fn host(address: Ipv4Addr) -> Self {
        Self::literal(address, 32)
    }

    /// A block from a request in which bits beyond the prefix are simply cleared, as Amazon does for rules and routes.
    pub fn parse_lenient(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError::Syntax(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let digits = !prefix.is_empty() && prefix.len() <= 2 && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = if digits { prefix.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
        if prefix > 32 { Err(wrong()) } else { Ok(Self::literal(address, prefix)) }
    }

    /// The first address, which names the network.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.address)
    }

    /// The last address, the broadcast address.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.address | !mask(self.prefix))
    }

    /// The number of leading bits that are the network's: 0 to 32.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// How many addresses the block has.
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address `offset` places after the first; `None` when that is outside the block.
    pub fn nth(&self, offset: u32) -> Option<Ipv4Addr> {
        (u64::from(offset) < self.size()).then(|| Ipv4Addr::from(self.address + offset))
    }

    /// Whether the address is in the block.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.address
    }

    /// Whether all of the other block is in this one.
    pub fn contains_block(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(other.first())
    }

    /// Whether the two blocks have an address in common.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains_block(other) || other.contains_block(self)
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix as u32) }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let block = Self::parse_lenient(text)?;
        if text.split('/').next() == Some(&block.first().to_string()) {
            Ok(block)
        } else {
            Err(CidrError::HostBits { given: text.to_owned(), canonical: block.to_string() })
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;
    fn try_from(text: String) -> Result<Self, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> String {
        block.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_block_is_refused() {
        for wrong in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/0",
            "10.0.0.1/8",
        ] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        assert_eq!(Cidr::parse_lenient("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
    }

    proptest! {
        #[test]
        fn text_and_value_agree(address: u32, prefix in 0u8..=32) {
            let block = Cidr::literal(Ipv4Addr::from(address), prefix);
            prop_assert_eq!(block.to_string().parse::<Cidr>(), Ok(block));
            prop_assert!(block.contains(Ipv4Addr::from(address)));
            prop_assert_eq!(u64::from(u32::from(block.last()) - u32::from(block.first())) + 1, block.size());
        }

        #[test]
        fn overlap_means_a_common_address(a: u32, p in 0u8..=32, b: u32, q in 0u8..=32) {
            let (one, other) = (Cidr::literal(Ipv4Addr::from(a), p), Cidr::literal(Ipv4Addr::from(b), q));
            let common = one.first().max(other.first()) <= one.last().min(other.last());
            prop_assert_eq!(one.overlaps(&other), common);
        }
    }
}
