//! The health of the instance's container runtime: checked when the agent starts and, as Amazon's agent does, with each
//! heartbeat of ACS; published over TCS.

use std::pin::Pin;
use std::sync::Arc;

use domain::agent_protocol::tcs::InstanceStatus;
use domain::ecs::InstanceHealthStatus;
use domain::{Clock, Timestamp};
use tokio::sync::{Notify, watch};

/// A check on its way: why the runtime does not work, if it does not.
pub type Checking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// Checks the runtime.
pub type Probe = Box<dyn Fn() -> Checking + Send + Sync>;

/// Longest reason that is told, in characters.
const LONGEST: usize = 255;

/// The state of the runtime as it was last seen. Cheap to clone.
#[derive(Clone)]
pub struct RuntimeStatus {
    wanted: Arc<Notify>,
    seen: watch::Receiver<Option<InstanceStatus>>,
}

impl RuntimeStatus {
    /// Checks now, and whenever [`RuntimeStatus::check`] asks for it, for as long as the agent runs.
    pub fn watch(probe: Probe) -> RuntimeStatus {
        let wanted = Arc::new(Notify::new());
        let (sender, seen) = watch::channel(None);
        let asked = wanted.clone();
        tokio::spawn(async move {
            loop {
                let outcome = probe().await;
                let before = sender.borrow().clone();
                let next = next(before.as_ref(), outcome, Clock::system_now());
                if before.as_ref().map(|before| &before.status) != Some(&next.status) {
                    tracing::info!(status = next.status, reason = next.status_reason, "the container runtime");
                }
                if sender.send(Some(next)).is_err() {
                    return;
                }
                asked.notified().await;
            }
        });
        RuntimeStatus { wanted, seen }
    }

    /// Asks for another check.
    pub fn check(&self) {
        self.wanted.notify_one();
    }

    /// What was seen, from now on; what is known already is told once more.
    pub fn follow(&self) -> watch::Receiver<Option<InstanceStatus>> {
        let mut seen = self.seen.clone();
        seen.mark_changed();
        seen
    }
}

/// What a check says after another one.
fn next(before: Option<&InstanceStatus>, outcome: Result<(), String>, now: Timestamp) -> InstanceStatus {
    let (status, status_reason) = match outcome {
        Ok(()) => (InstanceHealthStatus::Ok, None),
        Err(why) => (InstanceHealthStatus::Impaired, Some(why.chars().take(LONGEST).collect())),
    };
    let now = now.millis() as f64 / 1000.0;
    let since = before.filter(|before| before.status == status.as_str()).map(|before| before.last_status_change);
    InstanceStatus {
        kind: "ContainerRuntime".to_owned(),
        status: status.as_str().to_owned(),
        status_reason,
        last_updated: now,
        last_status_change: since.unwrap_or(now),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn r03_a_status_lasts_until_a_check_says_another() {
        let first = next(None, Ok(()), Timestamp(1_000));
        assert_eq!((first.kind.as_str(), first.status.as_str()), ("ContainerRuntime", "OK"));
        let second = next(Some(&first), Ok(()), Timestamp(2_000));
        assert_eq!((second.last_updated, second.last_status_change), (2.0, 1.0));
        let third = next(Some(&second), Err("x".repeat(1000)), Timestamp(3_000));
        assert_eq!((third.status.as_str(), third.last_status_change), ("IMPAIRED", 3.0));
        assert_eq!(third.status_reason.map(|reason| reason.len()), Some(LONGEST));
    }

    #[tokio::test]
    async fn r03_a_check_is_made_when_it_is_asked_for() {
        let works = Arc::new(AtomicBool::new(true));
        let probed = works.clone();
        let probe = move || -> Checking {
            let works = probed.load(Ordering::Relaxed);
            Box::pin(async move { if works { Ok(()) } else { Err("no".to_owned()) } })
        };
        let status = RuntimeStatus::watch(Box::new(probe));
        let mut seen = status.follow();
        let says = |one: &Option<InstanceStatus>, text: &str| one.as_ref().is_some_and(|one| one.status == text);
        seen.wait_for(|one| says(one, "OK")).await.expect("checked");
        works.store(false, Ordering::Relaxed);
        assert!(says(&seen.borrow(), "OK"));
        status.check();
        seen.wait_for(|one| says(one, "IMPAIRED")).await.expect("checked");
    }
}
