//! Target groups: where requests can go and how the targets' health is checked.

use serde::{Deserialize, Serialize};

use super::{HealthCheckProtocol, TargetGroupAttributes, TcpTargetGroup};
use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// What a target is named by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// An address of the VPC.
    #[default]
    Ip,
    /// An EC2 instance of the VPC, by its id.
    Instance,
}

impl TargetType {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Instance => "instance",
        }
    }
}

/// What is spoken to the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtocolVersion {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "HTTP1")]
    Http1,
    /// HTTP/2 with prior knowledge.
    #[serde(rename = "HTTP2")]
    Http2,
}

impl ProtocolVersion {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP1",
            Self::Http2 => "HTTP2",
        }
    }
}

/// Status codes that make a health check pass: `200`, `200,202` or `200-299`, within 200 to 499.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Matcher {
    text: String,
    ranges: Vec<(u16, u16)>,
}

/// The text is no list of status codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Health check matcher HTTP code '{0}' must be within '200-499' inclusive")]
pub struct MatcherError(String);

impl Matcher {
    /// Whether a check answered with `status` passes.
    pub fn matches(&self, status: u16) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&status))
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Default for Matcher {
    fn default() -> Self {
        Self { text: "200".into(), ranges: vec![(200, 200)] }
    }
}

impl TryFrom<String> for Matcher {
    type Error = MatcherError;
    fn try_from(text: String) -> Result<Self, MatcherError> {
        let code = |part: &str| -> Option<u16> {
            let part = part.trim();
            let digits = part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|code| digits && (200..=499).contains(code))
        };
        let ranges: Option<Vec<(u16, u16)>> = text
            .split(',')
            .map(|part| match part.split_once('-') {
                Some((low, high)) => Some((code(low)?, code(high)?)).filter(|(low, high)| low <= high),
                None => code(part).map(|code| (code, code)),
            })
            .collect();
        match ranges {
            Some(ranges) if text.len() <= 256 => Ok(Self { text, ranges }),
            _ => Err(MatcherError(text.chars().take(64).collect())),
        }
    }
}

impl From<Matcher> for String {
    fn from(matcher: Matcher) -> String {
        matcher.text
    }
}

/// How the health of a group's targets is checked. Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is spoken.
    #[serde(default)]
    pub protocol: HealthCheckProtocol,
    /// A fixed port, or none for the port on which the target gets its traffic (`traffic-port`).
    #[serde(default)]
    pub port: Option<u16>,
    /// Path and query.
    pub path: String,
    /// 5 to 300.
    pub interval_seconds: u32,
    /// 2 to 120, below the interval.
    pub timeout_seconds: u32,
    /// 2 to 10 successes make an unhealthy target healthy.
    pub healthy_threshold: u32,
    /// 2 to 10 failures make a healthy target unhealthy.
    pub unhealthy_threshold: u32,
    /// Status codes that pass.
    pub matcher: Matcher,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            protocol: HealthCheckProtocol::Http,
            port: None,
            path: "/".into(),
            interval_seconds: 30,
            timeout_seconds: 5,
            healthy_threshold: 5,
            unhealthy_threshold: 2,
            matcher: Matcher::default(),
        }
    }
}

/// A target group. Its targets are resources of their own ([`super::TargetRegistration`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetGroup {
    /// `arn:…:targetgroup/{name}/{16 hex digits}`; for the instances of a Classic Load Balancer its own ARN.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// 1 to 32 letters, digits and hyphens; unique within the region.
    pub name: String,
    /// What a target is.
    pub target_type: TargetType,
    /// What is spoken to the targets, where it is HTTP.
    pub protocol_version: ProtocolVersion,
    /// Of protocol HTTPS: what is spoken goes over TLS.
    #[serde(default)]
    pub secure: bool,
    /// The port of targets registered without one.
    pub port: u16,
    /// The VPC of the targets.
    pub vpc_id: String,
    /// How health is checked.
    pub health_check: HealthCheck,
    /// Attributes.
    pub attributes: TargetGroupAttributes,
    /// Of protocol TCP, for network load balancers; without it of protocol HTTP or HTTPS.
    #[serde(default)]
    pub tcp: Option<TcpTargetGroup>,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

impl TargetGroup {
    /// The index that finds a target group by [`Scope::key`] of its name.
    pub const BY_NAME: &str = "name";
    /// The index that finds all of a scope, by [`Scope::prefix`].
    pub const BY_SCOPE: &str = "scope";
}

impl Resource for TargetGroup {
    const KIND: &'static str = "elbv2/target-group";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        // The instances of a Classic Load Balancer are no target group that anybody sees.
        if super::classic::is_classic(&self.arn) {
            return Vec::new();
        }
        vec![(Self::BY_NAME, self.scope.key(&self.name)), (Self::BY_SCOPE, self.scope.prefix())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_take_codes_lists_and_ranges() {
        let check = |text: &str, status: u16| Matcher::try_from(text.to_owned()).unwrap().matches(status);
        assert!(check("200", 200) && !check("200", 201));
        assert!(check("200,302", 302) && !check("200,302", 301));
        assert!(check("200-299", 250) && !check("200-299", 300));
        assert!(check("200-204,404", 404));
        for wrong in ["", "abc", "199", "500", "200-", "-200", "299-200", "200,,201", "0200", "2e2"] {
            assert!(Matcher::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
