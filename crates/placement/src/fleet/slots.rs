//! Sets of slots, 64 to a word. Each instance of a fleet has a slot, a small number that stays its own.

/// The place of an instance in its fleet.
pub(crate) type Slot = usize;

const WORD: usize = u64::BITS as usize;

fn bit(slot: Slot) -> u64 {
    1 << (slot % WORD)
}

/// The slots of a word's bits.
fn slots_of(at: usize, mut word: u64) -> impl Iterator<Item = Slot> {
    std::iter::from_fn(move || {
        let first = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(at * WORD + first)
    })
}

/// A set with a bit for each slot: what is worked with. Words that are missing at the end are empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set, with room for what `other` has.
    pub(crate) fn none_of(other: &Self) -> Self {
        Self(vec![0; other.0.len()])
    }

    /// A number above all its slots.
    pub(crate) fn room(&self) -> Slot {
        self.0.len() * WORD
    }

    pub(crate) fn set(&mut self, slot: Slot, is_in: bool) {
        let at = slot / WORD;
        self.make_room(at + 1);
        if is_in { self.0[at] |= bit(slot) } else { self.0[at] &= !bit(slot) }
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.word(slot / WORD) & bit(slot) != 0
    }

    pub(crate) fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| slots_of(at, *word))
    }

    /// The slot with that many before it.
    pub(crate) fn nth(&self, mut before: usize) -> Option<Slot> {
        for (at, word) in self.0.iter().enumerate() {
            let here = word.count_ones() as usize;
            if before < here {
                return slots_of(at, *word).nth(before);
            }
            before -= here;
        }
        None
    }

    pub(crate) fn intersect(&mut self, other: &Self) {
        self.intersect_words(&other.0);
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        self.subtract_words(&other.0);
    }

    pub(crate) fn unite(&mut self, other: &Self) {
        self.unite_words(&other.0);
    }

    pub(crate) fn intersect_few(&mut self, few: &SlotSet) {
        if let Some(words) = few.all_words() {
            return self.intersect_words(words);
        }
        let mut next = 0;
        for (at, word) in few.words() {
            let at = at.min(self.0.len());
            self.0[next..at].fill(0);
            next = self.0.len().min(at + 1);
            self.0[at..next].iter_mut().for_each(|own| *own &= word);
        }
        self.0[next..].fill(0);
    }

    pub(crate) fn subtract_few(&mut self, few: &SlotSet) {
        if let Some(words) = few.all_words() {
            return self.subtract_words(words);
        }
        for (at, word) in few.words() {
            if let Some(own) = self.0.get_mut(at) {
                *own &= !word;
            }
        }
    }

    pub(crate) fn unite_few(&mut self, few: &SlotSet) {
        if let Some(words) = few.all_words() {
            return self.unite_words(words);
        }
        if let Some(last) = few.numbers.last() {
            self.make_room(*last as usize + 1);
        }
        for (at, word) in few.words() {
            self.0[at] |= word;
        }
    }

    fn intersect_words(&mut self, words: &[u64]) {
        let common = self.0.len().min(words.len());
        self.0[common..].fill(0);
        self.0.iter_mut().zip(words).for_each(|(own, word)| *own &= word);
    }

    fn subtract_words(&mut self, words: &[u64]) {
        self.0.iter_mut().zip(words).for_each(|(own, word)| *own &= !word);
    }

    fn unite_words(&mut self, words: &[u64]) {
        self.make_room(words.len());
        self.0.iter_mut().zip(words).for_each(|(own, word)| *own |= word);
    }

    fn make_room(&mut self, words: usize) {
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
    }
}

impl From<&SlotSet> for Bits {
    fn from(few: &SlotSet) -> Self {
        let mut bits = Self::default();
        bits.unite_few(few);
        bits
    }
}

/// A set that keeps only the words that have something in them: what is stored, since most are small. A fleet has one
/// for each value of each attribute, and a value of its own for each instance must not take a bit of every other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotSet {
    /// Which words there are, in order, and beside it what is in them.
    numbers: Vec<u32>,
    words: Vec<u64>,
}

impl SlotSet {
    /// Returns whether it was not there yet.
    pub(crate) fn insert(&mut self, slot: Slot) -> bool {
        match self.find(slot) {
            Ok(at) => {
                let before = self.words[at];
                self.words[at] |= bit(slot);
                before & bit(slot) == 0
            }
            Err(at) => {
                self.numbers.insert(at, word_number(slot));
                self.words.insert(at, bit(slot));
                true
            }
        }
    }

    /// Returns whether it was there.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        let Ok(at) = self.find(slot) else { return false };
        let before = self.words[at];
        self.words[at] &= !bit(slot);
        if self.words[at] == 0 {
            self.numbers.remove(at);
            self.words.remove(at);
        }
        before & bit(slot) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The words that are not empty, each with its number.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.numbers.iter().map(|at| *at as usize).zip(self.words.iter().copied())
    }

    /// The words from the first on, if none is left out up to the last: then they are worked with as they are.
    fn all_words(&self) -> Option<&[u64]> {
        let last = self.numbers.last().map_or(0, |last| *last as usize + 1);
        (last == self.words.len()).then_some(&self.words)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.words().flat_map(|(at, word)| slots_of(at, word))
    }

    fn find(&self, slot: Slot) -> Result<usize, usize> {
        let number = word_number(slot);
        // Where no word is left out before it, a word stands at its number.
        match self.numbers.get(number as usize) {
            Some(there) if *there == number => Ok(number as usize),
            _ => self.numbers.binary_search(&number),
        }
    }
}

impl From<&Bits> for SlotSet {
    fn from(bits: &Bits) -> Self {
        let filled = || bits.0.iter().enumerate().filter(|(_, word)| **word != 0);
        Self {
            numbers: filled().map(|(at, _)| word_number(at * WORD)).collect(),
            words: filled().map(|(_, word)| *word).collect(),
        }
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::default();
        slots.into_iter().for_each(|slot| {
            set.insert(slot);
        });
        set
    }
}

fn word_number(slot: Slot) -> u32 {
    // A fleet of 2^38 instances would be needed to be beyond it.
    u32::try_from(slot / WORD).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn bits(slots: &BTreeSet<Slot>) -> Bits {
        let mut bits = Bits::default();
        slots.iter().for_each(|slot| bits.set(*slot, true));
        bits
    }

    /// Few or many, with words left out or without.
    fn any_slots() -> impl Strategy<Value = BTreeSet<Slot>> {
        prop_oneof![btree_set(0usize..300, 0..80), btree_set(0usize..1000, 0..9), btree_set(0usize..130, 60..120)]
    }

    proptest! {
        #[test]
        fn sets_are_sets(one in any_slots(), other in any_slots()) {
            let (few, many) = (other.iter().copied().collect::<SlotSet>(), bits(&other));
            let check = |change: &dyn Fn(&mut Bits), expected: BTreeSet<Slot>| {
                let mut own = bits(&one);
                change(&mut own);
                assert_eq!(own.iter().collect::<BTreeSet<_>>(), expected);
                assert_eq!(own.len(), expected.len());
                assert_eq!(own.is_empty(), expected.is_empty());
                for (at, slot) in expected.iter().enumerate() {
                    assert_eq!(own.nth(at), Some(*slot));
                    assert!(own.contains(*slot));
                }
                assert_eq!(own.nth(expected.len()), None);
            };
            check(&|own| own.intersect(&many), &one & &other);
            check(&|own| own.subtract(&many), &one - &other);
            check(&|own| own.unite(&many), &one | &other);
            check(&|own| own.intersect_few(&few), &one & &other);
            check(&|own| own.subtract_few(&few), &one - &other);
            check(&|own| own.unite_few(&few), &one | &other);
            check(&|own| *own = Bits::from(&few), other.clone());
            prop_assert_eq!(&SlotSet::from(&many), &few);
            check(&|own| one.iter().for_each(|slot| own.set(*slot, false)), BTreeSet::new());

            let mut set = few.clone();
            for slot in &one {
                prop_assert_eq!(set.insert(*slot), !other.contains(slot));
            }
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), &one | &other);
            for slot in &one {
                prop_assert!(set.remove(*slot));
                prop_assert!(!set.remove(*slot));
            }
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), &other - &one);
            prop_assert_eq!(set.is_empty(), other.is_subset(&one));
        }
    }
}
