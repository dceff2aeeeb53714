//! A container's health, as Docker and Amazon count it: consecutive failures, with a grace period after the start.

use std::time::Duration;

use domain::Timestamp;
use domain::agent_protocol::docker::HealthCheck;
use serde::{Deserialize, Serialize};

/// Amazon's health statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Being evaluated, or not running.
    #[default]
    Unknown,
    /// The last check passed.
    Healthy,
    /// As many checks as `retries` failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Amazon's word.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Unknown => "UNKNOWN",
            HealthStatus::Healthy => "HEALTHY",
            HealthStatus::Unhealthy => "UNHEALTHY",
        }
    }
}

/// The health of one container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Health {
    /// The status.
    pub status: HealthStatus,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Failures in a row that counted.
    pub failures: i64,
    /// Exit code of the last check.
    pub exit_code: Option<i32>,
    /// What the last check printed, at most 4 KiB.
    pub output: String,
}

/// What one check gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Exit code; `None` when it could not run or took too long.
    pub exit_code: Option<i32>,
    /// What it printed.
    pub output: String,
}

/// A check with its defaults filled in, as Docker does for zeros.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What to execute.
    pub arguments: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Consecutive failures that make it unhealthy.
    pub retries: i64,
    /// Failures in this time after the start do not count.
    pub start_period: Duration,
}

impl Check {
    /// The check of a container; `None` for `NONE` and for a form Docker does not know.
    pub fn new(check: &HealthCheck) -> Option<Check> {
        let arguments = match check.test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, rest)) if kind == "CMD-SHELL" && !rest.is_empty() => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")]
            }
            _ => return None,
        };
        let or = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
            Ok(nanoseconds) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
            _ => Duration::from_secs(default),
        };
        Some(Check {
            arguments,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 5),
            retries: if check.retries > 0 { check.retries } else { 3 },
            start_period: or(check.start_period, 0),
        })
    }
}

impl Health {
    /// Takes in the outcome of a check of a container that started at `started_at`; true if the status changed.
    pub fn observe(&mut self, outcome: Outcome, check: &Check, started_at: Timestamp, now: Timestamp) -> bool {
        let passed = outcome.exit_code == Some(0);
        self.exit_code = outcome.exit_code;
        self.output = outcome.output;
        let next = if passed {
            self.failures = 0;
            HealthStatus::Healthy
        } else {
            let in_grace = self.status == HealthStatus::Unknown && now.since(started_at) < check.start_period;
            if !in_grace {
                self.failures = self.failures.saturating_add(1);
            }
            if self.failures >= check.retries { HealthStatus::Unhealthy } else { self.status }
        };
        self.become_status(next, now)
    }

    /// Forgets what was known, because the container ended or was restarted.
    pub fn reset(&mut self, now: Timestamp) {
        self.failures = 0;
        self.become_status(HealthStatus::Unknown, now);
    }

    fn become_status(&mut self, next: HealthStatus, now: Timestamp) -> bool {
        let changed = next != self.status || self.since.is_none();
        if changed {
            self.status = next;
            self.since = Some(now);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64) -> Check {
        let docker = HealthCheck {
            test: vec!["CMD-SHELL".into(), "exit 1".into()],
            retries: 2,
            start_period: i64::try_from(start_period).unwrap_or(0) * 1_000_000_000,
            ..HealthCheck::default()
        };
        Check::new(&docker).expect("a check")
    }

    fn outcome(code: i32) -> Outcome {
        Outcome { exit_code: Some(code), output: String::new() }
    }

    #[test]
    fn defaults_are_dockers() {
        let check = check(0);
        assert_eq!(check.arguments, ["/bin/sh", "-c", "exit 1"]);
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(30), Duration::from_secs(5)));
        assert_eq!(Check::new(&HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() }), None);
        assert_eq!(Check::new(&HealthCheck::default()), None);
    }

    #[test]
    fn it_takes_retries_failures_in_a_row() {
        let (mut health, check) = (Health::default(), check(0));
        health.observe(outcome(1), &check, Timestamp(0), Timestamp(1));
        assert_eq!(health.status, HealthStatus::Unknown);
        assert!(health.observe(outcome(0), &check, Timestamp(0), Timestamp(2)));
        assert!(!health.observe(outcome(1), &check, Timestamp(0), Timestamp(3)));
        assert_eq!(health.status, HealthStatus::Healthy);
        assert!(health.observe(outcome(1), &check, Timestamp(0), Timestamp(4)));
        assert_eq!((health.status, health.since), (HealthStatus::Unhealthy, Some(Timestamp(4))));
        assert!(health.observe(outcome(0), &check, Timestamp(0), Timestamp(5)));
        assert_eq!(health.status, HealthStatus::Healthy);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let (mut health, check) = (Health::default(), check(10));
        for second in 0..5 {
            health.observe(outcome(1), &check, Timestamp(0), Timestamp(second * 1000));
        }
        assert_eq!((health.status, health.failures), (HealthStatus::Unknown, 0));
        health.observe(outcome(1), &check, Timestamp(0), Timestamp(10_000));
        health.observe(
            Outcome { exit_code: None, output: "timed out".into() },
            &check,
            Timestamp(0),
            Timestamp(11_000),
        );
        assert_eq!(health.status, HealthStatus::Unhealthy);
    }
}
