//! `ECS_ENABLE_SPOT_INSTANCE_DRAINING`: an instance that has its notice of an interruption takes no tasks any more, and a
//! service replaces those that it has in the two minutes that are left.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::identity::Identity;
use crate::imds::Imds;

/// Between two questions, as Amazon's agent.
const PERIOD: Duration = Duration::from_secs(1);
/// Where the notice is; nothing is there before it.
const NOTICE: &str = "meta-data/spot/instance-action";

#[derive(Deserialize)]
struct Notice {
    action: String,
    time: String,
}

/// The notice, if it is one of an end: at a hibernation Amazon's agent drains nothing either.
fn ending(text: &str) -> Option<Notice> {
    let notice: Notice = serde_json::from_str(text).ok()?;
    matches!(notice.action.as_str(), "terminate" | "stop").then_some(notice)
}

/// Waits for the notice and drains the instance, once.
pub async fn drain_when_interrupted(imds: Arc<Imds>, identity: Arc<Identity>) {
    loop {
        match imds.text(NOTICE).await {
            Ok(Some(text)) => {
                if let Some(notice) = ending(&text) {
                    tracing::warn!(
                        action = notice.action,
                        time = notice.time,
                        "this Spot Instance is interrupted: draining it"
                    );
                    match identity.drain().await {
                        Ok(()) => return,
                        Err(error) => tracing::warn!(error, "the instance is not draining yet"),
                    }
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "not known whether there is a notice"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r31_only_an_end_drains_an_instance() {
        for (text, drains) in [
            (r#"{"action":"terminate","time":"2026-11-28T10:20:30Z"}"#, true),
            (r#"{"action": "stop", "time": "2026-11-28T10:20:30Z"}"#, true),
            (r#"{"action":"hibernate","time":"2026-11-28T10:20:30Z"}"#, false),
            ("<html>", false),
        ] {
            assert_eq!(ending(text).is_some(), drains, "{text}");
        }
    }
}
