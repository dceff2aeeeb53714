//! Network interfaces as users see them: those of tasks, instances, load balancers and NAT gateways, and their own. A user's own
//! interface has an address and groups but is in no network namespace: nothing of this platform can use it yet.

use api::ec2::{
    CreateNetworkInterfaceRequest, CreateNetworkInterfaceResult, DeleteNetworkInterfaceRequest,
    DescribeNetworkInterfacesRequest, DescribeNetworkInterfacesResult, GroupIdentifier,
    ModifyNetworkInterfaceAttributeRequest, NetworkInterfaceAssociation, NetworkInterfaceAttachment,
    NetworkInterfacePrivateIpAddress,
};
use domain::network::{NetworkInterface, NetworkInterfaceOwner, SecurityGroup, Subnet, Vpc, names};
use store::Snapshot;
use wire::ServiceError;

use super::{
    allocation::{NewInterface, allocate_network_interface, check_groups, release_network_interface},
    common::{Filterable, Query, begin, describe, find, refuse, required, unsupported},
    facts::zone_id,
    gateways::parse_address,
    tags,
};
use crate::Call;

const FILTERS: Filterable<NetworkInterface> = Filterable {
    names: &[
        "network-interface-id",
        "subnet-id",
        "vpc-id",
        "availability-zone",
        "description",
        "group-id",
        "group-name",
        "interface-type",
        "mac-address",
        "private-dns-name",
        "private-ip-address",
        "addresses.private-ip-address",
        "addresses.primary",
        "addresses.association.public-ip",
        "association.public-ip",
        "association.allocation-id",
        "association.association-id",
        "requester-id",
        "requester-managed",
        "source-dest-check",
        "status",
        "attachment.attachment-id",
        "attachment.status",
        "attachment.instance-owner-id",
        "attachment.instance-id",
        "attachment.device-index",
        "attachment.delete-on-termination",
    ],
    values: |view, interface, name| {
        let shape = shape(view, interface);
        let association = shape.association.unwrap_or_default();
        let attachment = shape.attachment.unwrap_or_default();
        let groups = shape.groups.unwrap_or_default().into_iter();
        let one = match name {
            "group-id" => return groups.filter_map(|group| group.group_id).collect(),
            "group-name" => return groups.filter_map(|group| group.group_name).collect(),
            "subnet-id" => shape.subnet_id,
            "vpc-id" => shape.vpc_id,
            "availability-zone" => shape.availability_zone,
            "description" => shape.description,
            "interface-type" => shape.interface_type,
            "mac-address" => shape.mac_address,
            "private-dns-name" => shape.private_dns_name,
            "private-ip-address" | "addresses.private-ip-address" => shape.private_ip_address,
            "addresses.primary" => Some("true".to_owned()),
            "addresses.association.public-ip" | "association.public-ip" => association.public_ip,
            "association.allocation-id" => association.allocation_id,
            "association.association-id" => association.association_id,
            "requester-id" => shape.requester_id,
            "requester-managed" => Some(interface.requester_managed.to_string()),
            "source-dest-check" => Some(interface.source_dest_check.to_string()),
            "status" => shape.status,
            "attachment.attachment-id" => attachment.attachment_id,
            "attachment.status" => attachment.status,
            "attachment.instance-owner-id" => attachment.instance_owner_id,
            "attachment.instance-id" => attachment.instance_id,
            "attachment.device-index" => attachment.device_index.map(|index| index.to_string()),
            "attachment.delete-on-termination" => attachment.delete_on_termination.map(|yes| yes.to_string()),
            _ => shape.network_interface_id,
        };
        one.into_iter().collect()
    },
};

/// An interface as it is shown.
pub(super) fn shape(view: &Snapshot, interface: &NetworkInterface) -> api::ec2::NetworkInterface {
    let region = &interface.scope.region;
    let hostnames = view.get::<Vpc>(&interface.scope.key(&interface.vpc_id)).is_some_and(|vpc| vpc.dns_hostnames);
    let association = interface.public_address.as_ref().map(|public| NetworkInterfaceAssociation {
        public_ip: Some(public.address.to_string()),
        public_dns_name: Some(if hostnames { names::public_dns_name(region, public.address) } else { String::new() }),
        allocation_id: public.allocation_id.clone(),
        association_id: public.association_id.clone(),
        ip_owner_id: Some(match public.allocation_id {
            Some(_) => interface.scope.account.to_string(),
            None => "amazon".to_owned(),
        }),
        ..Default::default()
    });
    let requester = match interface.owner {
        NetworkInterfaceOwner::User | NetworkInterfaceOwner::Instance { .. } => None,
        NetworkInterfaceOwner::Task { .. } => Some("amazon-ecs"),
        NetworkInterfaceOwner::LoadBalancer { .. } => Some("amazon-elb"),
        NetworkInterfaceOwner::NatGateway { .. } => Some("amazon-aws"),
    };
    // What a service has made is not deleted with anything of the user's.
    let (instance_id, device_index, goes) = match &interface.owner {
        NetworkInterfaceOwner::Instance { id, device_index, delete_on_termination } => {
            (Some(id.clone()), *device_index, *delete_on_termination)
        }
        _ => (None, 1, false),
    };
    let attachment = interface.attachment_id.as_ref().map(|id| NetworkInterfaceAttachment {
        attachment_id: Some(id.clone()),
        attach_time: Some(wire::Timestamp(interface.created_at.millis())),
        delete_on_termination: Some(goes),
        device_index: i32::try_from(device_index).ok(),
        network_card_index: Some(0),
        instance_owner_id: match instance_id {
            Some(_) => Some(interface.scope.account.to_string()),
            None => requester.map(str::to_owned),
        },
        instance_id,
        status: Some("attached".into()),
        ..Default::default()
    });
    let groups = interface.security_groups.iter().map(|id| GroupIdentifier {
        group_id: Some(id.clone()),
        group_name: view.get::<SecurityGroup>(&interface.scope.key(id)).map(|group| group.name.clone()),
    });
    let private_dns_name = names::private_dns_name(region, interface.private_address);
    let kind = match interface.owner {
        NetworkInterfaceOwner::NatGateway { .. } => "nat_gateway",
        _ => "interface",
    };
    api::ec2::NetworkInterface {
        network_interface_id: Some(interface.network_interface_id.clone()),
        vpc_id: Some(interface.vpc_id.clone()),
        subnet_id: Some(interface.subnet_id.clone()),
        availability_zone: Some(interface.availability_zone.clone()),
        availability_zone_id: Some(zone_id(&interface.availability_zone)),
        description: Some(interface.description.clone()),
        groups: Some(groups.collect()),
        interface_type: Some(kind.into()),
        mac_address: Some(interface.mac_address.clone()),
        owner_id: Some(interface.scope.account.to_string()),
        private_dns_name: Some(private_dns_name.clone()),
        public_dns_name: association
            .as_ref()
            .and_then(|one| one.public_dns_name.clone())
            .filter(|name| !name.is_empty()),
        private_ip_address: Some(interface.private_address.to_string()),
        private_ip_addresses: Some(vec![NetworkInterfacePrivateIpAddress {
            association: association.clone(),
            primary: Some(true),
            private_dns_name: Some(private_dns_name),
            private_ip_address: Some(interface.private_address.to_string()),
        }]),
        ipv6_addresses: Some(Vec::new()),
        association,
        requester_id: requester.map(str::to_owned),
        requester_managed: Some(interface.requester_managed),
        source_dest_check: Some(interface.source_dest_check),
        status: Some(if attachment.is_some() { "in-use" } else { "available" }.into()),
        attachment,
        tag_set: tags::shape(&interface.tags),
        ..Default::default()
    }
}

/// CreateNetworkInterface: with one private address.
pub(super) async fn create(
    call: Call,
    input: CreateNetworkInterfaceRequest,
) -> Result<CreateNetworkInterfaceResult, ServiceError> {
    refuse!(input; ipv4_prefixes, ipv4_prefix_count, ipv6_prefixes, ipv6_prefix_count, enable_primary_ipv6,
        connection_tracking_specification, operator, secondary_private_ip_address_count, ipv6_addresses,
        ipv6_address_count);
    if input.interface_type.as_deref().is_some_and(|kind| kind != "interface") {
        return Err(unsupported("interface_type"));
    }
    let mut wanted = input.private_ip_address;
    match input.private_ip_addresses.as_deref() {
        None | Some([]) => {}
        Some([one]) if wanted.is_none() || wanted == one.private_ip_address => {
            wanted.clone_from(&one.private_ip_address)
        }
        Some(_) => return Err(unsupported("private_ip_addresses")),
    }
    let subnet_id = required(input.subnet_id, "subnetId")?;
    let auth = begin(&call, &["network-interface/*".to_owned(), format!("subnet/{subnet_id}")], input.dry_run)?;
    let new = NewInterface {
        subnet_id,
        security_groups: input.groups.unwrap_or_default(),
        assign_public_address: false,
        private_address: wanted.map(|text| parse_address(&text, "privateIpAddress")).transpose()?,
        description: input.description.unwrap_or_default(),
        owner: NetworkInterfaceOwner::User,
        requester_managed: false,
        tags: tags::specified(input.tag_specifications, "network-interface")?,
    };
    let (client_token, now) = (input.client_token, auth.now());
    let shape = auth
        .transact(|tx| {
            let known = tx
                .find::<NetworkInterface>("subnet", new.subnet_id.as_str())
                .find(|interface| interface.client_token.is_some() && interface.client_token == client_token);
            if let Some(interface) = known {
                return Ok(shape(tx, &interface));
            }
            let mut ids = auth.platform().ids();
            let mut interface = allocate_network_interface(tx, &call.scope, new, &mut ids, now)?;
            interface.client_token.clone_from(&client_token);
            tx.put(interface.clone());
            Ok(shape(tx, &interface))
        })
        .await?;
    Ok(CreateNetworkInterfaceResult { network_interface: Some(shape), client_token })
}

/// DeleteNetworkInterface: a user's own; others are in use.
pub(super) async fn delete(call: Call, input: DeleteNetworkInterfaceRequest) -> Result<(), ServiceError> {
    let id = required(input.network_interface_id, "networkInterfaceId")?;
    let auth = begin(&call, &[format!("network-interface/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let interface = find::<NetworkInterface>(&call, tx, &id)?;
        if interface.attachment_id.is_some() || interface.requester_managed {
            let text = format!("Network interface '{id}' is currently in use.");
            return Err(ServiceError::new("InvalidParameterValue", text));
        }
        release_network_interface(tx, &call.scope, &id);
        Ok(())
    })
    .await
}

/// DescribeNetworkInterfaces.
pub(super) async fn list(
    call: Call,
    input: DescribeNetworkInterfacesRequest,
) -> Result<DescribeNetworkInterfacesResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.network_interface_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let view = auth.snapshot();
    let (interfaces, next_token) = describe(&call, &view, query, &FILTERS)?;
    let network_interfaces = Some(interfaces.iter().map(|interface| shape(&view, interface)).collect());
    Ok(DescribeNetworkInterfacesResult { network_interfaces, next_token })
}

/// ModifyNetworkInterfaceAttribute: one of description, groups and source check of a user's own interface.
pub(super) async fn modify_attribute(
    call: Call,
    input: ModifyNetworkInterfaceAttributeRequest,
) -> Result<(), ServiceError> {
    refuse!(input; ena_srd_specification, enable_primary_ipv6, connection_tracking_specification,
        associate_public_ip_address, associated_subnet_ids, attachment);
    let id = required(input.network_interface_id, "networkInterfaceId")?;
    let auth = begin(&call, &[format!("network-interface/{id}")], input.dry_run)?;
    let description = input.description.and_then(|value| value.value);
    let source_dest_check = input.source_dest_check.and_then(|value| value.value);
    auth.transact(|tx| {
        let mut interface = NetworkInterface::clone(&*find::<NetworkInterface>(&call, tx, &id)?);
        if interface.requester_managed {
            let text = format!("You do not have permission to access the specified resource {id}.");
            return Err(ServiceError::new("AuthFailure", text).status(403));
        }
        if let Some(groups) = input.groups {
            let subnet = find::<Subnet>(&call, tx, &interface.subnet_id)?;
            interface.security_groups = check_groups(tx, &subnet, groups)?;
        }
        if let Some(description) = description {
            interface.description = description;
        }
        interface.source_dest_check = source_dest_check.unwrap_or(interface.source_dest_check);
        tx.put(interface);
        Ok(())
    })
    .await
}
