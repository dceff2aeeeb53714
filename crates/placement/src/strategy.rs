//! Which of the container instances that can have a task are preferred. Best effort: a strategy never keeps a task from
//! being placed. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap};

use domain::ecs::{BinpackField, PlacementStrategy, container_instance::ZONE_ATTRIBUTE};

use crate::{
    Demand,
    fleet::{
        column::Column,
        groups::{Counter, Group},
        index::Index,
        slots::{Bits, SlotSet},
    },
    spread::Field,
};

/// What a service does that was given no strategy: spread over availability zones, and within a zone over instances.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
pub fn create_service_default() -> Vec<PlacementStrategy> {
    vec![
        PlacementStrategy::Spread(format!("attribute:{ZONE_ATTRIBUTE}")),
        PlacementStrategy::Spread("instanceId".to_owned()),
    ]
}

/// Keeps those of the candidates that are preferred, one at least where there is one: each strategy decides only between
/// those that the ones before it leave equal.
pub(crate) fn prefer(index: &Index, demand: &Demand, strategy: &[PlacementStrategy], candidates: &mut Bits) {
    let tasks = index.group(&demand.group).filter(|group| !group.is_unwanted());
    let mut spreading = Spreading { index, tasks, classes: Classes::One };
    for step in strategy {
        if candidates.nth(1).is_none() {
            return;
        }
        match step {
            PlacementStrategy::Spread(field) => spreading.spread(Field::read(field), candidates),
            // What the task takes is the same everywhere: the least free before it is the least free after it.
            PlacementStrategy::Binpack(BinpackField::Cpu) => index.free_cpu.keep_least(candidates),
            PlacementStrategy::Binpack(BinpackField::Memory) => index.free_memory.keep_least(candidates),
            // Nothing is equal any more after chance has decided.
            PlacementStrategy::Random => return,
        }
    }
}

/// What the spreads so far have divided the instances into. Tasks count wherever they are, also on instances that cannot
/// have this one, so a class has more in it than candidates; one without a candidate is of no interest.
struct Spreading<'a> {
    index: &'a Index,
    /// The tasks to be counted, if there are any.
    tasks: Option<&'a Group>,
    classes: Classes<'a>,
}

enum Classes<'a> {
    /// All instances together.
    One,
    /// These, which have equally few tasks.
    Several(Vec<Cow<'a, SlotSet>>),
    /// Each instance by itself.
    Each,
}

impl<'a> Spreading<'a> {
    fn spread(&mut self, field: Field<'_>, candidates: &mut Bits) {
        let column = match field {
            Field::Instance => {
                self.tasks.into_iter().for_each(|tasks| tasks.keep_least(candidates));
                self.classes = Classes::Each;
                return;
            }
            Field::Attribute(name) => self.index.attribute(name),
        };
        // Where nobody has the attribute all are alike.
        let Some(column) = column else { return };
        match (&self.classes, self.tasks) {
            // Nothing is to be counted, or it was counted as finely as can be.
            (_, None) | (Classes::Each, _) => keep_with(column, candidates),
            (Classes::One, Some(tasks)) => {
                self.classes = Classes::Several(self.divide_all(column, &tasks.counter(), candidates));
            }
            (Classes::Several(classes), Some(tasks)) => {
                let divided = self.divide_further(classes, column, &tasks.counter(), candidates);
                self.classes = Classes::Several(divided);
            }
        }
    }

    /// Who has each value of an attribute, and at the end who lacks it, which is said of each.
    fn values(&self, column: &'a Column<String>) -> impl Iterator<Item = (Cow<'a, SlotSet>, bool)> + use<'a> {
        let mut lacking = self.index.all.clone();
        lacking.subtract_few(column.present());
        let lacking = std::iter::once((Cow::Owned(SlotSet::from(&lacking)), true));
        column.values().map(|(_, slots)| (Cow::Borrowed(slots), false)).chain(lacking)
    }

    /// Divides all instances by an attribute, a word of them at a time.
    fn divide_all(
        &self,
        column: &'a Column<String>,
        counter: &Counter,
        candidates: &mut Bits,
    ) -> Vec<Cow<'a, SlotSet>> {
        let mut least = Least::new();
        for (slots, lacking) in self.values(column) {
            let (mut tasks, mut has_candidate) = (0, false);
            for (at, word) in slots.words() {
                tasks += counter.count(at, word);
                has_candidate |= word & candidates.word(at) != 0;
            }
            if has_candidate {
                least.offer((tasks, lacking), slots);
            }
        }
        let mut kept = Bits::none_of(candidates);
        least.found.iter().for_each(|slots| kept.unite_few(slots));
        candidates.intersect(&kept);
        least.found
    }

    /// Divides each of several classes by a further attribute. There may be as many of them as instances, so this goes
    /// from instance to instance.
    fn divide_further(
        &self,
        classes: &[Cow<'a, SlotSet>],
        column: &'a Column<String>,
        counter: &Counter,
        candidates: &mut Bits,
    ) -> Vec<Cow<'a, SlotSet>> {
        let mut class_of = vec![None; self.index.all.room()];
        for (class, slots) in classes.iter().enumerate() {
            slots.iter().for_each(|slot| class_of[slot] = Some(class));
        }
        let mut least = Least::new();
        for (slots, lacking) in self.values(column) {
            let mut parts: BTreeMap<usize, (usize, bool, SlotSet)> = BTreeMap::new();
            for slot in slots.iter() {
                let Some(class) = class_of[slot] else { continue };
                let (tasks, has_candidate, part) = parts.entry(class).or_default();
                *tasks += counter.of(slot);
                *has_candidate |= candidates.contains(slot);
                part.insert(slot);
            }
            for (tasks, has_candidate, part) in parts.into_values() {
                if has_candidate {
                    least.offer((tasks, lacking), Cow::Owned(part));
                }
            }
        }
        let mut kept = Bits::none_of(candidates);
        least.found.iter().for_each(|slots| kept.unite_few(slots));
        candidates.intersect(&kept);
        least.found
    }
}

/// Those without an attribute come last among equals.
fn keep_with(column: &Column<String>, candidates: &mut Bits) {
    let mut with = candidates.clone();
    with.intersect_few(column.present());
    if !with.is_empty() {
        *candidates = with;
    }
}

/// What has the least key of all that was offered.
struct Least<K, T> {
    key: Option<K>,
    found: Vec<T>,
}

impl<K: Ord, T> Least<K, T> {
    fn new() -> Self {
        Self { key: None, found: Vec::new() }
    }

    fn offer(&mut self, key: K, thing: T) {
        let order = self.key.as_ref().map_or(Ordering::Less, |least| key.cmp(least));
        if order == Ordering::Less {
            self.key = Some(key);
            self.found.clear();
        }
        if order != Ordering::Greater {
            self.found.push(thing);
        }
    }
}
