//! A rate limit for one task's endpoint: as Amazon's, 40 requests a second with bursts of 60.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Requests a second.
pub const STEADY: f64 = 40.0;
/// Requests at once.
pub const BURST: f64 = 60.0;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Limiter {
    bucket: Mutex<(Instant, f64)>,
}

impl Limiter {
    /// A full bucket.
    pub fn new(now: Instant) -> Limiter {
        Limiter { bucket: Mutex::new((now, BURST)) }
    }

    /// Whether one more request is let through.
    pub fn admit(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.0).as_secs_f64();
        let tokens = (bucket.1 + elapsed * STEADY).min(BURST);
        let admitted = tokens >= 1.0;
        *bucket = (now, if admitted { tokens - 1.0 } else { tokens });
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_steady_rate() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        assert_eq!((0..100).filter(|_| limiter.admit(start)).count(), 60);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| limiter.admit(later)).count(), 40);
    }
}
