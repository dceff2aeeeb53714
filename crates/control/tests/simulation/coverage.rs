//! What has happened in all seeds together, so that a property that nothing ever tried does not look kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
};

use control::{Step, TaskStep};
use domain::ecs::{RolloutState, Service, Task, TaskStatus};
use store::Snapshot;

/// What can go wrong, and what users do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    AgentLost,
    AgentBack,
    MessageLost,
    MessageTwice,
    MessageOvertaken,
    MachineTerminated,
    MachineDeregistered,
    MachineRebooted,
    InstanceDrained,
    InstanceActive,
    StartFailed,
    ContainerExited,
    HealthCheckFailed,
    TargetUnhealthy,
    CrashBetweenCommits,
    CrashWithPlans,
    OvertakenPlan,
    DesiredChanged,
    ScaledToZero,
    ForcedDeployment,
    NewDefinition,
    NewDefinitionMidDeployment,
    BadDeployment,
    DeploymentStopped,
    ServiceDeleted,
    TaskStopped,
    TasksProtected,
    TagMoved,
}

impl Fault {
    /// All of them: each must have happened.
    pub const ALL: [Self; 28] = [
        Self::AgentLost,
        Self::AgentBack,
        Self::MessageLost,
        Self::MessageTwice,
        Self::MessageOvertaken,
        Self::MachineTerminated,
        Self::MachineDeregistered,
        Self::MachineRebooted,
        Self::InstanceDrained,
        Self::InstanceActive,
        Self::StartFailed,
        Self::ContainerExited,
        Self::HealthCheckFailed,
        Self::TargetUnhealthy,
        Self::CrashBetweenCommits,
        Self::CrashWithPlans,
        Self::OvertakenPlan,
        Self::DesiredChanged,
        Self::ScaledToZero,
        Self::ForcedDeployment,
        Self::NewDefinition,
        Self::NewDefinitionMidDeployment,
        Self::BadDeployment,
        Self::DeploymentStopped,
        Self::ServiceDeleted,
        Self::TaskStopped,
        Self::TasksProtected,
        Self::TagMoved,
    ];

    /// Whether it goes wrong by itself, and is not what a user wants.
    pub fn is_mishap(self) -> bool {
        !matches!(
            self,
            Self::DesiredChanged
                | Self::ScaledToZero
                | Self::ForcedDeployment
                | Self::NewDefinition
                | Self::NewDefinitionMidDeployment
                | Self::DeploymentStopped
                | Self::ServiceDeleted
                | Self::TaskStopped
                | Self::TasksProtected
                | Self::TagMoved
        )
    }
}

/// Of tasks: from which status to which.
const TRANSITIONS: [(TaskStatus, TaskStatus); 16] = {
    use TaskStatus::*;
    [
        (Provisioning, Pending),
        (Provisioning, Stopping),
        (Provisioning, Deprovisioning),
        (Pending, Activating),
        (Pending, Running),
        (Pending, Stopping),
        (Pending, Deprovisioning),
        (Activating, Running),
        (Activating, Deactivating),
        (Running, Deactivating),
        (Running, Stopping),
        (Running, Deprovisioning),
        (Deactivating, Stopping),
        (Deactivating, Deprovisioning),
        (Stopping, Deprovisioning),
        (Deprovisioning, Stopped),
    ]
};

/// Of deployments: from which rollout state to which.
const ROLLOUTS: [(RolloutState, RolloutState); 3] = [
    (RolloutState::InProgress, RolloutState::Completed),
    (RolloutState::InProgress, RolloutState::Failed),
    (RolloutState::Completed, RolloutState::InProgress),
];

/// Why placement refused, in the words of failures; the last one is Fargate's.
const REFUSALS: [&str; 7] = [
    "AGENT",
    "RESOURCE:CPU",
    "RESOURCE:MEMORY",
    "RESOURCE:PORTS",
    "DistinctInstance placement constraint unsatisfied.",
    "MemberOf placement constraint unsatisfied.",
    "fargate: no host has enough free memory",
];

/// What reconcilers decide.
const DECISIONS: [&str; 22] = [
    "task: Activate",
    "task: Drain",
    "task: Deactivate",
    "task: Deprovision",
    "task: Lose",
    "task: GiveUp",
    "task: Forget",
    "service: start",
    "service: start on",
    "service: stop",
    "service: replace what failed its checks",
    "service: desired",
    "service: images",
    "service: retire",
    "service: complete",
    "service: fail",
    "service: proved",
    "service: steady",
    "service: not steady",
    "service: blocked",
    "service: deactivate",
    "dropped, or without effect",
];

/// What a seed covers at least.
pub const LEAST: [(Size, u64); 5] =
    [(Size::Services, 3), (Size::Instances, 20), (Size::Tasks, 100), (Size::Deployments, 2), (Size::Mishaps, 5)];

/// How large a seed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    Services,
    Instances,
    Tasks,
    /// Beyond the first one of each service.
    Deployments,
    Mishaps,
    Commits,
}

/// Counts of one seed, or of many.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    pub seeds: u64,
    sizes: BTreeMap<Size, u64>,
    faults: BTreeMap<Fault, u64>,
    transitions: BTreeMap<(TaskStatus, TaskStatus), u64>,
    rollouts: BTreeMap<(&'static str, &'static str), u64>,
    decisions: BTreeMap<&'static str, u64>,
    refusals: BTreeMap<String, u64>,
}

impl Coverage {
    /// Of a seed at its beginning.
    pub fn of_one() -> Self {
        Self { seeds: 1, ..Self::default() }
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.add(Size::Mishaps, u64::from(fault.is_mishap()));
    }

    pub fn add(&mut self, size: Size, count: u64) {
        *self.sizes.entry(size).or_default() += count;
    }

    pub fn size(&self, size: Size) -> u64 {
        self.sizes.get(&size).copied().unwrap_or_default()
    }

    /// Counts what a step is to do, and whether it did anything.
    pub fn decided(&mut self, step: &Step, before: &Snapshot, after: &Snapshot) {
        let mut add = |decision: &'static str, holds: bool| {
            if holds {
                *self.decisions.entry(decision).or_default() += 1;
            }
        };
        let changed = after.changes_since::<Task>(before).next().is_some()
            || after.changes_since::<Service>(before).next().is_some();
        add("dropped, or without effect", !changed);
        match step {
            Step::Task { step, .. } => {
                let name = match step {
                    TaskStep::Activate => "task: Activate",
                    TaskStep::Drain => "task: Drain",
                    TaskStep::Deactivate => "task: Deactivate",
                    TaskStep::Deprovision => "task: Deprovision",
                    TaskStep::Lose => "task: Lose",
                    TaskStep::GiveUp => "task: GiveUp",
                    TaskStep::Forget => "task: Forget",
                };
                add(name, true);
            }
            Step::Service(plan) => {
                add("service: start", plan.start > 0);
                add("service: start on", !plan.start_on.is_empty());
                add("service: stop", plan.stop.iter().any(|stop| stop.event.is_none()));
                add("service: replace what failed its checks", plan.stop.iter().any(|stop| stop.event.is_some()));
                add("service: desired", plan.desired.is_some());
                add("service: images", !plan.images.is_empty());
                add("service: retire", !plan.retire.is_empty());
                add("service: complete", plan.complete);
                add("service: fail", plan.fail);
                add("service: proved", plan.proved);
                add("service: recovered", plan.recovered);
                add("service: steady", plan.steady == Some(true));
                add("service: not steady", plan.steady == Some(false));
                add("service: blocked", plan.blocked == Some(true));
                add("service: deactivate", plan.deactivate);
            }
        }
    }

    pub fn refused(&mut self, reason: &str) {
        *self.refusals.entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts what is different between two views.
    pub fn changes(&mut self, before: &Snapshot, after: &Snapshot) {
        for (old, new) in after.changes_since::<Task>(before) {
            match (old, new) {
                (Some(old), Some(new)) if old.last_status != new.last_status => {
                    *self.transitions.entry((old.last_status, new.last_status)).or_default() += 1;
                }
                (None, Some(_)) => self.add(Size::Tasks, 1),
                _ => {}
            }
        }
        for (old, new) in after.changes_since::<Service>(before) {
            let (Some(old), Some(new)) = (old, new) else { continue };
            for known in &old.deployments {
                let now = new.deployments.iter().find(|now| now.id == known.id);
                if let Some(now) = now.filter(|now| now.rollout_state != known.rollout_state) {
                    let pair = (known.rollout_state.as_str(), now.rollout_state.as_str());
                    *self.rollouts.entry(pair).or_default() += 1;
                }
            }
        }
    }

    pub fn merge(&mut self, other: Self) {
        fn sum<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
            from.into_iter().for_each(|(key, count)| *into.entry(key).or_default() += count);
        }
        self.seeds += other.seeds;
        sum(&mut self.sizes, other.sizes);
        sum(&mut self.faults, other.faults);
        sum(&mut self.transitions, other.transitions);
        sum(&mut self.rollouts, other.rollouts);
        sum(&mut self.decisions, other.decisions);
        sum(&mut self.refusals, other.refusals);
    }

    /// What never happened and should have.
    pub fn missing(&self) -> BTreeSet<String> {
        let faults = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).map(|one| format!("{one:?}"));
        let transitions = TRANSITIONS.iter().filter(|pair| !self.transitions.contains_key(pair));
        let transitions = transitions.map(|(from, to)| format!("{} to {}", from.as_str(), to.as_str()));
        let rollouts = ROLLOUTS.iter().map(|(from, to)| (from.as_str(), to.as_str()));
        let rollouts = rollouts.filter(|pair| !self.rollouts.contains_key(pair));
        let rollouts = rollouts.map(|(from, to)| format!("{from} to {to}"));
        let refusals = REFUSALS.iter().filter(|reason| !self.refusals.contains_key(**reason));
        let decisions = DECISIONS.iter().filter(|decision| !self.decisions.contains_key(**decision));
        let decisions = decisions.map(|decision| (*decision).to_owned());
        faults
            .chain(transitions)
            .chain(rollouts)
            .chain(decisions)
            .chain(refusals.map(|reason| (*reason).to_owned()))
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{} seeds\n", self.seeds);
        let mut table = |title: &str, rows: Vec<(String, u64)>| {
            writeln!(text, "{title}")?;
            rows.into_iter().try_for_each(|(name, count)| writeln!(text, "  {count:>9}  {name}"))
        };
        let rows = |of: &BTreeMap<Fault, u64>| of.iter().map(|(key, count)| (format!("{key:?}"), *count)).collect();
        table("altogether", self.sizes.iter().map(|(key, count)| (format!("{key:?}"), *count)).collect())?;
        table("faults and what users did", rows(&self.faults))?;
        let transitions = self.transitions.iter();
        table(
            "statuses of tasks",
            transitions.map(|((from, to), count)| (format!("{} to {}", from.as_str(), to.as_str()), *count)).collect(),
        )?;
        let rollouts = self.rollouts.iter();
        table("rollout states", rollouts.map(|((from, to), count)| (format!("{from} to {to}"), *count)).collect())?;
        let decisions = self.decisions.iter();
        table("decisions of reconcilers", decisions.map(|(key, count)| ((*key).to_owned(), *count)).collect())?;
        table("refusals of placement", self.refusals.iter().map(|(key, count)| (key.clone(), *count)).collect())?;
        formatter.write_str(&text)
    }
}
