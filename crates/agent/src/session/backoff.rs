//! Pauses that grow, with chance in them so that many agents do not come back at once.

use std::time::Duration;

use domain::IdSource;

/// A growing pause.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    factor: f64,
    jitter: f64,
    next: Duration,
}

impl Backoff {
    /// From `least` to `most`, times `factor` each time, each up to `jitter` (0 to 1) longer by chance.
    pub fn new(least: Duration, most: Duration, factor: f64, jitter: f64) -> Backoff {
        Backoff { least, most, factor, jitter, next: least }
    }

    /// How long to wait now.
    pub fn pause(&mut self, ids: &mut IdSource) -> Duration {
        let pause = self.next;
        self.next = pause.mul_f64(self.factor).min(self.most);
        let chance = u32::from_str_radix(&ids.hex(4), 16).unwrap_or(0);
        (pause + pause.mul_f64(self.jitter * f64::from(chance) / 65536.0)).min(self.most.mul_f64(1.0 + self.jitter))
    }

    /// Starts over, after something worked.
    pub fn reset(&mut self) {
        self.next = self.least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let mut ids = IdSource::from_seed(1);
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(120), 1.5, 0.2);
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            let pause = backoff.pause(&mut ids);
            assert!(pause <= Duration::from_secs(144));
            last = pause;
        }
        assert!(last >= Duration::from_secs(120));
        backoff.reset();
        let first = backoff.pause(&mut ids);
        assert!(first >= Duration::from_millis(250) && first <= Duration::from_millis(300), "{first:?}");
    }
}
