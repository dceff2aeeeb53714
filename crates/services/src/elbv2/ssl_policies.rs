//! Security policies: which are spoken here, and why others of Amazon's are not.

use api::elbv2::*;
use domain::balancing::{SslPolicy as Policy, ssl_policy::POLICIES};
use wire::ServiceError;

use super::names::{invalid, page, unsupported};
use crate::Call;

/// The policy of a name. One of Amazon's that cannot be spoken is refused by it.
pub(super) fn named(name: &str) -> Result<Policy, ServiceError> {
    if let Some(policy) = Policy::named(name) {
        return Ok(policy);
    }
    match Policy::why_not(name) {
        Some(reason) => Err(unsupported(&format!(
            "The SSL policy '{name}' (because {reason}; '{}' is what a listener has without one)",
            Policy::DEFAULT
        ))),
        None => Err(error::ssl_policy_not_found_exception(format!("SSL policy '{name:.256}' not found"))),
    }
}

pub(super) fn describe(
    call: &Call,
    input: DescribeSSLPoliciesInput,
) -> Result<DescribeSSLPoliciesOutput, ServiceError> {
    call.authorise::<&str>(&[])?;
    match input.load_balancer_type.as_deref() {
        None | Some("application") => {}
        // Their listeners speak no TLS.
        Some("network" | "gateway") => {
            return Ok(DescribeSSLPoliciesOutput { ssl_policies: Some(Vec::new()), next_marker: None });
        }
        Some(other) => return Err(invalid(format!("The load balancer type '{other:.256}' is not valid"))),
    }
    let names = input.names.unwrap_or_default();
    let mut asked = names.iter().map(|name| named(name)).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        asked.extend(POLICIES);
    }
    asked.sort_unstable_by_key(|policy| policy.name);
    asked.dedup();
    let (found, next_marker) = page(
        &operation::DESCRIBE_SSL_POLICIES,
        asked.into_iter(),
        |policy| policy.name.to_owned(),
        input.marker.as_deref(),
        input.page_size,
    )?;
    Ok(DescribeSSLPoliciesOutput { ssl_policies: Some(found.into_iter().map(shape).collect()), next_marker })
}

fn shape(policy: Policy) -> SslPolicy {
    let ciphers = policy.ciphers().into_iter().zip(1..);
    SslPolicy {
        name: Some(policy.name.into()),
        ssl_protocols: Some(policy.protocols().into_iter().map(str::to_owned).collect()),
        ciphers: Some(
            ciphers.map(|(name, priority)| Cipher { name: Some(name.into()), priority: Some(priority) }).collect(),
        ),
        supported_load_balancer_types: Some(vec!["application".into()]),
    }
}
