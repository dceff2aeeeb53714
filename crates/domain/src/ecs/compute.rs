//! What tasks run on, and where: launch type or capacity provider, platform version, placement constraints and strategy.
//! RunTask and services choose them once; deployments keep them, and every task is made with them.

use serde::{Deserialize, Serialize};

use super::fargate;

/// What kind of host runs a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LaunchType {
    /// A container instance of the cluster that is an EC2 instance.
    Ec2,
    /// A host of the platform's own.
    #[default]
    Fargate,
    /// A container instance of the cluster that is a machine outside EC2.
    External,
}

impl LaunchType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ec2, Self::Fargate, Self::External];

    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ec2 => "EC2",
            Self::Fargate => "FARGATE",
            Self::External => "EXTERNAL",
        }
    }

    /// From the API.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The only item of a capacity provider strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityProviderChoice {
    /// `FARGATE`.
    pub name: String,
    /// As given.
    pub weight: u32,
    /// As given.
    pub base: u32,
}

/// What tasks run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Unless a capacity provider strategy was given.
    #[serde(default)]
    pub launch_type: Option<LaunchType>,
    /// In place of a launch type.
    #[serde(default)]
    pub capacity_provider: Option<CapacityProviderChoice>,
    /// E.g. `1.4.0`; of Fargate only.
    #[serde(default)]
    pub platform_version: Option<String>,
}

impl Compute {
    /// By launch type.
    pub fn by_launch_type(launch_type: LaunchType) -> Self {
        let platform_version = (launch_type == LaunchType::Fargate).then(|| fargate::PLATFORM_VERSION.to_owned());
        Self { launch_type: Some(launch_type), capacity_provider: None, platform_version }
    }

    /// By a capacity provider of Fargate.
    pub fn by_fargate_provider(choice: CapacityProviderChoice) -> Self {
        let platform_version = Some(fargate::PLATFORM_VERSION.to_owned());
        Self { launch_type: None, capacity_provider: Some(choice), platform_version }
    }

    /// What kind of host it comes to: all capacity providers so far are Fargate's.
    pub fn host_kind(&self) -> LaunchType {
        self.launch_type.unwrap_or(LaunchType::Fargate)
    }

    /// Whether it is Fargate, by launch type or by capacity provider.
    pub fn is_fargate(&self) -> bool {
        self.host_kind() == LaunchType::Fargate
    }
}

/// What must hold of the container instance that gets a task.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlacementConstraint {
    /// No other task of the same group on it.
    DistinctInstance,
    /// An expression of the cluster query language that selects it.
    MemberOf(String),
}

/// What is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BinpackField {
    /// CPU units.
    Cpu,
    /// MiB.
    Memory,
}

impl BinpackField {
    /// As responses have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "MEMORY",
        }
    }
}

/// Which of the container instances that may have a task is preferred.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlacementStrategy {
    /// Any.
    Random,
    /// The one with the least left: as few instances as possible are used.
    Binpack(BinpackField),
    /// One where the fewest tasks of the same group are: `instanceId`, or an attribute's name such as
    /// `attribute:ecs.availability-zone`.
    Spread(String),
}

/// Where in a cluster tasks are placed. Says nothing about Fargate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    #[serde(default)]
    pub constraints: Vec<PlacementConstraint>,
    /// Each decides between those that the ones before it leave equal.
    #[serde(default)]
    pub strategy: Vec<PlacementStrategy>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_provider_stands_for_its_launch_type() {
        let choice = CapacityProviderChoice { name: "FARGATE".into(), weight: 1, base: 0 };
        assert!(Compute::by_fargate_provider(choice).is_fargate());
        assert!(Compute::by_launch_type(LaunchType::Fargate).is_fargate());
        let ec2 = Compute::by_launch_type(LaunchType::Ec2);
        assert_eq!((ec2.is_fargate(), ec2.platform_version), (false, None));
    }

    #[test]
    fn launch_types_are_written_as_in_the_api() {
        for text in ["EC2", "FARGATE", "EXTERNAL"] {
            let parsed = LaunchType::parse(text).unwrap();
            assert_eq!(parsed.as_str(), text);
            assert_eq!(serde_json::to_string(&parsed).unwrap(), format!("\"{text}\""));
        }
        assert_eq!(LaunchType::parse("ec2"), None);
    }
}
