//! A target group compiled for serving: its targets, those that get requests, and which of them is next.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use domain::balancing::{
    Algorithm, HealthState, ProtocolVersion, Stickiness,
    slice::{TargetGroupItem, TargetItem},
};

use crate::{
    choice::{Counted, Outstanding, RoundRobin},
    cookie::Key,
    slow_start::Share,
};

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// What cookies name it by; 0 where the group's sessions are not sticky.
    pub number: u64,
    /// Whether it gets requests.
    eligible: bool,
    share: Share,
    outstanding: Outstanding,
}

/// A target group.
#[derive(Debug)]
pub struct Group {
    /// Its ARN.
    pub arn: String,
    /// What cookies name it by.
    pub number: u64,
    /// What its targets speak.
    pub version: ProtocolVersion,
    /// Whether that goes over TLS.
    pub secure: bool,
    /// All its targets, draining ones too.
    pub targets: Vec<Target>,
    /// What keeps a client with a target, if anything does.
    pub stickiness: Option<Stickiness>,
    algorithm: Algorithm,
    slow_start: Duration,
    /// Indexes of those that get requests.
    eligible: Vec<usize>,
    /// Whether one of these has less than its full share.
    rising: bool,
    turn: RoundRobin,
}

impl Group {
    /// Compiles a group. `previous` lends its turn and what it knows of targets that stay.
    pub fn compile(
        item: &TargetGroupItem,
        health: &dyn Fn(&str, IpAddr, u16) -> HealthState,
        previous: Option<&Group>,
        key: &Key,
        now: Instant,
    ) -> Self {
        let slow_start = Duration::from_secs(u64::from(item.choice.slow_start_seconds));
        let stickiness = Some(&item.choice.stickiness).filter(|stickiness| stickiness.enabled);
        let known: HashMap<SocketAddr, &Target> =
            previous.into_iter().flat_map(|group| &group.targets).map(|target| (target.address, target)).collect();
        let known = |target: &TargetItem| known.get(&address(target)).copied();
        let healthy = |target: &TargetItem| {
            !target.draining && health(&item.arn, target.address, target.port) == HealthState::Healthy
        };
        let full = |target: &TargetItem| known(target).is_some_and(|known| known.share.is_full(slow_start, now));
        let others = item.targets.iter().any(|target| full(target) && healthy(target));
        let compile = |target: &TargetItem| {
            let (known, healthy, address) = (known(target), healthy(target), address(target));
            Target {
                address,
                number: stickiness
                    .map_or(0, |_| key.number(&[b"target", item.arn.as_bytes(), address.to_string().as_bytes()])),
                eligible: healthy,
                share: Share::next(known.map(|known| known.share), healthy, others, slow_start, now),
                outstanding: known.map(|known| known.outstanding.clone()).unwrap_or_default(),
            }
        };
        let mut targets: Vec<Target> = item.targets.iter().map(compile).collect();
        if !item.fail_closed && !targets.iter().any(|target| target.eligible) {
            // Fail open: without a single healthy target all of them get requests.
            for (target, item) in targets.iter_mut().zip(&item.targets) {
                target.eligible = !item.draining;
            }
        }
        let eligible = || targets.iter().enumerate().filter(|(_, target)| target.eligible);
        Self {
            arn: item.arn.clone(),
            number: key.number(&[b"group", item.arn.as_bytes()]),
            version: item.protocol_version,
            secure: item.secure,
            stickiness: stickiness.cloned(),
            algorithm: item.choice.algorithm,
            slow_start,
            rising: eligible().any(|(_, target)| matches!(target.share, Share::Rising { .. })),
            eligible: eligible().map(|(index, _)| index).collect(),
            turn: previous.map(|group| group.turn.clone()).unwrap_or_default(),
            targets,
        }
    }

    /// The index of the target that is next; none if there is none.
    pub fn choose(&self) -> Option<usize> {
        let target = |index: &usize| self.targets.get(*index);
        let chosen = match self.algorithm {
            Algorithm::LeastOutstandingRequests => self
                .turn
                .least(&self.eligible, |index| target(index).map_or(usize::MAX, |target| target.outstanding.count())),
            Algorithm::RoundRobin if self.rising => {
                let now = Instant::now();
                let weight =
                    |index: &usize| target(index).map_or(0, |target| target.share.weight(self.slow_start, now));
                self.turn.weighted(&self.eligible, weight)
            }
            Algorithm::RoundRobin => self.turn.next(&self.eligible),
        };
        chosen.copied()
    }

    /// The index of the target that a cookie names, if it gets requests.
    pub fn named(&self, number: u64) -> Option<usize> {
        self.targets.iter().position(|target| target.number == number && target.eligible)
    }

    /// Counts a request to a target, where the algorithm wants to know.
    pub fn count(&self, target: usize) -> Option<Counted> {
        match self.algorithm {
            Algorithm::LeastOutstandingRequests => self.targets.get(target).map(|target| target.outstanding.begin()),
            Algorithm::RoundRobin => None,
        }
    }
}

fn address(target: &TargetItem) -> SocketAddr {
    SocketAddr::new(target.address, target.port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::balancing::{HealthCheck, TargetChoice};
    use proptest::prelude::*;

    use super::*;

    /// A group whose targets have the ports 0, 1 and so on, these states, and drain or not.
    fn after(previous: Option<&Group>, choice: TargetChoice, states: &[(HealthState, bool)], now: Instant) -> Group {
        let target = |(index, (_, draining)): (usize, &(HealthState, bool))| TargetItem {
            address: IpAddr::from([10, 0, 0, 1]),
            port: u16::try_from(index).unwrap(),
            draining: *draining,
        };
        let item = TargetGroupItem {
            fail_closed: false,
            arn: "group".into(),
            tcp: None,
            protocol_version: ProtocolVersion::Http1,
            secure: false,
            health_check: HealthCheck::default(),
            choice,
            targets: states.iter().enumerate().map(target).collect(),
        };
        let key = Key::new(&[1; crate::cookie::SECRET]);
        Group::compile(&item, &|_, _, port| states[usize::from(port)].0, previous, &key, now)
    }

    fn group(choice: TargetChoice, states: &[(HealthState, bool)]) -> Group {
        after(None, choice, states, Instant::now())
    }

    const HEALTHY: (HealthState, bool) = (HealthState::Healthy, false);
    const UNHEALTHY: (HealthState, bool) = (HealthState::Unhealthy, false);

    fn counts(group: &Group, rounds: usize) -> Vec<usize> {
        let mut counts = vec![0; group.targets.len()];
        for _ in 0..rounds {
            counts[group.choose().unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_idle_target_is_preferred() {
        let choice = TargetChoice { algorithm: Algorithm::LeastOutstandingRequests, ..TargetChoice::default() };
        let first = group(choice.clone(), &[HEALTHY; 3]);
        let _busy = (first.count(0), first.count(0), first.count(2));
        assert_eq!(counts(&first, 30), [0, 30, 0]);
        // What is in flight is still known after a change.
        let second = after(Some(&first), choice, &[HEALTHY; 3], Instant::now());
        let _more = (second.count(1), second.count(1));
        assert_eq!(counts(&second, 30), [0, 0, 30]);
        assert!(group(TargetChoice::default(), &[HEALTHY]).count(0).is_none());
    }

    #[test]
    fn a_newcomer_starts_slowly_and_ends_with_its_full_share() {
        let choice = TargetChoice { slow_start_seconds: 900, ..TargetChoice::default() };
        let now = Instant::now();
        let alone = after(Some(&group(choice.clone(), &[UNHEALTHY])), choice.clone(), &[HEALTHY], now);
        let waiting = after(Some(&alone), choice.clone(), &[HEALTHY, UNHEALTHY], now);
        assert_eq!(counts(&waiting, 10), [10, 0]);
        let begun = after(Some(&waiting), choice.clone(), &[HEALTHY; 2], now);
        assert!(counts(&begun, 1000)[1] <= 100, "{:?}", counts(&begun, 1000));
        // 450 of 900 seconds: half a share beside a full one.
        let half = after(Some(&waiting), choice.clone(), &[HEALTHY; 2], now - Duration::from_secs(450));
        assert!(counts(&half, 900)[1].abs_diff(300) <= 30, "{:?}", counts(&half, 900));
        let grown = after(Some(&begun), choice, &[HEALTHY; 2], now + Duration::from_secs(900));
        assert_eq!(counts(&grown, 100), [50, 50]);
        // Switched off, it ends at once.
        assert_eq!(counts(&after(Some(&begun), TargetChoice::default(), &[HEALTHY; 2], now), 100), [50, 50]);
    }

    #[test]
    fn a_closed_group_gives_nothing_without_a_healthy_target() {
        let item = |state: HealthState| {
            let item = TargetGroupItem {
                arn: "group".into(),
                tcp: None,
                protocol_version: ProtocolVersion::Http1,
                health_check: HealthCheck::default(),
                choice: TargetChoice::default(),
                fail_closed: true,
                secure: false,
                targets: vec![TargetItem { address: [10, 0, 0, 1].into(), port: 80, draining: false }],
            };
            let key = Key::new(&[1; crate::cookie::SECRET]);
            Group::compile(&item, &|_, _, _| state, None, &key, Instant::now()).choose()
        };
        let chosen = [HealthState::Healthy, HealthState::Unhealthy, HealthState::Initial].map(item);
        assert_eq!(chosen, [Some(0), None, None]);
    }

    #[test]
    fn cookies_name_only_targets_that_get_requests() {
        let stickiness = Stickiness { enabled: true, ..Stickiness::default() };
        let choice = TargetChoice { stickiness, ..TargetChoice::default() };
        let group = group(choice, &[HEALTHY, UNHEALTHY, (HealthState::Healthy, true)]);
        let named: Vec<Option<usize>> = group.targets.iter().map(|target| group.named(target.number)).collect();
        assert_eq!(named, [Some(0), None, None]);
        assert_eq!(group.named(0), None);
    }

    fn state() -> impl Strategy<Value = (HealthState, bool)> {
        let states = [HealthState::Initial, HealthState::Healthy, HealthState::Unhealthy];
        (prop::sample::select(states.to_vec()), any::<bool>())
    }

    proptest! {
        #[test]
        fn requests_go_to_healthy_targets_or_to_all_that_do_not_drain(
            states in prop::collection::vec(state(), 0..8),
            least in any::<bool>(),
        ) {
            let algorithm = if least { Algorithm::LeastOutstandingRequests } else { Algorithm::RoundRobin };
            let group = group(TargetChoice { algorithm, ..TargetChoice::default() }, &states);
            let chosen: BTreeSet<usize> = (0..64).filter_map(|_| group.choose()).collect();
            let active = |index: &usize| !states[*index].1;
            let healthy: BTreeSet<usize> =
                (0..states.len()).filter(active).filter(|index| states[*index].0 == HealthState::Healthy).collect();
            let expected = if healthy.is_empty() { (0..states.len()).filter(active).collect() } else { healthy };
            prop_assert_eq!(chosen, expected);
        }
    }
}
