//! The one seam: may this principal do this action to this resource?

use domain::Arn;

use crate::Principal;

/// A refusal. Its text is Amazon's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("User: {principal} is not authorized to perform: {action} on resource: {resource} because {reason}")]
pub struct Denied {
    /// Who asked.
    pub principal: Arn,
    /// The IAM action, e.g. `ecs:RunTask`.
    pub action: String,
    /// What it was to be done to: an ARN or `*`.
    pub resource: String,
    /// What decided.
    pub reason: &'static str,
}

/// Decides whether a principal may perform an action on a resource (an ARN, or `*` where the action knows no resource).
///
/// Identity and resource policies are stored but not evaluated yet: within its own account every principal may do
/// everything. Another account's resources are refused, as they are at Amazon without a grant from both sides.
pub fn authorise(principal: &Principal, action: &str, resource: &str) -> Result<(), Denied> {
    let foreign = resource.parse::<Arn>().is_ok_and(|arn| {
        // `aws` as an account marks what Amazon owns, such as managed policies.
        !["", "aws", "*", principal.account().as_str()].contains(&arn.account())
    });
    if !foreign {
        return Ok(());
    }
    Err(Denied {
        principal: principal.arn(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        reason: "no identity-based policy allows the action on another account's resource",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_accounts_resources_are_refused_by_name() {
        let root = Principal::Root { account: "123456789012".parse().unwrap() };
        for own in ["*", "arn:aws:ecs:us-east-1:123456789012:cluster/a", "arn:aws:iam::aws:policy/x"] {
            assert_eq!(authorise(&root, "ecs:RunTask", own), Ok(()));
        }
        let foreign = "arn:aws:ecs:us-east-1:999999999999:cluster/a";
        let text = authorise(&root, "ecs:RunTask", foreign).unwrap_err().to_string();
        assert!(text.starts_with("User: arn:aws:iam::123456789012:root is not authorized to perform: ecs:RunTask on"));
    }
}
