//! Subnets.

use api::ec2::{
    AttributeBooleanValue, CreateSubnetRequest, CreateSubnetResult, DeleteSubnetRequest, DescribeSubnetsRequest,
    DescribeSubnetsResult, ModifySubnetAttributeRequest, PrivateDnsNameOptionsOnLaunch,
};
use domain::network::{NetworkInterface, RouteTable, Subnet, Vpc};
use store::Snapshot;
use wire::ServiceError;

use super::{
    allocation::available_addresses,
    common::{Filterable, Query, begin, describe, find, invalid_value, refuse, required, unsupported},
    facts::zone_id,
    tags,
    vpcs::parse_block,
};
use crate::Call;

const FILTERS: Filterable<Subnet> = Filterable {
    names: &[
        "subnet-id",
        "vpc-id",
        "cidr",
        "cidrBlock",
        "cidr-block",
        "availabilityZone",
        "availability-zone",
        "availabilityZoneId",
        "availability-zone-id",
        "default-for-az",
        "defaultForAz",
        "state",
        "subnet-arn",
        "map-public-ip-on-launch",
        "available-ip-address-count",
        "ipv6-native",
    ],
    values: |view, subnet, name| {
        vec![match name {
            "subnet-id" => subnet.subnet_id.clone(),
            "vpc-id" => subnet.vpc_id.clone(),
            "availabilityZone" | "availability-zone" => subnet.availability_zone.clone(),
            "availabilityZoneId" | "availability-zone-id" => zone_id(&subnet.availability_zone),
            "default-for-az" | "defaultForAz" => subnet.default_for_az.to_string(),
            "state" => "available".to_owned(),
            "subnet-arn" => subnet.arn(),
            "map-public-ip-on-launch" => subnet.map_public_ip_on_launch.to_string(),
            "available-ip-address-count" => available_addresses(view, subnet).to_string(),
            "ipv6-native" => "false".to_owned(),
            _ => subnet.cidr.to_string(),
        }]
    },
};

fn shape(view: &Snapshot, subnet: &Subnet) -> api::ec2::Subnet {
    api::ec2::Subnet {
        subnet_id: Some(subnet.subnet_id.clone()),
        subnet_arn: Some(subnet.arn()),
        vpc_id: Some(subnet.vpc_id.clone()),
        owner_id: Some(subnet.scope.account.to_string()),
        state: Some("available".into()),
        cidr_block: Some(subnet.cidr.to_string()),
        availability_zone: Some(subnet.availability_zone.clone()),
        availability_zone_id: Some(zone_id(&subnet.availability_zone)),
        available_ip_address_count: i32::try_from(available_addresses(view, subnet)).ok(),
        default_for_az: Some(subnet.default_for_az),
        map_public_ip_on_launch: Some(subnet.map_public_ip_on_launch),
        map_customer_owned_ip_on_launch: Some(false),
        assign_ipv6_address_on_creation: Some(false),
        ipv6_cidr_block_association_set: Some(Vec::new()),
        enable_dns64: Some(false),
        ipv6_native: Some(false),
        private_dns_name_options_on_launch: Some(PrivateDnsNameOptionsOnLaunch {
            hostname_type: Some("ip-name".into()),
            enable_resource_name_dns_a_record: Some(false),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        tags: tags::shape(&subnet.tags),
        ..Default::default()
    }
}

/// CreateSubnet.
pub(super) async fn create(call: Call, input: CreateSubnetRequest) -> Result<CreateSubnetResult, ServiceError> {
    refuse!(input; ipv6_cidr_block, outpost_arn, ipv4_ipam_pool_id, ipv4_netmask_length, ipv6_ipam_pool_id,
        ipv6_netmask_length);
    if input.ipv6_native == Some(true) {
        return Err(unsupported("ipv6_native"));
    }
    let vpc_id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &["subnet/*".to_owned(), format!("vpc/{vpc_id}")], input.dry_run)?;
    let cidr = parse_block(&required(input.cidr_block, "cidrBlock")?, "InvalidSubnet.Range")?;
    let zones = call.scope.availability_zones();
    let zone = match (input.availability_zone, input.availability_zone_id) {
        (Some(zone), _) if zones.contains(&zone) => zone,
        (None, Some(id)) => zones
            .iter()
            .find(|zone| zone_id(zone) == id)
            .cloned()
            .ok_or_else(|| invalid_value(&id, "availabilityZoneId", "There is no such availability zone."))?,
        (None, None) => zones.into_iter().next().unwrap_or_default(),
        (Some(zone), _) => {
            let why = format!(
                "Subnets can currently only be created in the following availability zones: {}.",
                zones.join(", ")
            );
            return Err(invalid_value(&zone, "availabilityZone", &why));
        }
    };
    let tags = tags::specified(input.tag_specifications, "subnet")?;
    let shape = auth
        .transact(|tx| {
            let vpc = find::<Vpc>(&call, tx, &vpc_id)?;
            if !vpc.cidr.contains_block(&cidr) {
                return Err(ServiceError::new("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid.")));
            }
            if tx.find::<Subnet>("vpc", vpc_id.as_str()).any(|other| other.cidr.overlaps(&cidr)) {
                let text = format!("The CIDR '{cidr}' conflicts with another subnet");
                return Err(ServiceError::new("InvalidSubnet.Conflict", text));
            }
            let subnet = Subnet {
                scope: call.scope.clone(),
                subnet_id: auth.platform().ids().ec2("subnet"),
                vpc_id: vpc_id.clone(),
                cidr,
                availability_zone: zone,
                default_for_az: false,
                map_public_ip_on_launch: false,
                tags,
            };
            tx.put(subnet.clone());
            Ok(shape(tx, &subnet))
        })
        .await?;
    Ok(CreateSubnetResult { subnet: Some(shape) })
}

/// DeleteSubnet: not while an interface is in it.
pub(super) async fn delete(call: Call, input: DeleteSubnetRequest) -> Result<(), ServiceError> {
    let id = required(input.subnet_id, "subnetId")?;
    let auth = begin(&call, &[format!("subnet/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let subnet = find::<Subnet>(&call, tx, &id)?;
        if tx.count::<NetworkInterface>("subnet", id.as_str()) > 0 {
            let text = format!("The subnet '{id}' has dependencies and cannot be deleted.");
            return Err(ServiceError::new("DependencyViolation", text));
        }
        let tables: Vec<String> = tx
            .find::<RouteTable>("vpc", subnet.vpc_id.as_str())
            .map(|table| call.scope.key(&table.route_table_id))
            .collect();
        for key in tables {
            let names = tx.get::<RouteTable>(&key).is_some_and(|table| {
                table.associations.iter().any(|association| association.subnet_id.as_deref() == Some(id.as_str()))
            });
            if names {
                tx.update::<RouteTable>(&key, |table| {
                    table.associations.retain(|association| association.subnet_id.as_deref() != Some(id.as_str()));
                });
            }
        }
        tx.delete::<Subnet>(&call.scope.key(&id));
        Ok(())
    })
    .await
}

/// DescribeSubnets.
pub(super) async fn list(call: Call, input: DescribeSubnetsRequest) -> Result<DescribeSubnetsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.subnet_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let view = auth.snapshot();
    let (subnets, next_token) = describe(&call, &view, query, &FILTERS)?;
    Ok(DescribeSubnetsResult { subnets: Some(subnets.iter().map(|subnet| shape(&view, subnet)).collect()), next_token })
}

/// ModifySubnetAttribute: whether public addresses are given by default.
pub(super) async fn modify_attribute(call: Call, input: ModifySubnetAttributeRequest) -> Result<(), ServiceError> {
    refuse!(input; customer_owned_ipv4_pool, enable_lni_at_device_index);
    let on = |value: &Option<AttributeBooleanValue>| value.as_ref().and_then(|value| value.value) == Some(true);
    for (set, name) in [
        (on(&input.assign_ipv6_address_on_creation), "assign_ipv6_address_on_creation"),
        (on(&input.map_customer_owned_ip_on_launch), "map_customer_owned_ip_on_launch"),
        (on(&input.enable_dns64), "enable_dns64"),
        (on(&input.enable_resource_name_dns_a_record_on_launch), "enable_resource_name_dns_a_record_on_launch"),
        (on(&input.enable_resource_name_dns_aaaa_record_on_launch), "enable_resource_name_dns_aaaa_record_on_launch"),
        (on(&input.disable_lni_at_device_index), "disable_lni_at_device_index"),
        (
            input.private_dns_hostname_type_on_launch.as_deref().is_some_and(|kind| kind != "ip-name"),
            "private_dns_hostname_type_on_launch",
        ),
    ] {
        if set {
            return Err(unsupported(name));
        }
    }
    let id = required(input.subnet_id, "subnetId")?;
    let auth = begin(&call, &[format!("subnet/{id}")], None)?;
    let map = input.map_public_ip_on_launch.and_then(|value| value.value);
    auth.transact(|tx| {
        find::<Subnet>(&call, tx, &id)?;
        tx.update::<Subnet>(&call.scope.key(&id), |subnet| {
            subnet.map_public_ip_on_launch = map.unwrap_or(subnet.map_public_ip_on_launch);
        });
        Ok(())
    })
    .await
}
