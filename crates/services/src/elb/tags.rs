//! Tags of load balancers.

use api::elb::*;
use domain::{Arn, Tags, balancing::LoadBalancer, balancing::classic, tags::TagError};
use wire::ServiceError;

use super::find::{self, invalid};
use crate::Call;

/// The most load balancers of one call.
const MAX_NAMES: usize = 20;

/// Tags of a request.
pub(super) fn read(given: Option<Vec<Tag>>) -> Result<Tags, ServiceError> {
    let pairs =
        given.unwrap_or_default().into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    Tags::from_request(pairs).map_err(refused)
}

fn refused(reason: TagError) -> ServiceError {
    match &reason {
        TagError::TooMany => error::too_many_tags_exception(reason.to_string()),
        TagError::Duplicate(_) => error::duplicate_tag_keys_exception(reason.to_string()),
        _ => invalid(reason.to_string()),
    }
}

fn named(call: &Call, names: Option<Vec<String>>) -> Result<Vec<Arn>, ServiceError> {
    let names = names.unwrap_or_default();
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(invalid(format!("Between 1 and {MAX_NAMES} load balancer names must be specified")));
    }
    Ok(names.iter().map(|name| classic::arn(&call.scope, name)).collect())
}

pub(super) async fn add(call: Call, input: AddTagsInput) -> Result<AddTagsOutput, ServiceError> {
    let arns = named(&call, input.load_balancer_names)?;
    let auth = call.authorise(&arns)?;
    let added = read(input.tags)?;
    auth.transact(|tx| {
        for arn in &arns {
            let (mut load_balancer, _) = find::load_balancer(tx, arn)?;
            for tag in added.iter() {
                load_balancer.tags.set(tag.key.clone(), tag.value.clone()).map_err(refused)?;
            }
            tx.put(load_balancer);
        }
        Ok(())
    })
    .await?;
    Ok(AddTagsOutput {})
}

pub(super) async fn remove(call: Call, input: RemoveTagsInput) -> Result<RemoveTagsOutput, ServiceError> {
    let arns = named(&call, input.load_balancer_names)?;
    let auth = call.authorise(&arns)?;
    let keys: Vec<String> = input.tags.unwrap_or_default().into_iter().filter_map(|tag| tag.key).collect();
    auth.transact(|tx| {
        for arn in &arns {
            find::load_balancer(tx, arn)?;
            tx.update::<LoadBalancer>(arn.as_str(), |found| keys.iter().for_each(|key| found.tags.remove(key)));
        }
        Ok(())
    })
    .await?;
    Ok(RemoveTagsOutput {})
}

pub(super) fn describe(call: &Call, input: DescribeTagsInput) -> Result<DescribeTagsOutput, ServiceError> {
    let arns = named(call, input.load_balancer_names)?;
    let auth = call.authorise(&arns)?;
    let view = auth.snapshot();
    let one = |arn: &Arn| {
        let (load_balancer, _) = find::load_balancer(&view, arn)?;
        let shape = |tag: &domain::Tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) };
        Ok(TagDescription {
            load_balancer_name: Some(load_balancer.name.clone()),
            tags: Some(load_balancer.tags.iter().map(shape).collect()),
        })
    };
    Ok(DescribeTagsOutput { tag_descriptions: Some(arns.iter().map(one).collect::<Result<_, ServiceError>>()?) })
}
