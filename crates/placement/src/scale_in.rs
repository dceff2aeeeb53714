//! Which tasks of a service go when it is to have fewer: the mirror image of [`crate::strategy`]. Spreading takes from
//! where the most are; bin packing takes the task whose instance has the most left without it, which is the one that is
//! the soonest empty.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>

use std::cmp::Reverse;

use domain::{
    IdSource,
    ecs::{BinpackField, PlacementStrategy},
};

use crate::{
    Instance,
    spread::{Classes, Field, keep_least},
};

/// A task of the service. Tasks without an instance, or on Fargate, count as one more value of whatever is spread over.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Where it is, if that is one of the cluster's instances.
    pub instance: Option<&'a Instance>,
    /// CPU units that it holds.
    pub cpu: u32,
    /// MiB that it holds.
    pub memory: u32,
    /// Lower ranks go first whatever the strategy says, such as tasks that do not run yet.
    pub rank: usize,
    /// Never goes. It counts all the same for the tasks beside it.
    pub protected: bool,
}

/// Chooses the tasks to stop, at most `count`, in the order in which they go: positions in `candidates`. Where rank and
/// strategy leave several equal, the first in `candidates` goes; only after `Random` does chance decide.
pub fn first_to_stop(
    candidates: &[Candidate<'_>],
    strategy: &[PlacementStrategy],
    count: usize,
    random: &mut IdSource,
) -> Vec<usize> {
    let mut state = State::new(candidates, strategy);
    let mut left: Vec<usize> = (0..candidates.len()).filter(|at| !candidates[*at].protected).collect();
    let mut stopped = Vec::new();
    while stopped.len() < count {
        let Some(next) = state.next(&left, random) else { break };
        state.remove(next);
        left.retain(|at| *at != next);
        stopped.push(next);
    }
    stopped
}

/// One strategy with what it counts.
enum Step {
    Spread {
        /// The class of each candidate.
        class: Vec<usize>,
        /// Whether a candidate's instance lacks what is spread over.
        lacks: Vec<bool>,
        /// The tasks in each class.
        tasks: Vec<usize>,
    },
    Binpack(BinpackField),
    Random,
}

struct State<'a> {
    candidates: &'a [Candidate<'a>],
    steps: Vec<Step>,
    /// Each candidate's instance, as a number, and what is free on each with those gone that were chosen.
    place: Classes,
    free: Vec<(u64, u64)>,
}

impl<'a> State<'a> {
    fn new(candidates: &'a [Candidate<'a>], strategy: &[PlacementStrategy]) -> Self {
        let mut classes = Classes::new(candidates.len());
        let values = |field: Field<'_>| {
            let value = |candidate: &Candidate<'a>| field.value(candidate.instance?);
            candidates.iter().map(value).collect::<Vec<_>>()
        };
        let steps = strategy.iter().map(|step| match step {
            PlacementStrategy::Spread(field) => {
                let values = values(Field::read(field));
                let tasks = classes.divide(values.iter().map(|value| (*value, 1)));
                let class = (0..candidates.len()).map(|at| classes.of(at)).collect();
                Step::Spread { class, lacks: values.iter().map(Option::is_none).collect(), tasks }
            }
            PlacementStrategy::Binpack(field) => Step::Binpack(*field),
            PlacementStrategy::Random => Step::Random,
        });
        let steps = steps.collect();
        let mut place = Classes::new(candidates.len());
        let tasks = place.divide(values(Field::Instance).into_iter().map(|value| (value, 1)));
        let mut free = vec![(0, 0); tasks.len()];
        for (at, candidate) in candidates.iter().enumerate() {
            if let Some(instance) = candidate.instance {
                free[place.of(at)] = (u64::from(instance.free_cpu), u64::from(instance.free_memory));
            }
        }
        Self { candidates, steps, place, free }
    }

    /// The next to go of those that are left.
    fn next(&self, left: &[usize], random: &mut IdSource) -> Option<usize> {
        let mut left = left.to_vec();
        keep_least(&mut left, |at| self.candidates[at].rank);
        for step in &self.steps {
            match step {
                Step::Spread { class, lacks, tasks } => {
                    // In placement those without the attribute come last among equals, so they go first.
                    keep_least(&mut left, |at| Reverse((tasks[class[at]], lacks[at])));
                }
                Step::Binpack(field) => keep_least(&mut left, |at| Reverse(self.free_without(at, *field))),
                Step::Random => return left.get(random.below(left.len())).copied(),
            }
        }
        left.first().copied()
    }

    /// What would be free on its instance without it.
    fn free_without(&self, at: usize, field: BinpackField) -> u64 {
        let candidate = &self.candidates[at];
        let (cpu, memory) = self.free[self.place.of(at)];
        match field {
            BinpackField::Cpu => cpu + u64::from(candidate.cpu),
            BinpackField::Memory => memory + u64::from(candidate.memory),
        }
    }

    /// Counts it no longer.
    fn remove(&mut self, at: usize) {
        for step in &mut self.steps {
            if let Step::Spread { class, tasks, .. } = step {
                tasks[class[at]] = tasks[class[at]].saturating_sub(1);
            }
        }
        let (cpu, memory) = &mut self.free[self.place.of(at)];
        *cpu += u64::from(self.candidates[at].cpu);
        *memory += u64::from(self.candidates[at].memory);
    }
}
