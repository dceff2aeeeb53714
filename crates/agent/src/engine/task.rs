//! One task's actor: asks the state machine what is next, has it done, and remembers and tells what came of it.
//!
//! All of a task's changes pass through one loop, so the record has one writer and state changes keep their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::agent_protocol::payload::Task;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;

use super::driver::{Driver, Found, StartOrder, Started};
use super::health::{Check, Outcome};
use super::machine::{self, Action, Ended, Failure, InFlight, Pulled};
use super::record::{ContainerStatus, Desired, TaskRecord, TaskStatus, docker_config};
use super::report;

/// How long changes of single containers wait for others to go with them.
const BATCH: Duration = Duration::from_millis(1_000);
/// How long a STOPPED waits for the last log lines to be delivered.
const LAST_LINES: Duration = Duration::from_secs(3);

/// The newest record of a task, for everybody who reads it.
pub type View = Arc<Mutex<Arc<TaskRecord>>>;

/// The newest record behind a view.
pub fn look(view: &View) -> Arc<TaskRecord> {
    view.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What happened to a task.
#[derive(Debug)]
pub enum Event {
    /// The control plane wants it to end.
    Stop,
    /// See [`Driver::provision`].
    Provisioned(Result<(), Failure>),
    /// See [`Driver::pull`].
    Resolved(usize, String),
    /// See [`Driver::pull`].
    Pulled(usize, Result<Pulled, Failure>),
    /// See [`Driver::start`].
    Started(usize, Result<Started, Failure>),
    /// See [`Driver::wait`]; with the runtime's id, because a restart in place gives another.
    Ended(usize, String, Ended),
    /// See [`Driver::stop`].
    StopTried(usize),
    /// See [`Driver::check`].
    Checked(usize, String, Outcome),
    /// Waited long enough for log lines and for other containers' changes.
    Settled(u64),
    /// See [`Driver::clean_up`].
    CleanedUp,
    /// See [`Driver::submit`].
    Submitted,
}

/// Runs one task to its end.
pub struct Actor<D> {
    driver: Arc<D>,
    record: TaskRecord,
    task: Arc<Task>,
    view: View,
    busy: InFlight,
    events: UnboundedReceiver<Event>,
    sender: UnboundedSender<Event>,
    pulls: HashMap<usize, AbortHandle>,
    checks: HashMap<usize, AbortHandle>,
    submitting: bool,
    /// Number of the last change that has to settle, and whether it has.
    change: u64,
    settled: bool,
}

/// Starts the actor of a task that is new, or that was found on disk.
pub fn spawn<D: Driver>(driver: Arc<D>, record: TaskRecord, found_on_disk: bool) -> (View, UnboundedSender<Event>) {
    let (sender, events) = mpsc::unbounded_channel();
    let view = Arc::new(Mutex::new(Arc::new(record.clone())));
    let actor = Actor {
        driver,
        task: Arc::new(record.task.clone()),
        record,
        view: view.clone(),
        busy: InFlight::default(),
        events,
        sender: sender.clone(),
        pulls: HashMap::new(),
        checks: HashMap::new(),
        submitting: false,
        change: 0,
        settled: true,
    };
    tokio::spawn(actor.run(found_on_disk));
    (view, sender)
}

impl<D: Driver> Actor<D> {
    async fn run(mut self, found_on_disk: bool) {
        if found_on_disk {
            self.find_again().await;
        }
        loop {
            let decision = machine::decide(&mut self.record, &self.busy, self.driver.now());
            for action in decision.actions {
                self.perform(action);
            }
            report::collect(&mut self.record, self.settled);
            self.remember();
            self.submit_next();
            let all_told = self.record.told == TaskStatus::Stopped && self.record.outbox.is_empty();
            if self.record.cleaned && all_told && !self.submitting {
                self.driver.forget(&self.record);
                return;
            }
            let wake = decision.wake.map(|at| at.since(self.driver.now()) + Duration::from_millis(1));
            let event = match wake {
                Some(wait) => tokio::time::timeout(wait, self.events.recv()).await.unwrap_or(None),
                None => self.events.recv().await,
            };
            if let Some(event) = event {
                self.take(event);
            }
            // What is already there belongs to the same decision.
            while let Ok(event) = self.events.try_recv() {
                self.take(event);
            }
        }
    }

    /// After a restart of the agent: what runs goes on, what ended meanwhile is taken in, half-made things go.
    async fn find_again(&mut self) {
        for index in 0..self.record.containers.len() {
            let (status, id) = match self.record.containers.get(index) {
                Some(container) => (container.status, container.runtime_id.clone()),
                None => continue,
            };
            if !self.record.cleaned {
                self.follow_ended(index, status).await;
            }
            let Some(id) = id.filter(|_| matches!(status, ContainerStatus::Pulled | ContainerStatus::Running)) else {
                continue;
            };
            match self.driver.find(self.task.clone(), index, &id).await {
                Found::Running(started) => {
                    if status != ContainerStatus::Running {
                        machine::started(&mut self.record, index, Ok(started), self.driver.now());
                    }
                    // What the runtime calls it may have been learned only now.
                    let named = self.record.containers.get(index).and_then(|container| container.runtime_id.clone());
                    self.watch(index, named.unwrap_or(id));
                }
                Found::Ended(started_at, ended) => {
                    if let (true, Some(at)) = (status != ContainerStatus::Running, started_at) {
                        let started = Started { at, network: Default::default(), named: None };
                        machine::started(&mut self.record, index, Ok(started), self.driver.now());
                    }
                    self.take(Event::Ended(index, id, ended));
                }
                Found::Nothing if status == ContainerStatus::Running => {
                    let ended = Ended { exit_code: None, out_of_memory: false, at: self.driver.now() };
                    self.take(Event::Ended(index, id, ended));
                }
                // It was about to be created: the state machine starts it afresh.
                Found::Nothing => {}
            }
        }
        // The endpoint and the rest of the task's surroundings live in the agent's process in part.
        if self.record.provisioned && !self.record.all_stopped() {
            let volume = self.record.volume.clone().unwrap_or_default();
            if let Err(Failure(reason)) = self.driver.provision(self.task.clone(), volume).await {
                tracing::warn!(task = self.record.id(), reason, "the task's surroundings could not be taken over");
            }
        }
    }

    /// What ended before the agent did may have lines that were not delivered yet.
    async fn follow_ended(&self, index: usize, status: ContainerStatus) {
        let Some(container) = self.record.containers.get(index) else { return };
        let last = container.runtime_id.iter().filter(|_| status == ContainerStatus::Stopped);
        for id in container.former_ids.iter().chain(last) {
            self.driver.find(self.task.clone(), index, id).await;
        }
    }

    fn perform(&mut self, action: Action) {
        let (driver, task, sender) = (self.driver.clone(), self.task.clone(), self.sender.clone());
        match action {
            Action::Provision => {
                self.busy.provision = true;
                let volume =
                    self.record.volume.get_or_insert_with(|| task_volume(self.record.task.arn.as_str())).clone();
                tokio::spawn(async move {
                    let outcome = driver.provision(task, volume).await;
                    let _ = sender.send(Event::Provisioned(outcome));
                });
            }
            Action::Pull(index) => {
                self.busy.pull.insert(index);
                let pull = tokio::spawn(async move {
                    let teller = sender.clone();
                    let resolved = move |digest| drop(teller.send(Event::Resolved(index, digest)));
                    let outcome = driver.pull(task, index, resolved).await;
                    let _ = sender.send(Event::Pulled(index, outcome));
                });
                self.pulls.insert(index, pull.abort_handle());
            }
            Action::AbandonPull(index) => {
                self.busy.pull.remove(&index);
                if let Some(pull) = self.pulls.remove(&index) {
                    pull.abort();
                }
            }
            Action::Start(index) => {
                self.busy.start.insert(index);
                let runtime_id = self.driver.new_runtime_id(self.record.id());
                let volume = self.record.volume.clone();
                if let Some(container) = self.record.containers.get_mut(index) {
                    container.former_ids.extend(container.runtime_id.replace(runtime_id.clone()));
                }
                // Known by its id before it exists, so that nothing of it is ever lost.
                self.driver.save(&self.record);
                tokio::spawn(async move {
                    let outcome = driver.start(StartOrder { task, index, runtime_id, volume }).await;
                    let _ = sender.send(Event::Started(index, outcome));
                });
            }
            Action::Stop(index) => {
                self.busy.stop.insert(index);
                let Some((container, definition)) = self.record.pair(index) else { return };
                let (id, signal) = (container.runtime_id.clone().unwrap_or_default(), container.stop_signal.clone());
                let grace = definition.stop_timeout.and_then(|seconds| u64::try_from(seconds).ok());
                let grace = grace.map_or(self.driver.stop_timeout(), Duration::from_secs);
                tokio::spawn(async move {
                    driver.stop(&id, signal.as_deref(), grace).await;
                    // Its end arrives by itself; this is for one that could not be killed.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = sender.send(Event::StopTried(index));
                });
            }
            Action::CleanUp => {
                self.busy.clean_up = true;
                let record = Arc::new(self.record.clone());
                tokio::spawn(async move {
                    driver.clean_up(record).await;
                    let _ = sender.send(Event::CleanedUp);
                });
            }
        }
    }

    fn take(&mut self, event: Event) {
        let now = self.driver.now();
        match event {
            Event::Stop => self.record.desired = Desired::Stopped,
            Event::Provisioned(outcome) => {
                self.busy.provision = false;
                if let Err(Failure(reason)) = &outcome {
                    tracing::info!(task = self.record.id(), reason, "a task's surroundings were not made");
                }
                machine::provisioned(&mut self.record, outcome);
            }
            Event::Resolved(index, digest) => machine::resolved(&mut self.record, index, digest),
            Event::Pulled(index, outcome) => {
                self.busy.pull.remove(&index);
                self.pulls.remove(&index);
                if let Err(Failure(reason)) = &outcome {
                    tracing::info!(task = self.record.id(), reason, "an image was not pulled");
                }
                machine::pulled(&mut self.record, index, outcome, now);
            }
            Event::Started(index, outcome) => {
                self.busy.start.remove(&index);
                let started = outcome.is_ok();
                if let Err(Failure(reason)) = &outcome {
                    tracing::info!(task = self.record.id(), reason, "a container did not start");
                }
                machine::started(&mut self.record, index, outcome, now);
                let id = self.record.containers.get(index).and_then(|container| container.runtime_id.clone());
                if let (true, Some(id)) = (started, id) {
                    self.watch(index, id);
                }
                if !self.record.all_stopped() {
                    self.unsettle(None);
                }
            }
            Event::Ended(index, id, ended) => self.ended(index, id, &ended),
            Event::StopTried(index) => {
                self.busy.stop.remove(&index);
            }
            Event::Checked(index, id, outcome) => {
                if self.is_current(index, &id) {
                    machine::checked(&mut self.record, index, outcome, now);
                }
            }
            Event::Settled(change) => self.settled |= change == self.change,
            Event::CleanedUp => {
                self.busy.clean_up = false;
                self.record.cleaned = true;
            }
            Event::Submitted => {
                self.submitting = false;
                self.record.outbox.pop_front();
            }
        }
    }

    fn ended(&mut self, index: usize, id: String, ended: &Ended) {
        if !self.is_current(index, &id) {
            return;
        }
        if let Some(check) = self.checks.remove(&index) {
            check.abort();
        }
        self.busy.stop.remove(&index);
        let again = machine::ended(&mut self.record, index, ended);
        self.unsettle(Some((index, id, again)));
    }

    /// Lets changes wait a little: for the last lines of a container that ended, and for other containers' changes.
    /// `ended` is its place, its id, and whether it is started again.
    fn unsettle(&mut self, ended: Option<(usize, String, bool)>) {
        self.change += 1;
        self.settled = false;
        let (driver, sender, change) = (self.driver.clone(), self.sender.clone(), self.change);
        let last = ended.is_some() && self.record.all_stopped();
        let task = self.task.clone();
        tokio::spawn(async move {
            if let Some((index, id, again)) = &ended {
                if !again {
                    driver.release(task, *index).await;
                }
                let _ = tokio::time::timeout(LAST_LINES, driver.drained(id)).await;
            }
            if !last {
                tokio::time::sleep(BATCH).await;
            }
            let _ = sender.send(Event::Settled(change));
        });
    }

    fn is_current(&self, index: usize, id: &str) -> bool {
        self.record.containers.get(index).and_then(|container| container.runtime_id.as_deref()) == Some(id)
    }

    /// Follows a running container: its end and its health.
    fn watch(&mut self, index: usize, id: String) {
        let (driver, sender, waited) = (self.driver.clone(), self.sender.clone(), id.clone());
        tokio::spawn(async move {
            let ended = driver.wait(&waited).await;
            let _ = sender.send(Event::Ended(index, waited, ended));
        });
        let Some(definition) = self.record.task.containers.get(index) else { return };
        let Some(check) = docker_config(definition).healthcheck.as_ref().and_then(Check::new) else { return };
        let (driver, sender) = (self.driver.clone(), self.sender.clone());
        let checks = tokio::spawn(async move {
            loop {
                tokio::time::sleep(check.interval).await;
                let outcome = driver.check(&id, &check).await;
                if sender.send(Event::Checked(index, id.clone(), outcome)).is_err() {
                    return;
                }
            }
        });
        if let Some(former) = self.checks.insert(index, checks.abort_handle()) {
            former.abort();
        }
    }

    fn remember(&mut self) {
        let newest = Arc::new(self.record.clone());
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if **view != *newest {
            *view = newest;
            drop(view);
            self.driver.save(&self.record);
        }
    }

    fn submit_next(&mut self) {
        let Some(change) = self.record.outbox.front().cloned().filter(|_| !self.submitting) else { return };
        self.submitting = true;
        let (driver, sender, arn) = (self.driver.clone(), self.sender.clone(), self.record.task.arn.clone());
        tokio::spawn(async move {
            driver.submit(&arn, &change).await;
            let _ = sender.send(Event::Submitted);
        });
    }
}

fn task_volume(arn: &str) -> String {
    super::record::task_id(arn).to_owned()
}
