//! A Fargate host as the control plane knows it: it does what tasks want, and reports late, twice or out of order.

use std::collections::BTreeMap;

use domain::{
    IdSource,
    ecs::{ContainerReport, DesiredStatus, ReportedStatus, Task, TaskReport},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Starting,
    Running,
    Ended,
}

#[derive(Default)]
pub struct Host {
    /// By task ARN. A task that ended stays known, as the agent's own database does.
    pub processes: BTreeMap<String, Process>,
    pub reports: Vec<(String, TaskReport)>,
}

impl Host {
    /// Does what the task wants.
    pub fn follow(&mut self, task: &Task, ids: &mut IdSource, faults: bool) {
        let arn = task.arn.to_string();
        let known = self.processes.get(&arn).copied();
        match (task.wanted_on_host(), known) {
            (Some(DesiredStatus::Running), None) => {
                self.processes.insert(arn.clone(), Process::Starting);
                self.say(&arn, ReportedStatus::Pending, None, None);
            }
            (Some(DesiredStatus::Running), Some(Process::Starting)) => {
                if faults && ids.below(6) == 0 {
                    self.processes.insert(arn.clone(), Process::Ended);
                    self.say(&arn, ReportedStatus::Stopped, None, Some("CannotPullContainerError: no such image"));
                } else {
                    self.processes.insert(arn.clone(), Process::Running);
                    self.say(&arn, ReportedStatus::Running, None, None);
                }
            }
            (Some(DesiredStatus::Stopped), Some(Process::Starting | Process::Running) | None) => {
                self.processes.insert(arn.clone(), Process::Ended);
                self.say(&arn, ReportedStatus::Stopped, Some(143), None);
            }
            _ => {}
        }
    }

    /// A container ends by itself.
    pub fn crash_one(&mut self, ids: &mut IdSource) {
        let running: Vec<String> = self.running().map(str::to_owned).collect();
        if let Some(arn) = running.get(ids.below(running.len())) {
            self.processes.insert(arn.clone(), Process::Ended);
            self.say(arn, ReportedStatus::Stopped, Some(1), None);
        }
    }

    /// The agent dies and comes back: what it had not sent is lost, what it knows is reported again.
    pub fn restart(&mut self) {
        self.reports.clear();
        for (arn, process) in self.processes.clone() {
            match process {
                Process::Starting => {}
                Process::Running => self.say(&arn, ReportedStatus::Running, None, None),
                Process::Ended => self.say(&arn, ReportedStatus::Stopped, Some(0), None),
            }
        }
    }

    pub fn running(&self) -> impl Iterator<Item = &str> {
        self.processes.iter().filter(|(_, process)| **process == Process::Running).map(|(arn, _)| arn.as_str())
    }

    fn say(&mut self, arn: &str, status: ReportedStatus, exit_code: Option<i32>, reason: Option<&str>) {
        let container = ContainerReport {
            name: "app".into(),
            status: Some(status),
            exit_code,
            image_digest: reason.is_none().then(|| "sha256:1".to_owned()),
            reason: reason.map(str::to_owned),
            ..ContainerReport::default()
        };
        let report = TaskReport { status: Some(status), containers: vec![container], ..TaskReport::default() };
        self.reports.push((arn.to_owned(), report));
    }
}
