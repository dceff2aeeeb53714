//! The actor on a made-up host: order of what is done and told, stopping, and taking over after a restart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::agent_protocol::payload::{Container, Dependency, Task};
use domain::{Clock, Timestamp};
use tokio::sync::watch;

use super::driver::{Driver, Found, StartOrder, Started};
use super::health::{Check, Outcome};
use super::machine::{Ended, Failure, Pulled};
use super::record::{ContainerNetwork, NetworkBinding, StateChange, TaskRecord};
use super::{Accepted, Engine};

/// A host where a container is nothing but a switch.
#[derive(Default)]
pub(crate) struct Made {
    log: Mutex<Vec<String>>,
    running: Mutex<HashMap<String, watch::Sender<Option<i32>>>>,
    told: Mutex<Vec<StateChange>>,
    saved: Mutex<HashMap<String, TaskRecord>>,
    next: AtomicU64,
    pull_fails: bool,
    start_fails: bool,
    ignores_term: bool,
}

impl Made {
    fn note(&self, what: impl Into<String>) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn statuses(&self) -> Vec<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().map(|change| change.status.clone()).collect()
    }

    fn exit(&self, name: &str, code: i32) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, sender) in running.iter().filter(|(id, _)| id.starts_with(name)) {
            sender.send_replace(Some(code));
            let _ = id;
        }
    }

    pub(crate) async fn until(&self, what: impl Fn(&Made) -> bool) {
        for _ in 0..2_000 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never happened: {:?} {:?}", self.log(), self.statuses());
    }
}

impl Driver for Made {
    async fn provision(&self, _: Arc<Task>, _: String) -> Result<(), Failure> {
        self.note("provision");
        Ok(())
    }
    async fn pull(
        &self,
        task: Arc<Task>,
        index: usize,
        resolved: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pulled, Failure> {
        if self.pull_fails {
            return Err(Failure("CannotPullContainerError: no".into()));
        }
        resolved(format!("sha256:{}", task.containers[index].name));
        Ok(Pulled {
            digest: format!("sha256:{}", task.containers[index].name),
            manifest: "m".into(),
            stop_signal: None,
        })
    }
    async fn start(&self, order: StartOrder) -> Result<Started, Failure> {
        let name = &order.task.containers[order.index].name;
        self.note(format!("start {name}"));
        if self.start_fails {
            return Err(Failure("CannotStartContainerError: no".into()));
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(order.runtime_id.clone(), watch::Sender::new(None));
        running.insert(format!("{name} {}", order.runtime_id), watch::Sender::new(None));
        let sender = running[&order.runtime_id].clone();
        running.insert(format!("{name} {}", order.runtime_id), sender);
        Ok(Started { at: self.now(), network: published(), named: None })
    }
    async fn find(&self, _: Arc<Task>, _: usize, runtime_id: &str) -> Found {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get(runtime_id).map(|sender| *sender.borrow()) {
            None => Found::Nothing,
            Some(None) => Found::Running(Started { at: Timestamp(1), network: published(), named: None }),
            Some(Some(code)) => {
                let ended = Ended { exit_code: Some(code), out_of_memory: false, at: Timestamp(2) };
                Found::Ended(Some(Timestamp(1)), ended)
            }
        }
    }
    async fn wait(&self, runtime_id: &str) -> Ended {
        let receiver = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(runtime_id).map(watch::Sender::subscribe)
        };
        let mut exit_code = None;
        if let Some(mut receiver) = receiver {
            exit_code = receiver.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        }
        Ended { exit_code, out_of_memory: false, at: self.now() }
    }
    async fn stop(&self, runtime_id: &str, _: Option<&str>, grace: Duration) {
        self.note("stop");
        if self.ignores_term {
            tokio::time::sleep(grace).await;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = running.get(runtime_id) {
            sender.send_replace(Some(if self.ignores_term { 137 } else { 143 }));
        }
    }
    async fn release(&self, task: Arc<Task>, index: usize) {
        self.note(format!("release {}", task.containers[index].name));
    }
    async fn check(&self, _: &str, _: &Check) -> Outcome {
        Outcome { exit_code: Some(0), output: String::new() }
    }
    async fn drained(&self, _: &str) {}
    async fn clean_up(&self, _: Arc<TaskRecord>) {
        self.note("clean up");
    }
    async fn submit(&self, _: &str, change: &StateChange) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(change.clone());
    }
    fn save(&self, record: &TaskRecord) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        saved.insert(record.task.arn.clone(), record.clone());
    }
    fn forget(&self, record: &TaskRecord) {
        self.note("forget");
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).remove(&record.task.arn);
    }
    fn now(&self) -> Timestamp {
        Clock::system_now()
    }
    fn new_runtime_id(&self, task_id: &str) -> String {
        format!("{task_id}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// What every made-up container publishes.
fn published() -> ContainerNetwork {
    let binding = NetworkBinding { container_port: 80, host_port: 8080, ..NetworkBinding::default() };
    ContainerNetwork { address: None, bindings: vec![binding] }
}

/// Name, whether it is essential, and what it depends on.
pub(crate) type One<'a> = (&'a str, bool, &'a [(&'a str, &'a str)]);

pub(crate) fn task(containers: &[One<'_>]) -> Task {
    let containers = containers
        .iter()
        .map(|(name, essential, on)| Container {
            name: (*name).into(),
            image: "i".into(),
            essential: *essential,
            stop_timeout: Some(1),
            depends_on: on
                .iter()
                .map(|(name, condition)| Dependency { container_name: (*name).into(), condition: (*condition).into() })
                .collect(),
            ..Container::default()
        })
        .collect();
    Task {
        arn: "arn:aws:ecs:us-east-1:123456789012:task/c/0a".into(),
        desired_status: "RUNNING".into(),
        containers,
        ..Task::default()
    }
}

fn stopped(task: &Task) -> Task {
    Task { arn: task.arn.clone(), desired_status: "STOPPED".into(), ..Task::default() }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_is_told_in_order() {
    let host = Arc::new(Made::default());
    let engine = Engine::new(host.clone());
    let task = task(&[("init", false, &[]), ("web", true, &[("init", "SUCCESS")])]);
    assert_eq!(engine.accept(task.clone()), Accepted::New);
    assert_eq!(engine.accept(task.clone()), Accepted::Known);
    host.until(|host| host.log().contains(&"start init".to_owned())).await;
    host.exit("init", 0);
    host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    host.exit("web", 7);
    host.until(|host| host.log().contains(&"forget".to_owned())).await;
    assert_eq!(
        host.log(),
        ["provision", "start init", "release init", "start web", "release web", "clean up", "forget"]
    );
    let statuses = host.statuses();
    assert_eq!(
        (statuses.first().map(String::as_str), statuses.last().map(String::as_str)),
        (Some("PENDING"), Some("STOPPED"))
    );
    let told = host.told.lock().unwrap_or_else(PoisonError::into_inner);
    let last = told.last().expect("a change");
    assert!(last.containers.iter().all(|one| one.network_bindings == published().bindings));
    assert_eq!(last.containers.iter().map(|one| one.exit_code).collect::<Vec<_>>(), [Some(0), Some(7)]);
}

#[tokio::test(start_paused = true)]
async fn a_linked_container_starts_first() {
    let host = Arc::new(Made::default());
    let engine = Engine::new(host.clone());
    let mut task = task(&[("web", true, &[]), ("db", true, &[])]);
    task.containers[0].links = vec!["db:database".into()];
    assert_eq!(engine.accept(task), Accepted::New);
    host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    assert_eq!(host.log(), ["provision", "start db", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_kills_what_does_not_listen() {
    let host = Arc::new(Made { ignores_term: true, ..Made::default() });
    let engine = Engine::new(host.clone());
    let task = task(&[("web", true, &[])]);
    engine.accept(task.clone());
    host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    assert_eq!(engine.accept(stopped(&task)), Accepted::Known);
    host.until(|host| host.log().contains(&"forget".to_owned())).await;
    let told = host.told.lock().unwrap_or_else(PoisonError::into_inner);
    let last = told.last().expect("a change");
    assert_eq!((last.status.as_str(), last.reason.as_str(), last.containers[0].exit_code), ("STOPPED", "", Some(137)));
}

#[tokio::test(start_paused = true)]
async fn a_failed_pull_is_told_with_its_reason() {
    let host = Arc::new(Made { pull_fails: true, ..Made::default() });
    let engine = Engine::new(host.clone());
    engine.accept(task(&[("web", true, &[])]));
    host.until(|host| host.log().contains(&"forget".to_owned())).await;
    assert_eq!(host.statuses(), ["STOPPED"]);
    let told = host.told.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(told[0].reason, "CannotPullContainerError: no");
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_told_before_the_task_is_forgotten() {
    let host = Arc::new(Made { start_fails: true, ..Made::default() });
    let engine = Engine::new(host.clone());
    engine.accept(task(&[("web", true, &[]), ("side", false, &[])]));
    host.until(|host| host.log().contains(&"forget".to_owned())).await;
    assert_eq!(host.statuses().last().map(String::as_str), Some("STOPPED"));
    let told = host.told.lock().unwrap_or_else(PoisonError::into_inner);
    let last = told.last().expect("a change");
    assert_eq!(last.reason, "Task failed to start");
    assert!(last.containers.iter().all(|one| one.reason.as_deref() == Some("CannotStartContainerError: no")));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_run_is_refused_and_told() {
    let host = Arc::new(Made::default());
    let engine = Engine::new(host.clone());
    assert_eq!(
        engine.accept(task(&[("a", true, &[("b", "START")]), ("b", false, &[("a", "START")])])),
        Accepted::Invalid
    );
    host.until(|host| host.log().contains(&"forget".to_owned())).await;
    let told = host.told.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(told[0].reason.starts_with("TaskDependencyError: "), "{}", told[0].reason);
    assert_eq!(told[0].status, "STOPPED");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_task_that_is_to_stop_is_told_to_be_stopped() {
    let host = Arc::new(Made::default());
    let engine = Engine::new(host.clone());
    assert_eq!(engine.accept(stopped(&task(&[]))), Accepted::Known);
    host.until(|host| host.statuses() == ["STOPPED"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_goes_on_without_starting_anything_again() {
    let host = Arc::new(Made::default());
    let engine = Engine::new(host.clone());
    let task = task(&[("web", true, &[]), ("side", false, &[])]);
    engine.accept(task.clone());
    host.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    let record = host.saved.lock().unwrap_or_else(PoisonError::into_inner)[&task.arn].clone();
    // The agent dies here; while it is away, one container ends.
    let after = Arc::new(Made::default());
    let running = std::mem::take(&mut *host.running.lock().unwrap_or_else(PoisonError::into_inner));
    *after.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    after.exit("side", 3);
    let engine = Engine::new(after.clone());
    engine.restore(vec![record]);
    after.until(|host| host.statuses().contains(&"RUNNING".to_owned())).await;
    assert!(!after.log().iter().any(|line| line.starts_with("start")), "{:?}", after.log());
    {
        let told = after.told.lock().unwrap_or_else(PoisonError::into_inner);
        let side = told[0].containers.iter().find(|one| one.container_name == "side").expect("the one that ended");
        assert_eq!((side.status.as_str(), side.exit_code), ("STOPPED", Some(3)));
    }
    engine.accept(stopped(&task));
    after.until(|host| host.log().contains(&"forget".to_owned())).await;
    assert_eq!(after.statuses().last().map(String::as_str), Some("STOPPED"));
}
