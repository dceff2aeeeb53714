//! Ways out of a VPC: route tables, internet gateways, NAT gateways and the addresses they use.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Cidr;
use crate::{Resource, Scope, Tags, Timestamp};

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum RouteTarget {
    /// Within the VPC.
    Local,
    /// `igw-…`.
    InternetGateway(String),
    /// `nat-…`.
    NatGateway(String),
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Which addresses.
    pub destination: Cidr,
    /// Where they are reached.
    pub target: RouteTarget,
}

/// Which subnet uses a route table; `None` is every subnet of the VPC that has no table of its own (the main table).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTableAssociation {
    /// `rtbassoc-…`.
    pub association_id: String,
    /// `subnet-…`, or `None` for the main association.
    pub subnet_id: Option<String>,
}

/// A route table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Account and region.
    pub scope: Scope,
    /// `rtb-…`.
    pub route_table_id: String,
    /// The VPC it belongs to.
    pub vpc_id: String,
    /// The local route first.
    pub routes: Vec<Route>,
    /// Subnets that use it.
    pub associations: Vec<RouteTableAssociation>,
    /// The token of the request that made it: the same request again makes no other.
    #[serde(default)]
    pub client_token: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl RouteTable {
    /// Whether it is the VPC's main table.
    pub fn is_main(&self) -> bool {
        self.associations.iter().any(|association| association.subnet_id.is_none())
    }

    /// Where addresses of the whole internet go, if anywhere.
    pub fn default_target(&self) -> Option<&RouteTarget> {
        self.routes.iter().find(|route| route.destination == Cidr::ANY).map(|route| &route.target)
    }
}

impl Resource for RouteTable {
    const KIND: &'static str = "ec2/route-table";
    fn key(&self) -> String {
        self.scope.key(&self.route_table_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("vpc", self.vpc_id.clone())]
    }
}

/// An internet gateway: interfaces with a public address reach and are reached through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    /// Account and region.
    pub scope: Scope,
    /// `igw-…`.
    pub internet_gateway_id: String,
    /// The VPC it is attached to.
    pub vpc_id: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Resource for InternetGateway {
    const KIND: &'static str = "ec2/internet-gateway";
    fn key(&self) -> String {
        self.scope.key(&self.internet_gateway_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        self.vpc_id.iter().map(|vpc| ("vpc", vpc.clone())).collect()
    }
}

/// Where a NAT gateway is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NatGatewayState {
    /// Carries traffic.
    Available,
    /// Gone; shown for an hour.
    Deleted,
}

/// A public NAT gateway: what leaves through it has its public address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGateway {
    /// Account and region.
    pub scope: Scope,
    /// `nat-…`.
    pub nat_gateway_id: String,
    /// The VPC of its subnet.
    pub vpc_id: String,
    /// The subnet it stands in, whose table needs a route to an internet gateway.
    pub subnet_id: String,
    /// `eipalloc-…`.
    pub allocation_id: String,
    /// Its own interface.
    pub network_interface_id: String,
    /// Its interface's address.
    pub private_address: Ipv4Addr,
    /// The address others see.
    pub public_address: Ipv4Addr,
    /// Whether it carries traffic.
    pub state: NatGatewayState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    /// The token of the request that made it: the same request again makes no other.
    #[serde(default)]
    pub client_token: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Resource for NatGateway {
    const KIND: &'static str = "ec2/nat-gateway";
    fn key(&self) -> String {
        self.scope.key(&self.nat_gateway_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("vpc", self.vpc_id.clone())]
    }
}

/// An elastic IP address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Account and region.
    pub scope: Scope,
    /// `eipalloc-…`.
    pub allocation_id: String,
    /// From the platform's public block.
    pub public_address: Ipv4Addr,
    /// `eipassoc-…` while it is associated.
    #[serde(default)]
    pub association_id: Option<String>,
    /// The interface it is associated with.
    #[serde(default)]
    pub network_interface_id: Option<String>,
    /// User's tags.
    #[serde(default)]
    pub tags: Tags,
}

impl Resource for Address {
    const KIND: &'static str = "ec2/address";
    fn key(&self) -> String {
        self.scope.key(&self.allocation_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("public", self.public_address.to_string())]
    }
}

/// What the network of a platform was set up with. There is one, under the key `settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// Public addresses are taken from here; the first five are the platform's own.
    pub public_block: Cidr,
}

impl NetworkSettings {
    /// The key of the only one.
    pub const KEY: &'static str = "settings";
}

impl Resource for NetworkSettings {
    const KIND: &'static str = "ec2/settings";
    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}
