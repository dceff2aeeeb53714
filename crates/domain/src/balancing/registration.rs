//! Registered targets: one resource each, so that a service's tasks come and go without rewriting the group.
//!
//! [`register`] and [`deregister`] are the rules, used by the API and by the reconciler of services alike.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Arn, Resource, Timestamp};

/// A target registered in a target group, until its deregistration delay is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRegistration {
    /// The target group's ARN.
    pub target_group: Arn,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port.
    pub port: u16,
    /// The EC2 instance whose address it is, in groups whose targets are instances.
    #[serde(default)]
    pub instance_id: Option<String>,
    /// The zone it was registered for; `all` for addresses outside the VPC.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// Set when it was deregistered: until then it drains, afterwards it is removed.
    #[serde(default)]
    pub draining_until: Option<Timestamp>,
}

impl TargetRegistration {
    /// The index that finds the targets of a group.
    pub const BY_TARGET_GROUP: &str = "target-group";
    /// The index that finds the draining ones; its only value is `yes`.
    pub const DRAINING: &str = "draining";
    /// The index that finds those of an EC2 instance, by its id.
    pub const BY_EC2_INSTANCE: &str = "ec2-instance";

    /// The key of a target: `{target group}/{address}/{port}`.
    pub fn key_of(target_group: &Arn, address: IpAddr, port: u16) -> String {
        format!("{target_group}/{address}/{port}")
    }
}

impl Resource for TargetRegistration {
    const KIND: &'static str = "elbv2/target";
    fn key(&self) -> String {
        Self::key_of(&self.target_group, self.address, self.port)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        let mut entries = vec![(Self::BY_TARGET_GROUP, self.target_group.to_string())];
        if self.draining_until.is_some() {
            entries.push((Self::DRAINING, "yes".into()));
        }
        entries.extend(self.instance_id.iter().map(|id| (Self::BY_EC2_INSTANCE, id.clone())));
        entries
    }
}

/// The registration that results when `target` is registered. One that already takes requests stays as it is; one that
/// drains takes requests again.
pub fn register(existing: Option<TargetRegistration>, target: TargetRegistration) -> TargetRegistration {
    match existing {
        Some(existing) if existing.draining_until.is_none() => existing,
        _ => target,
    }
}

/// What results when a registered target is deregistered: it drains for `delay`, or is gone at once when that is zero.
/// One that drains already keeps its end.
pub fn deregister(mut existing: TargetRegistration, delay: Duration, now: Timestamp) -> Option<TargetRegistration> {
    if delay.is_zero() && existing.draining_until.is_none() {
        return None;
    }
    existing.draining_until.get_or_insert(now + delay);
    Some(existing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(draining_until: Option<i64>) -> TargetRegistration {
        TargetRegistration {
            target_group: "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/1".parse().unwrap(),
            address: IpAddr::from([10, 0, 0, 1]),
            port: 80,
            instance_id: None,
            availability_zone: None,
            registered_at: Timestamp(1),
            draining_until: draining_until.map(Timestamp),
        }
    }

    #[test]
    fn registering_again_ends_a_drain_and_otherwise_changes_nothing() {
        let newer = TargetRegistration { registered_at: Timestamp(9), ..target(None) };
        assert_eq!(register(Some(target(None)), newer.clone()).registered_at, Timestamp(1));
        assert_eq!(register(Some(target(Some(5))), newer.clone()), newer);
        assert_eq!(register(None, newer.clone()), newer);
    }

    #[test]
    fn a_target_drains_for_its_delay_and_a_second_call_does_not_lengthen_it() {
        let delay = Duration::from_secs(30);
        let draining = deregister(target(None), delay, Timestamp(1000)).unwrap();
        assert_eq!(draining.draining_until, Some(Timestamp(31_000)));
        assert_eq!(deregister(draining.clone(), delay, Timestamp(9000)), Some(draining));
        assert_eq!(deregister(target(None), Duration::ZERO, Timestamp(0)), None);
    }
}
