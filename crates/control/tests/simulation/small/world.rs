//! The whole world of a simulation, driven by one source of randomness.

mod overtaken;
mod settled;
mod user;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use control::{Key, Launcher, Plan, Refusal, Step, queue::Queue, reconcile, watching};
use domain::{
    IdSource, Scope, Tags, Timestamp,
    agent_protocol::FARGATE_CLUSTER,
    balancing::{ObservedHealth, TargetHealth, TargetRegistration},
    ecs::{
        AgentAbsence, AgentConnection, CircuitBreaker, Cluster, ContainerInstance, ContainerInstanceStatus,
        DesiredStatus, NewTask, SchedulingStrategy, Service, ServiceEvent, ServiceStatus, StopCode, Task,
        TaskDefinition, TaskInterface, TaskLoadBalancer, TaskNetwork, TaskStatus, names,
    },
};
use futures_util::FutureExt;
use store::{Changes, Snapshot, Store, Transaction, Watch, memory::Memory};

use super::host::Host;
use crate::nouns::{ZONES, definition, deploy, group, kinds, service, subnet};

/// MiB of the host: room for some, not for all that the services could want at once.
const HOST_MEMORY: u32 = HOST_TASKS * 512;
const HOST_TASKS: u32 = 20;
/// How long a task may wait for its host.
pub const PATIENCE: Duration = Duration::from_secs(300);

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
        let hosts = placement::fargate_hosts(tx);
        let host = placement::place_on_fargate(&hosts, new.memory)
            .map_err(|error| Refusal::NotPlaced(error.to_string()))?
            .arn
            .clone();
        // By chance: what is off balance comes of it.
        let zone = new.zone.clone().unwrap_or_else(|| ZONES[ids.below(ZONES.len())].to_owned());
        let mut task = Task::new(NewTask { container_instance_arn: Some(host), ..new }, ids, now);
        let number = u16::try_from(ids.below(65_000)).unwrap();
        let [high, low] = number.to_be_bytes();
        task.interface = Some(TaskInterface {
            attachment_id: ids.uuid(),
            network_interface_id: ids.ec2("eni"),
            subnet_id: "subnet-1".into(),
            availability_zone: zone,
            mac_address: "0a:00:00:00:00:00".into(),
            private_address: Ipv4Addr::new(10, 0, high, low),
            private_dns_name: String::new(),
            attached: false,
        });
        tx.put(task.clone());
        Ok(task)
    }

    fn release(&self, _: &mut Transaction, _: &Task) {}
}

pub struct World {
    runtime: tokio::runtime::Runtime,
    journal: Memory,
    store: Store,
    watch: Watch,
    queue: Queue,
    ids: IdSource,
    now: Timestamp,
    host: Host,
    scope: Scope,
    instance: domain::Arn,
    services: Vec<String>,
    faults: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let journal = Memory::default();
        let store = Store::open(journal.clone(), kinds()).unwrap();
        let watch = store.watch();
        let scope = Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() };
        let mut ids = IdSource::from_seed(seed);
        let instance = names::new_container_instance(&scope, FARGATE_CLUSTER, &mut ids);
        let mut world = Self {
            runtime,
            journal,
            store,
            watch,
            queue: Queue::default(),
            ids,
            now: Timestamp(1_000_000),
            host: Host::default(),
            scope,
            instance,
            services: Vec::new(),
            faults: true,
        };
        world.populate();
        world.connect();
        world
    }

    fn populate(&mut self) {
        let cluster = Cluster::new(&self.scope, "default", Tags::default(), self.now);
        let host = ContainerInstance {
            arn: self.instance.clone(),
            scope: self.scope.clone(),
            cluster_arn: names::cluster(&self.scope, FARGATE_CLUSTER),
            ec2_instance_id: None,
            status: ContainerInstanceStatus::Active,
            cpu: 2048,
            memory: HOST_MEMORY,
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
        let definitions: Vec<TaskDefinition> = (1..=3).map(|revision| definition(&self.scope, revision)).collect();
        let percents = [(100, 200), (50, 100), (0, 100), (50, 150), (100, 150)];
        let (mut services, mut history) = (Vec::new(), Vec::new());
        for index in 0..3 {
            let (minimum, maximum) = percents[self.ids.below(percents.len())];
            let desired = u32::try_from(self.ids.below(5)).unwrap();
            let load_balanced = index == 0;
            let group = group(&self.scope);
            let name = format!("s{index}");
            let mut service = Service {
                desired_count: desired,
                platform_version: "LATEST".into(),
                zone_rebalancing: maximum > 100 && self.ids.below(4) > 0,
                minimum_healthy_percent: minimum,
                maximum_percent: maximum,
                circuit_breaker: CircuitBreaker {
                    enable: self.ids.below(2) == 0,
                    rollback: self.ids.below(2) == 0,
                    ..CircuitBreaker::default()
                },
                ..service(&self.scope, &name, SchedulingStrategy::Replica, self.now)
            };
            let balancers = TaskLoadBalancer {
                target_group_arn: group.arn.clone(),
                container_name: "app".into(),
                container_port: 80,
            };
            let balancers = if load_balanced { vec![balancers] } else { Vec::new() };
            history.push(deploy(&mut service, 1, balancers, &mut self.ids, self.now));
            services.push(service);
        }
        self.services = services.iter().map(|service| service.arn.to_string()).collect();
        let (group, scope) = (group(&self.scope), self.scope.clone());
        self.transact(move |tx| {
            tx.put(cluster);
            tx.put(host);
            tx.put(group);
            ZONES.iter().for_each(|zone| tx.put(subnet(&scope, zone)));
            definitions.into_iter().for_each(|definition| tx.put(definition));
            services.into_iter().for_each(|service| tx.put(service));
            for (revision, deployment) in history {
                tx.put(revision);
                tx.put(deployment);
            }
        });
    }

    fn transact<R>(&self, work: impl FnOnce(&mut Transaction) -> R) -> R {
        let done = self.store.transact(|tx| Ok::<R, std::convert::Infallible>(work(tx)));
        self.runtime.block_on(done).unwrap()
    }

    fn connect(&mut self) {
        let connection = AgentConnection {
            container_instance_arn: self.instance.clone(),
            connected_at: self.now,
            connection_id: String::new(),
            patience: PATIENCE,
        };
        self.transact(|tx| {
            tx.put(connection);
            tx.delete::<AgentAbsence>(self.instance.as_str());
        });
    }

    /// The agent's connection ends.
    pub fn disconnect(&mut self) {
        let absence = AgentAbsence {
            container_instance_arn: self.instance.clone(),
            since: self.now,
            patience: PATIENCE,
            lost_at: None,
        };
        self.transact(|tx| {
            tx.delete::<AgentConnection>(self.instance.as_str());
            tx.put(absence);
        });
    }

    /// The host comes back as a new instance; what it was is gone.
    pub fn replace_host(&mut self) {
        self.host = Host::default();
        let fresh = names::new_container_instance(&self.scope, FARGATE_CLUSTER, &mut self.ids);
        let old = std::mem::replace(&mut self.instance, fresh.clone());
        self.transact(|tx| {
            let known = tx.get::<ContainerInstance>(old.as_str()).unwrap();
            tx.put(ContainerInstance { arn: fresh, ..ContainerInstance::clone(&known) });
            tx.put(ContainerInstance { status: ContainerInstanceStatus::Inactive, ..ContainerInstance::clone(&known) });
            tx.delete::<AgentConnection>(old.as_str());
        });
        self.connect();
    }

    /// Time goes by, in which reconcilers run and nobody else does anything.
    pub fn pass(&mut self, time: Duration) {
        self.faults = false;
        let until = self.now + time;
        loop {
            self.enqueue_changes();
            match self.queue.next_at().filter(|at| *at <= until) {
                Some(at) => {
                    self.now = at.max(self.now);
                    self.reconcile_some();
                }
                None => break,
            }
        }
        self.now = until;
    }

    /// Status, stop code and reason of every task.
    pub fn tasks(&self) -> Vec<(TaskStatus, Option<StopCode>, Option<String>)> {
        let view = self.store.snapshot();
        view.list::<Task>("").map(|task| (task.last_status, task.stop_code, task.stopped_reason.clone())).collect()
    }

    /// Whether all tasks that are not over are on the present host.
    pub fn all_on_the_host(&self) -> bool {
        let view = self.store.snapshot();
        view.list::<Task>("")
            .filter(|task| task.last_status != TaskStatus::Stopped)
            .all(|task| task.container_instance_arn.as_ref() == Some(&self.instance))
    }

    /// The control plane dies: what is durable stays, everything else is gone.
    pub fn crash(&mut self) {
        self.store = Store::open(self.journal.clone(), kinds()).unwrap();
        self.watch = self.store.watch();
        self.queue = Queue::default();
        for key in watching::everything(&self.store.snapshot()) {
            self.queue.push(key, self.now);
        }
        self.connect();
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.ids.below(20) {
            0..7 => self.reconcile_some(),
            7..10 => self.agent_follows(),
            10..14 => self.deliver_report(),
            14 => self.balancer_checks(),
            15 => self.user_acts(),
            16 => {
                let milliseconds = [1, 100, 1_000, 20_000][self.ids.below(4)];
                self.now = self.now + Duration::from_millis(milliseconds);
            }
            17 => self.host.crash_one(&mut self.ids),
            18 if self.ids.below(3) == 0 => self.host.restart(),
            19 if self.ids.below(3) == 0 => self.crash(),
            _ => {}
        }
    }

    fn enqueue_changes(&mut self) {
        while let Some(Some(changes)) = self.watch.next().now_or_never() {
            let view = self.store.snapshot();
            let keys: Vec<Key> = match &changes {
                Changes::Keys(changes) => {
                    changes.iter().flat_map(|change| watching::concerned(&view, change)).collect()
                }
                Changes::Lagged => watching::everything(&view),
            };
            keys.into_iter().for_each(|key| self.queue.push(key, self.now));
        }
    }

    /// Plans for some keys and commits, with something else in between now and then.
    fn reconcile_some(&mut self) {
        self.enqueue_changes();
        let most = 1 + self.ids.below(8);
        let keys = self.queue.take(self.now, most);
        let view = self.store.snapshot();
        let plans: Vec<(Key, Plan)> =
            keys.into_iter().map(|key| (key.clone(), reconcile(&view, &key, self.now))).collect();
        if self.faults {
            match self.ids.below(12) {
                0 => self.deliver_report(),
                1 => self.user_acts(),
                2 => return self.crash(),
                _ => {}
            }
        }
        for (key, plan) in plans {
            if let Some(at) = plan.again_at {
                self.queue.push(key, at);
            }
            if let Some(step) = plan.step {
                self.commit(&step);
            }
            if self.faults && self.ids.below(60) == 0 {
                return self.crash();
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
        let after = self.store.snapshot();
        for task in after.list::<Task>("") {
            if let Some(known) = before.get::<Task>(task.arn.as_str()) {
                assert!(task.last_status >= known.last_status, "{}: a status went back", task.arn);
                assert!(task.desired_status >= known.desired_status, "{}: a stop was taken back", task.arn);
            }
        }
        let held: u32 = after.find::<Task>(Task::ON_INSTANCE, self.instance.as_str()).map(|task| task.memory).sum();
        assert!(held <= HOST_MEMORY, "memory was promised beyond the host");
        let Step::Service(plan) = step else { return };
        let service = after.get::<Service>(&plan.service).unwrap();
        if service.status == ServiceStatus::Active {
            for was in before.find::<Task>(Task::OF_SERVICE, &plan.service).filter(|task| task.is_protected(now)) {
                let is = after.get::<Task>(was.arn.as_str()).unwrap();
                assert_eq!(is.desired_status, was.desired_status, "{}: a protected task was stopped", was.arn);
            }
        }
        let (was, is) = (healthy(&before, &plan.service), healthy(&after, &plan.service));
        let minimum = service.minimum_healthy() as usize;
        if service.status == ServiceStatus::Active && is < was {
            assert!(is >= minimum, "{}: our own stops left {is} of at least {minimum}", service.name);
        }
        if plan.stop.iter().any(|stop| stop.rebalanced.is_some()) {
            let desired = service.desired_count as usize;
            assert!(is >= desired, "{}: {is} of {desired} are left by a move between zones", service.name);
        }
        let (was, is) = (alive(&before, &plan.service), alive(&after, &plan.service));
        let maximum = (service.maximum() as usize).max(was);
        assert!(is <= maximum, "{}: {is} tasks where {maximum} may be", service.name);
    }

    fn agent_follows(&mut self) {
        let view = self.store.snapshot();
        for task in view.find::<Task>(Task::ON_INSTANCE, self.instance.as_str()) {
            if !self.faults || self.ids.below(2) == 0 {
                self.host.follow(&task, &mut self.ids, self.faults);
            }
        }
    }

    fn deliver_report(&mut self) {
        let count = self.host.reports.len();
        if count == 0 {
            return;
        }
        let index = if self.faults { self.ids.below(count) } else { 0 };
        let (arn, report) = self.host.reports[index].clone();
        // Now and then it comes again later.
        if !self.faults || self.ids.below(5) > 0 {
            self.host.reports.remove(index);
        }
        let now = self.now;
        self.transact(|tx| {
            if let Some(task) = tx.get::<Task>(&arn) {
                let mut task = Task::clone(&task);
                if task.observe(&report, now) {
                    tx.put(task);
                }
            }
        });
    }

    /// The load balancer finds every target healthy whose container runs.
    fn balancer_checks(&mut self) {
        let running: BTreeSet<IpAddr> = {
            let view = self.store.snapshot();
            let tasks = self.host.running().filter_map(|arn| view.get::<Task>(arn));
            tasks.filter_map(|task| task.interface.as_ref().map(|known| known.private_address.into())).collect()
        };
        self.transact(|tx| {
            let targets: Vec<TargetRegistration> =
                tx.list::<TargetRegistration>("").map(|target| TargetRegistration::clone(&target)).collect();
            for target in targets {
                let health =
                    if running.contains(&target.address) { TargetHealth::HEALTHY } else { TargetHealth::CHECKING };
                let (target_group, address, port) = (target.target_group, target.address, target.port);
                tx.put(ObservedHealth { target_group, address, port, health });
            }
        });
    }

    /// No more faults: everything goes on until nothing more happens.
    pub fn settle(&mut self) {
        self.faults = false;
        // With so few tasks these percentages round to a deadlock, which the service says; its user helps.
        for arn in self.services.clone() {
            let service = self.store.snapshot().get::<Service>(&arn).unwrap();
            if service.desired_count > 0 && service.minimum_healthy() >= service.maximum() {
                self.transact(|tx| tx.update::<Service>(&arn, |service| service.desired_count += 1));
            }
        }
        let mut quiet_until = None;
        for _ in 0..20_000 {
            self.enqueue_changes();
            let due = self.queue.next_at().is_some_and(|at| at <= self.now);
            let revision = self.store.snapshot().revision();
            self.agent_follows();
            let reports = self.host.reports.len();
            if due {
                self.reconcile_some();
            } else if reports > 0 {
                self.deliver_report();
            } else {
                self.balancer_checks();
                self.enqueue_changes();
                if self.queue.next_at().is_some_and(|at| at <= self.now) {
                    // Health is reported again and again; only what changes anything counts.
                    self.reconcile_some();
                }
                if self.store.snapshot().revision() == revision {
                    // Time alone can change something for half an hour: back-offs and drains are shorter.
                    let until = *quiet_until.get_or_insert(self.now + Duration::from_secs(1_800));
                    match self.queue.next_at().filter(|at| *at <= until) {
                        Some(at) => self.now = at.max(self.now),
                        None => return,
                    }
                }
            }
        }
        panic!("the control plane never settles: {}", self.describe());
    }

    pub fn scale_all(&mut self, desired: u32) {
        for arn in self.services.clone() {
            self.transact(|tx| tx.update::<Service>(&arn, |service| service.desired_count = desired));
        }
    }

    pub fn delete_all(&mut self) {
        for arn in self.services.clone() {
            self.transact(|tx| tx.update::<Service>(&arn, |service| service.status = ServiceStatus::Draining));
        }
    }

    pub fn assert_gone(&self) {
        let view = self.store.snapshot();
        for arn in &self.services {
            assert_eq!(view.get::<Service>(arn).unwrap().status, ServiceStatus::Inactive);
        }
        assert_eq!(self.host.running().count(), 0);
        assert_eq!(view.find::<Task>(Task::ON_INSTANCE, self.instance.as_str()).count(), 0);
    }

    /// The state in a line for each thing, for comparing and for people.
    pub fn describe(&self) -> String {
        let view = self.store.snapshot();
        let mut lines = vec![format!("now {:?} queue {}", self.now, self.queue.len())];
        for service in view.list::<Service>("") {
            let events: Vec<String> = view
                .list::<ServiceEvent>(&ServiceEvent::prefix(service.arn.as_str()))
                .map(|event| event.message.clone())
                .collect();
            lines.push(format!("{service:?} {events:#?}"));
        }
        for task in view.list::<Task>("").filter(|task| task.last_status != TaskStatus::Stopped) {
            lines.push(format!(
                "{} {:?} {:?} {:?}",
                task.arn, task.desired_status, task.last_status, task.deployment_id
            ));
        }
        lines.join("\n")
    }
}

fn healthy(view: &Snapshot, service: &str) -> usize {
    view.find::<Task>(Task::OF_SERVICE, service)
        .filter(|task| task.desired_status == DesiredStatus::Running && task.last_status == TaskStatus::Running)
        .filter(|task| {
            task.load_balancers.iter().all(|balancer| {
                let address = task.interface.as_ref().unwrap().private_address.into();
                let key = TargetRegistration::key_of(&balancer.target_group_arn, address, balancer.container_port);
                view.get::<ObservedHealth>(&key).is_some_and(|seen| seen.health == TargetHealth::HEALTHY)
            })
        })
        .count()
}

fn alive(view: &Snapshot, service: &str) -> usize {
    view.find::<Task>(Task::OF_SERVICE, service).filter(|task| task.desired_status == DesiredStatus::Running).count()
}
