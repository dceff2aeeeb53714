//! A container's restart policy: restarted in place when it ran long enough and its exit code is not a wanted one.

use std::time::Duration;

use domain::agent_protocol::payload::RestartPolicy;

/// How long a container must have run when the definition does not say, in seconds.
const DEFAULT_PERIOD: u64 = 300;

/// Whether a container that ran for `ran` and ended with `exit_code` is started again.
pub fn wanted(policy: &RestartPolicy, exit_code: Option<i32>, ran: Duration) -> bool {
    let period =
        policy.restart_attempt_period.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(DEFAULT_PERIOD);
    let ignored = exit_code.is_some_and(|code| policy.ignored_exit_codes.contains(&i64::from(code)));
    policy.enabled && !ignored && ran >= Duration::from_secs(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(enabled: bool, ignored: &[i64], period: Option<i64>, code: Option<i32>, ran: u64, expect: bool) {
        let policy = RestartPolicy { enabled, ignored_exit_codes: ignored.to_vec(), restart_attempt_period: period };
        assert_eq!(wanted(&policy, code, Duration::from_secs(ran)), expect);
    }

    #[test]
    fn restarts_only_what_ran_long_enough_and_failed() {
        check(true, &[], Some(60), Some(1), 60, true);
        check(true, &[], Some(60), Some(0), 61, true);
        check(true, &[0], Some(60), Some(0), 61, false);
        check(true, &[], Some(60), Some(1), 59, false);
        check(true, &[], None, Some(1), 299, false);
        check(true, &[], None, Some(1), 300, true);
        check(true, &[], Some(60), None, 60, true);
        check(false, &[], Some(60), Some(1), 600, false);
    }
}
