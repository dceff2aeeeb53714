//! Which instances have which value of one property: an attribute, the agent's version, and so on.

use std::{borrow::Borrow, collections::BTreeMap};

use super::slots::{Bits, Slot, SlotSet};

/// The instances by their values. Each has at most one.
#[derive(Clone, Debug)]
pub(crate) struct Column<K> {
    present: SlotSet,
    values: BTreeMap<K, SlotSet>,
}

impl<K> Default for Column<K> {
    fn default() -> Self {
        Self { present: SlotSet::default(), values: BTreeMap::new() }
    }
}

impl<K: Ord> Column<K> {
    /// Gives an instance its value; the one that it has already stays.
    pub(crate) fn insert<Q>(&mut self, slot: Slot, value: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        if !self.present.insert(slot) {
            return;
        }
        match self.values.get_mut(value) {
            Some(slots) => {
                slots.insert(slot);
            }
            None => {
                self.values.insert(value.to_owned(), SlotSet::from_iter([slot]));
            }
        }
    }

    /// Takes an instance's value from it, which must be `value`.
    pub(crate) fn remove<Q>(&mut self, slot: Slot, value: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        if !self.present.remove(slot) {
            return;
        }
        if let Some(slots) = self.values.get_mut(value) {
            slots.remove(slot);
            if slots.is_empty() {
                self.values.remove(value);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// The instances that have a value.
    pub(crate) fn present(&self) -> &SlotSet {
        &self.present
    }

    pub(crate) fn get<Q>(&self, value: &Q) -> Option<&SlotSet>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.values.get(value)
    }

    /// Each value with the instances that have it.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&K, &SlotSet)> {
        self.values.iter()
    }

    /// Those whose value passes: each value is asked about once, however many have it.
    pub(crate) fn select(&self, passes: impl Fn(&K) -> bool) -> Bits {
        let mut selected = Bits::default();
        self.values().filter(|(value, _)| passes(value)).for_each(|(_, slots)| selected.unite_few(slots));
        selected
    }
}
