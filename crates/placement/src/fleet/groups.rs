//! How many tasks of a group are on which instances.

use super::slots::{Bits, Slot, SlotSet};

/// The tasks of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Where one is that is not STOPPED, wanted or not.
    present: SlotSet,
    /// How many are wanted on each instance, by binary digits: who has a 1 in the lowest, the next, and so on.
    wanted: Vec<SlotSet>,
}

impl Group {
    /// Says how many are wanted on an instance; none if no task of the group is there at all.
    pub(crate) fn set(&mut self, slot: Slot, wanted: Option<usize>) {
        if wanted.is_some() {
            self.present.insert(slot);
        } else {
            self.present.remove(slot);
        }
        let wanted = wanted.unwrap_or(0);
        let width = (usize::BITS - wanted.leading_zeros()) as usize;
        if self.wanted.len() < width {
            self.wanted.resize(width, SlotSet::default());
        }
        for (digit, slots) in self.wanted.iter_mut().enumerate() {
            if digit < width && wanted >> digit & 1 == 1 {
                slots.insert(slot);
            } else {
                slots.remove(slot);
            }
        }
        while self.wanted.last().is_some_and(SlotSet::is_empty) {
            self.wanted.pop();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Where one of its tasks is.
    pub(crate) fn present(&self) -> &SlotSet {
        &self.present
    }

    /// Whether none of its tasks is wanted anywhere.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Keeps the instances on which none of its tasks is wanted.
    pub(crate) fn keep_without(&self, among: &mut Bits) {
        self.wanted.iter().for_each(|slots| among.subtract_few(slots));
    }

    /// Keeps the instances on which the fewest of its tasks are wanted.
    pub(crate) fn keep_least(&self, among: &mut Bits) {
        for slots in self.wanted.iter().rev() {
            let mut fewer = among.clone();
            fewer.subtract_few(slots);
            if !fewer.is_empty() {
                *among = fewer;
            }
        }
    }

    /// The same numbers, to be counted.
    pub(crate) fn counter(&self) -> Counter {
        Counter(self.wanted.iter().map(Bits::from).collect())
    }
}

/// The numbers of a group's tasks, where each can be read at once.
pub(crate) struct Counter(Vec<Bits>);

impl Counter {
    /// How many tasks are wanted on the instances of a word's bits.
    pub(crate) fn count(&self, at: usize, word: u64) -> usize {
        let digit = |(digit, bits): (usize, &Bits)| ((word & bits.word(at)).count_ones() as usize) << digit;
        self.0.iter().enumerate().map(digit).sum()
    }

    /// How many are wanted on one instance.
    pub(crate) fn of(&self, slot: Slot) -> usize {
        self.0.iter().enumerate().map(|(digit, bits)| usize::from(bits.contains(slot)) << digit).sum()
    }
}
