//! What a load balancer's process follows through the feed, and what it reports back. Everything it needs to serve on
//! its own while the control plane is down.
//!
//! Keys: `load-balancer`, `listener/<arn>`, `target-group/<arn>`, `certificate/<arn>`. The report's key is `status`.

use std::net::{IpAddr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use super::{
    Action, Condition, HealthCheck, LoadBalancerAttributes, ProtocolVersion, TargetChoice, TargetHealth,
    network::TcpForwarding,
};
use crate::{Timestamp, certificates::Material};

/// The key of [`SliceItem::LoadBalancer`].
pub const LOAD_BALANCER_KEY: &str = "load-balancer";

/// The key of [`BalancerReport`].
pub const REPORT_KEY: &str = "status";

/// The feed's consumer name of a load balancer's process.
pub fn consumer(load_balancer: &str) -> String {
    format!("balancer/{load_balancer}")
}

/// One item of the slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SliceItem {
    /// The load balancer itself: exactly one.
    LoadBalancer(LoadBalancerItem),
    /// One per listener.
    Listener(ListenerItem),
    /// One per target group that some rule forwards to.
    TargetGroup(TargetGroupItem),
    /// One per certificate that some listener uses.
    Certificate(CertificateItem),
}

impl SliceItem {
    /// The item's key in the feed.
    pub fn key(&self) -> String {
        match self {
            Self::LoadBalancer(_) => LOAD_BALANCER_KEY.into(),
            Self::Listener(item) => format!("listener/{}", item.arn),
            Self::TargetGroup(item) => format!("target-group/{}", item.arn),
            Self::Certificate(item) => format!("certificate/{}", item.arn),
        }
    }
}

/// The load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerItem {
    /// Its ARN.
    pub arn: String,
    /// What the attributes say.
    pub attributes: LoadBalancerAttributes,
}

/// An address where `host` opens sockets for the process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListeningPlace {
    /// `host` or an interface id.
    pub place: String,
    /// The IPv4 address there.
    pub address: std::net::Ipv4Addr,
}

/// A listener with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerItem {
    /// Its ARN.
    pub arn: String,
    /// 1 to 65535.
    pub port: u16,
    /// Addresses outside the process's own network namespace where it must listen, too: the host's address of an
    /// internet-facing load balancer (`place` is `host`) and its other network interfaces (`place` is their id).
    #[serde(default)]
    pub places: Vec<ListeningPlace>,
    /// Of protocol HTTPS if there.
    #[serde(default)]
    pub tls: Option<TlsItem>,
    /// In the order of their priorities, without the default.
    pub rules: Vec<RuleItem>,
    /// What happens where no rule matches.
    pub default_action: Action,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsItem {
    /// The security policy's name.
    pub ssl_policy: String,
    /// The ARNs of its certificates, the default one first.
    pub certificates: Vec<String>,
}

/// A certificate with its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateItem {
    /// Its ARN.
    pub arn: String,
    /// The hosts it is for, in lower case; `*.` may stand for the first label.
    pub names: Vec<String>,
    /// When it expires.
    pub not_after: Timestamp,
    /// Itself, those that certify it, and its key.
    pub material: Material,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleItem {
    /// Its ARN.
    pub arn: String,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What to do then.
    pub action: Action,
}

/// A target group with its targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetGroupItem {
    /// Its ARN.
    pub arn: String,
    /// What is spoken to the targets.
    pub protocol_version: ProtocolVersion,
    /// Whether that goes over TLS.
    #[serde(default)]
    pub secure: bool,
    /// How connections are forwarded, if it is of protocol TCP.
    #[serde(default)]
    pub tcp: Option<TcpForwarding>,
    /// How their health is checked.
    pub health_check: HealthCheck,
    /// How one of them is chosen.
    #[serde(default)]
    pub choice: TargetChoice,
    /// Without a single healthy target nobody gets anything, as from a Classic Load Balancer; otherwise all of them do.
    #[serde(default)]
    pub fail_closed: bool,
    /// Registered and draining ones. A target that goes away here has its connections cut.
    pub targets: Vec<TargetItem>,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TargetItem {
    /// Its address within the VPC.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Within its deregistration delay: no new requests, running ones finish.
    #[serde(default)]
    pub draining: bool,
}

/// What the process tells: always the whole state, newest wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerReport {
    /// Ports on which every socket that was asked for is open.
    pub listening: Vec<u16>,
    /// Sockets that could not be opened.
    pub refused: Vec<RefusedSocket>,
    /// The verdict on each target that is checked.
    pub targets: Vec<TargetReport>,
}

/// A socket that could not be opened; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSocket {
    /// `own`, `host` or an interface id.
    pub place: String,
    /// Where.
    pub address: SocketAddrV4,
    /// What was wrong.
    pub reason: String,
    /// Nobody has decided on it: `host` could not be asked yet.
    #[serde(default)]
    pub pending: bool,
}

/// One target's health as this load balancer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The target group's ARN.
    pub target_group: String,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port.
    pub port: u16,
    /// The verdict.
    pub health: TargetHealth,
}
