//! A cluster of some size with tasks that come and go.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Arn, IdSource, Timestamp,
    ecs::{BinpackField, ContainerInstance, ContainerInstanceStatus, NewTask, PlacementStrategy, Task},
};
use placement::{Demand, Fleet, Instance};

use crate::{
    reference,
    support::{attribute, demand, parts, query, seed, stored, tcp},
};

const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];
const TYPES: [&str; 4] = ["m5.large", "m5.xlarge", "c5.2xlarge", "r5.large"];
const SHAPES: usize = 50;
/// On average.
const TASKS_PER_INSTANCE: usize = 10;
/// After how many placements an instance itself changes.
const CHANGE_EVERY: usize = 50;

/// The instances with the tasks on them, and a fleet that is told of what becomes of them.
pub struct World {
    stored: Vec<Arc<ContainerInstance>>,
    at: HashMap<Arn, usize>,
    /// The shapes of the tasks on each instance, and every task's instance.
    on: Vec<Vec<usize>>,
    running: Vec<usize>,
    shapes: Vec<Demand>,
    /// A task of each shape. All of a shape are alike to an instance.
    tasks: Vec<Arc<Task>>,
    strategy: [PlacementStrategy; 2],
    fleet: Fleet,
    random: IdSource,
    step: usize,
    /// How long the fleet took to change, in this [`Self::run`].
    changing: Duration,
    /// How many placements of [`Self::run`] found no place.
    pub refused: usize,
}

/// What a run took.
pub struct Spent {
    pub choosing: Duration,
    /// Telling the fleet what became of its instances.
    pub changing: Duration,
    pub whole: Duration,
}

impl World {
    pub fn new(instances: usize) -> Self {
        let stored = registered_instances(instances);
        let shapes: Vec<Demand> = (0..SHAPES).map(shape).collect();
        Self {
            tasks: shapes.iter().map(|shape| Arc::new(task(shape))).collect(),
            at: stored.iter().enumerate().map(|(at, stored)| (stored.arn.clone(), at)).collect(),
            on: vec![Vec::new(); instances],
            running: Vec::new(),
            stored: stored.into_iter().map(Arc::new).collect(),
            shapes,
            strategy: [
                PlacementStrategy::Spread("attribute:ecs.availability-zone".into()),
                PlacementStrategy::Binpack(BinpackField::Memory),
            ],
            fleet: Fleet::default(),
            random: seed(instances as u64),
            step: 0,
            changing: Duration::ZERO,
            refused: 0,
        }
    }

    pub fn make_fleet(&mut self) {
        (0..self.stored.len()).for_each(|at| self.fleet.put(self.instance(at)));
    }

    /// Places as many tasks as there are to be.
    pub fn fill(&mut self) {
        for step in 0..self.stored.len() * TASKS_PER_INSTANCE {
            if let Some(arn) = self.choose(step % SHAPES) {
                self.begin(&arn, step % SHAPES);
            }
        }
    }

    pub fn tasks(&self) -> usize {
        self.running.len()
    }

    /// Places that many tasks, one after the other. Returns how long choosing took, and how long all of it, which
    /// beside the fleet's changes is the counting of what is on an instance.
    pub fn run(&mut self, placements: usize) -> Spent {
        let (mut choosing, start) = (Duration::ZERO, Instant::now());
        self.changing = Duration::ZERO;
        for _ in 0..placements {
            let shape = self.step % SHAPES;
            let chosen = Instant::now();
            let arn = self.choose(shape);
            choosing += chosen.elapsed();
            match arn {
                Some(arn) => self.begin(&arn, shape),
                None => self.refused += 1,
            }
            self.go_on();
        }
        Spent { choosing, changing: self.changing, whole: start.elapsed() }
    }

    /// Compares that many answers with the reference's. Returns how long the reference took.
    pub fn compare(&mut self, samples: usize) -> Duration {
        let mut time = Duration::ZERO;
        for sample in 0..samples {
            let demand = &self.shapes[sample % SHAPES];
            let instances: Vec<Instance> = (0..self.stored.len()).map(|at| self.instance(at)).collect();
            let start = Instant::now();
            let expected = reference::place(&instances, demand, &self.strategy, &mut seed(sample as u64));
            time += start.elapsed();
            let answer = self.fleet.place(demand, &self.strategy, &mut seed(sample as u64));
            assert_eq!(answer.ok().map(Instance::arn), expected.map(|at| instances[at].arn()), "sample {sample}");
            self.run(17);
        }
        time
    }

    /// Asks for what no instance has. Returns how long that took.
    pub fn refuse(&mut self, times: usize) -> Duration {
        let start = Instant::now();
        for time in 0..times {
            let demand = Demand { memory: u32::MAX, ..self.shapes[time % SHAPES].clone() };
            let refusal = self.fleet.place(&demand, &self.strategy, &mut self.random).unwrap_err();
            assert!(refusal.closest().is_some() && refusal.left_out.len() <= self.stored.len());
        }
        start.elapsed()
    }

    fn choose(&mut self, shape: usize) -> Option<Arn> {
        let chosen = self.fleet.place(&self.shapes[shape], &self.strategy, &mut self.random);
        chosen.ok().map(|instance| instance.arn().clone())
    }

    fn begin(&mut self, arn: &Arn, shape: usize) {
        let at = self.at[arn];
        self.on[at].push(shape);
        self.running.push(at);
        let came = std::slice::from_ref(&self.tasks[shape]);
        let start = Instant::now();
        self.fleet.recount(arn, &[], came);
        self.changing += start.elapsed();
    }

    /// A task ends somewhere, and now and then something becomes of an instance.
    fn go_on(&mut self) {
        self.step += 1;
        if self.running.len() >= self.stored.len() * TASKS_PER_INSTANCE {
            let at = self.running.swap_remove(self.random.below(self.running.len()));
            let ended = self.random.below(self.on[at].len());
            let left = &self.tasks[self.on[at].swap_remove(ended)];
            let start = Instant::now();
            self.fleet.recount(&self.stored[at].arn, std::slice::from_ref(left), &[]);
            self.changing += start.elapsed();
        }
        if self.step.is_multiple_of(CHANGE_EVERY) {
            let at = self.random.below(self.stored.len());
            let stored = Arc::make_mut(&mut self.stored[at]);
            match (self.step / CHANGE_EVERY % 2, stored.status) {
                (0, ContainerInstanceStatus::Active) => stored.status = ContainerInstanceStatus::Draining,
                (0, _) => stored.status = ContainerInstanceStatus::Active,
                _ => {
                    let stack = stored.attributes.iter_mut().find(|attribute| attribute.name == "stack").unwrap();
                    stack.value = Some(["prod", "test"][self.step / CHANGE_EVERY / 2 % 2].to_owned());
                }
            }
            // Few are away at a time.
            if self.step.is_multiple_of(CHANGE_EVERY * 4) {
                stored.status = ContainerInstanceStatus::Active;
            }
            let instance = self.instance(at);
            let start = Instant::now();
            self.fleet.put(instance);
            self.changing += start.elapsed();
        }
    }

    /// An instance as it is now, counted anew as it would be from the store.
    fn instance(&self, at: usize) -> Instance {
        let mut instance = Instance::empty(self.stored[at].clone(), true);
        self.on[at].iter().for_each(|shape| instance.hold(&self.tasks[*shape]));
        instance
    }
}

/// So many instances, in the order of their ARNs.
pub fn registered_instances(instances: usize) -> Vec<ContainerInstance> {
    let mut random = seed(instances as u64);
    let mut stored: Vec<_> = (0..instances).map(|number| registered(number, &mut random)).collect();
    stored.sort_by(|one, other| one.arn.cmp(&other.arn));
    stored
}

/// An instance with 32 attributes. Sizes differ, and are nobody's multiple.
fn registered(number: usize, random: &mut IdSource) -> ContainerInstance {
    let times = [1, 2, 4, 8][random.below(4)];
    let mut stored = stored(&random.hex(32), 2048 * times, 7_680 * times, &[]);
    let mut add = |name: &str, value: &str| stored.attributes.push(attribute(name, value));
    add("ecs.availability-zone", ZONES[number % ZONES.len()]);
    add("ecs.instance-type", TYPES[number / 3 % TYPES.len()]);
    add("ecs.os-type", "linux");
    add("ecs.cpu-architecture", "x86_64");
    add("ecs.ami-id", ["ami-1", "ami-2", "ami-3"][random.below(3)]);
    add("ecs.subnet-id", &format!("subnet-{}", number % 9));
    add("stack", ["prod", "test"][random.below(2)]);
    add("rack", &format!("r{}", random.below(40)));
    add("host", &format!("host-{number}"));
    (0..23).for_each(|capability| add(&format!("ecs.capability.some-capability.{capability}"), ""));
    assert_eq!(stored.attributes.len(), 32);
    stored
}

/// What the tasks of one kind need.
fn shape(number: usize) -> Demand {
    let own = [
        "attribute:stack == prod".to_owned(),
        "attribute:ecs.instance-type =~ m5.*".to_owned(),
        format!("attribute:rack != r{}", number % 40),
        "attribute:ecs.instance-type in [m5.large, r5.large] or attribute:stack == test".to_owned(),
        "attribute:ecs.ami-id != ami-1 and agentVersion >= 1.90".to_owned(),
    ];
    Demand {
        host_ports: if number.is_multiple_of(5) { vec![tcp(8_000 + number as u16 / 5)] } else { Vec::new() },
        required_attributes: (0..6)
            .map(|at| format!("ecs.capability.some-capability.{}", (number + at * 3) % 23))
            .collect(),
        group: format!("service:{number}"),
        member_of: vec![query(&own[number % own.len()])],
        ..demand([64, 100, 128, 256][number % 4], 100 + 37 * number as u32)
    }
}

/// A task that needs this, and is wanted.
fn task(needs: &Demand) -> Task {
    let parts = parts();
    let new = parts.new_task(&needs.group, None);
    let mut task = Task::new(NewTask { cpu: needs.cpu, memory: needs.memory, ..new }, &mut seed(1), Timestamp(0));
    task.host_ports.clone_from(&needs.host_ports);
    task
}
