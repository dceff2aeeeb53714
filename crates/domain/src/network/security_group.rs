//! Security groups: which packets an interface lets in and out. Connections are tracked, so answers always pass.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::Cidr;
use crate::{Resource, Scope, Tags};

/// Which packets a rule is about, besides their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Protocol {
    /// Every packet (`-1`).
    All,
    /// TCP to ports `from` to `to`.
    Tcp {
        /// First port.
        from: u16,
        /// Last port.
        to: u16,
    },
    /// UDP to ports `from` to `to`.
    Udp {
        /// First port.
        from: u16,
        /// Last port.
        to: u16,
    },
    /// ICMP; `None` is every type or every code.
    Icmp {
        /// ICMP type.
        kind_number: Option<u8>,
        /// ICMP code.
        code: Option<u8>,
    },
    /// ICMP for IPv6, which no interface carries; kept so that the rule can be shown.
    Icmpv6 {
        /// ICMPv6 type.
        kind_number: Option<u8>,
        /// ICMPv6 code.
        code: Option<u8>,
    },
    /// Another IP protocol by its number, all of it.
    Number {
        /// IANA's number.
        number: u8,
    },
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum Peer {
    /// Addresses of a block.
    Cidr(Cidr),
    /// IPv6 addresses of a block; matches nothing here.
    Ipv6(Ipv6Addr, u8),
    /// The private addresses of every interface that has this security group.
    Group(String),
}

/// One rule, with its own id and tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// `sgr-…`.
    pub rule_id: String,
    /// Whether it lets packets out rather than in.
    pub egress: bool,
    /// Which packets.
    pub protocol: Protocol,
    /// From or to whom.
    pub peer: Peer,
    /// Free text; may change.
    #[serde(default)]
    pub description: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl SecurityGroupRule {
    /// Whether the two rules allow the same: Amazon refuses the second one.
    pub fn is_same_permission(&self, other: &SecurityGroupRule) -> bool {
        self.egress == other.egress && self.protocol == other.protocol && self.peer == other.peer
    }
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Account and region.
    pub scope: Scope,
    /// `sg-…`.
    pub group_id: String,
    /// Unique within the VPC; `default` is the one that came with it.
    pub name: String,
    /// Free text that never changes.
    pub description: String,
    /// The VPC it belongs to.
    pub vpc_id: String,
    /// In the order they were added.
    pub rules: Vec<SecurityGroupRule>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl SecurityGroup {
    /// Whether it is the VPC's default group, which cannot be deleted.
    pub fn is_default(&self) -> bool {
        self.name == "default"
    }
}

impl Resource for SecurityGroup {
    const KIND: &'static str = "ec2/security-group";
    fn key(&self) -> String {
        self.scope.key(&self.group_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![("vpc", self.vpc_id.clone())];
        for rule in &self.rules {
            if let Peer::Group(group) = &rule.peer {
                entries.push(("references", group.clone()));
            }
        }
        entries.sort();
        entries.dedup();
        entries
    }
}
