//! DescribeInstances.

use api::ec2::{
    DescribeInstanceCreditSpecificationsRequest, DescribeInstanceCreditSpecificationsResult, DescribeInstancesRequest,
    DescribeInstancesResult, InstanceCreditSpecification,
};
use domain::instances::{Instance, instance_type};
use store::Snapshot;
use wire::ServiceError;

use super::{check_ids, named, shape};
use crate::{
    Call,
    ec2::common::{Filterable, Query, begin, check_filters, describe, page, unsupported},
};

/// The filters of DescribeInstances.
pub(super) const FILTERS: Filterable<Instance> = Filterable {
    names: &[
        "instance-id",
        "instance-state-name",
        "instance-state-code",
        "instance-type",
        "image-id",
        "architecture",
        "availability-zone",
        "availability-zone-id",
        "vpc-id",
        "subnet-id",
        "private-ip-address",
        "private-dns-name",
        "ip-address",
        "dns-name",
        "iam-instance-profile.arn",
        "iam-instance-profile.id",
        "iam-instance-profile.name",
        "reservation-id",
        "client-token",
        "launch-index",
        "instance-lifecycle",
        "launch-time",
        "key-name",
        "root-device-name",
        "root-device-type",
        "tenancy",
        "virtualization-type",
        "hypervisor",
        "monitoring-state",
        "platform-details",
        "source-dest-check",
        "state-reason-code",
        "state-reason-message",
        "reason",
        "group-id",
        "group-name",
        "instance.group-id",
        "instance.group-name",
        "block-device-mapping.device-name",
        "block-device-mapping.volume-id",
        "block-device-mapping.delete-on-termination",
        "block-device-mapping.status",
        "metadata-options.http-tokens",
        "metadata-options.http-endpoint",
        "network-interface.network-interface-id",
        "network-interface.subnet-id",
        "network-interface.vpc-id",
        "network-interface.mac-address",
        "network-interface.description",
        "network-interface.status",
        "network-interface.group-id",
        "network-interface.group-name",
        "network-interface.private-dns-name",
        "network-interface.availability-zone",
        "network-interface.addresses.private-ip-address",
        "network-interface.addresses.association.public-ip",
        "network-interface.association.public-ip",
        "network-interface.attachment.attachment-id",
        "network-interface.attachment.device-index",
        "network-interface.attachment.status",
        "network-interface.attachment.delete-on-termination",
    ],
    values,
};

fn values(view: &Snapshot, instance: &Instance, name: &str) -> Vec<String> {
    let shown = shape::shape(view, instance);
    if let Some(name) = name.strip_prefix("network-interface.") {
        return shown
            .network_interfaces
            .unwrap_or_default()
            .into_iter()
            .flat_map(|one| of_interface(one, name))
            .collect();
    }
    if let Some(name) = name.strip_prefix("block-device-mapping.") {
        let devices = shown.block_device_mappings.unwrap_or_default();
        let values = devices.into_iter().filter_map(|device| {
            let ebs = device.ebs.unwrap_or_default();
            match name {
                "device-name" => device.device_name,
                "volume-id" => ebs.volume_id,
                "status" => ebs.status,
                _ => ebs.delete_on_termination.map(|yes| yes.to_string()),
            }
        });
        return values.collect();
    }
    let groups = || shown.security_groups.clone().unwrap_or_default().into_iter();
    let placement = shown.placement.clone().unwrap_or_default();
    let state = shown.state.clone().unwrap_or_default();
    let reason = shown.state_reason.clone().unwrap_or_default();
    let profile = shown.iam_instance_profile.clone().unwrap_or_default();
    let metadata = shown.metadata_options.clone().unwrap_or_default();
    let one = match name {
        "group-id" | "instance.group-id" => return groups().filter_map(|group| group.group_id).collect(),
        "group-name" | "instance.group-name" => return groups().filter_map(|group| group.group_name).collect(),
        "instance-state-name" => state.name,
        "instance-state-code" => state.code.map(|code| code.to_string()),
        "instance-type" => shown.instance_type,
        "image-id" => shown.image_id,
        "architecture" => shown.architecture,
        "availability-zone" => placement.availability_zone,
        "availability-zone-id" => placement.availability_zone_id,
        "tenancy" => placement.tenancy,
        "vpc-id" => shown.vpc_id,
        "subnet-id" => shown.subnet_id,
        "private-ip-address" => shown.private_ip_address,
        "private-dns-name" => shown.private_dns_name,
        "ip-address" => shown.public_ip_address,
        "dns-name" => shown.public_dns_name,
        "iam-instance-profile.arn" => profile.arn,
        "iam-instance-profile.id" => profile.id,
        "iam-instance-profile.name" => {
            instance.profile.as_ref().map(|profile| profile.profile.resource_name().to_owned())
        }
        "reservation-id" => Some(instance.reservation_id.clone()),
        "client-token" => instance.client_token.clone(),
        "instance-lifecycle" => shown.instance_lifecycle,
        "launch-index" => Some(instance.launch_index.to_string()),
        "launch-time" => shown.launch_time.map(|at| at.to_rfc3339()),
        "key-name" => shown.key_name,
        "root-device-name" => shown.root_device_name,
        "root-device-type" => shown.root_device_type,
        "virtualization-type" => shown.virtualization_type,
        "hypervisor" => shown.hypervisor,
        "monitoring-state" => shown.monitoring.and_then(|monitoring| monitoring.state),
        "platform-details" => shown.platform_details,
        "source-dest-check" => shown.source_dest_check.map(|yes| yes.to_string()),
        "state-reason-code" => reason.code,
        "state-reason-message" => reason.message,
        "reason" => shown.state_transition_reason,
        "metadata-options.http-tokens" => metadata.http_tokens,
        "metadata-options.http-endpoint" => metadata.http_endpoint,
        _ => shown.instance_id,
    };
    one.into_iter().collect()
}

fn of_interface(one: api::ec2::InstanceNetworkInterface, name: &str) -> Vec<String> {
    let association = one.association.unwrap_or_default();
    let attachment = one.attachment.unwrap_or_default();
    let groups = one.groups.unwrap_or_default().into_iter();
    let value = match name {
        "group-id" => return groups.filter_map(|group| group.group_id).collect(),
        "group-name" => return groups.filter_map(|group| group.group_name).collect(),
        "subnet-id" => one.subnet_id,
        "vpc-id" => one.vpc_id,
        "mac-address" => one.mac_address,
        "description" => one.description,
        "status" => one.status,
        "private-dns-name" => one.private_dns_name,
        "addresses.private-ip-address" => one.private_ip_address,
        "addresses.association.public-ip" | "association.public-ip" => association.public_ip,
        "attachment.attachment-id" => attachment.attachment_id,
        "attachment.device-index" => attachment.device_index.map(|index| index.to_string()),
        "attachment.status" => attachment.status,
        "attachment.delete-on-termination" => attachment.delete_on_termination.map(|yes| yes.to_string()),
        _ => one.network_interface_id,
    };
    value.into_iter().collect()
}

/// DescribeInstances: a page of instances, those of one reservation together.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeInstancesRequest,
) -> Result<DescribeInstancesResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let ids = input.instance_ids.unwrap_or_default();
    if !ids.is_empty() {
        named(&call, &view, &ids)?;
        if input.max_results.is_some() {
            let text = "The parameter instancesSet cannot be used with the parameter maxResults";
            return Err(ServiceError::new("InvalidParameterCombination", text));
        }
    }
    let query =
        Query { ids: Some(ids), filters: input.filters, max_results: input.max_results, next_token: input.next_token };
    let (mut instances, next_token) = describe(&call, &view, query, &FILTERS)?;
    instances.sort_by(|one, other| {
        (&one.reservation_id, one.launch_index).cmp(&(&other.reservation_id, other.launch_index))
    });
    let reservations =
        instances.chunk_by(|one, other| one.reservation_id == other.reservation_id).filter_map(|group| {
            let shapes = group.iter().map(|instance| shape::shape(&view, instance)).collect();
            Some(shape::reservation_of(&call.scope, &group.first()?.reservation_id, shapes))
        });
    Ok(DescribeInstancesResult { reservations: Some(reservations.collect()), next_token })
}

/// DescribeInstanceCreditSpecifications: burstable instances are never held back, which is Amazon's `unlimited`.
pub(in crate::ec2) async fn credits(
    call: Call,
    input: DescribeInstanceCreditSpecificationsRequest,
) -> Result<DescribeInstanceCreditSpecificationsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["instance-id"])?;
    let view = auth.snapshot();
    let ids = input.instance_ids.unwrap_or_default();
    check_ids(&ids)?;
    let instances: Vec<_> =
        if ids.is_empty() { view.list::<Instance>(&call.scope.prefix()).collect() } else { named(&call, &view, &ids)? };
    let found = instances
        .iter()
        .filter(|instance| instance_type(&instance.instance_type).is_some_and(|kind| kind.burstable))
        .filter(|instance| {
            filters.iter().all(|filter| {
                let known = match filter.name.as_deref() {
                    Some("instance-id") => vec![instance.instance_id.clone()],
                    _ => Vec::new(),
                };
                crate::ec2::common::matches_any(filter.values.as_deref().unwrap_or_default(), &known)
            })
        })
        .map(|instance| {
            let shape = InstanceCreditSpecification {
                instance_id: Some(instance.instance_id.clone()),
                cpu_credits: Some("unlimited".into()),
            };
            (instance.instance_id.clone(), shape)
        });
    let (shown, next_token) = page(&call, found.collect(), input.max_results, input.next_token.as_deref())?;
    Ok(DescribeInstanceCreditSpecificationsResult { instance_credit_specifications: Some(shown), next_token })
}
