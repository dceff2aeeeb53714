//! The kind of container instance this agent is: what it advertises, what it says of itself to its tasks, and which
//! networks they may have. How each of these networks is made is in [`crate::network`], by the task's network mode.

pub mod ec2;
pub mod external;
pub mod fargate;
pub mod machine;
pub mod spot;

use domain::ecs::container_instance::HOST_ATTRIBUTE;

use crate::identity::Offer;
use crate::logs;
use crate::network::Mode;

/// What the agent runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Fargate host: an instance of the platform's hidden cluster.
    Fargate,
    /// An EC2 instance of a user's own cluster.
    Ec2,
    /// An instance of a user's own cluster on a machine of the user's, as in ECS Anywhere.
    External,
}

impl Kind {
    /// `AWS_EXECUTION_ENV` in a task, where the control plane does not say another.
    pub fn execution_environment(self) -> &'static str {
        match self {
            Kind::Fargate => fargate::EXECUTION_ENVIRONMENT,
            Kind::Ec2 => ec2::EXECUTION_ENVIRONMENT,
            Kind::External => external::EXECUTION_ENVIRONMENT,
        }
    }

    /// Whether tasks may have this network here; else why not.
    pub fn accepts(self, mode: Mode) -> Result<(), String> {
        match (self, mode) {
            (Kind::Fargate, Mode::Awsvpc) => Ok(()),
            (Kind::Ec2, _) | (Kind::External, Mode::Bridge | Mode::Host | Mode::None) => Ok(()),
            (Kind::Fargate, other) => Err(format!("networkMode {} is not supported on Fargate", other.as_str())),
            (Kind::External, other) => {
                Err(format!("networkMode {} is not supported by an EXTERNAL instance", other.as_str()))
            }
        }
    }
}

/// Capabilities of the runtime on every kind of instance, as Amazon names them; those of the log drivers are theirs.
const CAPABILITIES: &[&str] = &[
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    "com.amazonaws.ecs.capability.docker-remote-api.1.23",
    "com.amazonaws.ecs.capability.docker-remote-api.1.24",
    "com.amazonaws.ecs.capability.docker-remote-api.1.25",
    "com.amazonaws.ecs.capability.docker-remote-api.1.29",
    "com.amazonaws.ecs.capability.docker-remote-api.1.32",
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.task-iam-role",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-port-range",
    "ecs.capability.container-restart-policy",
    "ecs.capability.ecr-endpoint",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.full-sync",
    "ecs.capability.task-cpu-mem-limit",
];

/// An offer with what every kind of instance has: the runtime's and the log drivers' capabilities, the kind's own, and
/// what the machine is. `place` is the machine and the agent's directory in it.
fn offer(capabilities: &[&str], zone: &str, place: &str) -> Offer {
    let all = CAPABILITIES.iter().chain(capabilities).chain(logs::CAPABILITIES);
    let mut attributes: Vec<(String, String)> = all.map(|name| ((*name).to_owned(), String::new())).collect();
    for (name, value) in [
        ("ecs.os-type", "linux"),
        ("ecs.os-family", "LINUX"),
        ("ecs.cpu-architecture", machine::architecture()),
        ("ecs.availability-zone", zone),
        // The place, not what is in it: this stays the same when the agent has forgotten everything.
        (HOST_ATTRIBUTE, place),
    ] {
        attributes.push((name.to_owned(), value.to_owned()));
    }
    Offer { attributes, ..Offer::default() }
}
