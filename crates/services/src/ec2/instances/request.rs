//! Reading what an instance is launched with: from RunInstances and from a launch template's data, which say the same
//! with different types. What is not honoured here is refused by name.

use std::collections::BTreeMap;

use api::ec2::{RequestLaunchTemplateData, RunInstancesRequest, Tag};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    Tags,
    instances::{LaunchData, LaunchDevice, LaunchInterface, LaunchMetadata, ProfileReference, ShutdownBehavior},
};
use wire::ServiceError;

use super::spot;
use crate::ec2::common::{invalid_value, refuse, unsupported};

/// Decoded bytes of user data.
pub(super) const MAX_USER_DATA: usize = 16 * 1024;
/// Block devices in one request.
const MAX_DEVICES: usize = 28;

/// The members that both requests have, under the same names and with the same meaning.
macro_rules! common {
    ($input:ident) => {{
        refuse!($input; kernel_id, elastic_inference_accelerators, cpu_options,
            capacity_reservation_specification, license_specifications, maintenance_options, operator,
            network_performance_options, secondary_interfaces);
        if $input.hibernation_options.as_ref().is_some_and(|options| options.configured == Some(true)) {
            return Err(unsupported("hibernation_options"));
        }
        if $input.enclave_options.as_ref().is_some_and(|options| options.enabled == Some(true)) {
            return Err(unsupported("enclave_options"));
        }
        if $input.private_dns_name_options.as_ref().is_some_and(|options| {
            options.hostname_type.as_deref().is_some_and(|kind| kind != "ip-name")
                || options.enable_resource_name_dns_a_record == Some(true)
                || options.enable_resource_name_dns_aaaa_record == Some(true)
        }) {
            return Err(unsupported("private_dns_name_options"));
        }
        if let Some(monitoring) = &$input.monitoring {
            if monitoring.enabled == Some(true) || monitoring.metric_category_ids.is_some() {
                return Err(unsupported("monitoring"));
            }
        }
        let spot = match $input.instance_market_options {
            None => None,
            Some(options) => {
                let asked = options.spot_options.unwrap_or_default();
                refuse!(asked; max_price, block_duration_minutes, valid_until);
                spot::market(options.market_type, asked.spot_instance_type, asked.instance_interruption_behavior)?
            }
        };
        let (availability_zone, tenancy) = match $input.placement {
            None => (None, None),
            Some(placement) => {
                refuse!(placement; availability_zone_id, affinity, group_name, host_id, spread_domain,
                    host_resource_group_arn, partition_number, group_id);
                if placement.tenancy.as_deref().is_some_and(|tenancy| tenancy != "default") {
                    return Err(unsupported("tenancy"));
                }
                (placement.availability_zone, placement.tenancy)
            }
        };
        let metadata = match $input.metadata_options {
            None => None,
            Some(options) => {
                if options.http_protocol_ipv6.as_deref().is_some_and(|value| value != "disabled") {
                    return Err(unsupported("http_protocol_ipv6"));
                }
                Some(metadata(
                    options.http_tokens,
                    options.http_put_response_hop_limit,
                    options.http_endpoint,
                    options.instance_metadata_tags,
                )?)
            }
        };
        let mut block_devices: Vec<LaunchDevice> = Vec::new();
        for mapping in $input.block_device_mappings.unwrap_or_default() {
            refuse!(mapping; virtual_name);
            let mut device = LaunchDevice { no_device: mapping.no_device.is_some(), ..LaunchDevice::default() };
            device.device_name = device_name(mapping.device_name, &block_devices)?;
            if let Some(ebs) = mapping.ebs {
                refuse!(ebs; kms_key_id, volume_initialization_rate, ebs_card_index);
                if ebs.encrypted == Some(true) {
                    return Err(unsupported("encrypted"));
                }
                device.encrypted = ebs.encrypted;
                device.delete_on_termination = ebs.delete_on_termination;
                device.size_gib = positive(ebs.volume_size, "volumeSize")?;
                device.iops = positive(ebs.iops, "iops")?;
                device.throughput = positive(ebs.throughput, "throughput")?;
                device.volume_type = ebs.volume_type;
                device.snapshot_id = ebs.snapshot_id;
            }
            block_devices.push(device);
        }
        let mut interfaces = $input.network_interfaces.unwrap_or_default().into_iter();
        let interface = match interfaces.next() {
            None => None,
            Some(one) => {
                refuse!(one; ipv6_address_count, ipv6_addresses, network_interface_id, ipv4_prefixes, ipv4_prefix_count,
                    ipv6_prefixes, ipv6_prefix_count, primary_ipv6, ena_srd_specification,
                    connection_tracking_specification, ena_queue_count);
                if one.secondary_private_ip_address_count.is_some_and(|count| count > 0) {
                    return Err(unsupported("secondary_private_ip_address_count"));
                }
                if one.associate_carrier_ip_address == Some(true) {
                    return Err(unsupported("associate_carrier_ip_address"));
                }
                if one.interface_type.as_deref().is_some_and(|kind| kind != "interface") {
                    return Err(unsupported("interface_type"));
                }
                if one.network_card_index.is_some_and(|index| index != 0) {
                    return Err(unsupported("network_card_index"));
                }
                if let Some(index) = one.device_index.filter(|index| *index != 0) {
                    let why = "The primary network interface has index 0, and Longshore gives an instance no other.";
                    return Err(invalid_value(&index.to_string(), "deviceIndex", why));
                }
                let mut private_address = one.private_ip_address;
                match one.private_ip_addresses.unwrap_or_default().as_slice() {
                    [] => {}
                    [first] if private_address.is_none() || private_address == first.private_ip_address => {
                        private_address.clone_from(&first.private_ip_address);
                    }
                    _ => return Err(unsupported("private_ip_addresses")),
                }
                if interfaces.next().is_some() {
                    let text = "More than one network interface of an instance is not supported by Longshore";
                    return Err(ServiceError::new("InvalidParameterValue", text));
                }
                Some(LaunchInterface {
                    subnet_id: one.subnet_id,
                    groups: one.groups.unwrap_or_default(),
                    associate_public_address: one.associate_public_ip_address,
                    delete_on_termination: one.delete_on_termination,
                    description: one.description,
                    private_address,
                })
            }
        };
        let mut tags = BTreeMap::new();
        for specification in $input.tag_specifications.unwrap_or_default() {
            add_tags(&mut tags, specification.resource_type, specification.tags)?;
        }
        let profile = match $input.iam_instance_profile {
            None => None,
            Some(profile) => profile_reference(profile.arn, profile.name)?,
        };
        if let Some(data) = &$input.user_data {
            check_user_data(data)?;
        }
        LaunchData {
            image_id: $input.image_id,
            instance_type: $input.instance_type,
            key_name: $input.key_name,
            user_data: $input.user_data,
            profile,
            security_group_ids: $input.security_group_ids.unwrap_or_default(),
            security_groups: $input.security_groups.unwrap_or_default(),
            subnet_id: None,
            private_address: None,
            availability_zone,
            tenancy,
            interface,
            block_devices,
            metadata,
            shutdown_behavior: $input
                .instance_initiated_shutdown_behavior
                .map(|text| shutdown_behavior(&text))
                .transpose()?,
            disable_api_termination: $input.disable_api_termination,
            disable_api_stop: $input.disable_api_stop,
            ebs_optimized: $input.ebs_optimized,
            monitoring: $input.monitoring.and_then(|monitoring| monitoring.enabled),
            cpu_credits: $input.credit_specification.map(|credits| cpu_credits(credits.cpu_credits)).transpose()?,
            spot,
            tags,
        }
    }};
}

/// What RunInstances says, without its template.
pub(super) fn of_run(input: RunInstancesRequest) -> Result<LaunchData, ServiceError> {
    refuse!(input; ramdisk_id, elastic_gpu_specification, ipv6_address_count, ipv6_addresses, additional_info,
        enable_primary_ipv6);
    for mapping in input.block_device_mappings.iter().flatten() {
        if let Some(ebs) = &mapping.ebs {
            refuse!(ebs; outpost_arn, availability_zone, availability_zone_id);
        }
    }
    let (subnet_id, private_address) = (input.subnet_id.clone(), input.private_ip_address.clone());
    let data = common!(input);
    Ok(LaunchData { subnet_id, private_address, ..data })
}

/// What a launch template's version says.
pub(in crate::ec2) fn of_template(input: RequestLaunchTemplateData) -> Result<LaunchData, ServiceError> {
    refuse!(input; ram_disk_id, elastic_gpu_specifications, instance_requirements);
    Ok(common!(input))
}

fn positive(value: Option<i32>, name: &str) -> Result<Option<u64>, ServiceError> {
    value
        .map(|value| {
            u64::try_from(value)
                .ok()
                .filter(|value| *value > 0)
                .ok_or_else(|| invalid_value(&value.to_string(), name, "It must be greater than 0."))
        })
        .transpose()
}

fn device_name(name: Option<String>, others: &[LaunchDevice]) -> Result<String, ServiceError> {
    let name = crate::ec2::common::required(name, "deviceName")?;
    check_device_name(&name)?;
    if others.iter().any(|other| other.device_name == name) {
        let text = format!("The device '{name}' is used in more than one block-device mapping");
        return Err(ServiceError::new("InvalidBlockDeviceMapping", text));
    }
    if others.len() >= MAX_DEVICES {
        let text = format!("An instance cannot have more than {MAX_DEVICES} block devices.");
        return Err(ServiceError::new("AttachmentLimitExceeded", text));
    }
    Ok(name)
}

/// `/dev/sd?` and `/dev/xvd?` with one letter or two, perhaps a number.
pub(in crate::ec2) fn check_device_name(name: &str) -> Result<(), ServiceError> {
    let rest = name.strip_prefix("/dev/sd").or_else(|| name.strip_prefix("/dev/xvd"));
    let valid = rest.is_some_and(|rest| {
        let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        (1..=2).contains(&letters.len())
            && letters.bytes().all(|letter| letter.is_ascii_lowercase())
            && rest.len() - letters.len() <= 2
    });
    if valid {
        return Ok(());
    }
    Err(invalid_value(name, "device", &format!("{name:.64} is not a valid EBS device name.")))
}

fn metadata(
    tokens: Option<String>,
    hop_limit: Option<i32>,
    endpoint: Option<String>,
    tags: Option<String>,
) -> Result<LaunchMetadata, ServiceError> {
    let one_of = |value: Option<String>, name: &str, yes: &str, no: &str| match value {
        None => Ok(None),
        Some(value) if value == yes => Ok(Some(true)),
        Some(value) if value == no => Ok(Some(false)),
        Some(value) => Err(invalid_value(&value, name, &format!("It must be {yes} or {no}."))),
    };
    let hop_limit = hop_limit
        .map(|limit| {
            u8::try_from(limit).ok().filter(|limit| (1..=64).contains(limit)).ok_or_else(|| {
                invalid_value(&limit.to_string(), "HttpPutResponseHopLimit", "It must be between 1 and 64.")
            })
        })
        .transpose()?;
    Ok(LaunchMetadata {
        tokens_required: one_of(tokens, "HttpTokens", "required", "optional")?,
        hop_limit,
        enabled: one_of(endpoint, "HttpEndpoint", "enabled", "disabled")?,
        tags: one_of(tags, "InstanceMetadataTags", "enabled", "disabled")?,
    })
}

pub(super) fn shutdown_behavior(text: &str) -> Result<ShutdownBehavior, ServiceError> {
    match text {
        "stop" => Ok(ShutdownBehavior::Stop),
        "terminate" => Ok(ShutdownBehavior::Terminate),
        other => Err(invalid_value(other, "instanceInitiatedShutdownBehavior", "It must be stop or terminate.")),
    }
}

/// Processor time is limited by the type's vCPUs and never rationed: that is what Amazon calls unlimited.
fn cpu_credits(credits: Option<String>) -> Result<String, ServiceError> {
    match credits {
        Some(credits) if credits == "unlimited" => Ok(credits),
        _ => Err(ServiceError::new(
            "InvalidParameterValue",
            "The parameter CreditSpecification is not supported by Longshore with another value than unlimited",
        )),
    }
}

fn profile_reference(arn: Option<String>, name: Option<String>) -> Result<Option<ProfileReference>, ServiceError> {
    match (arn, name) {
        (None, None) => Ok(None),
        (Some(arn), None) => Ok(Some(ProfileReference::Arn(arn))),
        (None, Some(name)) => Ok(Some(ProfileReference::Name(name))),
        (Some(_), Some(_)) => {
            let text = "The parameter 'iamInstanceProfile.name' may not be used in combination with \
                'iamInstanceProfile.arn'";
            Err(ServiceError::new("InvalidParameterCombination", text))
        }
    }
}

fn add_tags(
    all: &mut BTreeMap<String, Tags>,
    resource_type: Option<String>,
    tags: Option<Vec<Tag>>,
) -> Result<(), ServiceError> {
    let resource_type = resource_type.unwrap_or_default();
    if !matches!(resource_type.as_str(), "instance" | "volume" | "network-interface") {
        let text = format!("'{resource_type:.64}' is not a valid taggable resource type for this operation.");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    let of_type = all.entry(resource_type).or_default();
    for tag in tags.unwrap_or_default() {
        let (key, value) = (tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
        if of_type.get(&key).is_some() {
            let text = format!("Duplicate tag key '{key:.128}' specified.");
            return Err(ServiceError::new("InvalidParameterValue", text));
        }
        of_type.set(key, value).map_err(|error| ServiceError::new("InvalidParameterValue", error.to_string()))?;
    }
    Ok(())
}

/// User data is base64 of at most 16 KiB.
pub(super) fn check_user_data(data: &str) -> Result<(), ServiceError> {
    let text: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let decoded = STANDARD.decode(text);
    let decoded =
        decoded.map_err(|_| ServiceError::new("InvalidParameterValue", "Invalid BASE64 encoding of user data."))?;
    if decoded.len() > MAX_USER_DATA {
        let text = format!("User data is limited to {MAX_USER_DATA} bytes");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::ec2::{BlockDeviceMapping, EbsBlockDevice, Placement, TagSpecification};

    use super::*;

    fn refused(input: RunInstancesRequest) -> (String, String) {
        let Err(error) = of_run(input) else { panic!("taken") };
        (error.code().to_owned(), error.message().to_owned())
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        let tenancy = Placement { tenancy: Some("dedicated".into()), ..Placement::default() };
        for (input, word) in [
            (RunInstancesRequest { kernel_id: Some("aki-1".into()), ..Default::default() }, "KernelId"),
            (RunInstancesRequest { placement: Some(tenancy), ..Default::default() }, "Tenancy"),
            (RunInstancesRequest { user_data: Some("?".into()), ..Default::default() }, "BASE64"),
            (
                RunInstancesRequest { user_data: Some(STANDARD.encode([0; MAX_USER_DATA + 1])), ..Default::default() },
                "16384",
            ),
            (
                RunInstancesRequest {
                    block_device_mappings: Some(vec![BlockDeviceMapping {
                        device_name: Some("/dev/xvda".into()),
                        ebs: Some(EbsBlockDevice { encrypted: Some(true), ..Default::default() }),
                        ..Default::default()
                    }]),
                    ..Default::default()
                },
                "Encrypted",
            ),
            (
                RunInstancesRequest {
                    tag_specifications: Some(vec![TagSpecification {
                        resource_type: Some("vpc".into()),
                        ..Default::default()
                    }]),
                    ..Default::default()
                },
                "taggable",
            ),
        ] {
            let (code, message) = refused(input);
            assert!(message.contains(word) && code == "InvalidParameterValue", "{code}: {message}");
        }
    }

    #[test]
    fn device_names_are_amazons() {
        for name in ["/dev/sda1", "/dev/xvda", "/dev/sdf", "/dev/xvdba"] {
            assert!(check_device_name(name).is_ok(), "{name}");
        }
        for name in ["", "/dev/", "/dev/sd", "xvda", "/dev/sdF", "/dev/sd../x", "/dev/xvdabc", "/dev/nvme0n1"] {
            assert!(check_device_name(name).is_err(), "{name}");
        }
    }
}
