//! Tags of everything that has an ARN here, up to twenty resources at once.

use api::elbv2::*;
use domain::{Arn, Tags, balancing};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    find,
    listeners::of_default_rule,
    names::{self, arn, invalid, required},
};
use crate::Call;

/// The most resources of one call.
const MAX_RESOURCES: usize = 20;

fn resources(call: &Call, arns: Option<Vec<String>>) -> Result<Vec<Arn>, ServiceError> {
    let arns = required(arns, "Resource ARNs")?;
    if arns.is_empty() || arns.len() > MAX_RESOURCES {
        return Err(invalid(format!("Between 1 and {MAX_RESOURCES} resource ARNs must be specified")));
    }
    let parse = |text: &String| {
        let kind = text.parse::<Arn>().map(|arn| arn.resource_type().to_owned()).unwrap_or_default();
        match kind.as_str() {
            "loadbalancer" | "targetgroup" | "listener" | "listener-rule" => arn(call, text, &kind, "resource"),
            _ => Err(invalid(format!("'{text}' is not a valid resource ARN"))),
        }
    };
    arns.iter().map(parse).collect()
}

/// The tags of a resource. A listener's default rule has none.
fn tags_of(view: &Snapshot, arn: &Arn) -> Result<Tags, ServiceError> {
    Ok(match arn.resource_type() {
        "loadbalancer" => find::load_balancer(view, arn.as_str())?.tags.clone(),
        "targetgroup" => find::target_group(view, arn.as_str())?.tags.clone(),
        "listener" => find::listener(view, arn.as_str())?.tags.clone(),
        _ if of_default_rule(view, arn).is_some() => Tags::default(),
        _ => find::rule(view, arn.as_str())?.tags.clone(),
    })
}

fn write(tx: &mut Transaction, arn: &Arn, tags: Tags) -> Result<(), ServiceError> {
    let key = arn.as_str();
    let written = match arn.resource_type() {
        "loadbalancer" => tx.update::<balancing::LoadBalancer>(key, |found| found.tags = tags),
        "targetgroup" => tx.update::<balancing::TargetGroup>(key, |found| found.tags = tags),
        "listener" => tx.update::<balancing::Listener>(key, |found| found.tags = tags),
        _ => tx.update::<balancing::Rule>(key, |found| found.tags = tags),
    };
    if written {
        Ok(())
    } else {
        Err(error::operation_not_permitted_exception(format!("Default rule '{arn}' cannot be modified")))
    }
}

pub(super) async fn add(call: Call, input: AddTagsInput) -> Result<AddTagsOutput, ServiceError> {
    let arns = resources(&call, input.resource_arns)?;
    let auth = call.authorise(&arns)?;
    let added = names::tags(input.tags)?;
    auth.transact(|tx| {
        for arn in &arns {
            let mut tags = tags_of(tx, arn)?;
            for tag in added.iter() {
                tags.set(tag.key.clone(), tag.value.clone()).map_err(names::tag_error)?;
            }
            write(tx, arn, tags)?;
        }
        Ok(())
    })
    .await?;
    Ok(AddTagsOutput {})
}

pub(super) async fn remove(call: Call, input: RemoveTagsInput) -> Result<RemoveTagsOutput, ServiceError> {
    let arns = resources(&call, input.resource_arns)?;
    let auth = call.authorise(&arns)?;
    let keys = required(input.tag_keys, "Tag keys")?;
    auth.transact(|tx| {
        for arn in &arns {
            let mut tags = tags_of(tx, arn)?;
            keys.iter().for_each(|key| tags.remove(key));
            write(tx, arn, tags)?;
        }
        Ok(())
    })
    .await?;
    Ok(RemoveTagsOutput {})
}

pub(super) fn describe(call: &Call, input: DescribeTagsInput) -> Result<DescribeTagsOutput, ServiceError> {
    let arns = resources(call, input.resource_arns)?;
    let auth = call.authorise(&arns)?;
    let view = auth.snapshot();
    let describe = |arn: &Arn| {
        let tags = tags_of(&view, arn)?;
        let shape = |tag: &domain::Tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) };
        Ok(TagDescription { resource_arn: Some(arn.to_string()), tags: Some(tags.iter().map(shape).collect()) })
    };
    let descriptions = arns.iter().map(describe).collect::<Result<_, ServiceError>>()?;
    Ok(DescribeTagsOutput { tag_descriptions: Some(descriptions) })
}
