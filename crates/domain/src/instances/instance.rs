//! An EC2 instance. What the API asks for (`power`, `boot`) and what `host` has seen (`observed`) are different fields;
//! the state that DescribeInstances shows is computed from both.

use serde::{Deserialize, Serialize};

use crate::{Arn, Resource, Scope, Tags, Timestamp};

/// What is asked of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// To run.
    On,
    /// To be stopped; it keeps its interface and its volumes.
    Off,
    /// To be gone, for good.
    Terminated,
}

/// What `host` has seen of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// Its first process exists.
    Running,
    /// It ended by itself, or could not be booted; `host` does not boot it again under the same number.
    Ended,
    /// It was switched off: nothing of it is left on the machine but its volumes.
    Off,
}

/// What `host` has last reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Of which boot.
    pub boot: u64,
    /// What it is.
    pub machine: Machine,
    /// Why it ended, for people.
    pub reason: Option<String>,
    /// Since when.
    pub at: Timestamp,
}

/// The state as Amazon names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It is being booted.
    Pending,
    /// It runs.
    Running,
    /// It is being terminated.
    ShuttingDown,
    /// It is gone; it is shown for about an hour.
    Terminated,
    /// It is being stopped.
    Stopping,
    /// It is stopped and can be started.
    Stopped,
}

impl InstanceState {
    /// Amazon's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// Amazon's code.
    pub fn code(self) -> i32 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

/// What becomes of an instance that shuts itself down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShutdownBehavior {
    /// It is stopped.
    Stop,
    /// It is terminated.
    Terminate,
}

/// How an instance may ask for its metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// Whether a session token is asked for (IMDSv2 only).
    pub tokens_required: bool,
    /// How far the answer to the request for a token may travel: 1 to 64 hops.
    pub hop_limit: u8,
    /// Whether there are answers at all.
    pub enabled: bool,
    /// Whether the instance's tags can be read.
    pub tags: bool,
}

impl Default for MetadataOptions {
    /// Of an image made for IMDSv2, as Amazon Linux 2023's are.
    fn default() -> Self {
        Self { tokens_required: true, hop_limit: 2, enabled: true, tags: false }
    }
}

/// An instance profile that an instance has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileAssociation {
    /// `iip-assoc-…`.
    pub association_id: String,
    /// The profile's ARN.
    pub profile: Arn,
    /// The profile's id, `AIPA…`.
    pub profile_id: String,
    /// Since when.
    pub at: Timestamp,
}

/// A volume that an instance has; the volume's own record says the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDevice {
    /// E.g. `/dev/xvda`.
    pub device_name: String,
    /// `vol-…`.
    pub volume_id: String,
}

/// Why an instance is in its state, in Amazon's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    /// E.g. `Client.UserInitiatedShutdown`.
    pub code: String,
    /// E.g. `Client.UserInitiatedShutdown: User initiated shutdown`.
    pub message: String,
}

/// What makes an instance a Spot Instance: it can be interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// When it will be terminated, from the notice on.
    pub interruption: Option<Timestamp>,
}

/// An EC2 instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Account and region.
    pub scope: Scope,
    /// `i-…`.
    pub instance_id: String,
    /// `r-…`: the request that launched it.
    pub reservation_id: String,
    /// Its place among the instances of that request, from 0.
    pub launch_index: u32,
    /// `ami-…`.
    pub image_id: String,
    /// E.g. `t3.micro`.
    pub instance_type: String,
    /// The token of the request: the same request again launches no other.
    pub client_token: Option<String>,
    /// A digest of that request, which tells the same from another one with the same token.
    #[serde(default)]
    pub request_digest: Option<String>,
    /// Its VPC.
    pub vpc_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its subnet's zone.
    pub availability_zone: String,
    /// Its primary interface, `eni-…`.
    pub interface_id: String,
    /// Whether it has a public address while it is on, an elastic one aside.
    #[serde(default)]
    pub public_address: bool,
    /// Its key pair's name; nothing here takes a login by it.
    pub key_name: Option<String>,
    /// Its profile.
    pub profile: Option<ProfileAssociation>,
    /// Base64, as given.
    pub user_data: Option<String>,
    /// How it may ask for its metadata.
    pub metadata_options: MetadataOptions,
    /// What becomes of it when it shuts itself down.
    pub shutdown_behavior: ShutdownBehavior,
    /// Whether TerminateInstances is refused.
    pub disable_api_termination: bool,
    /// Whether StopInstances is refused.
    pub disable_api_stop: bool,
    /// As asked for; shown, the disk beneath is the machine's.
    #[serde(default)]
    pub ebs_optimized: bool,
    /// `/dev/xvda`.
    pub root_device_name: String,
    /// Its volumes, the root among them.
    pub block_devices: Vec<BlockDevice>,
    /// When it was last switched on.
    pub launched_at: Timestamp,
    /// What is asked of it.
    pub power: Power,
    /// How often it has been switched on or rebooted, counted from 1.
    pub boot: u64,
    /// Why it was stopped or terminated.
    pub state_reason: Option<StateReason>,
    /// When that was asked for; a terminated instance is forgotten an hour later.
    pub ended_at: Option<Timestamp>,
    /// What `host` has seen.
    pub observed: Option<Observed>,
    /// Where it is a Spot Instance.
    #[serde(default)]
    pub spot: Option<Spot>,
    /// User's tags.
    pub tags: Tags,
}

impl Instance {
    /// The index that finds an instance by its id alone.
    pub const BY_ID: &str = "id";
    /// The index that finds the instances that are terminated or on their way there; its only value is `yes`.
    pub const TERMINATED: &str = "terminated";
    /// The index that finds the Spot Instances that have their notice and are not terminated; its only value is `yes`.
    pub const INTERRUPTED: &str = "interrupted";

    /// The state that DescribeInstances shows.
    pub fn state(&self) -> InstanceState {
        let seen = self.observed.as_ref();
        let current = seen.filter(|seen| seen.boot == self.boot).map(|seen| seen.machine);
        match (self.power, current) {
            (Power::On, Some(Machine::Running)) => InstanceState::Running,
            // Only what is off is started: one seen running under an earlier number is being rebooted, and stays running.
            (Power::On, None) if seen.is_some_and(|seen| seen.machine == Machine::Running) => InstanceState::Running,
            // What ended by itself; a reconciler writes what is asked of it from now on.
            (Power::On, Some(Machine::Ended)) => match self.shutdown_behavior {
                ShutdownBehavior::Stop => InstanceState::Stopping,
                ShutdownBehavior::Terminate => InstanceState::ShuttingDown,
            },
            (Power::On, Some(Machine::Off) | None) => InstanceState::Pending,
            (Power::Off, Some(Machine::Off)) => InstanceState::Stopped,
            (Power::Off, _) => InstanceState::Stopping,
            (Power::Terminated, Some(Machine::Off)) => InstanceState::Terminated,
            (Power::Terminated, _) => InstanceState::ShuttingDown,
        }
    }

    /// Whether nothing runs on it any more, and nothing will before it is started again.
    pub fn is_off(&self) -> bool {
        let ended = |seen: &Observed| seen.boot == self.boot && seen.machine != Machine::Running;
        self.observed.as_ref().is_some_and(ended) && self.state() != InstanceState::Pending
    }

    /// Whether `host` must know of it: it is on, or not yet known to be off.
    pub fn is_on_host(&self) -> bool {
        !matches!(self.state(), InstanceState::Stopped | InstanceState::Terminated)
    }
}

impl Resource for Instance {
    const KIND: &'static str = "ec2/instance";
    fn key(&self) -> String {
        self.scope.key(&self.instance_id)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![
            ("reservation", self.reservation_id.clone()),
            ("interface", self.interface_id.clone()),
            (Self::BY_ID, self.instance_id.clone()),
        ];
        entries.extend(self.client_token.iter().map(|token| ("client-token", token.clone())));
        if self.power == Power::Terminated {
            entries.push((Self::TERMINATED, "yes".to_owned()));
        } else if self.spot.as_ref().is_some_and(|spot| spot.interruption.is_some()) {
            entries.push((Self::INTERRUPTED, "yes".to_owned()));
        }
        entries.extend(self.profile.iter().map(|profile| ("profile", profile.profile.to_string())));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(power: Power, boot: u64, observed: Option<(u64, Machine)>) -> Instance {
        Instance {
            scope: Scope { account: "000000000000".parse().unwrap(), region: "us-east-1".parse().unwrap() },
            instance_id: "i-1".into(),
            reservation_id: "r-1".into(),
            launch_index: 0,
            image_id: "ami-1".into(),
            instance_type: "t3.micro".into(),
            client_token: None,
            request_digest: None,
            public_address: false,
            ebs_optimized: false,
            vpc_id: "vpc-1".into(),
            subnet_id: "subnet-1".into(),
            availability_zone: "us-east-1a".into(),
            interface_id: "eni-1".into(),
            key_name: None,
            profile: None,
            user_data: None,
            metadata_options: MetadataOptions::default(),
            shutdown_behavior: ShutdownBehavior::Stop,
            disable_api_termination: false,
            disable_api_stop: false,
            root_device_name: "/dev/xvda".into(),
            block_devices: vec![],
            launched_at: Timestamp(0),
            power,
            boot,
            state_reason: None,
            ended_at: None,
            observed: observed.map(|(boot, machine)| Observed { boot, machine, reason: None, at: Timestamp(0) }),
            spot: None,
            tags: Tags::default(),
        }
    }

    #[test]
    fn the_state_follows_from_what_is_asked_and_what_is_seen() {
        for (power, boot, observed, state) in [
            (Power::On, 1, None, InstanceState::Pending),
            (Power::On, 1, Some((1, Machine::Running)), InstanceState::Running),
            (Power::On, 2, Some((1, Machine::Running)), InstanceState::Running),
            (Power::On, 2, Some((1, Machine::Off)), InstanceState::Pending),
            (Power::On, 1, Some((1, Machine::Ended)), InstanceState::Stopping),
            (Power::Off, 1, Some((1, Machine::Running)), InstanceState::Stopping),
            (Power::Off, 1, Some((1, Machine::Ended)), InstanceState::Stopping),
            (Power::Off, 1, Some((1, Machine::Off)), InstanceState::Stopped),
            (Power::Off, 1, None, InstanceState::Stopping),
            (Power::Terminated, 3, Some((3, Machine::Running)), InstanceState::ShuttingDown),
            (Power::Terminated, 3, Some((3, Machine::Off)), InstanceState::Terminated),
        ] {
            assert_eq!(instance(power, boot, observed).state(), state, "{power:?} {boot} {observed:?}");
        }
        assert!(!instance(Power::Off, 1, Some((1, Machine::Off))).is_on_host());
        for (power, boot, observed, off) in [
            (Power::On, 1, Some((1, Machine::Ended)), true),
            (Power::Off, 1, Some((1, Machine::Off)), true),
            (Power::Off, 1, Some((1, Machine::Running)), false),
            (Power::On, 2, Some((1, Machine::Ended)), false),
            (Power::On, 1, None, false),
        ] {
            assert_eq!(instance(power, boot, observed).is_off(), off, "{power:?} {boot} {observed:?}");
        }
        assert!(instance(Power::Terminated, 1, Some((1, Machine::Running))).is_on_host());
    }
}
