//! Tags: in every Create call as tag specifications, and by themselves.

use api::ec2::{
    CreateTagsRequest, DeleteTagsRequest, DescribeTagsRequest, DescribeTagsResult, Tag, TagDescription,
    TagSpecification,
};
use domain::{
    Tags,
    instances::{Instance, LaunchTemplate, MachineImage, Volume},
    network::{
        Address, DhcpOptions, InternetGateway, NatGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet, Vpc,
    },
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::common::{Noun, begin, check_filters, matches_any};
use crate::Call;

fn pairs(tags: &[Tag]) -> Vec<(String, String)> {
    tags.iter().map(|tag| (tag.key.clone().unwrap_or_default(), tag.value.clone().unwrap_or_default())).collect()
}

fn refused(error: impl std::fmt::Display) -> ServiceError {
    ServiceError::new("InvalidParameterValue", error.to_string())
}

/// The tags a Create call gives to what it makes. A specification for another type of resource is refused.
pub(super) fn specified(
    specifications: Option<Vec<TagSpecification>>,
    resource_type: &str,
) -> Result<Tags, ServiceError> {
    let mut all = Vec::new();
    for specification in specifications.unwrap_or_default() {
        let named = specification.resource_type.unwrap_or_default();
        if named != resource_type {
            return Err(refused(format!("'{named:.64}' is not a valid taggable resource type for this operation.")));
        }
        all.extend(pairs(&specification.tags.unwrap_or_default()));
    }
    Tags::from_request(all).map_err(refused)
}

/// Tags as EC2 shows them; EC2 leaves out none.
pub(super) fn shape(tags: &Tags) -> Option<Vec<Tag>> {
    Some(tags.iter().map(|tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) }).collect())
}

/// Changes the tags of the resource with this id, whatever it is.
fn change(
    tx: &mut Transaction,
    call: &Call,
    id: &str,
    change: &mut dyn FnMut(&mut Tags) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    fn of<T: Noun>(
        tx: &mut Transaction,
        call: &Call,
        id: &str,
        change: &mut dyn FnMut(&mut Tags) -> Result<(), ServiceError>,
    ) -> Result<(), ServiceError> {
        let mut outcome = Err(T::not_found(id));
        tx.update::<T>(&call.scope.key(id), |item| outcome = change(item.tags_mut()));
        outcome
    }
    match id.split_once('-').map_or("", |(prefix, _)| prefix) {
        "vpc" => of::<Vpc>(tx, call, id, change),
        "subnet" => of::<Subnet>(tx, call, id, change),
        "sg" => of::<SecurityGroup>(tx, call, id, change),
        "rtb" => of::<RouteTable>(tx, call, id, change),
        "igw" => of::<InternetGateway>(tx, call, id, change),
        "nat" => of::<NatGateway>(tx, call, id, change),
        "eni" => of::<NetworkInterface>(tx, call, id, change),
        "eipalloc" => of::<Address>(tx, call, id, change),
        "i" => of::<Instance>(tx, call, id, change),
        "ami" => of::<MachineImage>(tx, call, id, change),
        "vol" => of::<Volume>(tx, call, id, change),
        "lt" => of::<LaunchTemplate>(tx, call, id, change),
        "dopt" => of::<DhcpOptions>(tx, call, id, change),
        "sgr" => {
            let group = super::security_group_rules::group_of(call, tx, id)?;
            let mut outcome = Ok(());
            tx.update::<SecurityGroup>(&call.scope.key(&group.group_id), |group| {
                if let Some(rule) = group.rules.iter_mut().find(|rule| rule.rule_id == id) {
                    outcome = change(&mut rule.tags);
                }
            });
            outcome
        }
        _ => Err(ServiceError::new("InvalidID", format!("The ID '{id:.64}' is not valid"))),
    }
}

/// CreateTags.
pub(super) async fn create(call: Call, input: CreateTagsRequest) -> Result<(), ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let (resources, tags) = (input.resources.unwrap_or_default(), pairs(&input.tags.unwrap_or_default()));
    auth.transact(|tx| {
        for id in &resources {
            change(tx, &call, id, &mut |existing| {
                tags.iter().try_for_each(|(key, value)| existing.set(key.clone(), value.clone())).map_err(refused)
            })?;
        }
        Ok(())
    })
    .await
}

/// DeleteTags: those with the given key, and value where one is given; all when no tag is given.
pub(super) async fn delete(call: Call, input: DeleteTagsRequest) -> Result<(), ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let (resources, tags) = (input.resources.unwrap_or_default(), input.tags);
    auth.transact(|tx| {
        for id in &resources {
            change(tx, &call, id, &mut |existing| {
                let Some(tags) = &tags else {
                    *existing = Tags::default();
                    return Ok(());
                };
                for tag in tags {
                    let key = tag.key.as_deref().unwrap_or_default();
                    let same = tag.value.as_deref().is_none_or(|value| existing.get(key) == Some(value));
                    if same {
                        existing.remove(key);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    })
    .await
}

/// DescribeTags.
pub(super) async fn describe(call: Call, input: DescribeTagsRequest) -> Result<DescribeTagsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["key", "value", "resource-id", "resource-type"])?;
    let view = auth.snapshot();
    let mut tags = Vec::new();
    fn collect<T: Noun>(view: &Snapshot, prefix: &str, tags: &mut Vec<TagDescription>) {
        for item in view.list::<T>(prefix) {
            tags.extend(item.tags().iter().map(|tag| TagDescription {
                key: Some(tag.key.clone()),
                value: Some(tag.value.clone()),
                resource_id: Some(item.id().to_owned()),
                resource_type: Some(T::TYPE.to_owned()),
            }));
        }
    }
    let prefix = call.scope.prefix();
    collect::<Vpc>(&view, &prefix, &mut tags);
    collect::<Subnet>(&view, &prefix, &mut tags);
    collect::<SecurityGroup>(&view, &prefix, &mut tags);
    collect::<RouteTable>(&view, &prefix, &mut tags);
    collect::<InternetGateway>(&view, &prefix, &mut tags);
    collect::<NatGateway>(&view, &prefix, &mut tags);
    collect::<NetworkInterface>(&view, &prefix, &mut tags);
    collect::<Address>(&view, &prefix, &mut tags);
    collect::<Instance>(&view, &prefix, &mut tags);
    collect::<MachineImage>(&view, &prefix, &mut tags);
    collect::<Volume>(&view, &prefix, &mut tags);
    collect::<LaunchTemplate>(&view, &prefix, &mut tags);
    collect::<DhcpOptions>(&view, &prefix, &mut tags);
    tags.retain(|tag| {
        filters.iter().all(|filter| {
            let name = filter.name.as_deref().unwrap_or_default();
            let value = match name {
                "key" | "tag-key" => &tag.key,
                "value" => &tag.value,
                "resource-id" => &tag.resource_id,
                "resource-type" => &tag.resource_type,
                "owner-id" => &Some(call.scope.account.to_string()),
                // `tag:key` asks for this tag with such a value.
                other if other.strip_prefix("tag:") == tag.key.as_deref() => &tag.value,
                _ => &None,
            };
            matches_any(filter.values.as_deref().unwrap_or_default(), &value.iter().cloned().collect::<Vec<_>>())
        })
    });
    let key = |tag: &TagDescription| {
        format!("{} {}", tag.resource_id.as_deref().unwrap_or_default(), tag.key.as_deref().unwrap_or_default())
    };
    let tags = tags.into_iter().map(|tag| (key(&tag), tag)).collect();
    let (tags, next_token) = super::common::page(&call, tags, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeTagsResult { tags: Some(tags), next_token })
}
