//! An instance for `host`: its limits, its volumes, and all it may ask about itself.

use domain::{
    identity::{InstanceProfile, role_key},
    instances::{ARCHITECTURE, AttachedVolume, Instance, InstanceItem, Metadata, Power, instance_type},
    network::{NetworkInterface, SecurityGroup, Subnet, Vpc, names},
};
use serde_json::json;
use store::Snapshot;

use crate::ec2::facts::zone_id;

/// The item of an instance that is on; `None` when what it needs is not there, which no request leads to.
pub(super) fn item(view: &Snapshot, instance: &Instance, sign: &dyn Fn(&str) -> String) -> Option<InstanceItem> {
    let scope = &instance.scope;
    let interface = view.get::<NetworkInterface>(&scope.key(&instance.interface_id))?;
    let vpc = view.get::<Vpc>(&scope.key(&instance.vpc_id))?;
    let subnet = view.get::<Subnet>(&scope.key(&instance.subnet_id))?;
    let kind = instance_type(&instance.instance_type)?;
    let root = instance.block_devices.iter().find(|device| device.device_name == instance.root_device_name)?;
    let others = instance.block_devices.iter().filter(|device| device.device_name != instance.root_device_name);
    let hostname = names::private_dns_name(&scope.region, interface.private_address);
    let public_address = interface.public_address.as_ref().map(|public| public.address);
    let profile = instance.profile.as_ref();
    let role = profile
        .and_then(|profile| {
            let key = role_key(&scope.account, profile.profile.resource_name());
            view.get::<InstanceProfile>(&key).filter(|known| known.id == profile.profile_id)
        })
        .and_then(|known| known.role.clone());
    let group_name = |id: &String| {
        let group = view.get::<SecurityGroup>(&scope.key(id));
        group.map_or_else(|| id.clone(), |group| group.name.clone())
    };
    let identity_document = identity_document(instance, &interface);
    let mut devices: Vec<(String, String)> =
        ["ami", "root"].map(|name| (name.to_owned(), instance.root_device_name.clone())).into();
    devices.extend(
        others.clone().enumerate().map(|(index, device)| (format!("ebs{}", index + 1), device.device_name.clone())),
    );
    Some(InstanceItem {
        instance_id: instance.instance_id.clone(),
        on: instance.power == Power::On,
        boot: instance.boot,
        interface_id: instance.interface_id.clone(),
        vcpus: kind.vcpus,
        memory_mib: kind.memory_mib,
        hostname,
        root_volume_id: root.volume_id.clone(),
        volumes: others
            .map(|device| AttachedVolume {
                volume_id: device.volume_id.clone(),
                device_name: device.device_name.clone(),
            })
            .collect(),
        region: scope.region.to_string(),
        metadata: Metadata {
            options: instance.metadata_options.clone(),
            image_id: instance.image_id.clone(),
            launch_index: instance.launch_index,
            reservation_id: instance.reservation_id.clone(),
            instance_type: instance.instance_type.clone(),
            availability_zone: instance.availability_zone.clone(),
            availability_zone_id: zone_id(&instance.availability_zone),
            mac_address: interface.mac_address.clone(),
            private_address: interface.private_address,
            public_address,
            public_hostname: public_address
                .filter(|_| vpc.dns_hostnames)
                .map(|address| names::public_dns_name(&scope.region, address)),
            account: scope.account.to_string(),
            vpc_id: instance.vpc_id.clone(),
            vpc_cidr: vpc.cidr.to_string(),
            subnet_id: instance.subnet_id.clone(),
            subnet_cidr: subnet.cidr.to_string(),
            security_groups: interface.security_groups.iter().map(group_name).collect(),
            security_group_ids: interface.security_groups.clone(),
            key: None,
            user_data: instance.user_data.clone(),
            profile: profile.map(|profile| (profile.profile.to_string(), profile.profile_id.clone())),
            role,
            tags: instance.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            block_devices: devices,
            spot: instance.spot.is_some(),
            interruption: instance
                .spot
                .as_ref()
                .and_then(|spot| spot.interruption)
                .map(|at| wire::Timestamp(at.seconds() * 1000).to_rfc3339()),
            identity_signature: sign(&identity_document),
            identity_document,
        },
    })
}

/// The instance identity document, laid out as Amazon's: members by their names, each on a line, spaces around the colon.
fn identity_document(instance: &Instance, interface: &NetworkInterface) -> String {
    let pending = wire::Timestamp(instance.launched_at.seconds() * 1000).to_rfc3339();
    let members = [
        ("accountId", json!(instance.scope.account)),
        ("architecture", json!(ARCHITECTURE)),
        ("availabilityZone", json!(instance.availability_zone)),
        ("billingProducts", json!(null)),
        ("devpayProductCodes", json!(null)),
        ("marketplaceProductCodes", json!(null)),
        ("imageId", json!(instance.image_id)),
        ("instanceId", json!(instance.instance_id)),
        ("instanceType", json!(instance.instance_type)),
        ("kernelId", json!(null)),
        ("pendingTime", json!(pending)),
        ("privateIp", json!(interface.private_address)),
        ("ramdiskId", json!(null)),
        ("region", json!(instance.scope.region)),
        ("version", json!("2017-09-30")),
    ];
    let lines: Vec<String> = members.iter().map(|(name, value)| format!("  \"{name}\" : {value}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}
