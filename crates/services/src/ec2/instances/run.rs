//! RunInstances: what was said, over what the launch template says, over what the image and the default VPC give.

use api::ec2::{Reservation, RunInstancesRequest};
use domain::{
    Tags, Timestamp,
    instances::{
        Instance, LaunchData, LaunchMetadata, MetadataOptions, Power, ShutdownBehavior, Spot, default_instance_type,
        instance_type,
    },
    network::NetworkInterfaceOwner,
};
use store::Transaction;
use wire::ServiceError;

use super::{devices, placement::place, power::GONE, profiles, request, shape::reservation};
use crate::{
    Authorised, Call,
    ec2::{
        allocation::{NewInterface, allocate_network_interface, available_addresses},
        common::{begin, invalid_value},
        images, launch_templates,
    },
};

/// Instances of an account in a region that are not terminated.
const MAX_INSTANCES: usize = 100;

/// RunInstances.
pub(in crate::ec2) async fn run(call: Call, mut input: RunInstancesRequest) -> Result<Reservation, ServiceError> {
    let (least, most) = counts(input.min_count, input.max_count)?;
    let (client_token, dry_run) = (input.client_token.take().filter(|token| !token.is_empty()), input.dry_run);
    let template = input.launch_template.take();
    let said = request::of_run(input)?;
    let subnet = said.subnet_id.as_deref().unwrap_or("*");
    let resources = ["instance/*", "network-interface/*", "volume/*"].map(str::to_owned);
    let auth = begin(&call, &[resources.as_slice(), &[format!("subnet/{subnet}")]].concat(), dry_run)?;
    let digest = digest(&said, template.as_ref(), least, most);
    let now = auth.now();
    auth.transact(|tx| {
        if let Some(known) = client_token.as_deref().and_then(|token| launched(tx, &call, token)) {
            if known.request_digest.as_ref() != Some(&digest) {
                let text = "Arguments on this idempotent request are inconsistent with arguments used in previous \
                    request(s).";
                return Err(ServiceError::new("IdempotentParameterMismatch", text));
            }
            return Ok(reservation(tx, &call.scope, &known.reservation_id));
        }
        let (data, origin) = match &template {
            Some(specification) => {
                let version = launch_templates::version(&call, tx, specification)?;
                (said.over(version.data.clone()), Some(version))
            }
            None => (said, None),
        };
        let origin = origin.map(|version| (version.launch_template_id.clone(), version.number));
        let launch = Launch { data, least, most, client_token, digest, origin };
        let reservation_id = launch.launch(&auth, tx, now)?;
        Ok(reservation(tx, &call.scope, &reservation_id))
    })
    .await
}

fn counts(least: Option<i32>, most: Option<i32>) -> Result<(usize, usize), ServiceError> {
    let number = |value: Option<i32>, name: &str| {
        let value = value.unwrap_or(1);
        usize::try_from(value)
            .ok()
            .filter(|value| *value > 0)
            .ok_or_else(|| invalid_value(&value.to_string(), name, "It must be greater than 0."))
    };
    let (least, most) = (number(least, "minCount")?, number(most, "maxCount")?);
    if least > most {
        let why = "It cannot be greater than maxCount.";
        return Err(invalid_value(&least.to_string(), "minCount", why));
    }
    Ok((least, most))
}

/// An instance that a request with this token has launched.
fn launched(tx: &Transaction, call: &Call, token: &str) -> Option<Instance> {
    let found = tx.find::<Instance>("client-token", token).find(|instance| instance.scope == call.scope);
    found.map(|instance| Instance::clone(&instance))
}

/// Tells a request from another one; not a secret, nor safe against those who look for a collision with themselves.
fn digest(
    said: &LaunchData,
    template: Option<&api::ec2::LaunchTemplateSpecification>,
    least: usize,
    most: usize,
) -> String {
    let template = template.map(|one| {
        [&one.launch_template_id, &one.launch_template_name, &one.version].map(|part| part.clone().unwrap_or_default())
    });
    let text = serde_json::to_string(&(said, template, least, most)).unwrap_or_default();
    format!("{:016x}", images::hash(&text))
}

/// A request that was understood.
struct Launch {
    data: LaunchData,
    least: usize,
    most: usize,
    client_token: Option<String>,
    digest: String,
    /// Id and version of the launch template.
    origin: Option<(String, u64)>,
}

impl Launch {
    /// Writes the instances and all they need. Returns the reservation's id.
    fn launch(self, auth: &Authorised, tx: &mut Transaction, now: Timestamp) -> Result<String, ServiceError> {
        let (call, scope, data) = (&**auth, &auth.scope, &self.data);
        let Some(image_id) = data.image_id.as_deref() else {
            return Err(ServiceError::new("MissingParameter", "The request must contain the parameter ImageId"));
        };
        let image = images::find(tx, scope, image_id)?;
        let type_name = data.instance_type.as_deref().unwrap_or_else(|| default_instance_type());
        let kind = instance_type(type_name).ok_or_else(|| unknown_type(type_name))?;
        if data.cpu_credits.is_some() && !kind.burstable {
            let text = format!(
                "The request includes the CreditSpecification parameter, which is not supported for the instance \
                type '{type_name}'."
            );
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
        if let Some(name) = &data.key_name {
            let text = format!("The key pair '{name:.255}' does not exist");
            return Err(ServiceError::new("InvalidKeyPair.NotFound", text));
        }
        if data.spot.is_some() && data.shutdown_behavior == Some(ShutdownBehavior::Stop) {
            let text = "A Spot Instance of a one-time request cannot be stopped: InstanceInitiatedShutdownBehavior must \
                be terminate.";
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
        let shutdown_behavior = data.shutdown_behavior.unwrap_or(match data.spot {
            Some(_) => ShutdownBehavior::Terminate,
            None => ShutdownBehavior::Stop,
        });
        let profile = data.profile.as_ref().map(|reference| profiles::find(call, tx, reference)).transpose()?;
        let place = place(call, tx, data)?;
        let devices = devices::plan(&image, &data.block_devices)?;
        let count = self.count(tx, auth, available_addresses(tx, &place.subnet), place.private_address.is_some())?;
        let mut tags = data.tags.clone();
        let [mut own_tags, volume_tags, interface_tags] =
            ["instance", "volume", "network-interface"].map(|resource| tags.remove(resource).unwrap_or_default());
        if let Some((template, version)) = &self.origin {
            own_tags.set_unchecked("aws:ec2launchtemplate:id".to_owned(), template.clone());
            own_tags.set_unchecked("aws:ec2launchtemplate:version".to_owned(), version.to_string());
        }
        let mut ids = auth.platform().ids();
        let reservation_id = ids.ec2("r");
        for index in 0..count {
            let instance_id = ids.ec2("i");
            let interface = allocate_network_interface(
                tx,
                scope,
                NewInterface {
                    subnet_id: place.subnet.subnet_id.clone(),
                    security_groups: place.groups.clone(),
                    assign_public_address: place.public_address,
                    private_address: place.private_address,
                    description: place.description.clone(),
                    owner: NetworkInterfaceOwner::Instance {
                        id: instance_id.clone(),
                        device_index: 0,
                        delete_on_termination: place.delete_on_termination,
                    },
                    requester_managed: false,
                    tags: interface_tags.clone(),
                },
                &mut ids,
                now,
            )?;
            let block_devices = devices::make(tx, &interface, &instance_id, &devices, &volume_tags, &mut ids, now);
            tx.put(Instance {
                scope: scope.clone(),
                instance_id,
                reservation_id: reservation_id.clone(),
                launch_index: u32::try_from(index).unwrap_or(u32::MAX),
                image_id: image.image_id.clone(),
                instance_type: kind.name.clone(),
                client_token: self.client_token.clone(),
                request_digest: Some(self.digest.clone()),
                vpc_id: interface.vpc_id,
                subnet_id: interface.subnet_id,
                availability_zone: interface.availability_zone,
                interface_id: interface.network_interface_id,
                public_address: place.public_address,
                key_name: None,
                profile: profile.as_ref().map(|profile| profiles::association(profile, &mut ids, now)),
                user_data: data.user_data.clone(),
                metadata_options: metadata_options(data.metadata.clone().unwrap_or_default()),
                shutdown_behavior,
                disable_api_termination: data.disable_api_termination.unwrap_or(false),
                disable_api_stop: data.disable_api_stop.unwrap_or(false),
                ebs_optimized: data.ebs_optimized.unwrap_or(false),
                root_device_name: images::ROOT_DEVICE.to_owned(),
                block_devices,
                launched_at: now,
                power: Power::On,
                boot: 1,
                state_reason: None,
                ended_at: None,
                observed: None,
                spot: data.spot.as_ref().map(|_| Spot::default()),
                tags: Tags::clone(&own_tags),
            });
        }
        Ok(reservation_id)
    }

    /// How many are launched: as many as there is room for, up to what was asked, and not less than the least asked.
    fn count(&self, tx: &Transaction, auth: &Authorised, addresses: u64, fixed: bool) -> Result<usize, ServiceError> {
        if fixed && self.most > 1 {
            let text = "A private address can be given to one instance only.";
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
        let prefix = auth.scope.prefix();
        let alive = tx.list::<Instance>(&prefix).filter(|instance| !GONE.contains(&instance.state())).count();
        let room = MAX_INSTANCES.saturating_sub(alive);
        if self.least > room {
            let text = format!(
                "You have requested more instances ({}) than your current instance limit of {MAX_INSTANCES} allows.",
                self.least.saturating_add(alive)
            );
            return Err(ServiceError::new("InstanceLimitExceeded", text));
        }
        let addresses = usize::try_from(addresses).unwrap_or(usize::MAX);
        if self.least > addresses {
            let text = "The specified subnet does not have enough free addresses to satisfy the request.";
            return Err(ServiceError::new("InsufficientFreeAddressesInSubnet", text));
        }
        Ok(self.most.min(room).min(addresses))
    }
}

/// The error for a type that is not on offer.
pub(in crate::ec2) fn unknown_type(name: &str) -> ServiceError {
    ServiceError::new("InvalidParameterValue", format!("Invalid value '{name:.64}' for InstanceType."))
}

/// What was said, and the image's defaults.
fn metadata_options(said: LaunchMetadata) -> MetadataOptions {
    let default = MetadataOptions::default();
    MetadataOptions {
        tokens_required: said.tokens_required.unwrap_or(default.tokens_required),
        hop_limit: said.hop_limit.unwrap_or(default.hop_limit),
        enabled: said.enabled.unwrap_or(default.enabled),
        tags: said.tags.unwrap_or(default.tags),
    }
}
