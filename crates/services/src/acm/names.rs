//! What all operations of this service share: ARNs, finding a certificate and who uses it, its status.

use std::{collections::BTreeSet, sync::Arc};

use api::acm::error;
use domain::{
    Arn, Timestamp,
    balancing::Listener,
    certificates::{Certificate, Facts},
};
use store::Snapshot;
use wire::ServiceError;

use crate::Call;

/// The service's name in ARNs.
pub(super) const SERVICE: &str = "acm";

/// The ARN of a certificate in the call's account and region.
pub(super) fn arn(call: &Call, text: Option<String>) -> Result<Arn, ServiceError> {
    let text = text.unwrap_or_default();
    let malformed = || error::invalid_arn_exception(format!("Invalid ARN '{text:.256}'."));
    let arn: Arn = text.parse().map_err(|_| malformed())?;
    if arn.service() != SERVICE || arn.resource_type() != "certificate" || arn.resource_path().is_empty() {
        return Err(malformed());
    }
    let ours = arn.region() == call.scope.region.as_str() && arn.account() == call.scope.account.as_str();
    if ours { Ok(arn) } else { Err(not_found(&arn)) }
}

pub(super) fn not_found(arn: &Arn) -> ServiceError {
    error::resource_not_found_exception(format!("Could not find certificate {arn}."))
}

pub(super) fn find(view: &Snapshot, arn: &Arn) -> Result<Arc<Certificate>, ServiceError> {
    view.get(arn.as_str()).ok_or_else(|| not_found(arn))
}

/// The load balancers with a listener that uses a certificate.
pub(super) fn in_use_by(view: &Snapshot, arn: &Arn) -> BTreeSet<Arn> {
    view.find::<Listener>(Listener::BY_CERTIFICATE, arn.as_str())
        .map(|listener| listener.load_balancer.clone())
        .collect()
}

/// As the API shows it.
pub(super) fn status(facts: &Facts, now: Timestamp) -> &'static str {
    if facts.expired(now) { "EXPIRED" } else { "ISSUED" }
}

/// A refused tag under this service's codes.
pub(super) fn tag_error(refused: domain::tags::TagError) -> ServiceError {
    match refused {
        domain::tags::TagError::TooMany => error::too_many_tags_exception(refused.to_string()),
        _ => error::invalid_tag_exception(refused.to_string()),
    }
}
