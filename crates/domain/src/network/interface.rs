//! Elastic network interfaces.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::{IdSource, Resource, Scope, Tags, Timestamp};

/// On whose behalf an interface exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkInterfaceOwner {
    /// CreateNetworkInterface.
    User,
    /// A task in awsvpc mode.
    Task {
        /// The task's ARN.
        arn: String,
    },
    /// A load balancer: one interface for each of its subnets.
    LoadBalancer {
        /// The load balancer's ARN.
        arn: String,
    },
    /// An EC2 instance.
    Instance {
        /// `i-…`.
        id: String,
        /// Its place among the instance's interfaces; 0 is the primary one.
        device_index: u32,
        /// Whether it goes with the instance.
        delete_on_termination: bool,
    },
    /// A NAT gateway.
    NatGateway {
        /// `nat-…`.
        id: String,
    },
}

impl NetworkInterfaceOwner {
    /// Whether something real has the interface for as long as it exists, so that the kernel must hold it. An instance's is
    /// held while the instance is on.
    pub fn is_attached(&self) -> bool {
        matches!(self, Self::Task { .. } | Self::LoadBalancer { .. })
    }

    /// The value of the index `owner`: the ARN or id of the owner; empty for the user's own.
    pub fn index(&self) -> &str {
        match self {
            Self::User => "",
            Self::Task { arn } | Self::LoadBalancer { arn } => arn,
            Self::NatGateway { id } | Self::Instance { id, .. } => id,
        }
    }
}

/// A public address in use by an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicAddress {
    /// From the platform's public block.
    pub address: Ipv4Addr,
    /// `eipalloc-…` when it is an elastic IP; `None` when it lives as long as the interface.
    #[serde(default)]
    pub allocation_id: Option<String>,
    /// `eipassoc-…` when it is an elastic IP.
    #[serde(default)]
    pub association_id: Option<String>,
}

/// An elastic network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Account and region.
    pub scope: Scope,
    /// `eni-…`.
    pub network_interface_id: String,
    /// The VPC of its subnet.
    pub vpc_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its subnet's zone.
    pub availability_zone: String,
    /// `0a:xx:xx:xx:xx:xx`.
    pub mac_address: String,
    /// Its one private address.
    pub private_address: Ipv4Addr,
    /// Ids of its security groups, one to five (`sg-…`).
    pub security_groups: Vec<String>,
    /// Its public address, if it has one.
    #[serde(default)]
    pub public_address: Option<PublicAddress>,
    /// Free text.
    pub description: String,
    /// For whom it is.
    pub owner: NetworkInterfaceOwner,
    /// Whether only the service that made it may delete it.
    pub requester_managed: bool,
    /// `eni-attach-…` while something has it.
    #[serde(default)]
    pub attachment_id: Option<String>,
    /// Whether packets from other addresses than its own are dropped.
    pub source_dest_check: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// The token of the request that made it: the same request again makes no other.
    #[serde(default)]
    pub client_token: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl NetworkInterface {
    /// A MAC address in Amazon's form: locally administered, beginning with `0a`.
    pub fn new_mac_address(ids: &mut IdSource) -> String {
        let digits = ids.hex(10);
        let mut mac = "0a".to_owned();
        for index in 0..5 {
            mac.push(':');
            mac.push_str(digits.get(index * 2..index * 2 + 2).unwrap_or("00"));
        }
        mac
    }
}

impl Resource for NetworkInterface {
    const KIND: &'static str = "ec2/network-interface";
    fn key(&self) -> String {
        self.scope.key(&self.network_interface_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![
            ("subnet", self.subnet_id.clone()),
            ("vpc", self.vpc_id.clone()),
            ("owner", self.owner.index().to_owned()),
        ];
        entries.extend(self.security_groups.iter().map(|group| ("security-group", group.clone())));
        entries.extend(self.public_address.iter().map(|public| ("public", public.address.to_string())));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_locally_administered_unicast() {
        let mac = NetworkInterface::new_mac_address(&mut IdSource::from_seed(1));
        assert_eq!((mac.len(), &mac[..3], mac.matches(':').count()), (17, "0a:", 5));
    }
}
