//! A number for each slot, kept as its binary digits: all slots' lowest digits together, then the next ones. So 64
//! instances are compared with a bound, or with each other, by one operation for each digit.

use super::slots::{Bits, Slot};

const DIGITS: usize = u32::BITS as usize;
const WORD: usize = u64::BITS as usize;

/// Numbers by slot; 0 where none was set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amounts {
    /// For each 64 slots the digits of their numbers, the lowest first.
    blocks: Vec<[u64; DIGITS]>,
    /// How many digits the greatest number ever set has.
    width: usize,
}

impl Amounts {
    pub(crate) fn set(&mut self, slot: Slot, amount: u32) {
        let at = slot / WORD;
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, [0; DIGITS]);
        }
        self.width = self.width.max(DIGITS - amount.leading_zeros() as usize);
        let bit = 1 << (slot % WORD);
        for (digit, word) in self.blocks[at].iter_mut().enumerate() {
            if amount >> digit & 1 == 1 { *word |= bit } else { *word &= !bit }
        }
    }

    /// Keeps those that have at least that much.
    pub(crate) fn keep_at_least(&self, bound: u32, among: &mut Bits) {
        let bound_width = DIGITS - bound.leading_zeros() as usize;
        // Below the bound's lowest digit that is 1, whoever is equal so far has enough.
        let lowest = bound.trailing_zeros() as usize;
        for (at, word) in among.words_mut().iter_mut().enumerate().filter(|(_, word)| **word != 0) {
            let (mut equal, mut more) = (*word, 0);
            let block = self.blocks.get(at).unwrap_or(&[0; DIGITS]);
            for digit in (lowest..self.width.max(bound_width)).rev() {
                if bound >> digit & 1 == 1 {
                    equal &= block[digit];
                } else {
                    more |= equal & block[digit];
                    equal &= !block[digit];
                }
            }
            *word = more | equal;
        }
    }

    /// Keeps those that have the least.
    pub(crate) fn keep_least(&self, among: &mut Bits) {
        let words = among.words_mut();
        let mut best = u32::MAX;
        for at in 0..words.len() {
            if words[at] == 0 {
                continue;
            }
            let block = self.blocks.get(at).unwrap_or(&[0; DIGITS]);
            let (mut least, mut amount) = (words[at], 0);
            for digit in (0..self.width).rev() {
                let lower = least & !block[digit];
                if lower != 0 {
                    least = lower;
                } else {
                    amount |= 1 << digit;
                    if amount > best {
                        break;
                    }
                }
            }
            if amount < best {
                words[..at].fill(0);
                best = amount;
            }
            words[at] = if amount == best { least } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn any_amount() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..9, any::<u32>(), select(vec![u32::MAX, 512, 1024, 1 << 31])]
    }

    proptest! {
        #[test]
        fn comparing_by_digits_is_comparing(
            rows in vec((any_amount(), any_amount(), any::<bool>()), 0..200), bound in any_amount(),
        ) {
            let mut amounts = Amounts::default();
            let mut among = Bits::default();
            for (slot, (before, amount, is_in)) in rows.iter().enumerate() {
                amounts.set(slot, *before);
                amounts.set(slot, *amount);
                among.set(slot, *is_in);
            }
            let expected = |keep: &dyn Fn(u32) -> bool| {
                let kept = rows.iter().enumerate().filter(|(_, (_, amount, is_in))| *is_in && keep(*amount));
                kept.map(|(slot, _)| slot).collect::<Vec<_>>()
            };
            let mut enough = among.clone();
            amounts.keep_at_least(bound, &mut enough);
            prop_assert_eq!(enough.iter().collect::<Vec<_>>(), expected(&|amount| amount >= bound));
            let least = rows.iter().filter(|row| row.2).map(|row| row.1).min();
            amounts.keep_least(&mut among);
            prop_assert_eq!(among.iter().collect::<Vec<_>>(), expected(&|amount| Some(amount) == least));
        }
    }
}
