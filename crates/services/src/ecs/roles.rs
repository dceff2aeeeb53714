//! The roles that task definitions name.

use std::sync::Arc;

use domain::{
    AccountId, Arn,
    identity::{Role, role_key},
};
use store::Snapshot;

/// The role that a task definition means, by its ARN or its bare name.
pub(super) fn find(view: &Snapshot, account: &AccountId, text: &str) -> Option<Arc<Role>> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let bare = !text.starts_with("arn:");
    view.get::<Role>(&role_key(account, name)).filter(|role| bare || role.arn.as_str() == text)
}

/// Whether a text can be a role's ARN or bare name.
pub(super) fn is_well_formed(text: &str) -> bool {
    if text.starts_with("arn:") {
        return text.parse::<Arn>().is_ok_and(|arn| arn.service() == "iam" && arn.resource_type() == "role");
    }
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_by_arn_or_by_name() {
        for right in ["arn:aws:iam::123456789012:role/service/web", "web"] {
            assert!(is_well_formed(right), "{right}");
        }
        for wrong in ["arn:aws:iam::123456789012:user/web", "arn:aws:s3:::web", "arn:aws", "a b", "a/b"] {
            assert!(!is_well_formed(wrong), "{wrong}");
        }
    }
}
