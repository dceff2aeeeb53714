//! CIDR blocks of source-ip conditions.

use std::{net::IpAddr, str::FromStr};

/// A block of IPv4 or IPv6 addresses, e.g. `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u32,
}

/// The text is no CIDR block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a CIDR block")]
pub struct CidrError(String);

impl Cidr {
    /// Whether the block holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let error = || CidrError(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let network: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if network.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        match prefix.parse() {
            Ok(prefix) if digits && prefix <= longest => Ok(Self { network, prefix }),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_their_addresses_only() {
        let check = |block: &str, address: &str| block.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(check("10.1.0.0/16", "10.1.255.255") && !check("10.1.0.0/16", "10.2.0.0"));
        assert!(check("0.0.0.0/0", "255.1.2.3") && !check("0.0.0.0/0", "::1"));
        assert!(check("10.1.2.3/32", "10.1.2.3") && !check("10.1.2.3/32", "10.1.2.2"));
        assert!(check("2001:db8::/32", "2001:db8:1::") && !check("2001:db8::/32", "2001:db9::"));
        assert!(check("::/0", "::1"));
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "a/8", "10.0.0.0/+8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
