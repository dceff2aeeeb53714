//! The limits that this service holds to.

use api::elbv2::*;
use wire::ServiceError;

use super::{
    certificates::MAX_CERTIFICATES, listeners::MAX_LISTENERS, load_balancers::MAX_LOAD_BALANCERS, names::page,
    rules::MAX_RULES, target_groups::MAX_TARGET_GROUPS, targets::MAX_TARGETS,
};
use crate::Call;

pub(super) fn describe(
    call: &Call,
    input: DescribeAccountLimitsInput,
) -> Result<DescribeAccountLimitsOutput, ServiceError> {
    call.authorise::<&str>(&[])?;
    let mut limits = vec![
        ("application-load-balancers", MAX_LOAD_BALANCERS),
        ("certificates-per-application-load-balancer", MAX_CERTIFICATES),
        ("listeners-per-application-load-balancer", MAX_LISTENERS),
        ("rules-per-application-load-balancer", MAX_RULES),
        ("target-groups", MAX_TARGET_GROUPS),
        ("network-load-balancers", MAX_LOAD_BALANCERS),
        ("listeners-per-network-load-balancer", MAX_LISTENERS),
        ("target-groups-per-action-on-network-load-balancer", 1),
        ("targets-per-target-group", MAX_TARGETS),
        ("target-groups-per-action-on-application-load-balancer", 5),
        ("condition-values-per-alb-rule", 5),
        ("condition-wildcards-per-alb-rule", 6),
    ];
    limits.sort_unstable();
    let (limits, next_marker) = page(
        &operation::DESCRIBE_ACCOUNT_LIMITS,
        limits.into_iter(),
        |(name, _)| (*name).to_owned(),
        input.marker.as_deref(),
        input.page_size,
    )?;
    let shape = |(name, max): (&str, usize)| Limit { name: Some(name.into()), max: Some(max.to_string()) };
    Ok(DescribeAccountLimitsOutput { limits: Some(limits.into_iter().map(shape).collect()), next_marker })
}
