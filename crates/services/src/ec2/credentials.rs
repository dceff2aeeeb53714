//! The credentials of an instance's role, as its metadata service hands them out.

use std::time::Duration;

use domain::{
    identity::{InstanceProfile, Role, role_key},
    instances::{Instance, Power},
};
use iam::Principal;
use store::Snapshot;

use crate::Platform;

/// How long a set works, as on Amazon.
const LIFE: Duration = Duration::from_secs(6 * 3600);

/// Fresh credentials of the role of an instance that is on, as JSON in the metadata service's form; `None` without a
/// role. Whoever asks has made sure that it is the instance that will get them.
pub fn instance_credentials(platform: &Platform, instance_id: &str) -> Option<String> {
    let view = platform.store.snapshot();
    let instance =
        view.find::<Instance>(Instance::BY_ID, instance_id).next().filter(|instance| instance.power == Power::On)?;
    let role = role_of(&view, &instance)?;
    let principal = Principal::AssumedRole {
        account: role.account.clone(),
        role: role.arn.clone(),
        role_id: role.id.clone(),
        session: instance.instance_id.clone(),
    };
    let now = platform.clock.now();
    let issued = platform.authority.issue_session(&mut platform.ids(), principal, now, LIFE)?;
    let body = serde_json::json!({
        "Code": "Success",
        "LastUpdated": wire::Timestamp(now.millis()).to_rfc3339(),
        "Type": "AWS-HMAC",
        "AccessKeyId": issued.access_key_id,
        "SecretAccessKey": issued.secret_access_key,
        "Token": issued.session_token,
        "Expiration": wire::Timestamp(issued.expiration.millis()).to_rfc3339(),
    });
    serde_json::to_string_pretty(&body).ok()
}

/// The role of an instance's profile, if it has both.
pub(super) fn role_of(view: &Snapshot, instance: &Instance) -> Option<std::sync::Arc<Role>> {
    let profile = instance.profile.as_ref()?;
    let account = &instance.scope.account;
    let profile = view.get::<InstanceProfile>(&role_key(account, profile.profile.resource_name()))?;
    view.get::<Role>(&role_key(account, profile.role.as_deref()?))
}
