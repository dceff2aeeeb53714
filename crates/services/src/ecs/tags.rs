//! Tags of clusters, services, tasks, task definitions and container instances.

use api::ecs::*;
use domain::{
    Resource, Tags,
    ecs::{Cluster, ContainerInstance, Service, Task, TaskDefinition},
};
use store::Transaction;
use wire::ServiceError;

use super::common::{invalid, tags, tags_shape};
use crate::Call;

/// A resource with tags.
trait Tagged: Resource {
    fn tags(&mut self) -> &mut Tags;
}

macro_rules! tagged {
    ($($kind:ty),*) => {
        $(impl Tagged for $kind {
            fn tags(&mut self) -> &mut Tags {
                &mut self.tags
            }
        })*
    };
}
tagged!(Cluster, Service, Task, TaskDefinition, ContainerInstance);

pub(super) async fn tag(call: Call, input: TagResourceRequest) -> Result<TagResourceResponse, ServiceError> {
    let arn = input.resource_arn.unwrap_or_default();
    let auth = call.authorise(&[&arn])?;
    let new = tags(input.tags)?;
    auth.transact(|tx| {
        change(tx, &arn, |known| {
            for tag in new.iter() {
                known.set(tag.key.clone(), tag.value.clone()).map_err(|error| invalid(error.to_string()))?;
            }
            Ok(())
        })
    })
    .await?;
    Ok(TagResourceResponse {})
}

pub(super) async fn untag(call: Call, input: UntagResourceRequest) -> Result<UntagResourceResponse, ServiceError> {
    let arn = input.resource_arn.unwrap_or_default();
    let auth = call.authorise(&[&arn])?;
    let keys = input.tag_keys.unwrap_or_default();
    auth.transact(|tx| {
        change(tx, &arn, |known| {
            keys.iter().for_each(|key| known.remove(key));
            Ok(())
        })
    })
    .await?;
    Ok(UntagResourceResponse {})
}

pub(super) async fn list(
    call: Call,
    input: ListTagsForResourceRequest,
) -> Result<ListTagsForResourceResponse, ServiceError> {
    let arn = input.resource_arn.unwrap_or_default();
    let auth = call.authorise(&[&arn])?;
    let mut found = Tags::default();
    auth.transact(|tx| {
        change(tx, &arn, |known| {
            found = known.clone();
            Ok(())
        })
    })
    .await?;
    Ok(ListTagsForResourceResponse { tags: Some(tags_shape(&found)) })
}

/// Lets `work` read or change the tags of a resource; writes only what changed.
fn change(
    tx: &mut Transaction,
    arn: &str,
    work: impl FnOnce(&mut Tags) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let kind = arn.splitn(6, ':').nth(5).and_then(|resource| resource.split('/').next()).unwrap_or_default();
    match kind {
        "cluster" => change_one::<Cluster>(tx, arn, work),
        "service" => change_one::<Service>(tx, arn, work),
        "task" => change_one::<Task>(tx, arn, work),
        "task-definition" => change_one::<TaskDefinition>(tx, arn, work),
        "container-instance" => change_one::<ContainerInstance>(tx, arn, work),
        _ => Err(not_found(arn)),
    }
}

fn change_one<T: Tagged + PartialEq>(
    tx: &mut Transaction,
    arn: &str,
    work: impl FnOnce(&mut Tags) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let before = tx.get::<T>(arn).ok_or_else(|| not_found(arn))?;
    let mut after = T::clone(&before);
    work(after.tags())?;
    if after != *before {
        tx.put(after);
    }
    Ok(())
}

fn not_found(arn: &str) -> ServiceError {
    invalid(format!("The specified resource does not exist: {arn}"))
}
