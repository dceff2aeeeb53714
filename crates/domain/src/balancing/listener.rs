//! Listeners and their rules.

use serde::{Deserialize, Serialize};

use super::{Action, Condition};
use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// How a listener of protocol HTTPS speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// The security policy's name.
    pub ssl_policy: String,
    /// The ARN of the certificate for clients that name no host, or none that another certificate is for.
    pub default_certificate: String,
    /// The ARNs of the certificates in the listener's list, in the order they were added. The default one may be there too.
    pub certificates: Vec<String>,
}

/// A listener of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// `arn:…:listener/app/{name}/{load balancer id}/{16 hex digits}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// The load balancer's ARN.
    pub load_balancer: Arn,
    /// 1 to 65535, unique within the load balancer.
    pub port: u16,
    /// Of protocol HTTPS if there.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// What happens where no rule matches.
    pub default_action: Action,
    /// The ARN of the default rule, which exists with the listener.
    pub default_rule: Arn,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Listener {
    /// The index that finds the listeners of a load balancer.
    pub const BY_LOAD_BALANCER: &str = "load-balancer";
    /// The index that finds the listeners that forward to a target group by default.
    pub const BY_TARGET_GROUP: &str = "target-group";
    /// The index that finds the listeners that use a certificate.
    pub const BY_CERTIFICATE: &str = "certificate";

    /// The ARNs of its certificates, each once, the default one first.
    pub fn certificates(&self) -> Vec<&str> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let others = tls.certificates.iter().filter(|arn| **arn != tls.default_certificate);
        std::iter::once(&tls.default_certificate).chain(others).map(String::as_str).collect()
    }
}

impl Resource for Listener {
    const KIND: &'static str = "elbv2/listener";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let groups = self.default_action.target_groups().map(|group| (Self::BY_TARGET_GROUP, group.to_owned()));
        let certificates = self.certificates().into_iter().map(|arn| (Self::BY_CERTIFICATE, arn.to_owned()));
        std::iter::once((Self::BY_LOAD_BALANCER, self.load_balancer.to_string()))
            .chain(groups)
            .chain(certificates)
            .collect()
    }
}

/// A rule of a listener, other than its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `arn:…:listener-rule/app/{name}/{load balancer id}/{listener id}/{16 hex digits}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// The listener's ARN.
    pub listener: Arn,
    /// 1 to 50000, unique within the listener; lowest first.
    pub priority: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
    /// Tags.
    pub tags: Tags,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Rule {
    /// The index that finds the rules of a listener.
    pub const BY_LISTENER: &str = "listener";
    /// The index that finds the rules that forward to a target group.
    pub const BY_TARGET_GROUP: &str = "target-group";
}

impl Resource for Rule {
    const KIND: &'static str = "elbv2/rule";
    fn key(&self) -> String {
        self.arn.to_string()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let groups = self.action.target_groups().map(|group| (Self::BY_TARGET_GROUP, group.to_owned()));
        std::iter::once((Self::BY_LISTENER, self.listener.to_string())).chain(groups).collect()
    }
}
