//! An instance as DescribeInstances shows it.

use api::ec2::{
    CapacityReservationSpecificationResponse, CpuOptions, EbsInstanceBlockDevice, EnclaveOptions, GroupIdentifier,
    HibernationOptions, InstanceBlockDeviceMapping, InstanceMaintenanceOptions, InstanceMetadataOptionsResponse,
    InstanceNetworkInterface, InstanceNetworkInterfaceAssociation, InstanceNetworkInterfaceAttachment,
    InstancePrivateIpAddress, Monitoring, Placement, PrivateDnsNameOptionsResponse, Reservation, StateReason,
};
use domain::{
    Scope, Timestamp,
    instances::{ARCHITECTURE, Instance, InstanceState, MetadataOptions, Volume, instance_type},
    network::NetworkInterface,
};
use store::Snapshot;

use crate::ec2::{facts::zone_id, instances::profiles, interfaces, tags};

/// A state as the API shows it.
pub(super) fn state(state: InstanceState) -> api::ec2::InstanceState {
    api::ec2::InstanceState { code: Some(state.code()), name: Some(state.name().to_owned()) }
}

pub(in crate::ec2) fn time(at: Timestamp) -> wire::Timestamp {
    wire::Timestamp(at.millis())
}

/// A reservation with all its instances.
pub(super) fn reservation(view: &Snapshot, scope: &Scope, reservation_id: &str) -> Reservation {
    let mut instances: Vec<_> =
        view.find::<Instance>("reservation", reservation_id).filter(|instance| instance.scope == *scope).collect();
    instances.sort_by_key(|instance| instance.launch_index);
    let instances = instances.iter().map(|instance| shape(view, instance)).collect();
    reservation_of(scope, reservation_id, instances)
}

/// A reservation with these of its instances.
pub(super) fn reservation_of(scope: &Scope, reservation_id: &str, instances: Vec<api::ec2::Instance>) -> Reservation {
    Reservation {
        reservation_id: Some(reservation_id.to_owned()),
        owner_id: Some(scope.account.to_string()),
        requester_id: None,
        groups: Some(Vec::new()),
        instances: Some(instances),
    }
}

/// The instance's interfaces.
pub(super) fn own_interfaces(view: &Snapshot, instance: &Instance) -> Vec<std::sync::Arc<NetworkInterface>> {
    view.find::<NetworkInterface>("owner", instance.instance_id.as_str()).collect()
}

/// The security groups of its primary interface.
pub(super) fn groups(view: &Snapshot, instance: &Instance) -> Vec<GroupIdentifier> {
    let primary = view.get::<NetworkInterface>(&instance.scope.key(&instance.interface_id));
    let shown = primary.map(|primary| interfaces::shape(view, &primary));
    shown.and_then(|shown| shown.groups).unwrap_or_default()
}

/// The instance. One that is terminated has neither network nor volumes any more.
pub(super) fn shape(view: &Snapshot, instance: &Instance) -> api::ec2::Instance {
    let current = instance.state();
    let gone = current == InstanceState::Terminated;
    let primary = view
        .get::<NetworkInterface>(&instance.scope.key(&instance.interface_id))
        .filter(|interface| interface.owner.index() == instance.instance_id);
    let shown = primary.as_ref().map(|primary| interfaces::shape(view, primary)).unwrap_or_default();
    let association = shown.association.clone().unwrap_or_default();
    let kind = instance_type(&instance.instance_type);
    let reason = match current {
        InstanceState::Pending => Some(StateReason { code: Some("pending".into()), message: Some("pending".into()) }),
        _ => instance
            .state_reason
            .as_ref()
            .map(|reason| StateReason { code: Some(reason.code.clone()), message: Some(reason.message.clone()) }),
    };
    let interfaces = own_interfaces(view, instance);
    api::ec2::Instance {
        instance_id: Some(instance.instance_id.clone()),
        image_id: Some(instance.image_id.clone()),
        instance_type: Some(instance.instance_type.clone()),
        ami_launch_index: i32::try_from(instance.launch_index).ok(),
        architecture: Some(ARCHITECTURE.to_owned()),
        block_device_mappings: Some(block_devices(view, instance)),
        boot_mode: None,
        capacity_reservation_specification: Some(CapacityReservationSpecificationResponse {
            capacity_reservation_preference: Some("open".into()),
            capacity_reservation_target: None,
        }),
        client_token: Some(instance.client_token.clone().unwrap_or_default()),
        cpu_options: kind.as_ref().map(|kind| CpuOptions {
            core_count: i32::try_from((kind.vcpus / kind.threads_per_core).max(1)).ok(),
            threads_per_core: i32::try_from(kind.threads_per_core).ok(),
            ..CpuOptions::default()
        }),
        ebs_optimized: Some(instance.ebs_optimized),
        ena_support: Some(true),
        enclave_options: Some(EnclaveOptions { enabled: Some(false) }),
        hibernation_options: Some(HibernationOptions { configured: Some(false) }),
        // Amazon's word for Nitro instances too; DescribeInstanceTypes tells them apart.
        hypervisor: Some("xen".into()),
        iam_instance_profile: instance.profile.as_ref().filter(|_| !gone).map(profiles::profile_shape),
        // On-demand instances have none.
        instance_lifecycle: instance.spot.is_some().then(|| "spot".to_owned()),
        key_name: instance.key_name.clone(),
        launch_time: Some(time(instance.launched_at)),
        maintenance_options: Some(InstanceMaintenanceOptions {
            auto_recovery: Some("default".into()),
            reboot_migration: None,
        }),
        metadata_options: Some(metadata_options(&instance.metadata_options, current)),
        monitoring: Some(Monitoring { state: Some("disabled".into()), ..Monitoring::default() }),
        network_interfaces: Some(interfaces.iter().map(|one| interface_shape(view, one)).collect()),
        placement: Some(Placement {
            availability_zone: Some(instance.availability_zone.clone()),
            availability_zone_id: Some(zone_id(&instance.availability_zone)),
            group_name: Some(String::new()),
            tenancy: Some("default".into()),
            ..Placement::default()
        }),
        platform_details: Some("Linux/UNIX".into()),
        private_dns_name: Some(shown.private_dns_name.unwrap_or_default()),
        private_dns_name_options: Some(PrivateDnsNameOptionsResponse {
            hostname_type: Some("ip-name".into()),
            enable_resource_name_dns_a_record: Some(false),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        private_ip_address: shown.private_ip_address,
        product_codes: Some(Vec::new()),
        public_dns_name: Some(association.public_dns_name.unwrap_or_default()),
        public_ip_address: association.public_ip,
        root_device_name: Some(instance.root_device_name.clone()),
        root_device_type: Some("ebs".into()),
        security_groups: Some(shown.groups.unwrap_or_default()),
        source_dest_check: shown.source_dest_check,
        state: Some(state(current)),
        state_reason: reason,
        state_transition_reason: Some(transition_reason(instance)),
        subnet_id: Some(instance.subnet_id.clone()).filter(|_| !gone),
        tags: tags::shape(&instance.tags),
        usage_operation: Some("RunInstances".into()),
        virtualization_type: Some("hvm".into()),
        vpc_id: Some(instance.vpc_id.clone()).filter(|_| !gone),
        ..api::ec2::Instance::default()
    }
}

fn transition_reason(instance: &Instance) -> String {
    let user = instance.state_reason.as_ref().is_some_and(|reason| reason.code == "Client.UserInitiatedShutdown");
    match instance.ended_at.filter(|_| user) {
        Some(at) => {
            // `2026-11-28T10:20:30.123Z` as `2026-11-28 10:20:30 GMT`.
            let text = wire::Timestamp(at.seconds() * 1000).to_rfc3339();
            format!("User initiated ({} GMT)", text.trim_end_matches('Z').replace('T', " "))
        }
        None => instance.state_reason.as_ref().map(|reason| reason.message.clone()).unwrap_or_default(),
    }
}

pub(super) fn metadata_options(options: &MetadataOptions, state: InstanceState) -> InstanceMetadataOptionsResponse {
    let word = |on: bool| Some(if on { "enabled" } else { "disabled" }.to_owned());
    InstanceMetadataOptionsResponse {
        state: Some(if state == InstanceState::Pending { "pending" } else { "applied" }.into()),
        http_tokens: Some(if options.tokens_required { "required" } else { "optional" }.into()),
        http_put_response_hop_limit: Some(i32::from(options.hop_limit)),
        http_endpoint: word(options.enabled),
        http_protocol_ipv6: word(false),
        instance_metadata_tags: word(options.tags),
    }
}

/// Its volumes as they are attached.
pub(super) fn block_devices(view: &Snapshot, instance: &Instance) -> Vec<InstanceBlockDeviceMapping> {
    let devices = instance.block_devices.iter().filter_map(|device| {
        let volume = view.get::<Volume>(&instance.scope.key(&device.volume_id))?;
        let attachment = volume.attachment.as_ref().filter(|one| one.instance_id == instance.instance_id)?;
        Some(InstanceBlockDeviceMapping {
            device_name: Some(device.device_name.clone()),
            ebs: Some(EbsInstanceBlockDevice {
                attach_time: Some(time(attachment.attached_at)),
                delete_on_termination: Some(attachment.delete_on_termination),
                status: Some(if volume.made { "attached" } else { "attaching" }.into()),
                volume_id: Some(device.volume_id.clone()),
                ..EbsInstanceBlockDevice::default()
            }),
        })
    });
    devices.collect()
}

fn interface_shape(view: &Snapshot, interface: &NetworkInterface) -> InstanceNetworkInterface {
    let shown = interfaces::shape(view, interface);
    let association = shown.association.map(|association| InstanceNetworkInterfaceAssociation {
        carrier_ip: None,
        customer_owned_ip: None,
        ip_owner_id: association.ip_owner_id,
        public_dns_name: association.public_dns_name,
        public_ip: association.public_ip,
    });
    let attachment = shown.attachment.unwrap_or_default();
    InstanceNetworkInterface {
        association: association.clone(),
        attachment: Some(InstanceNetworkInterfaceAttachment {
            attach_time: attachment.attach_time,
            attachment_id: attachment.attachment_id,
            delete_on_termination: attachment.delete_on_termination,
            device_index: attachment.device_index,
            status: attachment.status,
            network_card_index: Some(0),
            ..InstanceNetworkInterfaceAttachment::default()
        }),
        description: shown.description,
        groups: shown.groups,
        ipv6_addresses: Some(Vec::new()),
        mac_address: shown.mac_address,
        network_interface_id: shown.network_interface_id,
        owner_id: shown.owner_id,
        private_dns_name: shown.private_dns_name.clone(),
        private_ip_address: shown.private_ip_address.clone(),
        private_ip_addresses: Some(vec![InstancePrivateIpAddress {
            association,
            primary: Some(true),
            private_dns_name: shown.private_dns_name,
            private_ip_address: shown.private_ip_address,
        }]),
        source_dest_check: shown.source_dest_check,
        status: shown.status,
        subnet_id: shown.subnet_id,
        vpc_id: shown.vpc_id,
        interface_type: shown.interface_type,
        ..InstanceNetworkInterface::default()
    }
}
