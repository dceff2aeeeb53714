//! From the stored nouns to the shapes of the API.

use api::iam as shape;
use domain::{Tags, identity};
use wire::Timestamp;

pub(super) fn tags(tags: &Tags) -> Vec<shape::Tag> {
    tags.iter().map(|tag| shape::Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) }).collect()
}

/// A role as single reads show it.
pub(super) fn role(role: &identity::Role) -> shape::Role {
    shape::Role {
        tags: (!role.tags.is_empty()).then(|| tags(&role.tags)),
        role_last_used: Some(shape::RoleLastUsed::default()),
        ..listed_role(role)
    }
}

/// A role as lists show it: without tags.
pub(super) fn listed_role(role: &identity::Role) -> shape::Role {
    shape::Role {
        path: Some(role.path.clone()),
        role_name: Some(role.name.clone()),
        role_id: Some(role.id.clone()),
        arn: Some(role.arn.to_string()),
        create_date: Some(Timestamp(role.created_at.millis())),
        assume_role_policy_document: Some(wire::percent_encode(&role.trust_policy)),
        description: role.description.clone(),
        max_session_duration: i32::try_from(role.max_session_duration).ok(),
        ..shape::Role::default()
    }
}

pub(super) fn instance_profile(
    profile: &identity::InstanceProfile,
    role: Option<&identity::Role>,
) -> shape::InstanceProfile {
    shape::InstanceProfile {
        path: Some(profile.path.clone()),
        instance_profile_name: Some(profile.name.clone()),
        instance_profile_id: Some(profile.id.clone()),
        arn: Some(profile.arn.to_string()),
        create_date: Some(Timestamp(profile.created_at.millis())),
        roles: Some(role.map(listed_role).into_iter().collect()),
        tags: (!profile.tags.is_empty()).then(|| tags(&profile.tags)),
    }
}
