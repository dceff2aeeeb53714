//! Tags of repositories.

use api::ecr::*;
use domain::{Arn, Tags, tags::TagError};
use wire::ServiceError;

use super::{Answer, Target, invalid, registry_scope, repositories};
use crate::Call;

/// The tags of a request.
pub(super) fn from_request(tags: Option<Vec<Tag>>) -> Answer<Tags> {
    Tags::from_request(pairs(tags)).map_err(refused)
}

pub(super) async fn add(call: &Call, input: TagResourceRequest) -> Answer<TagResourceResponse> {
    let target = target(call, input.resource_arn)?;
    let auth = target.authorise(call)?;
    // What the request says must be right by itself, and fit beside the tags there are.
    let added = from_request(input.tags)?;
    auth.transact(|tx| {
        let repository = registry::layers::repository(tx, &target.scope, &target.name).map_err(super::refusal)?;
        let mut repository = domain::repositories::Repository::clone(&repository);
        for tag in added.iter() {
            repository.tags.set(tag.key.clone(), tag.value.clone()).map_err(refused)?;
        }
        tx.put(repository);
        Ok(())
    })
    .await?;
    Ok(TagResourceResponse {})
}

pub(super) async fn remove(call: &Call, input: UntagResourceRequest) -> Answer<UntagResourceResponse> {
    let target = target(call, input.resource_arn)?;
    let auth = target.authorise(call)?;
    let keys = input.tag_keys.unwrap_or_default();
    repositories::change(&auth, &target, |repository| keys.iter().for_each(|key| repository.tags.remove(key))).await?;
    Ok(UntagResourceResponse {})
}

pub(super) fn list(call: &Call, input: ListTagsForResourceRequest) -> Answer<ListTagsForResourceResponse> {
    let target = target(call, input.resource_arn)?;
    let auth = target.authorise(call)?;
    let tags = repositories::tags_of(&auth, &target)?;
    let tags = tags.iter().map(|tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) });
    Ok(ListTagsForResourceResponse { tags: Some(tags.collect()) })
}

/// The repository that an ARN names. One of another region is not found in this one.
fn target(call: &Call, arn: Option<String>) -> Answer<Target> {
    let text = arn.unwrap_or_default();
    let arn: Option<Arn> = text.parse().ok();
    let arn = arn.filter(|arn| arn.service() == "ecr" && arn.resource_type() == "repository");
    let Some(arn) = arn.filter(|arn| arn.region() == call.scope.region.as_str()) else {
        return Err(invalid("resourceArn", "must be the ARN of a repository of this region"));
    };
    let scope = registry_scope(call, Some(arn.account().to_owned()))?;
    Ok(Target { scope, name: arn.resource_path().to_owned() })
}

fn pairs(tags: Option<Vec<Tag>>) -> impl Iterator<Item = (String, String)> {
    let tags = tags.unwrap_or_default().into_iter();
    tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
}

fn refused(failure: TagError) -> ServiceError {
    match failure {
        TagError::TooMany => error::too_many_tags_exception(failure.to_string()),
        _ => error::invalid_tag_parameter_exception(failure.to_string()),
    }
}
