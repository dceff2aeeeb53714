//! Health checks: one task per target, and the verdict on each from its latest outcomes.

mod check;
mod verdict;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use domain::balancing::{
    HealthCheck, HealthState, ProtocolVersion,
    slice::{TargetGroupItem, TargetReport},
};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

pub use check::Outcome;
pub use verdict::Record;

/// A target of a target group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    /// The group's ARN.
    pub group: String,
    /// The target's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq)]
struct Settings {
    check: HealthCheck,
    version: ProtocolVersion,
    /// Whether a check begins with a PROXY header.
    proxy_protocol: bool,
}

#[derive(Debug)]
struct Watched {
    settings: Settings,
    record: Record,
    task: AbortHandle,
}

/// All targets that are checked.
#[derive(Debug)]
pub struct Checks {
    targets: HashMap<TargetKey, Watched>,
    sender: mpsc::Sender<(TargetKey, Outcome)>,
    outcomes: mpsc::Receiver<(TargetKey, Outcome)>,
}

impl Default for Checks {
    /// None yet.
    fn default() -> Self {
        let (sender, outcomes) = mpsc::channel(256);
        Self { targets: HashMap::new(), sender, outcomes }
    }
}

impl Checks {
    /// Checks exactly the targets of `groups` that do not drain. A target that stays keeps its verdict, even where the
    /// settings have changed.
    pub fn settle<'a>(&mut self, groups: impl Iterator<Item = &'a TargetGroupItem>) {
        let mut wanted: HashMap<TargetKey, Settings> = HashMap::new();
        for group in groups {
            for target in group.targets.iter().filter(|target| !target.draining) {
                let key = TargetKey { group: group.arn.clone(), address: target.address, port: target.port };
                let settings = Settings {
                    check: group.health_check.clone(),
                    version: group.protocol_version,
                    proxy_protocol: group.tcp.as_ref().is_some_and(|tcp| tcp.settings.proxy_protocol),
                };
                wanted.insert(key, settings);
            }
        }
        self.targets.retain(|key, watched| {
            let keep = wanted.contains_key(key);
            if !keep {
                watched.task.abort();
            }
            keep
        });
        for (key, settings) in wanted {
            let task = |settings: &Settings| {
                tokio::spawn(watch(key.clone(), settings.clone(), self.sender.clone())).abort_handle()
            };
            match self.targets.entry(key.clone()) {
                Entry::Occupied(mut entry) => {
                    let watched = entry.get_mut();
                    if watched.settings != settings {
                        watched.task.abort();
                        watched.task = task(&settings);
                        watched.settings = settings;
                    }
                }
                Entry::Vacant(entry) => {
                    let task = task(&settings);
                    entry.insert(Watched { settings, record: Record::default(), task });
                }
            }
        }
    }

    /// The next outcome.
    pub async fn next(&mut self) -> Option<(TargetKey, Outcome)> {
        self.outcomes.recv().await
    }

    /// Takes an outcome into account; true if the target's health is another now.
    pub fn observe(&mut self, key: &TargetKey, outcome: Outcome) -> bool {
        let Some(watched) = self.targets.get_mut(key) else { return false };
        let changed = watched.record.observe(outcome, &watched.settings.check);
        if changed {
            let health = watched.record.health();
            let reason = health.reason.as_ref().map_or("-", |reason| reason.code());
            tracing::info!(address = %key.address, port = key.port, state = health.state.as_str(), reason, "target health");
        }
        changed
    }

    /// The state of a target; one that is not checked counts as initial.
    pub fn state(&self, group: &str, address: IpAddr, port: u16) -> HealthState {
        let key = TargetKey { group: group.to_owned(), address, port };
        self.targets.get(&key).map_or(HealthState::Initial, |watched| watched.record.health().state)
    }

    /// All verdicts, in a fixed order.
    pub fn report(&self) -> Vec<TargetReport> {
        let mut keys: Vec<&TargetKey> = self.targets.keys().collect();
        keys.sort();
        keys.into_iter()
            .filter_map(|key| {
                Some(TargetReport {
                    target_group: key.group.clone(),
                    address: key.address,
                    port: key.port,
                    health: self.targets.get(key)?.record.health().clone(),
                })
            })
            .collect()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for watched in self.targets.values() {
            watched.task.abort();
        }
    }
}

/// Checks one target, at once and then once per interval.
async fn watch(key: TargetKey, settings: Settings, outcomes: mpsc::Sender<(TargetKey, Outcome)>) {
    let check = &settings.check;
    let address = SocketAddr::new(key.address, check.port.unwrap_or(key.port));
    let mut ticks = interval(Duration::from_secs(u64::from(check.interval_seconds.max(1))));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = check::check(address, check, settings.version, settings.proxy_protocol).await;
        if outcomes.send((key.clone(), outcome)).await.is_err() {
            return;
        }
    }
}
