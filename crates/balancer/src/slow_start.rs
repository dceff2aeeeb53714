//! Slow start: a target that becomes healthy beside others gets a share of the requests that grows with time. Pure.
//!
//! As on Amazon, targets that are there before any other serves start with their full share, whenever they become healthy;
//! one that fails and recovers starts slowly again. What a process knows of it ends with the process: targets
//! that it finds at its start have their full share.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html#slow-start-mode>

use std::time::{Duration, Instant};

/// The weight of a full share.
pub const FULL: u32 = 1000;

/// Where a target is on its way to a full share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It gets nothing; `slowly` says how it will start.
    Waiting {
        /// With a share that grows.
        slowly: bool,
    },
    /// It has been growing since.
    Rising {
        /// When it became healthy.
        since: Instant,
    },
    /// All of it.
    Full,
}

impl Share {
    /// The share now of a target that had `previous` before. `others` says that some other target has its full share.
    pub fn next(previous: Option<Share>, healthy: bool, others: bool, duration: Duration, now: Instant) -> Share {
        let previous = previous.unwrap_or(Share::Waiting { slowly: others });
        match previous {
            Share::Waiting { .. } if !healthy => previous,
            _ if !healthy => Share::Waiting { slowly: true },
            Share::Waiting { slowly } if slowly && others && !duration.is_zero() => Share::Rising { since: now },
            Share::Rising { .. } if !previous.is_full(duration, now) => previous,
            _ => Share::Full,
        }
    }

    /// Whether it is, or has grown to, the full share.
    pub fn is_full(self, duration: Duration, now: Instant) -> bool {
        match self {
            Share::Waiting { .. } => false,
            Share::Rising { since } => now.saturating_duration_since(since) >= duration,
            Share::Full => true,
        }
    }

    /// Its weight among the targets that get requests, 1 to [`FULL`].
    pub fn weight(self, duration: Duration, now: Instant) -> u32 {
        match self {
            Share::Rising { since } if !self.is_full(duration, now) => {
                let part = now.saturating_duration_since(since).as_millis() * u128::from(FULL);
                u32::try_from(part / duration.as_millis().max(1)).unwrap_or(FULL).clamp(1, FULL)
            }
            _ => FULL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(100);

    fn next(previous: Option<Share>, healthy: bool, others: bool, now: Instant) -> Share {
        Share::next(previous, healthy, others, DURATION, now)
    }

    #[test]
    fn a_share_grows_linearly() {
        let since = Instant::now();
        let share = Share::Rising { since };
        let weight = |seconds: u64| share.weight(DURATION, since + Duration::from_secs(seconds));
        assert_eq!([0, 1, 25, 50, 99, 100, 1000].map(weight), [1, 10, 250, 500, 990, FULL, FULL]);
    }

    #[test]
    fn those_that_come_before_any_serves_start_with_their_full_share() {
        let now = Instant::now();
        let first = next(None, false, false, now);
        assert_eq!(first, Share::Waiting { slowly: false });
        assert_eq!(next(Some(first), true, false, now), Share::Full);
        // The other of the same registration becomes healthy later, but was there before.
        assert_eq!(next(Some(first), true, true, now), Share::Full);
        assert_eq!(next(None, true, false, now), Share::Full);
    }

    #[test]
    fn newcomers_and_those_that_recover_start_slowly() {
        let now = Instant::now();
        let waiting = next(None, false, true, now);
        let rising = next(Some(waiting), true, true, now);
        assert_eq!(rising, Share::Rising { since: now });
        assert_eq!(next(Some(rising), true, true, now + DURATION / 2), rising);
        assert_eq!(next(Some(rising), true, true, now + DURATION), Share::Full);
        assert_eq!(next(Some(rising), false, true, now), Share::Waiting { slowly: true });
        let failed = next(Some(Share::Full), false, true, now);
        assert_eq!(next(Some(failed), true, true, now), Share::Rising { since: now });
        // Nobody else serves: there is nothing to share.
        assert_eq!(next(Some(failed), true, false, now), Share::Full);
    }

    #[test]
    fn switched_off_it_is_full_and_switched_on_it_changes_nothing_for_those_that_serve() {
        let now = Instant::now();
        let rising = Share::Rising { since: now };
        assert_eq!(Share::next(Some(rising), true, true, Duration::ZERO, now), Share::Full);
        assert_eq!(Share::next(Some(Share::Waiting { slowly: true }), true, true, Duration::ZERO, now), Share::Full);
        assert_eq!(next(Some(Share::Full), true, true, now), Share::Full);
    }
}
