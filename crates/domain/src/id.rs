//! Identifiers in Amazon's forms. Randomness comes in as an argument, so that a simulation with a seed repeats itself.

use rand::{Rng, SeedableRng, rngs::StdRng};

/// A source of random identifiers: seeded from the system in the platform, from a number in simulations and tests.
#[derive(Debug)]
pub struct IdSource(StdRng);

impl IdSource {
    /// A source that nobody can predict.
    pub fn from_system() -> Self {
        Self(StdRng::from_os_rng())
    }

    /// A source that gives the same identifiers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// `digits` lower-case hexadecimal digits.
    pub fn hex(&mut self, digits: usize) -> String {
        self.pick(digits, b"0123456789abcdef")
    }

    /// An id of a task, a container or a container instance: 32 hexadecimal digits.
    pub fn ecs(&mut self) -> String {
        self.hex(32)
    }

    /// An EC2 id: `{prefix}-` and 17 hexadecimal digits, e.g. `eni-0a1b…`.
    pub fn ec2(&mut self, prefix: &str) -> String {
        format!("{prefix}-0{}", self.hex(16))
    }

    /// A version 4 UUID, as request ids and message ids are.
    pub fn uuid(&mut self) -> String {
        let digits = self.hex(32);
        let variant = ["8", "9", "a", "b"][self.below(4)];
        format!(
            "{}-{}-4{}-{variant}{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[13..16],
            &digits[17..20],
            &digits[20..]
        )
    }

    /// An IAM unique id or access key id: a four-letter prefix (`AROA`, `ASIA`, `AKIA`, `AIPA`, …) and 16 or 17 of
    /// `A–Z2–7`, `length` characters in all.
    pub fn iam(&mut self, prefix: &str, length: usize) -> String {
        format!("{prefix}{}", self.pick(length.saturating_sub(prefix.len()), b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
    }

    /// A secret of 40 characters, as secret access keys are.
    pub fn secret_access_key(&mut self) -> String {
        self.pick(40, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.0.random_range(0..bound) }
    }

    fn pick(&mut self, length: usize, alphabet: &[u8]) -> String {
        (0..length).map(|_| char::from(alphabet[self.0.random_range(0..alphabet.len())])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_amazons_forms() {
        let mut ids = IdSource::from_seed(7);
        assert_eq!(ids.ecs().len(), 32);
        assert_eq!(ids.ec2("eni").len(), 21);
        assert_eq!(ids.iam("ASIA", 20).len(), 20);
        assert_eq!(ids.secret_access_key().len(), 40);
        let uuid = ids.uuid();
        assert_eq!((uuid.len(), uuid.as_bytes()[14], uuid.matches('-').count()), (36, b'4', 4));
    }

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        assert_eq!(IdSource::from_seed(1).ecs(), IdSource::from_seed(1).ecs());
        assert_ne!(IdSource::from_seed(1).ecs(), IdSource::from_seed(2).ecs());
    }
}
