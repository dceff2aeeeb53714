//! The attributes of load balancers and target groups that this platform acts on, with Amazon's defaults and ranges.
//! Others are known by name only: `services::elbv2` shows their fixed value and refuses any other.

use serde::{Deserialize, Serialize};

use super::TargetChoice;

/// What happens to X-Forwarded-For.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XffMode {
    /// The peer's address is added.
    #[default]
    Append,
    /// What came is kept as it is.
    Preserve,
    /// It is removed.
    Remove,
}

/// Attributes of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerAttributes {
    /// `deletion_protection.enabled`.
    pub deletion_protection: bool,
    /// `idle_timeout.timeout_seconds`, 1 to 4000.
    pub idle_timeout_seconds: u32,
    /// `load_balancing.cross_zone.enabled`, which only network load balancers can be without.
    pub cross_zone: bool,
    /// `client_keep_alive.seconds`, 60 to 604800.
    pub client_keep_alive_seconds: u32,
    /// `routing.http2.enabled`.
    pub http2: bool,
    /// `routing.http.drop_invalid_header_fields.enabled`.
    pub drop_invalid_header_fields: bool,
    /// `routing.http.preserve_host_header.enabled`.
    pub preserve_host_header: bool,
    /// `routing.http.xff_client_port.enabled`.
    pub xff_client_port: bool,
    /// `routing.http.xff_header_processing.mode`.
    pub xff_mode: XffMode,
}

impl Default for LoadBalancerAttributes {
    fn default() -> Self {
        Self {
            deletion_protection: false,
            idle_timeout_seconds: 60,
            cross_zone: true,
            client_keep_alive_seconds: 3600,
            http2: true,
            drop_invalid_header_fields: false,
            preserve_host_header: false,
            xff_client_port: false,
            xff_mode: XffMode::Append,
        }
    }
}

/// Attributes of a target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetGroupAttributes {
    /// `deregistration_delay.timeout_seconds`, 0 to 3600.
    pub deregistration_delay_seconds: u32,
    /// `load_balancing.algorithm.type`, `slow_start` and `stickiness`.
    pub choice: TargetChoice,
}

impl Default for TargetGroupAttributes {
    fn default() -> Self {
        Self { deregistration_delay_seconds: 300, choice: TargetChoice::default() }
    }
}
