//! Time. Rules take `now` as an argument; only [`Clock`] reads the system's clock, and it can run faster for tests.

use std::{
    fmt,
    ops::{Add, Sub},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// The platform's clock: the system's, or one that runs `rate` times faster from a fixed point on (`--clock-rate`).
///
/// The fixed point is kept with the data, so that platform time goes on after a restart instead of jumping back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Platform time at `anchor_system`.
    anchor: Timestamp,
    anchor_system: Timestamp,
    rate: u32,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::accelerated(Timestamp(0), Timestamp(0), 1)
    }

    /// A clock that showed `anchor` when the system's showed `anchor_system`, and runs `rate` times as fast since.
    /// A rate of 0 is taken as 1.
    pub fn accelerated(anchor: Timestamp, anchor_system: Timestamp, rate: u32) -> Self {
        Self { anchor, anchor_system, rate: rate.max(1) }
    }

    /// Platform time now.
    pub fn now(&self) -> Timestamp {
        let elapsed = Self::system_now().0.saturating_sub(self.anchor_system.0);
        Timestamp(self.anchor.0.saturating_add(elapsed.saturating_mul(i64::from(self.rate))))
    }

    /// How many times faster than the system's clock this one runs.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// How long to really wait for `duration` of platform time to pass.
    pub fn real(&self, duration: Duration) -> Duration {
        duration / self.rate
    }

    /// The system's own time, for what the kernel and other machines tell (signature dates, certificate dates).
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn system_now() -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerated_clock_starts_at_its_anchor_and_runs_ahead() {
        let system = Clock::system_now();
        let clock = Clock::accelerated(Timestamp(5_000), system - Duration::from_secs(10), 100);
        assert!(clock.now() >= Timestamp(5_000 + 1_000_000));
        assert_eq!(clock.real(Duration::from_secs(100)), Duration::from_secs(1));
    }
}
