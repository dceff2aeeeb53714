//! Internet gateways, NAT gateways and the elastic IP addresses they use.

use api::ec2::{
    AllocateAddressRequest, AllocateAddressResult, AssociateAddressRequest, AssociateAddressResult,
    AttachInternetGatewayRequest, CreateInternetGatewayRequest, CreateInternetGatewayResult, CreateNatGatewayRequest,
    CreateNatGatewayResult, DeleteInternetGatewayRequest, DeleteNatGatewayRequest, DeleteNatGatewayResult,
    DescribeAddressesRequest, DescribeAddressesResult, DescribeInternetGatewaysRequest, DescribeInternetGatewaysResult,
    DescribeNatGatewaysRequest, DescribeNatGatewaysResult, DetachInternetGatewayRequest, DisassociateAddressRequest,
    InternetGatewayAttachment, NatGatewayAddress, ReleaseAddressRequest,
};
use domain::network::{
    Address, InternetGateway, NatGateway, NatGatewayState, NetworkInterface, NetworkInterfaceOwner, PublicAddress,
    RouteTarget, Subnet, Vpc,
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::{
    allocation::{self, NewInterface, allocate_network_interface, release_network_interface},
    common::{Filterable, Query, begin, describe, find, invalid_value, refuse, required, unsupported},
    host_slice::route_table,
    instances, tags,
};
use crate::Call;

/// How long a deleted NAT gateway is shown.
const SHOWN_AFTER_DELETION: std::time::Duration = std::time::Duration::from_secs(3600);

fn gateway_shape(gateway: &InternetGateway) -> api::ec2::InternetGateway {
    let attachment =
        |vpc: &String| InternetGatewayAttachment { state: Some("available".into()), vpc_id: Some(vpc.clone()) };
    api::ec2::InternetGateway {
        internet_gateway_id: Some(gateway.internet_gateway_id.clone()),
        owner_id: Some(gateway.scope.account.to_string()),
        attachments: Some(gateway.vpc_id.iter().map(attachment).collect()),
        tags: tags::shape(&gateway.tags),
    }
}

/// CreateInternetGateway.
pub(super) async fn create_internet(
    call: Call,
    input: CreateInternetGatewayRequest,
) -> Result<CreateInternetGatewayResult, ServiceError> {
    let auth = begin(&call, &["internet-gateway/*".to_owned()], input.dry_run)?;
    let tags = tags::specified(input.tag_specifications, "internet-gateway")?;
    let gateway = auth
        .transact(|tx| {
            let internet_gateway_id = auth.platform().ids().ec2("igw");
            let gateway = InternetGateway { scope: call.scope.clone(), internet_gateway_id, vpc_id: None, tags };
            tx.put(gateway.clone());
            Ok(gateway)
        })
        .await?;
    Ok(CreateInternetGatewayResult { internet_gateway: Some(gateway_shape(&gateway)) })
}

/// AttachInternetGateway: one to a VPC.
pub(super) async fn attach_internet(call: Call, input: AttachInternetGatewayRequest) -> Result<(), ServiceError> {
    let id = required(input.internet_gateway_id, "internetGatewayId")?;
    let vpc_id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &[format!("internet-gateway/{id}"), format!("vpc/{vpc_id}")], input.dry_run)?;
    auth.transact(|tx| {
        find::<Vpc>(&call, tx, &vpc_id)?;
        let gateway = find::<InternetGateway>(&call, tx, &id)?;
        let taken = gateway.vpc_id.is_some() || tx.count::<InternetGateway>("vpc", vpc_id.as_str()) > 0;
        if taken {
            let other = gateway.vpc_id.as_ref().map_or_else(
                || format!("Network {vpc_id} already has an internet gateway attached"),
                |vpc| format!("resource {id} is already attached to network {vpc}"),
            );
            return Err(ServiceError::new("Resource.AlreadyAssociated", other));
        }
        tx.update::<InternetGateway>(&call.scope.key(&id), |gateway| gateway.vpc_id = Some(vpc_id.clone()));
        Ok(())
    })
    .await
}

/// DetachInternetGateway: not while an interface of the VPC has a public address.
pub(super) async fn detach_internet(call: Call, input: DetachInternetGatewayRequest) -> Result<(), ServiceError> {
    let id = required(input.internet_gateway_id, "internetGatewayId")?;
    let vpc_id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &[format!("internet-gateway/{id}"), format!("vpc/{vpc_id}")], input.dry_run)?;
    auth.transact(|tx| {
        let gateway = find::<InternetGateway>(&call, tx, &id)?;
        if gateway.vpc_id.as_ref() != Some(&vpc_id) {
            return Err(ServiceError::new("Gateway.NotAttached", format!("resource {id} is not attached to network {vpc_id}")));
        }
        if tx.find::<NetworkInterface>("vpc", vpc_id.as_str()).any(|interface| interface.public_address.is_some()) {
            let text = format!(
                "Network {vpc_id} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."
            );
            return Err(ServiceError::new("DependencyViolation", text));
        }
        tx.update::<InternetGateway>(&call.scope.key(&id), |gateway| gateway.vpc_id = None);
        Ok(())
    })
    .await
}

/// DeleteInternetGateway: not while it is attached.
pub(super) async fn delete_internet(call: Call, input: DeleteInternetGatewayRequest) -> Result<(), ServiceError> {
    let id = required(input.internet_gateway_id, "internetGatewayId")?;
    let auth = begin(&call, &[format!("internet-gateway/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        if find::<InternetGateway>(&call, tx, &id)?.vpc_id.is_some() {
            let text = format!("The internetGateway '{id}' has dependencies and cannot be deleted.");
            return Err(ServiceError::new("DependencyViolation", text));
        }
        tx.delete::<InternetGateway>(&call.scope.key(&id));
        Ok(())
    })
    .await
}

/// DescribeInternetGateways.
pub(super) async fn list_internet(
    call: Call,
    input: DescribeInternetGatewaysRequest,
) -> Result<DescribeInternetGatewaysResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.internet_gateway_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let filters: Filterable<InternetGateway> = Filterable {
        names: &["internet-gateway-id", "attachment.vpc-id", "attachment.state"],
        values: |_, gateway, name| match name {
            "attachment.vpc-id" => gateway.vpc_id.iter().cloned().collect(),
            "attachment.state" => gateway.vpc_id.iter().map(|_| "available".to_owned()).collect(),
            _ => vec![gateway.internet_gateway_id.clone()],
        },
    };
    let (gateways, next_token) = describe(&call, &auth.snapshot(), query, &filters)?;
    let internet_gateways = Some(gateways.iter().map(|gateway| gateway_shape(gateway)).collect());
    Ok(DescribeInternetGatewaysResult { internet_gateways, next_token })
}

fn nat_shape(gateway: &NatGateway) -> api::ec2::NatGateway {
    let address = NatGatewayAddress {
        allocation_id: Some(gateway.allocation_id.clone()),
        network_interface_id: Some(gateway.network_interface_id.clone()),
        private_ip: Some(gateway.private_address.to_string()),
        public_ip: Some(gateway.public_address.to_string()),
        is_primary: Some(true),
        status: Some("succeeded".into()),
        ..Default::default()
    };
    api::ec2::NatGateway {
        nat_gateway_id: Some(gateway.nat_gateway_id.clone()),
        vpc_id: Some(gateway.vpc_id.clone()),
        subnet_id: Some(gateway.subnet_id.clone()),
        state: Some(nat_state(gateway).into()),
        connectivity_type: Some("public".into()),
        create_time: Some(wire::Timestamp(gateway.created_at.millis())),
        delete_time: gateway.deleted_at.map(|at| wire::Timestamp(at.millis())),
        nat_gateway_addresses: Some(vec![address]),
        tags: tags::shape(&gateway.tags),
        ..Default::default()
    }
}

fn nat_state(gateway: &NatGateway) -> &'static str {
    match gateway.state {
        NatGatewayState::Available => "available",
        NatGatewayState::Deleted => "deleted",
    }
}

/// CreateNatGateway: public ones, in a subnet that leads out, with an elastic IP that nothing else has.
pub(super) async fn create_nat(
    call: Call,
    input: CreateNatGatewayRequest,
) -> Result<CreateNatGatewayResult, ServiceError> {
    refuse!(input; availability_mode, vpc_id, availability_zone_addresses, secondary_allocation_ids,
        secondary_private_ip_addresses, secondary_private_ip_address_count);
    if let Some(kind) = input.connectivity_type.as_deref().filter(|kind| *kind != "public") {
        return Err(invalid_value(kind, "connectivityType", "Only public NAT gateways are supported by Longshore."));
    }
    let subnet_id = required(input.subnet_id, "subnetId")?;
    let allocation_id = required(input.allocation_id, "allocationId")?;
    let auth = begin(&call, &["natgateway/*".to_owned(), format!("subnet/{subnet_id}")], input.dry_run)?;
    let tags = tags::specified(input.tag_specifications, "natgateway")?;
    let private_address = input.private_ip_address.map(|text| parse_address(&text, "privateIpAddress")).transpose()?;
    let (client_token, now) = (input.client_token, auth.now());
    let gateway = auth
        .transact(|tx| {
            let known = tx
                .list::<NatGateway>(&call.scope.prefix())
                .find(|gateway| gateway.client_token.is_some() && gateway.client_token == client_token);
            if let Some(gateway) = known {
                return Ok(NatGateway::clone(&gateway));
            }
            let subnet = find::<Subnet>(&call, tx, &subnet_id)?;
            let address = find::<Address>(&call, tx, &allocation_id)?;
            if address.association_id.is_some() {
                let text = format!("Elastic IP address [{allocation_id}] is already associated");
                return Err(ServiceError::new("Resource.AlreadyAssociated", text));
            }
            let table = route_table(tx, &subnet);
            let leads_out = matches!(
                table.as_ref().and_then(|table| table.default_target()),
                Some(RouteTarget::InternetGateway(_))
            );
            if !leads_out && tx.count::<domain::network::InternetGateway>("vpc", subnet.vpc_id.as_str()) == 0 {
                let text = format!("Network {} has no Internet gateway attached", subnet.vpc_id);
                return Err(ServiceError::new("Gateway.NotAttached", text));
            }
            let mut ids = auth.platform().ids();
            let nat_gateway_id = ids.ec2("nat");
            let new = NewInterface {
                subnet_id: subnet_id.clone(),
                security_groups: Vec::new(),
                assign_public_address: false,
                private_address,
                description: format!("Interface for NAT Gateway {nat_gateway_id}"),
                owner: NetworkInterfaceOwner::NatGateway { id: nat_gateway_id.clone() },
                requester_managed: true,
                tags: Default::default(),
            };
            let interface = allocate_network_interface(tx, &call.scope, new, &mut ids, now)?;
            associate(tx, &call, &allocation_id, &interface.network_interface_id, ids.ec2("eipassoc"));
            let gateway = NatGateway {
                scope: call.scope.clone(),
                nat_gateway_id,
                vpc_id: subnet.vpc_id.clone(),
                subnet_id: subnet_id.clone(),
                allocation_id: allocation_id.clone(),
                network_interface_id: interface.network_interface_id,
                private_address: interface.private_address,
                public_address: address.public_address,
                state: NatGatewayState::Available,
                created_at: now,
                deleted_at: None,
                client_token: client_token.clone(),
                tags,
            };
            tx.put(gateway.clone());
            Ok(gateway)
        })
        .await?;
    Ok(CreateNatGatewayResult { nat_gateway: Some(nat_shape(&gateway)), client_token })
}

/// DeleteNatGateway: its interface goes, its elastic IP stays allocated; it is shown as deleted for an hour.
pub(super) async fn delete_nat(
    call: Call,
    input: DeleteNatGatewayRequest,
) -> Result<DeleteNatGatewayResult, ServiceError> {
    let id = required(input.nat_gateway_id, "natGatewayId")?;
    let auth = begin(&call, &[format!("natgateway/{id}")], input.dry_run)?;
    let now = auth.now();
    auth.transact(|tx| {
        let gateway = find::<NatGateway>(&call, tx, &id)?;
        release_network_interface(tx, &call.scope, &gateway.network_interface_id);
        tx.update::<NatGateway>(&call.scope.key(&id), |gateway| {
            gateway.state = NatGatewayState::Deleted;
            gateway.deleted_at.get_or_insert(now);
        });
        let forgotten: Vec<String> = tx
            .list::<NatGateway>(&call.scope.prefix())
            .filter(|gateway| gateway.deleted_at.is_some_and(|at| now.since(at) > SHOWN_AFTER_DELETION))
            .map(|gateway| call.scope.key(&gateway.nat_gateway_id))
            .collect();
        forgotten.iter().for_each(|key| tx.delete::<NatGateway>(key));
        Ok(())
    })
    .await?;
    Ok(DeleteNatGatewayResult { nat_gateway_id: Some(id) })
}

/// DescribeNatGateways.
pub(super) async fn list_nat(
    call: Call,
    input: DescribeNatGatewaysRequest,
) -> Result<DescribeNatGatewaysResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.nat_gateway_ids,
        filters: input.filter,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let filters: Filterable<NatGateway> = Filterable {
        names: &["nat-gateway-id", "state", "subnet-id", "vpc-id"],
        values: |_, gateway, name| {
            vec![match name {
                "state" => nat_state(gateway).to_owned(),
                "subnet-id" => gateway.subnet_id.clone(),
                "vpc-id" => gateway.vpc_id.clone(),
                _ => gateway.nat_gateway_id.clone(),
            }]
        },
    };
    let now = auth.now();
    let (gateways, next_token) = describe(&call, &auth.snapshot(), query, &filters)?;
    let shown = gateways
        .iter()
        .filter(|gateway| gateway.deleted_at.is_none_or(|at| now.since(at) <= SHOWN_AFTER_DELETION))
        .map(|gateway| nat_shape(gateway));
    Ok(DescribeNatGatewaysResult { nat_gateways: Some(shown.collect()), next_token })
}

/// An IPv4 address in a request.
pub(super) fn parse_address(text: &str, name: &str) -> Result<std::net::Ipv4Addr, ServiceError> {
    text.parse().map_err(|_| invalid_value(text, name, "This is not an IPv4 address."))
}

fn address_shape(view: &Snapshot, address: &Address) -> api::ec2::Address {
    let interface =
        address.network_interface_id.as_ref().and_then(|id| view.get::<NetworkInterface>(&address.scope.key(id)));
    api::ec2::Address {
        allocation_id: Some(address.allocation_id.clone()),
        public_ip: Some(address.public_address.to_string()),
        association_id: address.association_id.clone(),
        domain: Some("vpc".into()),
        network_interface_id: address.network_interface_id.clone(),
        network_interface_owner_id: interface.as_ref().map(|_| address.scope.account.to_string()),
        instance_id: interface.as_ref().and_then(|interface| match &interface.owner {
            NetworkInterfaceOwner::Instance { id, .. } => Some(id.clone()),
            _ => None,
        }),
        private_ip_address: interface.map(|interface| interface.private_address.to_string()),
        public_ipv4_pool: Some("amazon".into()),
        network_border_group: Some(address.scope.region.to_string()),
        tags: tags::shape(&address.tags),
        ..Default::default()
    }
}

/// AllocateAddress: from the platform's public block.
pub(super) async fn allocate(call: Call, input: AllocateAddressRequest) -> Result<AllocateAddressResult, ServiceError> {
    refuse!(input; address, customer_owned_ipv4_pool, ipam_pool_id);
    for (value, expected, name) in [
        (&input.domain, "vpc", "domain"),
        (&input.public_ipv4_pool, "amazon", "public_ipv4_pool"),
        (&input.network_border_group, call.scope.region.as_str(), "network_border_group"),
    ] {
        if value.as_deref().is_some_and(|value| value != expected) {
            return Err(unsupported(name));
        }
    }
    let auth = begin(&call, &["elastic-ip/*".to_owned()], input.dry_run)?;
    let tags = tags::specified(input.tag_specifications, "elastic-ip")?;
    let address = auth
        .transact(|tx| {
            let mut ids = auth.platform().ids();
            let address = Address {
                scope: call.scope.clone(),
                public_address: allocation::free_public_address(tx, &mut ids)?,
                allocation_id: ids.ec2("eipalloc"),
                association_id: None,
                network_interface_id: None,
                tags,
            };
            tx.put(address.clone());
            Ok(address)
        })
        .await?;
    Ok(AllocateAddressResult {
        allocation_id: Some(address.allocation_id),
        public_ip: Some(address.public_address.to_string()),
        domain: Some("vpc".into()),
        public_ipv4_pool: Some("amazon".into()),
        network_border_group: Some(call.scope.region.to_string()),
        ..Default::default()
    })
}

/// ReleaseAddress: not while it is associated.
pub(super) async fn release(call: Call, input: ReleaseAddressRequest) -> Result<(), ServiceError> {
    refuse!(input; public_ip);
    let id = required(input.allocation_id, "allocationId")?;
    let auth = begin(&call, &[format!("elastic-ip/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        if find::<Address>(&call, tx, &id)?.association_id.is_some() {
            let text = format!("Address with allocation id [{id}] is in use.");
            return Err(ServiceError::new("InvalidIPAddress.InUse", text));
        }
        tx.delete::<Address>(&call.scope.key(&id));
        Ok(())
    })
    .await
}

/// Makes an elastic IP an interface's public address, in place of the one it had.
fn associate(tx: &mut Transaction, call: &Call, allocation_id: &str, interface_id: &str, association_id: String) {
    let Some(address) = tx.get::<Address>(&call.scope.key(allocation_id)) else { return };
    tx.update::<Address>(&call.scope.key(allocation_id), |address| {
        address.association_id = Some(association_id.clone());
        address.network_interface_id = Some(interface_id.to_owned());
    });
    tx.update::<NetworkInterface>(&call.scope.key(interface_id), |interface| {
        interface.public_address = Some(PublicAddress {
            address: address.public_address,
            allocation_id: Some(allocation_id.to_owned()),
            association_id: Some(association_id.clone()),
        });
    });
}

fn dissociate(tx: &mut Transaction, call: &Call, address: &Address) {
    if let Some(interface_id) = &address.network_interface_id {
        tx.update::<NetworkInterface>(&call.scope.key(interface_id), |interface| interface.public_address = None);
    }
    tx.update::<Address>(&call.scope.key(&address.allocation_id), |address| {
        address.association_id = None;
        address.network_interface_id = None;
    });
}

/// AssociateAddress: with a user's interface, or with an instance's primary one.
pub(super) async fn associate_address(
    call: Call,
    input: AssociateAddressRequest,
) -> Result<AssociateAddressResult, ServiceError> {
    refuse!(input; public_ip);
    let id = required(input.allocation_id, "allocationId")?;
    let (instance_id, interface_id) = (input.instance_id, input.network_interface_id);
    if instance_id.is_some() == interface_id.is_some() {
        let text = "You must specify either an instance ID or a network interface ID, and not both";
        return Err(ServiceError::new("InvalidParameterCombination", text));
    }
    let auth = begin(&call, &[format!("elastic-ip/{id}")], input.dry_run)?;
    let wanted = input.private_ip_address.map(|text| parse_address(&text, "privateIpAddress")).transpose()?;
    let association_id = auth
        .transact(|tx| {
            let address = find::<Address>(&call, tx, &id)?;
            let interface_id = match &instance_id {
                Some(instance_id) => instances::one(&call, tx, instance_id)?.interface_id.clone(),
                None => interface_id.unwrap_or_default(),
            };
            let interface = find::<NetworkInterface>(&call, tx, &interface_id)?;
            if wanted.is_some_and(|wanted| wanted != interface.private_address) {
                let text = "The private IP address is not assigned to the interface";
                return Err(ServiceError::new("InvalidParameterValue", text));
            }
            if interface.requester_managed {
                let text = format!("You do not have permission to access the specified resource {interface_id}.");
                return Err(ServiceError::new("AuthFailure", text).status(403));
            }
            if address.network_interface_id.as_ref() == Some(&interface_id) {
                return Ok(address.association_id.clone());
            }
            let taken = address.association_id.is_some()
                || interface.public_address.as_ref().is_some_and(|public| public.allocation_id.is_some());
            if taken && input.allow_reassociation == Some(false) {
                let text = format!("resource {id} is already associated with associate-id");
                return Err(ServiceError::new("Resource.AlreadyAssociated", text));
            }
            dissociate(tx, &call, &address);
            let previous = interface.public_address.as_ref().and_then(|public| public.allocation_id.clone());
            if let Some(previous) = previous.and_then(|previous| tx.get::<Address>(&call.scope.key(&previous))) {
                dissociate(tx, &call, &previous);
            }
            let association_id = auth.platform().ids().ec2("eipassoc");
            associate(tx, &call, &id, &interface_id, association_id.clone());
            Ok(Some(association_id))
        })
        .await?;
    Ok(AssociateAddressResult { association_id })
}

/// DisassociateAddress.
pub(super) async fn disassociate_address(call: Call, input: DisassociateAddressRequest) -> Result<(), ServiceError> {
    refuse!(input; public_ip);
    let id = required(input.association_id, "associationId")?;
    let auth = begin(&call, &["elastic-ip/*".to_owned()], input.dry_run)?;
    auth.transact(|tx| {
        let address = tx
            .list::<Address>(&call.scope.prefix())
            .find(|address| address.association_id.as_ref() == Some(&id))
            .ok_or_else(|| {
                let text = format!("The association ID '{id:.64}' does not exist");
                ServiceError::new("InvalidAssociationID.NotFound", text)
            })?;
        let interface = address.network_interface_id.as_ref();
        let managed = interface
            .and_then(|interface| tx.get::<NetworkInterface>(&call.scope.key(interface)))
            .is_some_and(|interface| interface.requester_managed);
        if managed {
            let text = "You do not have permission to access the specified resource.";
            return Err(ServiceError::new("AuthFailure", text).status(403));
        }
        dissociate(tx, &call, &address);
        Ok(())
    })
    .await
}

/// DescribeAddresses.
pub(super) async fn list_addresses(
    call: Call,
    input: DescribeAddressesRequest,
) -> Result<DescribeAddressesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let mut filters = input.filters.unwrap_or_default();
    if let Some(addresses) = input.public_ips.filter(|addresses| !addresses.is_empty()) {
        filters.push(api::ec2::Filter { name: Some("public-ip".into()), values: Some(addresses) });
    }
    let query = Query { ids: input.allocation_ids, filters: Some(filters), ..Query::default() };
    let filters: Filterable<Address> = Filterable {
        names: &[
            "allocation-id",
            "association-id",
            "public-ip",
            "network-interface-id",
            "domain",
            "private-ip-address",
            "instance-id",
        ],
        values: |view, address, name| match name {
            "association-id" => address.association_id.iter().cloned().collect(),
            "network-interface-id" => address.network_interface_id.iter().cloned().collect(),
            "public-ip" => vec![address.public_address.to_string()],
            "domain" => vec!["vpc".to_owned()],
            "instance-id" => address_shape(view, address).instance_id.into_iter().collect(),
            "private-ip-address" => address_shape(view, address).private_ip_address.into_iter().collect(),
            _ => vec![address.allocation_id.clone()],
        },
    };
    let view = auth.snapshot();
    let (addresses, _) = describe(&call, &view, query, &filters)?;
    Ok(DescribeAddressesResult {
        addresses: Some(addresses.iter().map(|address| address_shape(&view, address)).collect()),
    })
}
