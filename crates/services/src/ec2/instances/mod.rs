//! EC2 instances: launching, describing, switching on and off, and their attributes.
//!
//! Handlers write what is asked for (`power`, `boot`); `host` follows it through `host_slice` and reports to
//! `observe`. Mirrors <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html>.

pub(super) mod attributes;
pub(super) mod console;
pub(super) mod describe;
mod devices;
mod placement;
pub(super) mod power;
pub(super) mod profiles;
pub(super) mod request;
pub(super) mod run;
pub(super) mod shape;
pub(super) mod spot;
pub(super) mod status;
pub(super) mod types;

use std::sync::Arc;

use domain::instances::Instance;
use store::Snapshot;
use wire::ServiceError;

use super::common::Noun;
use crate::Call;

/// Instances that one request may name.
const MAX_IDS: usize = 1000;

/// The instances of these ids, each once, in their order. One that does not exist is an error.
fn named(call: &Call, view: &Snapshot, ids: &[String]) -> Result<Vec<Arc<Instance>>, ServiceError> {
    if ids.is_empty() {
        let text = "The request must contain the parameter InstanceId";
        return Err(ServiceError::new("MissingParameter", text));
    }
    check_ids(ids)?;
    let (mut found, mut missing): (Vec<Arc<Instance>>, Vec<&str>) = (Vec::new(), Vec::new());
    for id in ids {
        match view.get::<Instance>(&call.scope.key(id)) {
            Some(instance) if found.iter().any(|known| known.instance_id == instance.instance_id) => {}
            Some(instance) => found.push(instance),
            None => missing.push(id),
        }
    }
    match missing.as_slice() {
        [] => Ok(found),
        [one] => Err(Instance::not_found(one)),
        several => {
            let text = format!("The instance IDs '{}' do not exist", several.join(", "));
            Err(ServiceError::new(Instance::NOT_FOUND, text))
        }
    }
}

/// Refuses what has not an instance id's form.
fn check_ids(ids: &[String]) -> Result<(), ServiceError> {
    if ids.len() > MAX_IDS {
        let text = format!("A request cannot name more than {MAX_IDS} instances.");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    ids.iter().try_for_each(|id| check_id(id))
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    let digits = id.strip_prefix("i-").unwrap_or_default();
    if matches!(digits.len(), 8 | 17) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(ServiceError::new("InvalidInstanceID.Malformed", format!("Invalid id: \"{id:.64}\"")))
}

/// One instance.
pub(super) fn one(call: &Call, view: &Snapshot, id: &str) -> Result<Arc<Instance>, ServiceError> {
    check_id(id)?;
    super::common::find::<Instance>(call, view, id)
}

#[cfg(test)]
mod tests;
