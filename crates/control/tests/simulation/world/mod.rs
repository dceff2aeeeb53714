//! The whole control plane in one world that a seed makes and drives: a cluster of EC2 container instances in three
//! zones, Fargate hosts, services of every kind, users and balancers.
//!
//! - [`populate`]: what there is at the beginning. [`agents`], [`machines`], [`balancers`], [`users`]: what goes on.
//! - [`plane`]: the reconcilers, the committer, and their crashes. [`launcher`]: placement, as `services` does it.
//! - [`settle`]: no more faults, until nothing more happens.

pub mod agents;
mod balancers;
mod launcher;
mod machines;
mod plane;
mod populate;
mod settle;
mod users;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use control::queue::Queue;
use domain::{
    Arn, IdSource, Scope, Timestamp,
    ecs::{Service, ServiceEvent, Task},
};
use store::{Store, Transaction, Watch, memory::Memory};

use crate::{
    coverage::{Coverage, Fault, LEAST, Size},
    nouns::kinds,
    planted::Bug,
    properties::{self, Checked},
};
use agents::{Agent, Message};
pub use balancers::address;
use launcher::Places;

/// How long a task may wait for its host.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Steps with faults, before it is seen whether the seed is large enough.
const STEPS: usize = 160;

/// How often a seed that is too small yet may be made to go on.
const MOST_ROUNDS: usize = 60;

/// A service as its users know it.
#[derive(Clone, Debug)]
pub struct Known {
    pub arn: String,
    pub family: String,
    pub deleted: bool,
}

pub struct World {
    runtime: tokio::runtime::Runtime,
    journal: Memory,
    store: Store,
    watch: Watch,
    queue: Queue,
    ids: IdSource,
    now: Timestamp,
    scope: Scope,
    places: Arc<Places>,
    agents: BTreeMap<Arn, Agent>,
    messages: Vec<Message>,
    services: Vec<Known>,
    machines: u16,
    /// What the images' tag means now.
    tag: u32,
    /// When the operator gives up tasks on instances whose agent is away.
    lost_after: Option<Duration>,
    faults: bool,
    /// In how many checks a balancer finds one target unhealthy that is not.
    mistaken: usize,
    /// Whether anything has happened since it was last asked.
    progress: bool,
    bug: Option<Bug>,
    pub coverage: Coverage,
    /// What happened, if it is to be told.
    trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, told: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let journal = Memory::default();
        let store = Store::open(journal.clone(), kinds()).unwrap();
        let watch = store.watch();
        let mut world = Self {
            runtime,
            journal,
            store,
            watch,
            queue: Queue::default(),
            ids: IdSource::from_seed(seed),
            now: Timestamp(1_000_000),
            scope: Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() },
            places: Arc::new(Places::new(bug)),
            agents: BTreeMap::new(),
            messages: Vec::new(),
            services: Vec::new(),
            machines: 0,
            tag: 1,
            lost_after: None,
            faults: true,
            mistaken: 40,
            progress: false,
            bug,
            coverage: Coverage::of_one(),
            trace: told.then(Vec::new),
        };
        world.populate();
        world
    }

    /// A life: faults and changes of mind, quiet, scaled to zero, deleted.
    pub fn live(&mut self) -> Checked {
        for _ in 0..STEPS {
            self.step()?;
        }
        // No seed is smaller than it has to be.
        let mut rounds = 0;
        while LEAST.iter().any(|(size, least)| self.coverage.size(*size) < *least) {
            rounds += 1;
            properties::ensure(rounds < MOST_ROUNDS, || "no more tasks are started".to_owned())?;
            self.deploy_again()?;
            for _ in 0..20 {
                self.step()?;
            }
        }
        self.note(|| "no more faults".to_owned());
        self.settle()?;
        self.assert_settled()?;
        // Where all is quiet a single change has to wake whom it concerns: nothing else does.
        for _ in 0..2 {
            self.nudge()?;
            self.settle()?;
            self.assert_settled()?;
        }
        self.scale_to_zero()?;
        self.settle()?;
        self.assert_settled()?;
        self.delete_all()?;
        self.settle()?;
        self.assert_gone()
    }

    /// One thing happens.
    fn step(&mut self) -> Checked {
        match self.ids.below(100) {
            0..36 => self.reconcile_some(),
            36..58 => {
                self.agents_follow();
                Ok(())
            }
            58..80 => {
                let most = 1 + self.ids.below(24);
                self.deliver(most)
            }
            80..85 => self.balancers_check(),
            85..91 => {
                let milliseconds = [1, 100, 1_000, 5_000, 20_000, 60_000][self.ids.below(6)];
                self.now = self.now + Duration::from_millis(milliseconds);
                Ok(())
            }
            91..95 => self.user_acts(),
            95..99 => self.machine_acts(),
            _ => self.crash(Fault::CrashBetweenCommits),
        }
    }

    /// Everything that is written comes through here, and what must always hold is looked at.
    fn write(&mut self, work: impl FnOnce(&mut Transaction)) -> Checked {
        let before = self.store.snapshot();
        self.transact(work);
        let after = self.store.snapshot();
        self.coverage.add(Size::Commits, 1);
        self.coverage.changes(&before, &after);
        properties::always(&before, &after, self.now)
    }

    fn transact(&self, work: impl FnOnce(&mut Transaction)) {
        let done = self.store.transact(|tx| {
            work(tx);
            Ok::<(), std::convert::Infallible>(())
        });
        self.runtime.block_on(done).unwrap();
    }

    fn fault(&mut self, fault: Fault) {
        self.coverage.fault(fault);
        self.note(|| format!("fault: {fault:?}"));
    }

    /// Writes down what happens, where somebody will read it.
    fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:?} {}", text()));
        }
    }

    /// A number that a seed of its own may begin with.
    fn number(&mut self) -> u64 {
        u64::try_from(self.ids.below(usize::MAX)).unwrap()
    }

    pub fn trace(&self) -> String {
        self.trace.iter().flatten().cloned().collect::<Vec<_>>().join("\n")
    }

    /// The state in a line for each thing, for comparing and for people.
    pub fn describe(&self) -> String {
        let view = self.store.snapshot();
        let mut lines = vec![format!("now {:?}, {} keys wait", self.now, self.queue.len())];
        for service in view.list::<Service>("") {
            lines.push(format!("{} {:?} desired {}", service.name, service.status, service.desired_count));
            lines.extend(service.deployments.iter().map(|one| format!("  {one:?}")));
            let prefix = ServiceEvent::prefix(service.arn.as_str());
            let events = view.list::<ServiceEvent>(&prefix);
            let events: Vec<_> = events.map(|event| format!("  {:?} {}", event.created_at, event.message)).collect();
            lines.extend(events.into_iter().rev().take(8).rev());
            for task in view.find::<Task>(Task::OF_SERVICE, service.arn.as_str()) {
                lines.push(format!(
                    "  {} {:?} {:?} {:?} on {:?}",
                    task.id(),
                    task.desired_status,
                    task.last_status,
                    task.deployment_id,
                    task.container_instance_arn
                ));
            }
        }
        lines.join("\n")
    }
}
