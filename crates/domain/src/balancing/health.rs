//! Target health: the states and reasons of DescribeTargetHealth, with Amazon's words.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::TargetRegistration;
use crate::{Arn, Resource};

/// A target's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Being registered, or waiting for its first checks.
    Initial,
    /// Passed its checks.
    Healthy,
    /// Failed them.
    Unhealthy,
    /// Of a target group that no listener uses, or not registered.
    Unused,
    /// Being deregistered: gets no new requests.
    Draining,
}

impl HealthState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unused => "unused",
            Self::Draining => "draining",
        }
    }
}

/// Why a target is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code")]
pub enum HealthReason {
    /// The balancer has not picked the target up.
    RegistrationInProgress,
    /// No verdict yet.
    InitialHealthChecking,
    /// The check was answered with another status.
    ResponseCodeMismatch {
        /// The status that came.
        status: u16,
    },
    /// The check was not answered in time.
    Timeout,
    /// No connection, or a malformed answer.
    FailedHealthChecks,
    /// Not registered in this target group.
    NotRegistered,
    /// The target group is not used by a load balancer, or the zone is not enabled.
    NotInUse,
    /// Within its deregistration delay.
    DeregistrationInProgress,
    /// An EC2 instance that is stopped.
    InvalidState,
}

impl HealthReason {
    /// The reason code of the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RegistrationInProgress => "Elb.RegistrationInProgress",
            Self::InitialHealthChecking => "Elb.InitialHealthChecking",
            Self::ResponseCodeMismatch { .. } => "Target.ResponseCodeMismatch",
            Self::Timeout => "Target.Timeout",
            Self::FailedHealthChecks => "Target.FailedHealthChecks",
            Self::NotRegistered => "Target.NotRegistered",
            Self::NotInUse => "Target.NotInUse",
            Self::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Self::InvalidState => "Target.InvalidState",
        }
    }

    /// The description that Amazon gives with it.
    pub fn description(&self) -> String {
        match self {
            Self::RegistrationInProgress => "Target registration is in progress".into(),
            Self::InitialHealthChecking => "Initial health checks in progress".into(),
            Self::ResponseCodeMismatch { status } => format!("Health checks failed with these codes: [{status}]"),
            Self::Timeout => "Request timed out".into(),
            Self::FailedHealthChecks => "Health checks failed".into(),
            Self::NotRegistered => "Target is not registered to the target group".into(),
            Self::NotInUse => "Target group is not configured to receive traffic from the load balancer".into(),
            Self::DeregistrationInProgress => "Target deregistration is in progress".into(),
            Self::InvalidState => "Target is in the stopped state".into(),
        }
    }
}

/// A state with its reason; a healthy target has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetHealth {
    /// The state.
    pub state: HealthState,
    /// Why, except for healthy targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<HealthReason>,
}

impl TargetHealth {
    /// Healthy.
    pub const HEALTHY: Self = Self { state: HealthState::Healthy, reason: None };

    /// Waiting for the balancer.
    pub const REGISTERING: Self =
        Self { state: HealthState::Initial, reason: Some(HealthReason::RegistrationInProgress) };

    /// Waiting for the first verdict.
    pub const CHECKING: Self = Self { state: HealthState::Initial, reason: Some(HealthReason::InitialHealthChecking) };

    /// Being deregistered.
    pub const DRAINING: Self =
        Self { state: HealthState::Draining, reason: Some(HealthReason::DeregistrationInProgress) };

    /// In a target group without a load balancer.
    pub const NOT_IN_USE: Self = Self { state: HealthState::Unused, reason: Some(HealthReason::NotInUse) };

    /// An EC2 instance that is stopped.
    pub const STOPPED: Self = Self { state: HealthState::Unused, reason: Some(HealthReason::InvalidState) };

    /// Asked for, but not registered.
    pub const NOT_REGISTERED: Self = Self { state: HealthState::Unused, reason: Some(HealthReason::NotRegistered) };

    /// Failed its checks for `reason`.
    pub fn unhealthy(reason: HealthReason) -> Self {
        Self { state: HealthState::Unhealthy, reason: Some(reason) }
    }
}

/// A target's health as its load balancer last reported it. Volatile: kept in memory only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedHealth {
    /// The target group's ARN.
    pub target_group: Arn,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port.
    pub port: u16,
    /// What was reported.
    pub health: TargetHealth,
}

impl Resource for ObservedHealth {
    const KIND: &'static str = "elbv2/target-health";
    fn key(&self) -> String {
        TargetRegistration::key_of(&self.target_group, self.address, self.port)
    }
}
