//! A daemon service on instances that come, drain, lose their agents and go, while its user deploys, protects and stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use control::{Key, Launcher, Refusal, Step, queue::Queue, reconcile, watching};
use domain::{
    Arn, IdSource, Scope, Tags, Timestamp,
    ecs::{
        AgentConnection, Cluster, Compute, ContainerInstance, ContainerInstanceStatus, DesiredStatus, LaunchType,
        NetworkMode, NewTask, Placement, SchedulingStrategy, Service, StopCode, Task, TaskDefinition, TaskNetwork,
        TaskStatus, names,
    },
};
use futures_util::FutureExt;
use placement::{Demand, Fleet};
use store::{Changes, Snapshot, Store, Transaction, Watch, memory::Memory};

use super::{host::Host, world::PATIENCE};
use crate::nouns::{definition, deploy, kinds, service};

const MOST_INSTANCES: usize = 5;

/// Places on the instance that is named, as the platform does.
struct Fake;

impl Launcher for Fake {
    fn launch(
        &self,
        tx: &mut Transaction,
        new: NewTask<'_>,
        _: Option<&TaskNetwork>,
        ids: &mut IdSource,
        now: Timestamp,
    ) -> Result<Task, Refusal> {
        let arn = new.container_instance_arn.clone().unwrap();
        let demand = Demand::of(&new, |_| None).unwrap();
        let mut fleet = Fleet::default();
        fleet.put(placement::instance(tx, tx.get::<ContainerInstance>(arn.as_str()).unwrap()));
        fleet.place_on(&arn, &demand).map_err(|refusal| Refusal::NoInstance(refusal.to_string()))?;
        let task = Task::new(new, ids, now);
        tx.put(task.clone());
        Ok(task)
    }

    fn release(&self, _: &mut Transaction, _: &Task) {}
}

struct World {
    runtime: tokio::runtime::Runtime,
    store: Store,
    watch: Watch,
    queue: Queue,
    ids: IdSource,
    now: Timestamp,
    scope: Scope,
    hosts: BTreeMap<Arn, Host>,
    service: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let scope = Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() };
        let store = Store::open(Memory::default(), kinds()).unwrap();
        let mut ids = IdSource::from_seed(seed);
        let now = Timestamp(1_000_000);
        let cluster = Cluster::new(&scope, "default", Tags::default(), now);
        let mut service = Service {
            minimum_healthy_percent: [0, 50][ids.below(2)],
            maximum_percent: 100,
            ..service(&scope, "daemon", SchedulingStrategy::Daemon, now)
        };
        let begun = on_instances(&mut service, 1, &mut ids, now);
        let world = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            watch: store.watch(),
            store,
            queue: Queue::default(),
            ids,
            now,
            scope: scope.clone(),
            hosts: BTreeMap::new(),
            service: service.arn.to_string(),
        };
        world.transact(|tx| {
            tx.put(cluster);
            for revision in 1..=3 {
                tx.put(TaskDefinition { network_mode: NetworkMode::Bridge, ..definition(&scope, revision) });
            }
            tx.put(service);
            tx.put(begun.0);
            tx.put(begun.1);
        });
        world
    }

    fn transact<R>(&self, work: impl FnOnce(&mut Transaction) -> R) -> R {
        let done = self.store.transact(|tx| Ok::<R, std::convert::Infallible>(work(tx)));
        self.runtime.block_on(done).unwrap()
    }

    fn step(&mut self) {
        match self.ids.below(16) {
            0..6 => self.reconcile_some(true),
            6..11 => self.hosts_act(true),
            11 => self.register(),
            12 => self.change_an_instance(),
            13 => self.now = self.now + Duration::from_millis([1, 1_000, 20_000][self.ids.below(3)]),
            14 => self.user_acts(),
            _ => self.run_another(),
        }
    }

    fn register(&mut self) {
        if self.hosts.len() >= MOST_INSTANCES {
            return;
        }
        let arn = names::new_container_instance(&self.scope, "default", &mut self.ids);
        // Some have no room.
        let memory = [4096, 4096, 256][self.ids.below(3)];
        let instance = ContainerInstance {
            arn: arn.clone(),
            scope: self.scope.clone(),
            cluster_arn: names::cluster(&self.scope, "default"),
            ec2_instance_id: None,
            status: ContainerInstanceStatus::Active,
            cpu: 2048,
            memory,
            reserved_ports: Vec::new(),
            reserved_udp_ports: Vec::new(),
            gpus: Vec::new(),
            attributes: Vec::new(),
            tags: Tags::default(),
            registered_at: self.now,
            agent_version: String::new(),
            runtime_version: String::new(),
            agent_hash: String::new(),
            client_token: None,
        };
        self.hosts.insert(arn.clone(), Host::default());
        self.transact(|tx| tx.put(instance));
        self.connect(&arn);
    }

    fn connect(&mut self, arn: &Arn) {
        let connection = AgentConnection {
            container_instance_arn: arn.clone(),
            connected_at: self.now,
            connection_id: String::new(),
            patience: PATIENCE,
        };
        self.transact(|tx| tx.put(connection));
    }

    fn change_an_instance(&mut self) {
        let arns: Vec<Arn> = self.hosts.keys().cloned().collect();
        let Some(arn) = arns.get(self.ids.below(arns.len())).cloned() else { return };
        let status = match self.ids.below(5) {
            0 => ContainerInstanceStatus::Draining,
            1 => ContainerInstanceStatus::Active,
            2 => ContainerInstanceStatus::Inactive,
            3 => return self.transact(|tx| tx.delete::<AgentConnection>(arn.as_str())),
            _ => return self.connect(&arn),
        };
        if status == ContainerInstanceStatus::Inactive {
            self.hosts.remove(&arn);
        }
        self.transact(|tx| {
            tx.update::<ContainerInstance>(arn.as_str(), |one| one.status = status);
            if status == ContainerInstanceStatus::Inactive {
                tx.delete::<AgentConnection>(arn.as_str());
            }
        });
    }

    fn user_acts(&mut self) {
        let (now, arn) = (self.now, self.service.clone());
        let tasks: Vec<String> = {
            let view = self.store.snapshot();
            view.find::<Task>(Task::OF_SERVICE, &arn).map(|task| task.arn.to_string()).collect()
        };
        let task = tasks.get(self.ids.below(tasks.len()));
        match (self.ids.below(3), task) {
            (0, Some(task)) => {
                let until = Some(now + Duration::from_secs(60 * self.ids.below(5) as u64));
                self.transact(|tx| tx.update::<Task>(task, |task| task.protected_until = until));
            }
            (1, Some(task)) => self.transact(|tx| {
                tx.update::<Task>(task, |task| {
                    task.request_stop(StopCode::UserInitiated, "x", now);
                });
            }),
            _ => {
                let revision = u32::try_from(1 + self.ids.below(3)).unwrap();
                let mut ids = IdSource::from_seed(u64::try_from(self.ids.below(usize::MAX)).unwrap());
                self.transact(|tx| {
                    let mut service = Service::clone(&*tx.get::<Service>(&arn).unwrap());
                    let begun = on_instances(&mut service, revision, &mut ids, now);
                    tx.put(service);
                    tx.put(begun.0);
                    tx.put(begun.1);
                });
            }
        }
    }

    /// A task of nobody's service, which a daemon on a draining instance waits for.
    fn run_another(&mut self) {
        let arns: Vec<Arn> = self.hosts.keys().cloned().collect();
        let Some(arn) = arns.get(self.ids.below(arns.len())).cloned() else { return };
        let mut ids = IdSource::from_seed(u64::try_from(self.ids.below(usize::MAX)).unwrap());
        let (now, scope) = (self.now, self.scope.clone());
        self.transact(|tx| {
            let definition = tx.get::<TaskDefinition>(names::task_definition(&scope, "f", 1).as_str()).unwrap();
            let cluster = tx.get::<Cluster>(names::cluster(&scope, "default").as_str()).unwrap();
            let new = NewTask {
                cluster: &cluster,
                definition: &definition,
                cpu: 64,
                memory: 128,
                overrides: Default::default(),
                compute: &Compute::by_launch_type(LaunchType::Ec2),
                placement: &Placement::default(),
                group: "other".into(),
                started_by: None,
                service: None,
                container_instance_arn: Some(arn),
                zone: None,
                gpu_ids: Vec::new(),
                load_balancers: Vec::new(),
                image_digests: Default::default(),
                tags: Tags::default(),
            };
            let task = Task::new(new, &mut ids, now);
            tx.put(task);
        });
    }

    fn hosts_act(&mut self, some: bool) {
        let view = self.store.snapshot();
        let now = self.now;
        let mut hosts = std::mem::take(&mut self.hosts);
        for (arn, host) in &mut hosts {
            for task in view.find::<Task>(Task::ON_INSTANCE, arn.as_str()) {
                if !some || self.ids.below(2) == 0 {
                    host.follow(&task, &mut self.ids, false);
                }
            }
            for (task, report) in std::mem::take(&mut host.reports) {
                self.transact(|tx| {
                    tx.update::<Task>(&task, |task| {
                        task.observe(&report, now);
                    })
                });
            }
        }
        self.hosts = hosts;
    }

    fn reconcile_some(&mut self, faults: bool) {
        while let Some(Some(changes)) = self.watch.next().now_or_never() {
            let view = self.store.snapshot();
            let keys: Vec<Key> = match &changes {
                Changes::Keys(all) => all.iter().flat_map(|change| watching::concerned(&view, change)).collect(),
                Changes::Lagged => watching::everything(&view),
            };
            keys.into_iter().for_each(|key| self.queue.push(key, self.now));
        }
        let view = self.store.snapshot();
        for key in self.queue.take(self.now, 8) {
            let plan = reconcile(&view, &key, self.now);
            if faults && self.ids.below(10) == 0 {
                self.user_acts();
            }
            if let Some(at) = plan.again_at {
                self.queue.push(key, at);
            }
            if let Some(step) = plan.step {
                self.commit(&step);
            }
        }
    }

    fn commit(&mut self, step: &Step) {
        let before = self.store.snapshot();
        let now = self.now;
        let mut queue = std::mem::take(&mut self.queue);
        let mut ids = IdSource::from_seed(u64::try_from(self.ids.below(usize::MAX)).unwrap());
        self.transact(|tx| control::commit(tx, step, &Fake, &mut queue, &mut ids, now));
        self.queue = queue;
        let Step::Service(_) = step else { return };
        let after = self.store.snapshot();
        let mut places = BTreeSet::new();
        for task in after.find::<Task>(Task::OF_SERVICE, &self.service) {
            if task.desired_status == DesiredStatus::Running {
                assert!(places.insert(task.container_instance_arn.clone()), "two on one instance");
                continue;
            }
            let was = before.get::<Task>(task.arn.as_str()).unwrap();
            if was.desired_status == DesiredStatus::Stopped {
                continue;
            }
            assert!(!was.is_protected(now), "{}: a protected task was stopped", task.arn);
            let place = task.container_instance_arn.as_ref().unwrap().as_str();
            let draining = before.get::<ContainerInstance>(place).unwrap().status == ContainerInstanceStatus::Draining;
            let others = before.find::<Task>(Task::ON_INSTANCE, place).any(|other| other.service_arn.is_none());
            assert!(!(draining && others), "{}: it left before the others", task.arn);
        }
    }

    fn settle(&mut self) {
        // On so few instances a minimum rounds to a deadlock, which the service says; its user helps.
        let arn = self.service.clone();
        self.transact(|tx| tx.update::<Service>(&arn, |service| service.minimum_healthy_percent = 0));
        let until = self.now + Duration::from_secs(1_800);
        for _ in 0..5_000 {
            let revision = self.store.snapshot().revision();
            self.hosts_act(false);
            self.reconcile_some(false);
            if self.store.snapshot().revision() == revision {
                match self.queue.next_at().filter(|at| *at <= until) {
                    Some(at) => self.now = at.max(self.now),
                    None => return,
                }
            }
        }
        panic!("it never settles");
    }

    /// Exactly one task of the newest deployment on each instance that can have one, and none elsewhere.
    fn assert_settled(&self) {
        let view = self.store.snapshot();
        let service = view.get::<Service>(&self.service).unwrap();
        let newest = &service.primary().unwrap().id;
        for arn in self.hosts.keys() {
            let instance = view.get::<ContainerInstance>(arn.as_str()).unwrap();
            let own: Vec<_> =
                view.find::<Task>(Task::ON_INSTANCE, arn.as_str()).filter(|task| task.service_arn.is_some()).collect();
            let connected = view.contains::<AgentConnection>(arn.as_str());
            let room = has_room(&view, &instance);
            match instance.status {
                ContainerInstanceStatus::Active if connected && (room || !own.is_empty()) => {
                    assert_eq!(own.len(), 1, "{arn}");
                    assert_eq!(own[0].last_status, TaskStatus::Running);
                    assert_eq!(own[0].deployment_id.as_ref(), Some(newest));
                }
                ContainerInstanceStatus::Active => assert!(own.len() <= 1, "{arn}"),
                _ => {
                    let others = view.find::<Task>(Task::ON_INSTANCE, arn.as_str()).count() > own.len();
                    assert!(own.is_empty() || others, "{arn}: a daemon was left behind");
                }
            }
        }
    }
}

fn has_room(view: &Snapshot, instance: &ContainerInstance) -> bool {
    let held: u32 = view.find::<Task>(Task::ON_INSTANCE, instance.arn.as_str()).map(|task| task.memory).sum();
    let cpu: u32 = view.find::<Task>(Task::ON_INSTANCE, instance.arn.as_str()).map(|task| task.cpu).sum();
    instance.memory >= held + 512 && instance.cpu >= cpu + 256
}

fn on_instances(
    service: &mut Service,
    revision: u32,
    ids: &mut IdSource,
    now: Timestamp,
) -> (domain::ecs::ServiceRevision, domain::ecs::ServiceDeployment) {
    let (mut revision, begun) = deploy(service, revision, Vec::new(), ids, now);
    (revision.network, revision.compute) = (None, Compute::by_launch_type(LaunchType::Ec2));
    let primary = service.primary_mut().unwrap();
    (primary.network, primary.compute) = (None, Compute::by_launch_type(LaunchType::Ec2));
    (revision, begun)
}

#[test]
fn daemons_keep_their_promise_while_instances_come_and_go() {
    for seed in 0..40 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..400).for_each(|_| world.step());
            world.settle();
            world.assert_settled();
        });
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}
