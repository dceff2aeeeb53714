//! RegisterContainerInstance and DiscoverPollEndpoint.
//!
//! An agent checks that every attribute it sent comes back unchanged, and adds its availability zone from the answer.

use std::collections::BTreeMap;

use api::ecs::{
    Attribute as SentAttribute, DiscoverPollEndpointRequest, DiscoverPollEndpointResponse,
    RegisterContainerInstanceRequest, RegisterContainerInstanceResponse, Resource,
};
use domain::ecs::container_instance::ZONE_ATTRIBUTE;
use domain::ecs::{Attribute, ContainerInstance, ContainerInstanceStatus, names};
use domain::{Arn, Tags, Timestamp};
use store::Transaction;
use wire::ServiceError;

use super::super::common::{Given, client, invalid, refuse, tags};
use super::super::container_instances::{retire, shape};
use super::{agents_cluster, agents_instance, identity};
use crate::{Authorised, Call};

/// An agent sends some fifty.
const MOST_ATTRIBUTES: usize = 200;

pub(in crate::ecs) async fn register(
    call: Call,
    input: RegisterContainerInstanceRequest,
) -> Result<RegisterContainerInstanceResponse, ServiceError> {
    let cluster = input.cluster.clone().filter(|cluster| !cluster.is_empty());
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, cluster.as_deref())])?;
    refuse(&[("platformDevices", input.platform_devices.given())])?;
    let machine = identity::claimed(&auth, &input)?;
    let offer = Offer::read(&input, auth.scope.region.as_str())?;
    let tags = tags(input.tags.clone())?;
    let new_arn = |cluster: &Arn| {
        let name = cluster.resource_name();
        names::new_container_instance(&auth.scope, name, &mut auth.platform().ids())
    };
    let cluster = agents_cluster(&auth.snapshot(), &auth.principal, &auth.scope, cluster.as_deref())?;
    let fresh = new_arn(&cluster);
    let now = auth.now();
    let arn = auth.transact(|tx| {
        let machine = machine.as_deref().map(|id| identity::instance(&auth, tx, id)).transpose()?;
        let mut instance = match input.container_instance_arn.as_deref().filter(|arn| !arn.is_empty()) {
            Some(arn) => {
                let known = tx
                    .get::<ContainerInstance>(arn)
                    .filter(|known| known.cluster_arn == cluster && known.status != ContainerInstanceStatus::Inactive)
                    .ok_or_else(|| client(format!("There is no active container instance {arn} in this cluster.")))?;
                offer.apply(ContainerInstance::clone(&known))
            }
            None => {
                let instance = offer.apply(ContainerInstance { tags, ..blank(&auth, fresh, cluster, now) });
                supersede(tx, &instance);
                instance
            }
        };
        if let Some(machine) = &machine {
            identity::apply(&mut instance, machine)?;
            identity::retire_ec2_instance(tx, &machine.instance_id, Some(instance.arn.as_str()));
        }
        let arn = instance.arn.clone();
        if tx.get::<ContainerInstance>(arn.as_str()).as_deref() != Some(&instance) {
            tx.put(instance);
        }
        Ok(arn)
    });
    let arn = arn.await?;
    let view = auth.snapshot();
    let stored = view.get::<ContainerInstance>(arn.as_str());
    let stored = stored.ok_or_else(|| ServiceError::internal("The container instance was removed meanwhile."))?;
    Ok(RegisterContainerInstanceResponse { container_instance: Some(shape(&view, &stored, true)) })
}

/// A machine that registers anew has lost what it knew: what it was before, with its tasks, will not come back.
fn supersede(tx: &mut Transaction, instance: &ContainerInstance) {
    let Some(machine) = instance.machine() else { return };
    let before = tx.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, instance.cluster_arn.as_str());
    let before: Vec<_> = before.filter(|known| known.machine() == Some(machine)).collect();
    for known in before {
        tracing::warn!(instance = known.arn.as_str(), by = instance.arn.as_str(), "a host has come back as a new one");
        retire(tx, &known);
    }
}

fn blank(auth: &Authorised, arn: Arn, cluster_arn: Arn, now: Timestamp) -> ContainerInstance {
    ContainerInstance {
        arn,
        scope: auth.scope.clone(),
        cluster_arn,
        ec2_instance_id: None,
        status: ContainerInstanceStatus::Active,
        cpu: 0,
        memory: 0,
        reserved_ports: Vec::new(),
        reserved_udp_ports: Vec::new(),
        attributes: Vec::new(),
        tags: Tags::default(),
        registered_at: now,
        agent_version: String::new(),
        runtime_version: String::new(),
        client_token: None,
    }
}

/// What an agent registers.
struct Offer {
    cpu: u32,
    memory: u32,
    ports: Vec<u16>,
    udp_ports: Vec<u16>,
    attributes: Vec<Attribute>,
}

impl Offer {
    fn read(input: &RegisterContainerInstanceRequest, region: &str) -> Result<Offer, ServiceError> {
        let mut offer = Offer { cpu: 0, memory: 0, ports: Vec::new(), udp_ports: Vec::new(), attributes: Vec::new() };
        for resource in input.total_resources.iter().flatten() {
            match resource.name.as_deref().unwrap_or_default() {
                "CPU" => offer.cpu = integer(resource)?,
                "MEMORY" => offer.memory = integer(resource)?,
                "PORTS" => offer.ports = ports(resource)?,
                "PORTS_UDP" => offer.udp_ports = ports(resource)?,
                other => return Err(invalid(format!("The resource {other} is not supported by Longshore."))),
            }
        }
        if offer.cpu == 0 || offer.memory == 0 {
            return Err(invalid("The CPU and MEMORY resources of a container instance cannot be missing or zero."));
        }
        let mut attributes: BTreeMap<String, Option<String>> = BTreeMap::new();
        for SentAttribute { name, value, .. } in input.attributes.iter().flatten() {
            let name = name.clone().filter(|name| !name.is_empty() && name.len() <= 128);
            let name = name.ok_or_else(|| invalid("The name of an attribute must have 1 to 128 characters."))?;
            attributes.insert(name, value.clone());
        }
        if attributes.len() > MOST_ATTRIBUTES {
            return Err(invalid(format!("A container instance cannot have more than {MOST_ATTRIBUTES} attributes.")));
        }
        attributes.entry(ZONE_ATTRIBUTE.to_owned()).or_insert_with(|| Some(format!("{region}a")));
        offer.attributes = attributes.into_iter().map(|(name, value)| Attribute { name, value }).collect();
        Ok(offer)
    }

    /// What is registered again replaces what was; attributes that are not sent again stay.
    fn apply(&self, mut instance: ContainerInstance) -> ContainerInstance {
        instance.cpu = self.cpu;
        instance.memory = self.memory;
        instance.reserved_ports.clone_from(&self.ports);
        instance.reserved_udp_ports.clone_from(&self.udp_ports);
        instance.attributes.retain(|known| !self.attributes.iter().any(|sent| sent.name == known.name));
        instance.attributes.extend(self.attributes.iter().cloned());
        instance.attributes.sort_by(|one, other| one.name.cmp(&other.name));
        instance
    }
}

fn integer(resource: &Resource) -> Result<u32, ServiceError> {
    resource.integer_value.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| {
        invalid(format!("The resource {} has no integer value.", resource.name.as_deref().unwrap_or_default()))
    })
}

fn ports(resource: &Resource) -> Result<Vec<u16>, ServiceError> {
    let values = resource.string_set_value.as_deref().unwrap_or_default();
    values.iter().map(|text| text.parse().map_err(|_| invalid(format!("{text} is not a port.")))).collect()
}

pub(in crate::ecs) async fn discover_poll_endpoint(
    call: Call,
    input: DiscoverPollEndpointRequest,
) -> Result<DiscoverPollEndpointResponse, ServiceError> {
    let arn = input.container_instance.clone().unwrap_or_else(|| "*".to_owned());
    let auth = call.authorise(&[arn])?;
    if let Some(instance) = input.container_instance.as_deref().filter(|arn| !arn.is_empty()) {
        agents_instance(&auth.snapshot(), &auth.principal, instance)
            .map_err(|_| client("The container instance is not registered with this cluster."))?;
    }
    // Where the agent has reached the API it also reaches its sessions.
    let endpoint = &auth.origin.endpoint;
    Ok(DiscoverPollEndpointResponse {
        endpoint: Some(format!("{endpoint}/acs/")),
        telemetry_endpoint: Some(format!("{endpoint}/tcs/")),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, value: i32) -> Resource {
        Resource { name: Some(name.into()), integer_value: Some(value), ..Resource::default() }
    }

    fn request(resources: Vec<Resource>) -> RegisterContainerInstanceRequest {
        let attribute = SentAttribute { name: Some("a".into()), ..SentAttribute::default() };
        RegisterContainerInstanceRequest {
            total_resources: Some(resources),
            attributes: Some(vec![attribute]),
            ..Default::default()
        }
    }

    #[test]
    fn an_offer_names_its_zone_and_keeps_bare_attributes() {
        let offer = Offer::read(&request(vec![resource("CPU", 2048), resource("MEMORY", 4096)]), "eu-west-1");
        let Ok(offer) = offer else { panic!("refused") };
        assert_eq!((offer.cpu, offer.memory), (2048, 4096));
        assert!(offer.attributes.contains(&Attribute { name: "a".into(), value: None }));
        assert!(
            offer.attributes.contains(&Attribute { name: ZONE_ATTRIBUTE.into(), value: Some("eu-west-1a".into()) })
        );
    }

    #[test]
    fn an_offer_without_memory_or_with_unknown_resources_is_refused() {
        assert!(Offer::read(&request(vec![resource("CPU", 1)]), "r").is_err());
        assert!(Offer::read(&request(vec![resource("CPU", -1), resource("MEMORY", 1)]), "r").is_err());
        let unknown = vec![resource("CPU", 1), resource("MEMORY", 1), resource("NEURON_CORES", 1)];
        assert!(Offer::read(&request(unknown), "r").is_err());
    }
}
