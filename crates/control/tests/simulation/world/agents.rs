//! The agents and their machines: they do what tasks want, and what they report may be lost, late, twice or overtaken.

use std::collections::BTreeMap;

use domain::{
    Arn,
    ecs::{ContainerReport, DesiredStatus, HealthStatus, LaunchType, NetworkBinding, ReportedStatus, Task, TaskReport},
};
use store::Snapshot;

use super::World;
use crate::{
    coverage::Fault,
    nouns::{self, Works},
    planted,
    properties::Checked,
};

/// What a task's containers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Running,
    /// With an exit code, or before they ran.
    Ended(Option<i32>),
}

/// A task as its machine knows it. One that ended stays known, as the agent's own database does.
#[derive(Clone, Debug)]
pub struct Process {
    pub state: State,
    /// What the control plane has been told, unless the message was lost.
    told: Option<State>,
    health_told: HealthStatus,
    pub host_port: u16,
}

/// One container instance's machine with its agent.
#[derive(Default)]
pub struct Agent {
    pub connected: bool,
    pub processes: BTreeMap<String, Process>,
    ports: u16,
}

/// What an agent says.
#[derive(Clone, Debug)]
pub enum Said {
    Report(Box<TaskReport>),
    Health(HealthStatus),
}

/// Something on its way from an agent.
#[derive(Clone, Debug)]
pub struct Message {
    pub from: Arn,
    pub task: String,
    pub said: Said,
    /// Has been delivered once.
    again: bool,
}

impl Agent {
    /// The ports that containers are given follow each other.
    fn next_port(&mut self) -> u16 {
        self.ports = (self.ports + 1) % 20_000;
        32_768 + self.ports
    }

    /// It is there again and says all it knows.
    pub fn forget_what_was_told(&mut self) {
        for process in self.processes.values_mut() {
            (process.told, process.health_told) = (None, HealthStatus::Unknown);
        }
    }

    /// Nothing runs any more.
    pub fn end_all(&mut self) {
        for process in self.processes.values_mut() {
            if !matches!(process.state, State::Ended(_)) {
                process.state = State::Ended(Some(137));
            }
        }
    }
}

impl World {
    /// The agents that are connected do what is wanted: all of them, or some, each of some of its tasks.
    pub(super) fn agents_follow(&mut self) {
        let view = self.store.snapshot();
        let mut agents = std::mem::take(&mut self.agents);
        for (arn, agent) in &mut agents {
            if agent.connected && (!self.faults || self.ids.below(3) > 0) {
                self.agent_follows(&view, arn, agent);
            }
        }
        self.agents = agents;
    }

    fn agent_follows(&mut self, view: &Snapshot, arn: &Arn, agent: &mut Agent) {
        let tasks: Vec<_> = view.find::<Task>(Task::ON_INSTANCE, arn.as_str()).collect();
        for task in &tasks {
            if self.faults && self.ids.below(4) == 0 {
                continue;
            }
            self.task_follows(arn, agent, task);
        }
        // What its manifest does not name, the agent ends; nobody asks what became of it.
        let wanted = |known: &str| {
            let task = tasks.iter().find(|task| task.arn.as_str() == known);
            task.is_some_and(|task| task.wanted_on_host().is_some())
        };
        for (known, process) in &mut agent.processes {
            if !matches!(process.state, State::Ended(_)) && !wanted(known) {
                process.state = State::Ended(Some(143));
                process.told = Some(process.state);
                self.progress = true;
            }
        }
        agent.processes.retain(|known, process| process.told != Some(process.state) || view.contains::<Task>(known));
    }

    fn task_follows(&mut self, from: &Arn, agent: &mut Agent, task: &Task) {
        let key = task.arn.as_str();
        let works = nouns::works(&task.task_definition_arn);
        let state = agent.processes.get(key).map(|process| process.state);
        let next = match (task.wanted_on_host(), state) {
            (Some(DesiredStatus::Running), None) => State::Starting,
            (Some(DesiredStatus::Running), Some(State::Starting)) => {
                if works == Works::NeverStarts || (self.faults && self.ids.below(30) == 0) {
                    self.fault(Fault::StartFailed);
                    State::Ended(None)
                } else {
                    State::Running
                }
            }
            (Some(DesiredStatus::Running), Some(State::Running)) => {
                // A task of no service does its work and is done.
                let done = task.service_arn.is_none() && (!self.faults || self.ids.below(6) == 0);
                if works == Works::Exits || done || (self.faults && self.ids.below(150) == 0) {
                    self.fault(Fault::ContainerExited);
                    State::Ended(Some(i32::from(!done)))
                } else {
                    State::Running
                }
            }
            (Some(DesiredStatus::Stopped), Some(State::Starting | State::Running) | None) => State::Ended(Some(143)),
            (_, Some(state)) => state,
            (None, None) => return,
        };
        if state.is_none() {
            let host_port = agent.next_port();
            let health_told = HealthStatus::Unknown;
            let process = Process { state: next, told: None, health_told, host_port };
            agent.processes.insert(key.to_owned(), process);
        }
        let Some(process) = agent.processes.get_mut(key) else { return };
        process.state = next;
        if process.told != Some(next) {
            process.told = Some(next);
            let report = report(task, process, self.tag);
            self.say(from, key, Said::Report(Box::new(report)));
        } else if next == State::Running && task.has_health_check() {
            let fails = works == Works::Unhealthy || (self.faults && self.ids.below(80) == 0);
            let health = if fails { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            if process.health_told != health {
                process.health_told = health;
                if fails {
                    self.fault(Fault::HealthCheckFailed);
                }
                self.say(from, key, Said::Health(health));
            }
        }
    }

    fn say(&mut self, from: &Arn, task: &str, said: Said) {
        self.progress = true;
        self.messages.push(Message { from: from.clone(), task: task.to_owned(), said, again: false });
    }

    /// Some of what is on its way arrives, in one transaction.
    pub(super) fn deliver(&mut self, most: usize) -> Checked {
        let mut arrived = Vec::new();
        for _ in 0..most.min(self.messages.len()) {
            if self.messages.is_empty() {
                break;
            }
            if !self.faults {
                arrived.append(&mut self.messages);
                break;
            }
            let index = if self.ids.below(4) == 0 { self.ids.below(self.messages.len()) } else { 0 };
            match self.ids.below(12) {
                0 => {
                    let lost = self.messages.remove(index);
                    self.lose(lost);
                }
                1 if !self.messages[index].again => {
                    // It comes again some time later.
                    let mut message = self.messages.remove(index);
                    message.again = true;
                    self.fault(Fault::MessageTwice);
                    self.messages.push(message.clone());
                    arrived.push(message);
                }
                _ => {
                    if index > 0 {
                        self.fault(Fault::MessageOvertaken);
                    }
                    arrived.push(self.messages.remove(index));
                }
            }
        }
        if arrived.is_empty() {
            return Ok(());
        }
        self.progress = true;
        let (now, bug) = (self.now, self.bug);
        self.note(|| arrived.iter().map(|message| format!("{message:?} arrives")).collect::<Vec<_>>().join("\n  "));
        self.write(|tx| {
            for message in &arrived {
                let Some(task) = tx.get::<Task>(&message.task) else { continue };
                let mut task = Task::clone(&task);
                let changed = match &message.said {
                    Said::Report(report) => task.observe(report, now),
                    Said::Health(health) => task.observe_health("app", *health),
                };
                if let Some(bug) = bug {
                    planted::observe(bug, tx, &mut task, message);
                }
                if changed || bug.is_some() {
                    tx.put(task);
                }
            }
        })
    }

    /// The agent does not hear that it was received, and will say it again.
    fn lose(&mut self, lost: Message) {
        self.fault(Fault::MessageLost);
        let process = self.agents.get_mut(&lost.from).and_then(|agent| agent.processes.get_mut(&lost.task));
        if let Some(process) = process {
            match lost.said {
                Said::Report(_) => process.told = None,
                Said::Health(_) => process.health_told = HealthStatus::Unknown,
            }
        }
    }
}

fn report(task: &Task, process: &Process, tag: u32) -> TaskReport {
    let (status, exit_code, reason) = match process.state {
        State::Starting => (ReportedStatus::Pending, None, None),
        State::Running => (ReportedStatus::Running, None, None),
        State::Ended(None) => (ReportedStatus::Stopped, None, Some("CannotPullContainerError: no such image")),
        State::Ended(code) => (ReportedStatus::Stopped, code, None),
    };
    // What is pinned is pulled, else whatever the tag means by now.
    let pinned = task.containers.first().and_then(|container| container.pinned_digest.clone());
    let bound = task.launch_type == LaunchType::Ec2 && !task.load_balancers.is_empty();
    let binding = NetworkBinding {
        bind_ip: "0.0.0.0".into(),
        container_port: 80,
        host_port: process.host_port,
        range: None,
        protocol: "tcp".into(),
    };
    let container = ContainerReport {
        name: "app".into(),
        status: Some(status),
        exit_code,
        image_digest: reason.is_none().then(|| pinned.unwrap_or_else(|| format!("sha256:{tag}"))),
        reason: reason.map(str::to_owned),
        network_bindings: if bound && process.state == State::Running { vec![binding] } else { Vec::new() },
        ..ContainerReport::default()
    };
    TaskReport { status: Some(status), containers: vec![container], ..TaskReport::default() }
}
