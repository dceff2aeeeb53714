//! Which target group, and which target: weighted and round robin. The counters are shared by all workers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Chooses among alternatives in proportion to their weights.
///
/// Instead of chance it steps through a low-discrepancy sequence (multiples of the golden ratio), so that a hundred
/// requests at weights 80 and 20 are split very nearly 80 to 20.
#[derive(Debug)]
pub struct Weighted {
    /// Index and running sum of the weights, without those of weight 0.
    sums: Vec<(usize, u64)>,
    total: u64,
    step: AtomicU64,
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Weighted {
    /// A choice among `(index, weight)`.
    pub fn new(weights: impl IntoIterator<Item = (usize, u16)>) -> Self {
        let mut total = 0;
        let sums = weights
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(index, weight)| {
                total += u64::from(weight);
                (index, total)
            })
            .collect();
        Self { sums, total, step: AtomicU64::new(0) }
    }

    /// The next index; none if all weights are 0.
    pub fn next(&self) -> Option<usize> {
        if let [(only, _)] = self.sums.as_slice() {
            return Some(*only);
        }
        let step = self.step.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN);
        // The product of a 64-bit fraction and a total below 2^13 fits 128 bits; its high half is the point.
        let point = u64::try_from((u128::from(step) * u128::from(self.total)) >> 64).unwrap_or(0);
        self.sums.iter().find(|(_, sum)| point < *sum).map(|(index, _)| *index)
    }
}

/// Takes turns. Clones share the turn.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin(Arc<AtomicUsize>);

impl RoundRobin {
    /// The next of `among`; none if it is empty.
    pub fn next<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        match among {
            [] => None,
            [only] => Some(only),
            _ => among.get(self.0.fetch_add(1, Ordering::Relaxed) % among.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_of_zero_get_nothing() {
        assert_eq!(Weighted::new([(0, 0), (1, 0)]).next(), None);
        let one = Weighted::new([(0, 0), (1, 5)]);
        assert!((0..100).all(|_| one.next() == Some(1)));
    }

    proptest! {
        #[test]
        fn shares_are_close_to_the_weights(weights in prop::collection::vec(0u16..=999, 1..=5)) {
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            prop_assume!(total > 0);
            let choice = Weighted::new(weights.iter().copied().enumerate());
            let mut counts = vec![0f64; weights.len()];
            for _ in 0..1000 {
                counts[choice.next().unwrap()] += 1.0;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let expected = 1000.0 * f64::from(*weight) / f64::from(total);
                prop_assert!((count - expected).abs() < 12.0, "{count} of {expected}");
            }
        }

        #[test]
        fn turns_are_even(count in 1usize..20, rounds in 1usize..20) {
            let among: Vec<usize> = (0..count).collect();
            let turns = RoundRobin::default();
            let mut seen = vec![0; count];
            for _ in 0..count * rounds {
                seen[*turns.next(&among).unwrap()] += 1;
            }
            prop_assert!(seen.iter().all(|times| *times == rounds));
        }
    }
}
