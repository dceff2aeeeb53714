//! Load balancers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Classic, LoadBalancerAttributes, network::is_network};
use crate::{Arn, Region, Resource, Scope, Tags, Timestamp};

/// From where a load balancer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// From the VPC and from the host.
    InternetFacing,
    /// From the VPC only.
    Internal,
}

impl Scheme {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InternetFacing => "internet-facing",
            Self::Internal => "internal",
        }
    }
}

/// What DescribeLoadBalancers shows as `State`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum LoadBalancerState {
    /// Its process has not reported yet.
    Provisioning,
    /// Its process serves.
    Active,
    /// It serves, but not everywhere.
    ActiveImpaired {
        /// What is wrong.
        reason: String,
    },
}

impl LoadBalancerState {
    /// As in the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::ActiveImpaired { .. } => "active_impaired",
        }
    }
}

/// An availability zone where a load balancer has a node: a subnet and a network interface in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name, e.g. `us-east-1a`.
    pub zone_name: String,
    /// The subnet.
    pub subnet_id: String,
    /// The load balancer's interface in it.
    pub interface_id: String,
    /// The interface's private address.
    pub address: Ipv4Addr,
}

/// An application, network or classic load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// `arn:…:loadbalancer/app/{name}/{16 hex digits}`, `net` for network load balancers; `arn:…:loadbalancer/{name}` for
    /// classic ones.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// 1 to 32 letters, digits and hyphens; unique within the region, among classic ones or among the others.
    pub name: String,
    /// The name by which it is reached.
    pub dns_name: String,
    /// From where.
    pub scheme: Scheme,
    /// Its VPC.
    pub vpc_id: String,
    /// Its zones: two or more, of a network or classic load balancer one or more.
    pub zones: Vec<Zone>,
    /// Its security groups. A network load balancer without any lets everything in.
    pub security_groups: Vec<String>,
    /// Attributes.
    pub attributes: LoadBalancerAttributes,
    /// The host's own address for it, when internet-facing.
    pub host_address: Option<Ipv4Addr>,
    /// Set once by the first report of its process.
    pub state: LoadBalancerState,
    /// What only a classic one has.
    #[serde(default)]
    pub classic: Option<Classic>,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

impl LoadBalancer {
    /// The index that finds a load balancer, other than a classic one, by [`Scope::key`] of its name.
    pub const BY_NAME: &str = "name";
    /// The index that finds all of a scope but the classic ones, by [`Scope::prefix`].
    pub const BY_SCOPE: &str = "scope";
    /// The index that finds the classic ones of a scope, by [`Scope::prefix`].
    pub const CLASSIC_BY_SCOPE: &str = "classic";
    /// The index that finds the load balancer that has a host address.
    pub const BY_HOST_ADDRESS: &str = "host-address";

    /// `{name}-{id}.{region}.elb.longshore.internal`; internal ones have Amazon's prefix `internal-`.
    pub fn dns_name(name: &str, id: &str, region: &Region, scheme: Scheme) -> String {
        let prefix = if scheme == Scheme::Internal { "internal-" } else { "" };
        format!("{prefix}{name}-{id}.{region}.elb.longshore.internal").to_ascii_lowercase()
    }

    /// `{name}-{id}.elb.{region}.longshore.internal`, the form of network load balancers' names.
    pub fn network_dns_name(name: &str, id: &str, region: &Region) -> String {
        format!("{name}-{id}.elb.{region}.longshore.internal").to_ascii_lowercase()
    }

    /// Whether it carries connections instead of requests.
    pub fn is_network(&self) -> bool {
        is_network(self.arn.as_str())
    }

    /// `net` or `app`, as in its ARN.
    pub fn family(&self) -> &'static str {
        if self.is_network() { "net" } else { "app" }
    }

    /// The last part of the ARN.
    pub fn id(&self) -> &str {
        self.arn.resource_name()
    }
}

impl Resource for LoadBalancer {
    const KIND: &'static str = "elbv2/load-balancer";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = match self.classic {
            Some(_) => vec![(Self::CLASSIC_BY_SCOPE, self.scope.prefix())],
            None => vec![(Self::BY_NAME, self.scope.key(&self.name)), (Self::BY_SCOPE, self.scope.prefix())],
        };
        if let Some(address) = self.host_address {
            entries.push((Self::BY_HOST_ADDRESS, address.to_string()));
        }
        entries
    }
}
