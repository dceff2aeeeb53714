//! RegisterContainerInstance and DiscoverPollEndpoint.
//!
//! An agent checks that every attribute it sent comes back unchanged, and adds its availability zone from the answer.

use std::collections::{BTreeMap, BTreeSet};

use api::ecs::{
    Attribute as SentAttribute, DiscoverPollEndpointRequest, DiscoverPollEndpointResponse,
    RegisterContainerInstanceRequest, RegisterContainerInstanceResponse, Resource, VersionInfo,
};
use domain::ecs::container_instance::ZONE_ATTRIBUTE;
use domain::ecs::{Attribute, ContainerInstance, ContainerInstanceStatus, names};
use domain::{Arn, Tags, Timestamp};
use store::Transaction;
use wire::ServiceError;

use super::super::common::{client, invalid, tags, unsupported};
use super::super::container_instances::{retire, shape};
use super::socket::short;
use super::{agents_cluster, agents_instance, identity};
use crate::{Authorised, Call};

/// An agent sends some fifty.
const MOST_ATTRIBUTES: usize = 200;
/// The largest instance types have 16.
const MOST_GPUS: usize = 64;
/// NVIDIA's are `GPU-` and a UUID.
const LONGEST_GPU_ID: usize = 128;
/// An agent sends a UUID.
const LONGEST_TOKEN: usize = 64;

pub(in crate::ecs) async fn register(
    call: Call,
    input: RegisterContainerInstanceRequest,
) -> Result<RegisterContainerInstanceResponse, ServiceError> {
    let cluster = input.cluster.clone().filter(|cluster| !cluster.is_empty());
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, cluster.as_deref())])?;
    let machine = identity::claimed(&auth, &input)?;
    let offer = Offer::read(&input, auth.scope.region.as_str())?;
    let tags = tags(input.tags.clone())?;
    let token = input.client_token.clone().filter(|token| !token.is_empty());
    if token.as_ref().is_some_and(|token| token.len() > LONGEST_TOKEN) {
        return Err(invalid(format!("The client token cannot be longer than {LONGEST_TOKEN}.")));
    }
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
                    .filter(|known| known.cluster_arn == cluster)
                    .ok_or_else(|| client(format!("There is no container instance {arn} in this cluster.")))?;
                if known.status == ContainerInstanceStatus::Inactive {
                    return Err(client(format!("Container instance {} is inactive.", known.arn.resource_name())));
                }
                let mut known = ContainerInstance::clone(&known);
                for tag in tags.iter() {
                    let set = known.tags.set(tag.key.clone(), tag.value.clone());
                    set.map_err(|error| invalid(error.to_string()))?;
                }
                offer.apply(known)
            }
            None => match registered_before(tx, &cluster, token.as_deref()) {
                Some(known) => offer.apply(known),
                None => {
                    let blank = blank(&auth, fresh, cluster, now);
                    let instance = offer.apply(ContainerInstance { tags, client_token: token, ..blank });
                    supersede(tx, &instance);
                    instance
                }
            },
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

/// The instance that the same attempt of an agent has made, whose answer it has not got.
fn registered_before(tx: &Transaction, cluster: &Arn, token: Option<&str>) -> Option<ContainerInstance> {
    let token = token?;
    let mut known = tx.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, cluster.as_str());
    let found = known.find(|known| known.client_token.as_deref() == Some(token))?;
    Some(ContainerInstance::clone(&found))
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
        gpus: Vec::new(),
        attributes: Vec::new(),
        tags: Tags::default(),
        registered_at: now,
        agent_version: String::new(),
        runtime_version: String::new(),
        agent_hash: String::new(),
        client_token: None,
    }
}

/// What an agent registers.
struct Offer {
    cpu: u32,
    memory: u32,
    ports: Vec<u16>,
    udp_ports: Vec<u16>,
    gpus: Vec<String>,
    attributes: Vec<Attribute>,
    /// Amazon's agent tells it only when it connects.
    version: Option<VersionInfo>,
}

impl Offer {
    fn read(input: &RegisterContainerInstanceRequest, region: &str) -> Result<Offer, ServiceError> {
        let mut offer = Offer {
            cpu: 0,
            memory: 0,
            ports: Vec::new(),
            udp_ports: Vec::new(),
            gpus: Vec::new(),
            attributes: Vec::new(),
            version: input.version_info.clone(),
        };
        for device in input.platform_devices.iter().flatten() {
            match device.r#type.as_deref() {
                Some("GPU") => offer.add_gpus(device.id.as_slice())?,
                other => return Err(unsupported(&format!("platformDevices of type {}", other.unwrap_or_default()))),
            }
        }
        for resource in input.total_resources.iter().flatten() {
            match resource.name.as_deref().unwrap_or_default() {
                "CPU" => offer.cpu = integer(resource)?,
                "MEMORY" => offer.memory = integer(resource)?,
                "PORTS" => offer.ports = ports(resource)?,
                "PORTS_UDP" => offer.udp_ports = ports(resource)?,
                "GPU" => offer.add_gpus(resource.string_set_value.as_deref().unwrap_or_default())?,
                other => {
                    return Err(invalid(format!("The resource {} is not supported by Longshore.", short(other))));
                }
            }
        }
        if offer.cpu == 0 || offer.memory == 0 {
            return Err(invalid("The CPU and MEMORY resources of a container instance cannot be missing or zero."));
        }
        let mut attributes: BTreeMap<String, Option<String>> = BTreeMap::new();
        for SentAttribute { name, value, .. } in input.attributes.iter().flatten() {
            let name = name.clone().filter(|name| !name.is_empty() && name.len() <= 128);
            let name = name.ok_or_else(|| invalid("The name of an attribute must have 1 to 128 characters."))?;
            if value.as_ref().is_some_and(|value| value.len() > 128) {
                return Err(invalid(format!("The value of the attribute {name} has more than 128 characters.")));
            }
            attributes.insert(name, value.clone());
        }
        if attributes.len() > MOST_ATTRIBUTES {
            return Err(invalid(format!("A container instance cannot have more than {MOST_ATTRIBUTES} attributes.")));
        }
        attributes.entry(ZONE_ATTRIBUTE.to_owned()).or_insert_with(|| Some(format!("{region}a")));
        offer.attributes = attributes.into_iter().map(|(name, value)| Attribute { name, value }).collect();
        Ok(offer)
    }

    /// Amazon's agent tells its GPUs as devices; as a resource they are the same ones.
    fn add_gpus(&mut self, ids: &[String]) -> Result<(), ServiceError> {
        for id in ids {
            if id.is_empty() || id.len() > LONGEST_GPU_ID {
                return Err(invalid(format!("The id of a GPU must have 1 to {LONGEST_GPU_ID} characters.")));
            }
            if !self.gpus.contains(id) {
                self.gpus.push(id.clone());
            }
            if self.gpus.len() > MOST_GPUS {
                return Err(invalid(format!("A container instance cannot have more than {MOST_GPUS} GPUs.")));
            }
        }
        Ok(())
    }

    /// What is registered again replaces what was; attributes that are not sent again stay.
    fn apply(&self, mut instance: ContainerInstance) -> ContainerInstance {
        instance.cpu = self.cpu;
        instance.memory = self.memory;
        instance.reserved_ports.clone_from(&self.ports);
        instance.reserved_udp_ports.clone_from(&self.udp_ports);
        instance.gpus.clone_from(&self.gpus);
        instance.attributes.retain(|known| !self.attributes.iter().any(|sent| sent.name == known.name));
        instance.attributes.extend(self.attributes.iter().cloned());
        instance.attributes.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(version) = &self.version {
            let text = |text: &Option<String>| short(text.as_deref().unwrap_or_default());
            instance.agent_version = text(&version.agent_version);
            instance.agent_hash = text(&version.agent_hash);
            instance.runtime_version = text(&version.docker_version);
        }
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
    let port = |text: &String| text.parse().map_err(|_| invalid(format!("{} is not a port.", short(text))));
    let ports: BTreeSet<u16> = values.iter().map(port).collect::<Result<_, _>>()?;
    Ok(ports.into_iter().collect())
}

pub(in crate::ecs) async fn discover_poll_endpoint(
    call: Call,
    input: DiscoverPollEndpointRequest,
) -> Result<DiscoverPollEndpointResponse, ServiceError> {
    let arn = input.container_instance.clone().unwrap_or_else(|| "*".to_owned());
    let auth = call.authorise(&[arn])?;
    if let Some(instance) = input.container_instance.as_deref().filter(|arn| !arn.is_empty()) {
        let unknown = || client("The container instance is not registered with this cluster.");
        let view = auth.snapshot();
        let instance = agents_instance(&view, &auth.principal, instance).map_err(|_| unknown())?;
        let named = input.cluster.as_deref().filter(|cluster| !cluster.is_empty());
        if agents_cluster(&view, &auth.principal, &auth.scope, named)? != instance.cluster_arn {
            return Err(unknown());
        }
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
    use api::ecs::PlatformDevice;

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
    fn gpus_are_told_as_devices_or_as_a_resource_and_each_is_there_once() {
        let device = |id: &str, kind: &str| PlatformDevice { id: Some(id.into()), r#type: Some(kind.into()) };
        let of = |devices: Vec<PlatformDevice>| {
            let set = Some(vec!["GPU-2".to_owned(), "GPU-3".to_owned()]);
            let more = Resource { name: Some("GPU".into()), string_set_value: set, ..Resource::default() };
            let request = request(vec![resource("CPU", 1), resource("MEMORY", 1), more]);
            Offer::read(&RegisterContainerInstanceRequest { platform_devices: Some(devices), ..request }, "r")
        };
        let offer = of(vec![device("GPU-1", "GPU"), device("GPU-2", "GPU"), device("GPU-1", "GPU")]);
        assert_eq!(offer.ok().map(|offer| offer.gpus), Some(["GPU-1", "GPU-2", "GPU-3"].map(str::to_owned).to_vec()));
        assert!(of(vec![device("", "GPU")]).is_err());
        assert!(of(vec![device("neuron0", "NEURON_DEVICE")]).is_err());
        assert!(of((0..65).map(|number| device(&number.to_string(), "GPU")).collect()).is_err());
    }

    #[test]
    fn an_offer_without_memory_or_with_unknown_resources_is_refused() {
        assert!(Offer::read(&request(vec![resource("CPU", 1)]), "r").is_err());
        assert!(Offer::read(&request(vec![resource("CPU", -1), resource("MEMORY", 1)]), "r").is_err());
        let unknown = vec![resource("CPU", 1), resource("MEMORY", 1), resource("NEURON_CORES", 1)];
        assert!(Offer::read(&request(unknown), "r").is_err());
    }
}
