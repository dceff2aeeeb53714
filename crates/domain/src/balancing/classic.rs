//! What Classic Load Balancers have and their successors do not: listeners that each name a port of the instances, one health
//! check for all of them, and instances in place of target groups.
//!
//! A Classic Load Balancer is a [`super::LoadBalancer`] with a [`Classic`] in it. Its instances are registered in a
//! [`super::TargetGroup`] that has the load balancer's own ARN and is shown to nobody, at port 0; for its process each listener's
//! port of them becomes a target group. Mirrors <https://docs.aws.amazon.com/elasticloadbalancing/latest/classic/>.

use serde::{Deserialize, Serialize};

use crate::{Arn, Scope};

/// What a listener speaks, and what it speaks to the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClassicProtocol {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

impl ClassicProtocol {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tcp => "TCP",
        }
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassicListener {
    /// 1 to 65535, unique within the load balancer.
    pub port: u16,
    /// What is spoken on both sides: the protocols that are served are of one layer only when they are the same.
    pub protocol: ClassicProtocol,
    /// The port of the instances.
    pub instance_port: u16,
}

/// What makes a load balancer a classic one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classic {
    /// Its listeners, by their ports.
    pub listeners: Vec<ClassicListener>,
    /// `ConnectionDraining.Timeout`, which counts where draining is enabled.
    pub draining_timeout_seconds: u32,
}

/// The only port at which an instance is registered: listeners say which it is.
pub const ANY_PORT: u16 = 0;

/// The ARN of a Classic Load Balancer.
pub fn arn(scope: &Scope, name: &str) -> Arn {
    scope.arn("elasticloadbalancing", &format!("loadbalancer/{name}"))
}

/// Whether an ARN is that of a Classic Load Balancer, or of the group of its instances, which is the same.
pub fn is_classic(arn: &Arn) -> bool {
    let name = arn.resource_path();
    arn.service() == "elasticloadbalancing" && arn.resource_type() == "loadbalancer" && !name.contains('/')
}

/// What the process knows the instances' port of a listener by.
pub fn process_group(load_balancer: &Arn, listener: &ClassicListener) -> String {
    format!("{load_balancer}/{}/{}", listener.protocol.as_str(), listener.instance_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_tell_the_kind() {
        let is = |path: &str| {
            is_classic(&format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:{path}").parse().unwrap())
        };
        assert!(is("loadbalancer/web"));
        assert!(!is("loadbalancer/app/web/0123456789abcdef") && !is("targetgroup/web/0123456789abcdef"));
    }
}
