//! Finding a Classic Load Balancer by its name, the group of its instances, and what is registered in that.

use std::sync::Arc;

use api::elb::error;
use domain::{
    Arn,
    balancing::{Classic, LoadBalancer, TargetGroup, TargetRegistration, classic},
};
use store::Snapshot;
use wire::ServiceError;

use crate::{Authorised, Call};

/// `ValidationError`: the request is well-formed, but says something that cannot be.
pub fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::new("ValidationError", message.into())
}

/// Something that Amazon has and this platform does not.
pub fn unsupported(what: &str) -> ServiceError {
    invalid(format!("{what} is not supported by Longshore"))
}

/// Authorises a call about a load balancer; gives its ARN.
pub fn authorise(call: &Call, name: Option<String>) -> Result<(Authorised, Arn), ServiceError> {
    let arn = classic::arn(&call.scope, &name.unwrap_or_default());
    Ok((call.authorise(&[&arn])?, arn))
}

/// A load balancer with what makes it a classic one.
pub fn load_balancer(view: &Snapshot, arn: &Arn) -> Result<(LoadBalancer, Classic), ServiceError> {
    let found = view.get::<LoadBalancer>(arn.as_str());
    let found = found.and_then(|found| Some((LoadBalancer::clone(&found), found.classic.clone()?)));
    found.ok_or_else(|| {
        let name = arn.resource_name();
        error::access_point_not_found_exception(format!("There is no ACTIVE Load Balancer named '{name}'"))
    })
}

/// The group of its instances.
pub fn group(view: &Snapshot, arn: &Arn) -> Result<Arc<TargetGroup>, ServiceError> {
    view.get::<TargetGroup>(arn.as_str())
        .ok_or_else(|| ServiceError::internal("a Classic Load Balancer without a group of instances"))
}

/// Its instances, those that are being deregistered too.
pub fn registrations(view: &Snapshot, arn: &Arn) -> Vec<Arc<TargetRegistration>> {
    view.find(TargetRegistration::BY_TARGET_GROUP, arn.as_str()).collect()
}

/// The ids of its instances.
pub fn instances(view: &Snapshot, arn: &Arn) -> Vec<String> {
    let registered = registrations(view, arn);
    let there = registered.iter().filter(|registration| registration.draining_until.is_none());
    there.filter_map(|registration| registration.instance_id.clone()).collect()
}
