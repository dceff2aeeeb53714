//! The container instances of a cluster, kept so that placement need not look at each: [`Fleet`].
//!
//! The instances are what they are read as, one [`Instance`] each; beside them stands an index of sets of instances, by
//! attribute and value, by held port, by group of tasks, and by what is free. A set has a bit for each instance, so the
//! filters and strategies are a few operations on words of 64 instances, and what is left at the end are exactly
//! those that asking one instance after the other would leave, ties included. Changing an instance changes its bits.
//!
//! - [`slots`]: the sets. [`column`], [`groups`], [`amounts`]: what is kept of attributes, of tasks, of numbers.
//! - [`index`]: all of them, kept in step with the instances.
//!
//! Which instances pass is in [`crate::filter`], which is preferred in [`crate::strategy`].

pub(crate) mod amounts;
pub(crate) mod column;
pub(crate) mod groups;
pub(crate) mod index;
pub(crate) mod slots;

use std::{collections::HashMap, sync::Arc};

use domain::{
    Arn, IdSource,
    ecs::{PlacementStrategy, Task},
};

use crate::{
    Demand, Instance, Refusal, filter,
    fleet::{
        index::{Figures, Index},
        slots::{Bits, Slot},
    },
    strategy,
};

/// The instances of one cluster with an index of what placement asks of them.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The instance in each slot, and the slot of each.
    instances: Vec<Option<Instance>>,
    slots: HashMap<Arn, Slot>,
    /// The slots in the order of their instances' ARNs, and where each slot stands in it: what is chosen by chance must
    /// not depend on the order in which instances came.
    order: Vec<Slot>,
    rank: Vec<usize>,
    /// Whether slots are in that order already, as they are after they were filled from a snapshot.
    in_order: bool,
    index: Index,
}

impl Fleet {
    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The instance of that ARN.
    pub fn get(&self, arn: &Arn) -> Option<&Instance> {
        self.at(*self.slots.get(arn)?)
    }

    /// Takes an instance in, or says what has become of one.
    pub fn put(&mut self, instance: Instance) {
        let known = self.slots.get(instance.arn()).copied();
        let slot = known.unwrap_or_else(|| self.open(instance.arn()));
        self.index.change(slot, self.instances[slot].as_ref(), Some(&instance));
        self.instances[slot] = Some(instance);
    }

    /// Counts otherwise what the tasks on an instance hold, if it is there: those that `left`, as they were, no more, and
    /// those that `came`. It costs what these tasks hold, however many others there are.
    pub fn recount(&mut self, arn: &Arn, left: &[Arc<Task>], came: &[Arc<Task>]) {
        let Some(slot) = self.slots.get(arn).copied() else { return };
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_mut) else { return };
        let before = Figures::of(instance);
        left.iter().for_each(|task| instance.release(task));
        came.iter().for_each(|task| instance.hold(task));
        self.index.recount(slot, before, instance, left.iter().chain(came).map(|task| &**task));
    }

    /// Lets an instance go, if it is there.
    pub fn remove(&mut self, arn: &Arn) {
        let Some(slot) = self.slots.remove(arn) else { return };
        let at = self.rank[slot];
        self.order.remove(at);
        self.number(at);
        self.index.change(slot, self.instances[slot].as_ref(), None);
        self.instances[slot] = None;
    }

    /// Chooses an instance for a task. Each strategy decides only between those that the ones before it leave equal;
    /// between those that are equal at the end chance does. The same instances and the same `random` give the same
    /// answer.
    ///
    /// # Errors
    /// When no instance passes the filters: the reason of each.
    pub fn place(
        &self,
        demand: &Demand,
        strategy: &[PlacementStrategy],
        random: &mut IdSource,
    ) -> Result<&Instance, Refusal> {
        let mut candidates = self.index.all.clone();
        filter::keep(&self.index, demand, &mut candidates);
        strategy::prefer(&self.index, demand, strategy, &mut candidates);
        let chance = random.below(candidates.len());
        self.nth(&candidates, chance)
            .and_then(|slot| self.at(slot))
            .ok_or_else(|| self.refuse(demand, self.index.all.clone()))
    }

    /// Whether one instance can have a task, as StartTask asks.
    ///
    /// # Errors
    /// When it cannot, with the reason, or when it is not there, without one.
    pub fn place_on(&self, arn: &Arn, demand: &Demand) -> Result<&Instance, Refusal> {
        let mut only = Bits::none_of(&self.index.all);
        if let Some(slot) = self.slots.get(arn) {
            only.set(*slot, true);
        }
        let mut candidates = only.clone();
        filter::keep(&self.index, demand, &mut candidates);
        candidates.nth(0).and_then(|slot| self.at(slot)).ok_or_else(|| self.refuse(demand, only))
    }

    fn at(&self, slot: Slot) -> Option<&Instance> {
        self.instances.get(slot)?.as_ref()
    }

    /// The candidate with that many before it in the order of ARNs.
    fn nth(&self, candidates: &Bits, before: usize) -> Option<Slot> {
        if self.in_order {
            return candidates.nth(before);
        }
        let mut slots: Vec<Slot> = candidates.iter().collect();
        let there = before < slots.len();
        there.then(|| *slots.select_nth_unstable_by_key(before, |slot| self.rank[*slot]).1)
    }

    fn refuse(&self, demand: &Demand, among: Bits) -> Refusal {
        let mut reasons = vec![None; self.instances.len()];
        filter::explain(&self.index, demand, among, |slot, reason| reasons[slot] = Some(reason));
        Refusal::new(self.order.iter().filter_map(|slot| Some((self.at(*slot)?, reasons[*slot]?))))
    }

    /// A slot for a new instance.
    fn open(&mut self, arn: &Arn) -> Slot {
        let at = self.order.partition_point(|slot| self.at(*slot).is_some_and(|instance| instance.arn() < arn));
        let last = at == self.order.len();
        let vacant = self.instances.len() > self.order.len();
        let slot = vacant.then(|| self.instances.iter().position(Option::is_none)).flatten();
        self.in_order = (self.is_empty() || self.in_order) && last && slot.is_none();
        let slot = slot.unwrap_or_else(|| {
            self.instances.push(None);
            self.rank.push(0);
            self.instances.len() - 1
        });
        self.slots.insert(arn.clone(), slot);
        self.order.insert(at, slot);
        self.number(at);
        slot
    }

    /// Writes down who stands where, from one place on.
    fn number(&mut self, from: usize) {
        self.order.iter().enumerate().skip(from).for_each(|(at, slot)| self.rank[*slot] = at);
    }
}
