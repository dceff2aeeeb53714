//! Attributes that people give to container instances. They stand beside those that agents register, which PutAttributes
//! and DeleteAttributes leave alone where their names are reserved.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html#attributes>

use api::ecs::*;
use domain::{
    Scope,
    ecs::{Attribute as StoredAttribute, Cluster, ContainerInstance as Stored, ContainerInstanceStatus},
};
use store::Transaction;
use wire::ServiceError;

use super::{
    common::{cluster, cluster_arn, invalid, page, page_size},
    container_instances::find,
};
use crate::Call;

/// The most custom attributes of an instance, and of a request.
const MOST: usize = 10;
/// What says that a target is a container instance; there is no other kind.
const TARGET_TYPE: &str = "container-instance";
/// Names that begin so are the agents' own.
const RESERVED: [&str; 3] = ["ecs.", "com.amazonaws.", "longshore."];

pub(super) async fn put(call: Call, input: PutAttributesRequest) -> Result<PutAttributesResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let asked = asked(input.attributes)?;
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let mut given = Vec::new();
        for attribute in &asked {
            let (name, value) = (checked_name(attribute)?, checked_value(attribute)?);
            let mut instance = target(tx, &auth.scope, &cluster, attribute)?;
            match instance.attributes.iter_mut().find(|known| known.name == name) {
                Some(known) => known.value.clone_from(&value),
                None => {
                    let custom = instance.attributes.iter().filter(|known| !is_reserved(&known.name)).count();
                    if custom >= MOST {
                        return Err(error::attribute_limit_exceeded_exception(format!(
                            "You can apply up to {MOST} custom attributes to a container instance."
                        )));
                    }
                    instance.attributes.push(StoredAttribute { name: name.clone(), value: value.clone() });
                    instance.attributes.sort_by(|one, other| one.name.cmp(&other.name));
                }
            }
            given.push(shape(&instance, &StoredAttribute { name, value }));
            tx.put(instance);
        }
        Ok(PutAttributesResponse { attributes: Some(given) })
    })
    .await
}

pub(super) async fn delete(
    call: Call,
    input: DeleteAttributesRequest,
) -> Result<DeleteAttributesResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let asked = asked(input.attributes)?;
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let mut gone = Vec::new();
        for attribute in &asked {
            let (name, value) = (checked_name(attribute)?, checked_value(attribute)?);
            let mut instance = target(tx, &auth.scope, &cluster, attribute)?;
            // With a value, only if it has that one.
            let is_it = |known: &StoredAttribute| known.name == name && (value.is_none() || known.value == value);
            let Some(at) = instance.attributes.iter().position(is_it) else {
                return Err(error::target_not_found_exception(format!("The attribute {name} was not found.")));
            };
            let removed = instance.attributes.remove(at);
            gone.push(shape(&instance, &removed));
            tx.put(instance);
        }
        Ok(DeleteAttributesResponse { attributes: Some(gone) })
    })
    .await
}

/// Custom and built-in ones alike, one for each instance that has it.
pub(super) async fn list(call: Call, input: ListAttributesRequest) -> Result<ListAttributesResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let size = page_size(input.max_results, 100, 100)?;
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let name = input.attribute_name.filter(|name| !name.is_empty());
    let value = input.attribute_value.filter(|value| !value.is_empty());
    if value.is_some() && name.is_none() {
        return Err(invalid("attributeValue cannot be given without attributeName."));
    }
    // An ARN has no white space, so the order of these keys is that of instance and name.
    let keys = view.find::<Stored>(Stored::BY_CLUSTER, cluster.arn.as_str()).flat_map(|instance| {
        let wanted = |known: &&StoredAttribute| {
            name.as_ref().is_none_or(|name| known.name == *name) && (value.is_none() || known.value == value)
        };
        let key = |known: &StoredAttribute| format!("{} {}", instance.arn, known.name);
        instance.attributes.iter().filter(wanted).map(key).collect::<Vec<_>>()
    });
    let (keys, next_token) = page(&operation::LIST_ATTRIBUTES, keys, input.next_token.as_deref(), size)?;
    let found = keys.iter().filter_map(|key| {
        let (arn, name) = key.split_once(' ')?;
        let instance = view.get::<Stored>(arn)?;
        let known = instance.attributes.iter().find(|known| known.name == name)?;
        Some(shape(&instance, known))
    });
    Ok(ListAttributesResponse { attributes: Some(found.collect()), next_token })
}

fn asked(attributes: Option<Vec<Attribute>>) -> Result<Vec<Attribute>, ServiceError> {
    let attributes = attributes.unwrap_or_default();
    if (1..=MOST).contains(&attributes.len()) {
        Ok(attributes)
    } else {
        Err(invalid(format!("A request must have 1 to {MOST} attributes.")))
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

fn checked_name(attribute: &Attribute) -> Result<String, ServiceError> {
    let name = attribute.name.clone().unwrap_or_default();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./\\".contains(&byte);
    if !(1..=128).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(invalid(format!(
            "The attribute name '{name:.128}' is not valid: it must have 1 to 128 letters, digits, hyphens, underscores, slashes, backslashes or periods."
        )));
    }
    if is_reserved(&name) {
        return Err(invalid(format!("The attribute name '{name}' is reserved.")));
    }
    Ok(name)
}

fn checked_value(attribute: &Attribute) -> Result<Option<String>, ServiceError> {
    let value = attribute.value.clone().filter(|value| !value.is_empty());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./\\@: ".contains(&byte);
    match &value {
        Some(text) if text.len() > 128 || !text.bytes().all(fits) || text.trim() != text => Err(invalid(format!(
            "The attribute value '{text:.128}' is not valid: it can have up to 128 letters, digits, hyphens, underscores, periods, at signs, slashes, backslashes, colons or spaces, with no space at either end."
        ))),
        _ => Ok(value),
    }
}

/// The instance that an attribute of a request is for: its ARN, or its id together with the type.
fn target(tx: &Transaction, scope: &Scope, cluster: &Cluster, attribute: &Attribute) -> Result<Stored, ServiceError> {
    let text = attribute.target_id.as_deref().unwrap_or_default();
    if !text.starts_with("arn:") && attribute.target_type.as_deref() != Some(TARGET_TYPE) {
        return Err(invalid("targetType is required when targetId is not an ARN."));
    }
    find(tx, scope, cluster, text)
        .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
        .ok_or_else(|| error::target_not_found_exception("The specified target was not found."))
}

fn shape(instance: &Stored, attribute: &StoredAttribute) -> Attribute {
    Attribute {
        name: Some(attribute.name.clone()),
        value: attribute.value.clone(),
        target_type: Some(TARGET_TYPE.to_owned()),
        target_id: Some(instance.arn.to_string()),
    }
}
