//! The task engine: runs the tasks of one container instance.
//!
//! [`machine`] decides, purely, what a task needs next; [`record`] is what is remembered of it; [`task`] is the loop
//! that has it done through a [`driver::Driver`]. What the agent is told to run enters through [`Engine`].

pub mod dependency;
pub mod driver;
pub mod health;
pub mod machine;
pub mod record;
pub mod report;
mod restart;
pub mod task;
pub mod validate;

#[cfg(test)]
pub(crate) mod actor_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::agent_protocol::payload::Task;
use tokio::sync::mpsc::UnboundedSender;

use driver::Driver;
use record::{Desired, TaskRecord};
use task::{Event, View};

/// What became of a task the control plane named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is new and starts.
    New,
    /// It was known already, or it is to stop and nobody here knows it.
    Known,
    /// It cannot be run here; it is told to be STOPPED, and the payload must not be acknowledged.
    Invalid,
}

/// All tasks of this instance.
pub struct Engine<D> {
    driver: Arc<D>,
    tasks: Mutex<HashMap<String, Handle>>,
}

struct Handle {
    view: View,
    sender: UnboundedSender<Event>,
}

impl<D: Driver> Engine<D> {
    /// An engine without tasks.
    pub fn new(driver: Arc<D>) -> Engine<D> {
        Engine { driver, tasks: Mutex::new(HashMap::new()) }
    }

    /// Goes on with the tasks found on disk.
    pub fn restore(&self, records: Vec<TaskRecord>) {
        let mut tasks = self.tasks();
        for record in records {
            let arn = record.task.arn.clone();
            let (view, sender) = task::spawn(self.driver.clone(), record, true);
            tasks.insert(arn, Handle { view, sender });
        }
    }

    /// Takes one task of a payload: starts it if it is new, stops it if that is wanted. Safe to repeat.
    pub fn accept(&self, mut task: Task) -> Accepted {
        dependency::with_links(&mut task);
        let mut tasks = self.tasks();
        tasks.retain(|_, handle| !handle.sender.is_closed());
        let stop = task.desired_status == "STOPPED";
        if let Some(handle) = tasks.get(&task.arn) {
            if stop {
                let _ = handle.sender.send(Event::Stop);
            }
            return Accepted::Known;
        }
        let arn = task.arn.clone();
        let ended = |task: Task, reason: Option<String>| {
            let mut record = TaskRecord::new(Task { containers: Vec::new(), ..task });
            record.desired = Desired::Stopped;
            record.reason = reason;
            record.cleaned = true;
            record
        };
        let (record, accepted) = match validate::check(&task) {
            // Told to be STOPPED, so that the control plane does not wait for a task that is not here.
            _ if stop && validate::has_id(&task) => (ended(task, None), Accepted::Known),
            _ if stop => return Accepted::Known,
            Ok(()) => (TaskRecord::new(task), Accepted::New),
            Err(reason) => {
                tracing::warn!(task = arn, reason, "a task of the payload cannot be run");
                if !validate::has_id(&task) {
                    return Accepted::Invalid;
                }
                (ended(task, Some(reason)), Accepted::Invalid)
            }
        };
        let (view, sender) = task::spawn(self.driver.clone(), record, false);
        tasks.insert(arn, Handle { view, sender });
        accepted
    }

    /// Stops a task, if it is here.
    pub fn stop(&self, arn: &str) {
        if let Some(handle) = self.tasks().get(arn) {
            let _ = handle.sender.send(Event::Stop);
        }
    }

    /// The newest record of every task.
    pub fn views(&self) -> Vec<Arc<TaskRecord>> {
        let mut tasks = self.tasks();
        tasks.retain(|_, handle| !handle.sender.is_closed());
        tasks.values().map(|handle| task::look(&handle.view)).collect()
    }

    /// The newest record of one task.
    pub fn view(&self, arn: &str) -> Option<Arc<TaskRecord>> {
        self.tasks().get(arn).map(|handle| task::look(&handle.view))
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
