//! Which EC2 instance an agent runs on, proved by the instance's identity document.

use api::ecs::RegisterContainerInstanceRequest;
use domain::ecs::container_instance::{EXTERNAL_ATTRIBUTE, ZONE_ATTRIBUTE};
use domain::ecs::{Attribute, ContainerInstance, ContainerInstanceStatus};
use domain::instances::{Instance, Power};
use store::Transaction;
use wire::ServiceError;

use super::super::common::{client, invalid};
use super::super::container_instances::retire;
use crate::Authorised;

/// The id in a document that the platform has signed; `None` when the agent shows none.
pub(super) fn claimed(
    auth: &Authorised,
    input: &RegisterContainerInstanceRequest,
) -> Result<Option<String>, ServiceError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let document = given(&input.instance_identity_document);
    let signature = given(&input.instance_identity_document_signature);
    let (document, signature) = match (document, signature) {
        (None, None) => return Ok(None),
        (Some(document), Some(signature)) => (document, signature),
        _ => return Err(invalid("An instance identity document and its signature must be given together.")),
    };
    if !auth.platform().authority.verify_identity_document(&document, &signature) {
        return Err(client("The signature of the instance identity document is not valid."));
    }
    let id = serde_json::from_str::<serde_json::Value>(&document)
        .ok()
        .and_then(|document| document.get("instanceId")?.as_str().map(str::to_owned));
    id.map(Some).ok_or_else(|| invalid("The instance identity document names no instance."))
}

/// The instance of this id in the caller's account and region, if it is on.
pub(super) fn instance(
    auth: &Authorised,
    tx: &Transaction,
    id: &str,
) -> Result<std::sync::Arc<Instance>, ServiceError> {
    let known = tx.get::<Instance>(&auth.scope.key(id));
    let known = known.ok_or_else(|| client(format!("The EC2 instance {id:.64} does not exist.")))?;
    if known.power != Power::On {
        let state = known.state().name();
        return Err(client(format!("The EC2 instance {id} is {state}; only a running instance can be registered.")));
    }
    Ok(known)
}

/// What is known of the EC2 instance counts over what its agent sent.
pub(super) fn apply(container_instance: &mut ContainerInstance, instance: &Instance) -> Result<(), ServiceError> {
    let attributes = &mut container_instance.attributes;
    if attributes.iter().any(|attribute| attribute.name == EXTERNAL_ATTRIBUTE) {
        return Err(invalid("A machine outside EC2 has no instance identity document."));
    }
    let id = &instance.instance_id;
    if container_instance.ec2_instance_id.as_ref().is_some_and(|known| known != id) {
        return Err(client(format!("The container instance {} is another EC2 instance.", container_instance.arn)));
    }
    container_instance.ec2_instance_id = Some(id.clone());
    for (name, value) in [
        (ZONE_ATTRIBUTE, &instance.availability_zone),
        ("ecs.instance-type", &instance.instance_type),
        ("ecs.ami-id", &instance.image_id),
        ("ecs.vpc-id", &instance.vpc_id),
        ("ecs.subnet-id", &instance.subnet_id),
    ] {
        attributes.retain(|attribute| attribute.name != name);
        attributes.push(Attribute { name: name.to_owned(), value: Some(value.clone()) });
    }
    attributes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(())
}

/// Takes an EC2 instance out of every cluster, but for the container instance `by` that it is now: one EC2 instance is
/// one container instance.
pub(crate) fn retire_ec2_instance(tx: &mut Transaction, instance_id: &str, by: Option<&str>) {
    let others: Vec<_> = tx
        .list::<ContainerInstance>("")
        .filter(|known| {
            known.ec2_instance_id.as_deref() == Some(instance_id)
                && known.status != ContainerInstanceStatus::Inactive
                && by != Some(known.arn.as_str())
        })
        .collect();
    for known in others {
        tracing::info!(instance = known.arn.as_str(), instance_id, by, "an EC2 instance is no longer this one");
        retire(tx, &known);
    }
}
