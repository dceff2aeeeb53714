//! What network load balancers have and application load balancers do not: they carry TCP connections and know nothing of
//! requests. Which of the two a load balancer, listener or rule is stands in its ARN (`net` or `app`).
//!
//! Mirrors <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/>.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{HealthCheck, Matcher};

/// What health checks speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthCheckProtocol {
    /// A request, whose answer's status counts.
    #[default]
    Http,
    /// The same over TLS.
    Https,
    /// A connection, which is closed as soon as it is open.
    Tcp,
}

impl HealthCheckProtocol {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tcp => "TCP",
        }
    }
}

/// What a target group of protocol TCP has besides [`super::TargetGroupAttributes`]. Having it is what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpTargetGroup {
    /// `deregistration_delay.connection_termination.enabled`: what is left when the delay is over is cut.
    pub deregistration_termination: bool,
    /// `target_health_state.unhealthy.connection_termination.enabled`: connections of unhealthy targets are cut.
    pub unhealthy_termination: bool,
    /// `proxy_protocol_v2.enabled`: connections begin with a header that tells both ends' addresses.
    pub proxy_protocol: bool,
    /// `stickiness.enabled` of type `source_ip`: a client's address decides on the target.
    pub source_ip_stickiness: bool,
    /// `preserve_client_ip.enabled`: targets see their client's address instead of a node's.
    pub preserve_client_ip: bool,
}

impl Default for TcpTargetGroup {
    fn default() -> Self {
        Self {
            deregistration_termination: false,
            unhealthy_termination: true,
            proxy_protocol: false,
            source_ip_stickiness: false,
            preserve_client_ip: false,
        }
    }
}

/// The targets that the node of one zone sends connections to, where a load balancer does not balance across zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneTargets {
    /// The node's address.
    pub node: Ipv4Addr,
    /// Targets of its zone, or of none in particular.
    pub targets: Vec<(IpAddr, u16)>,
}

/// How a process forwards connections to a target group of protocol TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpForwarding {
    /// Attributes.
    pub settings: TcpTargetGroup,
    /// Without any, every node sends connections to all targets.
    #[serde(default)]
    pub zones: Vec<ZoneTargets>,
}

/// How the targets of a new group of protocol TCP are checked.
pub fn default_health_check(protocol: HealthCheckProtocol) -> HealthCheck {
    let timeout_seconds = match protocol {
        HealthCheckProtocol::Tcp | HealthCheckProtocol::Https => 10,
        HealthCheckProtocol::Http => 6,
    };
    let matcher = Matcher::try_from("200-399".to_owned()).unwrap_or_default();
    HealthCheck { protocol, timeout_seconds, matcher, ..HealthCheck::default() }
}

/// Whether the ARN of a load balancer, a listener or a rule is one of a network load balancer.
pub fn is_network(arn: &str) -> bool {
    let path = arn.splitn(6, ':').nth(5).unwrap_or_default();
    // A Classic Load Balancer may have that name, which ends its ARN.
    path.split_once('/').is_some_and(|(_, path)| path.starts_with("net/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_tell_the_kind() {
        let arn = |path: &str| format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:{path}");
        assert!(is_network(&arn("loadbalancer/net/web/1")) && is_network(&arn("listener/net/web/1/2")));
        assert!(!is_network(&arn("loadbalancer/app/net/1")) && !is_network("listener"));
        assert!(!is_network(&arn("loadbalancer/net")), "a classic one of that name");
    }

    #[test]
    fn checks_have_amazons_defaults() {
        let check = default_health_check(HealthCheckProtocol::Tcp);
        assert_eq!((check.interval_seconds, check.timeout_seconds), (30, 10));
        assert_eq!((check.healthy_threshold, check.unhealthy_threshold), (5, 2));
        let check = default_health_check(HealthCheckProtocol::Http);
        assert_eq!((check.timeout_seconds, check.matcher.as_str()), (6, "200-399"));
    }
}
