//! Tags of log groups, by ARN and by name.

use std::collections::BTreeMap;

use api::logs::*;
use domain::{logs::LogGroup, tags::TagError};
use wire::ServiceError;

use super::{
    Answer, groups,
    names::{self, invalid, permission},
};
use crate::Call;

pub(super) async fn tag_resource(call: &Call, input: TagResourceRequest) -> Answer<()> {
    let name = names::of_arn(call, input.resource_arn.as_deref().unwrap_or(""))?;
    add(call, name, input.tags.unwrap_or_default()).await
}

pub(super) async fn tag_group(call: &Call, input: TagLogGroupRequest) -> Answer<()> {
    add(call, input.log_group_name.unwrap_or_default(), input.tags.unwrap_or_default()).await
}

pub(super) async fn untag_resource(call: &Call, input: UntagResourceRequest) -> Answer<()> {
    let name = names::of_arn(call, input.resource_arn.as_deref().unwrap_or(""))?;
    remove(call, name, input.tag_keys.unwrap_or_default()).await
}

pub(super) async fn untag_group(call: &Call, input: UntagLogGroupRequest) -> Answer<()> {
    remove(call, input.log_group_name.unwrap_or_default(), input.tags.unwrap_or_default()).await
}

pub(super) fn list_for_resource(
    call: &Call,
    input: &ListTagsForResourceRequest,
) -> Answer<ListTagsForResourceResponse> {
    let name = names::of_arn(call, input.resource_arn.as_deref().unwrap_or(""))?;
    Ok(ListTagsForResourceResponse { tags: Some(list(call, &name)?) })
}

pub(super) fn list_for_group(call: &Call, input: &ListTagsLogGroupRequest) -> Answer<ListTagsLogGroupResponse> {
    Ok(ListTagsLogGroupResponse { tags: Some(list(call, input.log_group_name.as_deref().unwrap_or(""))?) })
}

async fn add(call: &Call, name: String, tags: BTreeMap<String, String>) -> Answer<()> {
    groups::change(call, name, |group| {
        tags.into_iter().try_for_each(|(key, value)| group.tags.set(key, value)).map_err(refusal)
    })
    .await
}

async fn remove(call: &Call, name: String, keys: Vec<String>) -> Answer<()> {
    groups::change(call, name, |group| {
        keys.iter().for_each(|key| group.tags.remove(key));
        Ok(())
    })
    .await
}

fn list(call: &Call, name: &str) -> Answer<BTreeMap<String, String>> {
    let auth = call.authorise(&[permission(&call.scope, name, "")])?;
    let group: std::sync::Arc<LogGroup> = names::group(&auth.snapshot(), &call.scope, name)?;
    Ok(group.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect())
}

/// Why tags are refused, under this service's codes.
pub(super) fn refusal(error: TagError) -> ServiceError {
    match error {
        TagError::TooMany => error::too_many_tags_exception(error.to_string()),
        _ => invalid(error.to_string()),
    }
}
