//! Network plumbing of one Linux machine: namespaces ([`netns`]), links, addresses and routes ([`netlink`]), packet rules
//! ([`nft`]). What is made of it is the business of `host`, which has VPCs, and of `agent`, which has bridges.

pub mod netlink;
pub mod netns;
pub mod nft;
