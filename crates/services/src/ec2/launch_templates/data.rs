//! A launch template's data as DescribeLaunchTemplateVersions shows it: what was said, and nothing else.

use api::ec2::{
    CreditSpecification, LaunchTemplateBlockDeviceMapping, LaunchTemplateEbsBlockDevice,
    LaunchTemplateIamInstanceProfileSpecification, LaunchTemplateInstanceMarketOptions,
    LaunchTemplateInstanceMetadataOptions, LaunchTemplateInstanceNetworkInterfaceSpecification,
    LaunchTemplatePlacement, LaunchTemplateSpotMarketOptions, LaunchTemplateTagSpecification,
    LaunchTemplatesMonitoring, ResponseLaunchTemplateData,
};
use domain::instances::{
    LaunchData, LaunchDevice, LaunchInterface, LaunchMetadata, LaunchSpot, ProfileReference, ShutdownBehavior,
};

use crate::ec2::tags;

fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}

fn integer(value: Option<u64>) -> Option<i32> {
    value.and_then(|value| i32::try_from(value).ok())
}

/// The data as it is shown.
pub(super) fn shape(data: &LaunchData) -> ResponseLaunchTemplateData {
    let specifications = data.tags.iter().map(|(resource, specified)| LaunchTemplateTagSpecification {
        resource_type: Some(resource.clone()),
        tags: tags::shape(specified),
    });
    let placed = data.availability_zone.is_some() || data.tenancy.is_some();
    ResponseLaunchTemplateData {
        image_id: data.image_id.clone(),
        instance_type: data.instance_type.clone(),
        key_name: data.key_name.clone(),
        user_data: data.user_data.clone(),
        iam_instance_profile: data.profile.as_ref().map(|profile| match profile {
            ProfileReference::Arn(arn) => {
                LaunchTemplateIamInstanceProfileSpecification { arn: Some(arn.clone()), name: None }
            }
            ProfileReference::Name(name) => {
                LaunchTemplateIamInstanceProfileSpecification { arn: None, name: Some(name.clone()) }
            }
        }),
        security_group_ids: list(data.security_group_ids.clone()),
        security_groups: list(data.security_groups.clone()),
        placement: placed.then(|| LaunchTemplatePlacement {
            availability_zone: data.availability_zone.clone(),
            tenancy: data.tenancy.clone(),
            ..LaunchTemplatePlacement::default()
        }),
        network_interfaces: data.interface.as_ref().map(|interface| vec![interface_shape(interface)]),
        block_device_mappings: list(data.block_devices.iter().map(device).collect()),
        metadata_options: data.metadata.as_ref().map(metadata),
        instance_initiated_shutdown_behavior: data.shutdown_behavior.map(|behavior| match behavior {
            ShutdownBehavior::Stop => "stop".to_owned(),
            ShutdownBehavior::Terminate => "terminate".to_owned(),
        }),
        disable_api_termination: data.disable_api_termination,
        disable_api_stop: data.disable_api_stop,
        ebs_optimized: data.ebs_optimized,
        monitoring: data.monitoring.map(|enabled| LaunchTemplatesMonitoring {
            enabled: Some(enabled),
            ..LaunchTemplatesMonitoring::default()
        }),
        credit_specification: data
            .cpu_credits
            .as_ref()
            .map(|credits| CreditSpecification { cpu_credits: Some(credits.clone()) }),
        instance_market_options: data.spot.as_ref().map(market),
        tag_specifications: list(specifications.collect()),
        ..ResponseLaunchTemplateData::default()
    }
}

fn interface_shape(interface: &LaunchInterface) -> LaunchTemplateInstanceNetworkInterfaceSpecification {
    LaunchTemplateInstanceNetworkInterfaceSpecification {
        device_index: Some(0),
        subnet_id: interface.subnet_id.clone(),
        groups: list(interface.groups.clone()),
        associate_public_ip_address: interface.associate_public_address,
        delete_on_termination: interface.delete_on_termination,
        description: interface.description.clone(),
        private_ip_address: interface.private_address.clone(),
        ..LaunchTemplateInstanceNetworkInterfaceSpecification::default()
    }
}

fn device(device: &LaunchDevice) -> LaunchTemplateBlockDeviceMapping {
    LaunchTemplateBlockDeviceMapping {
        device_name: Some(device.device_name.clone()),
        virtual_name: None,
        no_device: device.no_device.then(String::new),
        ebs: (!device.no_device).then(|| LaunchTemplateEbsBlockDevice {
            encrypted: device.encrypted,
            delete_on_termination: device.delete_on_termination,
            iops: integer(device.iops),
            snapshot_id: device.snapshot_id.clone(),
            volume_size: integer(device.size_gib),
            volume_type: device.volume_type.clone(),
            throughput: integer(device.throughput),
            ..LaunchTemplateEbsBlockDevice::default()
        }),
    }
}

fn metadata(options: &LaunchMetadata) -> LaunchTemplateInstanceMetadataOptions {
    let word = |value: Option<bool>, yes: &str, no: &str| value.map(|on| if on { yes } else { no }.to_owned());
    LaunchTemplateInstanceMetadataOptions {
        state: None,
        http_tokens: word(options.tokens_required, "required", "optional"),
        http_put_response_hop_limit: options.hop_limit.map(i32::from),
        http_endpoint: word(options.enabled, "enabled", "disabled"),
        http_protocol_ipv6: None,
        instance_metadata_tags: word(options.tags, "enabled", "disabled"),
    }
}

fn market(spot: &LaunchSpot) -> LaunchTemplateInstanceMarketOptions {
    let said = spot.kind.is_some() || spot.interruption_behavior.is_some();
    LaunchTemplateInstanceMarketOptions {
        market_type: Some("spot".to_owned()),
        spot_options: said.then(|| LaunchTemplateSpotMarketOptions {
            spot_instance_type: spot.kind.clone(),
            instance_interruption_behavior: spot.interruption_behavior.clone(),
            ..LaunchTemplateSpotMarketOptions::default()
        }),
    }
}
