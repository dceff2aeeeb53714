//! The verdict on a target: counts of consecutive successes and failures against the thresholds. Pure.

use domain::balancing::{HealthCheck, HealthReason, HealthState, TargetHealth};

use super::Outcome;

/// A target's verdict and the run of outcomes that may change it.
#[derive(Clone, Debug)]
pub struct Record {
    health: TargetHealth,
    successes: u32,
    failures: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self { health: TargetHealth::CHECKING, successes: 0, failures: 0 }
    }
}

impl Record {
    /// The verdict.
    pub fn health(&self) -> &TargetHealth {
        &self.health
    }

    /// Takes an outcome into account; true if the verdict or its reason is another now.
    ///
    /// A new target is healthy after its first success; an unhealthy one needs as many as the threshold says.
    pub fn observe(&mut self, outcome: Outcome, settings: &HealthCheck) -> bool {
        let reason = match outcome {
            Outcome::Passed => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                let enough = self.health.state == HealthState::Initial || self.successes >= settings.healthy_threshold;
                return enough && self.turn(TargetHealth::HEALTHY);
            }
            Outcome::Mismatch(status) => HealthReason::ResponseCodeMismatch { status },
            Outcome::Timeout => HealthReason::Timeout,
            Outcome::Failed => HealthReason::FailedHealthChecks,
        };
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let enough = self.health.state == HealthState::Unhealthy || self.failures >= settings.unhealthy_threshold;
        enough && self.turn(TargetHealth::unhealthy(reason))
    }

    fn turn(&mut self, health: TargetHealth) -> bool {
        let changed = self.health != health;
        self.health = health;
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(healthy_threshold: u32, unhealthy_threshold: u32) -> HealthCheck {
        HealthCheck { healthy_threshold, unhealthy_threshold, ..HealthCheck::default() }
    }

    fn after(outcomes: &[Outcome]) -> TargetHealth {
        let mut record = Record::default();
        for outcome in outcomes {
            record.observe(*outcome, &settings(3, 2));
        }
        record.health().clone()
    }

    #[test]
    fn one_success_makes_a_new_target_healthy_and_the_threshold_an_unhealthy_one() {
        use Outcome::{Failed, Mismatch, Passed, Timeout};
        assert_eq!(after(&[]), TargetHealth::CHECKING);
        assert_eq!(after(&[Passed]), TargetHealth::HEALTHY);
        assert_eq!(after(&[Failed]), TargetHealth::CHECKING);
        assert_eq!(after(&[Failed, Timeout]), TargetHealth::unhealthy(HealthReason::Timeout));
        assert_eq!(
            after(&[Failed, Timeout, Mismatch(404)]),
            TargetHealth::unhealthy(HealthReason::ResponseCodeMismatch { status: 404 })
        );
        assert_eq!(after(&[Failed, Failed, Passed, Passed]).state, HealthState::Unhealthy);
        assert_eq!(after(&[Failed, Failed, Passed, Passed, Passed]), TargetHealth::HEALTHY);
        assert_eq!(after(&[Passed, Failed, Passed, Failed]), TargetHealth::HEALTHY);
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![Outcome::Passed, Outcome::Failed, Outcome::Timeout, Outcome::Mismatch(500)])
    }

    proptest! {
        #[test]
        fn a_verdict_turns_only_after_a_full_run(
            outcomes in prop::collection::vec(outcome(), 0..60),
            healthy in 2u32..=10,
            unhealthy in 2u32..=10,
        ) {
            let mut record = Record::default();
            let mut run: Vec<bool> = Vec::new();
            for outcome in outcomes {
                let before = record.health().state;
                let changed = record.observe(outcome, &settings(healthy, unhealthy));
                run.push(outcome == Outcome::Passed);
                let last = |count: u32, wanted: bool| {
                    run.iter().rev().take_while(|passed| **passed == wanted).count() >= usize::try_from(count).unwrap()
                };
                let now = record.health().state;
                prop_assert!(changed || before == now);
                match (before, now) {
                    (HealthState::Healthy, HealthState::Unhealthy) => prop_assert!(last(unhealthy, false)),
                    (HealthState::Unhealthy, HealthState::Healthy) => prop_assert!(last(healthy, true)),
                    (_, HealthState::Initial) => prop_assert_eq!(before, HealthState::Initial),
                    _ => {}
                }
                prop_assert_eq!(record.health().reason.is_none(), now == HealthState::Healthy);
            }
        }
    }
}
