//! Spot Instances. They cost nothing here and there is always capacity, so that only an operator interrupts one: with Amazon's
//! notice, two minutes before its end. The end itself is `control`'s. Mirrors
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>.

use std::time::Duration;

use domain::{
    Timestamp,
    instances::{Instance, InstanceState, LaunchSpot},
};
use store::Transaction;
use wire::ServiceError;

use crate::ec2::common::{Noun, invalid_value, unsupported};

/// Between the notice and the end.
const NOTICE: Duration = Duration::from_secs(120);

/// Gives a Spot Instance its notice, and says when it will be terminated. One that has it already keeps its time.
pub fn interrupt(tx: &mut Transaction, instance_id: &str, now: Timestamp) -> Result<Timestamp, ServiceError> {
    super::check_id(instance_id)?;
    let known = tx.find::<Instance>(Instance::BY_ID, instance_id).next();
    let mut instance = Instance::clone(&*known.ok_or_else(|| Instance::not_found(instance_id))?);
    let state = instance.state();
    let Some(spot) = &mut instance.spot else {
        let text = format!("The instance '{instance_id}' is not a Spot Instance.");
        return Err(ServiceError::new("InvalidParameterValue", text));
    };
    if state != InstanceState::Running {
        return Err(super::power::incorrect_state(instance_id, "interrupted"));
    }
    let end = *spot.interruption.get_or_insert(now + NOTICE);
    tx.put(instance);
    Ok(end)
}

/// The error for whoever would stop one: it is of a request that launches nothing again.
pub(super) fn not_stopped(id: &str) -> ServiceError {
    let text = format!(
        "You can't stop the Spot Instance '{id}' because it is associated with a one-time Spot Instance request. You can \
        only stop Spot Instances associated with persistent Spot Instance requests."
    );
    ServiceError::new("UnsupportedOperation", text)
}

/// A market that has one price and always capacity. A persistent request would launch another instance after an interruption,
/// and there is nothing here that keeps requests.
pub(super) fn market(
    market_type: Option<String>,
    kind: Option<String>,
    interruption_behavior: Option<String>,
) -> Result<Option<LaunchSpot>, ServiceError> {
    match market_type.as_deref() {
        Some("spot") => {}
        Some("capacity-block") => return Err(unsupported("market_type=capacity-block")),
        Some(other) => return Err(invalid_value(other, "MarketType", "It must be spot.")),
        None if kind.is_none() && interruption_behavior.is_none() => return Ok(None),
        None => {
            let text = "The request must contain the parameter MarketType";
            return Err(ServiceError::new("MissingParameter", text));
        }
    }
    if let Some(kind) = kind.as_deref().filter(|kind| *kind != "one-time") {
        return Err(match kind {
            "persistent" => unsupported("spot_instance_type=persistent"),
            other => invalid_value(other, "SpotInstanceType", "It must be one-time."),
        });
    }
    if let Some(behavior) = interruption_behavior.as_deref().filter(|behavior| *behavior != "terminate") {
        return Err(match behavior {
            "stop" => unsupported("instance_interruption_behavior=stop"),
            "hibernate" => unsupported("instance_interruption_behavior=hibernate"),
            other => invalid_value(other, "InstanceInterruptionBehavior", "It must be terminate."),
        });
    }
    Ok(Some(LaunchSpot { kind, interruption_behavior }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r05_only_one_kind_of_spot_instance_is_had() {
        let ask = |market_type: &str, kind: &str, behavior: &str| {
            let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            market(said(market_type), said(kind), said(behavior))
        };
        assert!(matches!(ask("spot", "one-time", "terminate"), Ok(Some(spot)) if spot.kind.is_some()));
        assert!(matches!(ask("spot", "", ""), Ok(Some(spot)) if spot.kind.is_none()));
        assert!(matches!(ask("", "", ""), Ok(None)));
        for (market_type, kind, behavior, word) in [
            ("", "one-time", "", "MarketType"),
            ("capacity-block", "", "", "capacity-block"),
            ("cheap", "", "", "cheap"),
            ("spot", "persistent", "", "persistent"),
            ("spot", "", "stop", "stop"),
            ("spot", "", "hibernate", "hibernate"),
            ("spot", "", "explode", "explode"),
        ] {
            let Err(error) = ask(market_type, kind, behavior) else { panic!("{word}: taken") };
            assert!(error.message().contains(word), "{word}: {}", error.message());
        }
    }
}
