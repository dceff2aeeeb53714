//! Which target group, and which target: by weights, in turns, or by what is in flight. The counters are shared by all workers.

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
    step: Step,
}

/// Where in its sequence a choice is. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Step(Arc<AtomicU64>);

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Weighted {
    /// A choice among `(index, weight)`, going on from `step`.
    pub fn new(weights: impl IntoIterator<Item = (usize, u16)>, step: Step) -> Self {
        let mut total = 0;
        let sums = weights
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(index, weight)| {
                total += u64::from(weight);
                (index, total)
            })
            .collect();
        Self { sums, total, step }
    }

    /// The indexes whose weights are not 0.
    pub fn indexes(&self) -> impl Iterator<Item = usize> {
        self.sums.iter().map(|(index, _)| *index)
    }

    /// The next index; none if all weights are 0.
    pub fn next(&self) -> Option<usize> {
        if let [(only, _)] = self.sums.as_slice() {
            return Some(*only);
        }
        let point = point(self.step.0.fetch_add(1, Ordering::Relaxed), self.total);
        self.sums.iter().find(|(_, sum)| point < *sum).map(|(index, _)| *index)
    }
}

/// Where a step falls below `total`.
fn point(step: u64, total: u64) -> u64 {
    let fraction = step.wrapping_mul(GOLDEN);
    // The high half of the product of a 64-bit fraction and a total is below the total.
    u64::try_from((u128::from(fraction) * u128::from(total)) >> 64).unwrap_or(0)
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
            _ => among.get(self.step() % among.len()),
        }
    }

    /// The next of `among` in proportion to weights that are not 0.
    pub fn weighted<'a, T>(&self, among: &'a [T], weight: impl Fn(&T) -> u32) -> Option<&'a T> {
        let total = among.iter().map(|one| u64::from(weight(one))).sum();
        let mut left = point(u64::try_from(self.step()).unwrap_or(0), total);
        among.iter().find(|one| {
            let weight = u64::from(weight(one));
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }

    /// The one of `among` with the least of something; those that have equally little take turns.
    pub fn least<'a, T>(&self, among: &'a [T], amount: impl Fn(&T) -> usize) -> Option<&'a T> {
        let (before, from) = match among {
            [] | [_] => return among.first(),
            _ => among.split_at(self.step() % among.len()),
        };
        from.iter().chain(before).min_by_key(|one| amount(one))
    }

    fn step(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// How many requests a target has in flight. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Arc<AtomicUsize>);

impl Outstanding {
    /// The number now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until what is returned goes.
    pub fn begin(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }
}

/// A request that is counted as in flight to a target.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_of_zero_get_nothing() {
        assert_eq!(Weighted::new([(0, 0), (1, 0)], Step::default()).next(), None);
        let one = Weighted::new([(0, 0), (1, 5)], Step::default());
        assert!((0..100).all(|_| one.next() == Some(1)));
    }

    #[test]
    fn the_least_is_chosen_and_equals_take_turns() {
        let turns = RoundRobin::default();
        let amounts = [2, 1, 3, 1];
        let among = [0, 1, 2, 3];
        let mut seen = [0; 4];
        for _ in 0..40 {
            seen[*turns.least(&among, |index| amounts[*index]).unwrap()] += 1;
        }
        assert_eq!((seen[0], seen[2]), (0, 0));
        // Which of two equals comes first depends on where the turn is.
        assert!(seen[1] >= 10 && seen[3] >= 10, "{seen:?}");
        assert_eq!(turns.least(&[0; 0], |_| 0), None);
    }

    #[test]
    fn requests_are_counted_until_they_end() {
        let outstanding = Outstanding::default();
        let (one, two) = (outstanding.begin(), outstanding.clone().begin());
        assert_eq!(outstanding.count(), 2);
        drop(one);
        assert_eq!(outstanding.count(), 1);
        drop(two);
        assert_eq!(outstanding.count(), 0);
    }

    #[test]
    fn a_growing_weight_gets_a_growing_share() {
        let share = |weights: [u32; 3]| {
            let turns = RoundRobin::default();
            (0..1000).filter(|_| turns.weighted(&[0, 1, 2], |index| weights[*index]) == Some(&2)).count()
        };
        let shares = [1, 100, 500, 1000].map(|weight| share([1000, 1000, weight]));
        let expected = [1, 48, 200, 333];
        assert!(shares.iter().zip(expected).all(|(share, expected)| share.abs_diff(expected) <= 3), "{shares:?}");
    }

    proptest! {
        #[test]
        fn shares_are_close_to_the_weights(weights in prop::collection::vec(0u16..=999, 1..=5)) {
            let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
            prop_assume!(total > 0);
            let choice = Weighted::new(weights.iter().copied().enumerate(), Step::default());
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
