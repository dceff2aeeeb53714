//! A number for each slot, kept as its binary digits: all slots' lowest digits together, then the next ones. So many
//! instances are compared with a bound, or with each other, by one operation for each digit.

use super::slots::{Bits, Slot};

const DIGITS: usize = u32::BITS as usize;
const WORD: usize = u64::BITS as usize;
/// How many words are worked on together: what the processor's wide registers are for.
const LANES: usize = 4;

/// A digit of 256 numbers.
type Digit = [u64; LANES];

/// Numbers by slot; 0 where none was set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Amounts {
    /// For each 256 slots the digits of their numbers, the lowest first.
    blocks: Vec<[Digit; DIGITS]>,
    /// How many digits the greatest number ever set has.
    width: usize,
}

const ZEROS: [Digit; DIGITS] = [[0; LANES]; DIGITS];

fn width(amount: u32) -> usize {
    DIGITS - amount.leading_zeros() as usize
}

impl Amounts {
    pub(crate) fn set(&mut self, slot: Slot, amount: u32) {
        let at = slot / (LANES * WORD);
        if at >= self.blocks.len() {
            self.blocks.resize(at + 1, ZEROS);
        }
        self.width = self.width.max(width(amount));
        let (lane, bit) = (slot / WORD % LANES, 1 << (slot % WORD));
        for (digit, words) in self.blocks[at].iter_mut().enumerate().take(self.width) {
            if amount >> digit & 1 == 1 { words[lane] |= bit } else { words[lane] &= !bit }
        }
    }

    /// Keeps those that have at least that much.
    pub(crate) fn keep_at_least(&self, bound: u32, among: &mut Bits) {
        // Below the bound's lowest digit that is 1, whoever is equal so far has enough.
        let lowest = bound.trailing_zeros() as usize;
        let highest = self.width.max(width(bound));
        for (at, words) in among.words_mut().chunks_mut(LANES).enumerate() {
            let mut equal = load(words);
            if equal == [0; LANES] {
                continue;
            }
            let mut more = [0; LANES];
            let block = self.blocks.get(at).unwrap_or(&ZEROS);
            for digit in (lowest..highest).rev() {
                let ones = &block[digit];
                if bound >> digit & 1 == 1 {
                    (0..LANES).for_each(|lane| equal[lane] &= ones[lane]);
                } else {
                    (0..LANES).for_each(|lane| more[lane] |= equal[lane] & ones[lane]);
                    (0..LANES).for_each(|lane| equal[lane] &= !ones[lane]);
                }
            }
            words.iter_mut().enumerate().for_each(|(lane, word)| *word = more[lane] | equal[lane]);
        }
    }

    /// Keeps those that have the least.
    pub(crate) fn keep_least(&self, among: &mut Bits) {
        let words = among.words_mut();
        let mut best = u32::MAX;
        for from in (0..words.len()).step_by(LANES) {
            let to = words.len().min(from + LANES);
            let mut least = load(&words[from..to]);
            if least == [0; LANES] {
                continue;
            }
            let block = self.blocks.get(from / LANES).unwrap_or(&ZEROS);
            let mut amount = 0;
            for digit in (0..self.width).rev() {
                let ones = &block[digit];
                let mut fewer = least;
                (0..LANES).for_each(|lane| fewer[lane] &= !ones[lane]);
                if fewer.iter().any(|word| *word != 0) {
                    least = fewer;
                } else {
                    amount |= 1 << digit;
                    if amount > best {
                        least = [0; LANES];
                        break;
                    }
                }
            }
            if amount < best {
                best = amount;
                words[..from].fill(0);
            }
            words[from..to].copy_from_slice(&least[..to - from]);
        }
    }
}

fn load(words: &[u64]) -> Digit {
    let mut lanes = [0; LANES];
    lanes[..words.len()].copy_from_slice(words);
    lanes
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
            rows in vec((any_amount(), any_amount(), any::<bool>()), 0..700), bound in any_amount(),
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
