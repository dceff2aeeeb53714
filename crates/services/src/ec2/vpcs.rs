//! VPCs, with the network ACL and the DHCP options that each has.

use std::net::Ipv4Addr;

use api::ec2::{
    AttributeBooleanValue, AttributeValue, CreateDefaultVpcRequest, CreateDefaultVpcResult, CreateVpcRequest,
    CreateVpcResult, DeleteVpcRequest, DescribeDhcpOptionsRequest, DescribeDhcpOptionsResult,
    DescribeVpcAttributeRequest, DescribeVpcAttributeResult, DescribeVpcsRequest, DescribeVpcsResult,
    DhcpConfiguration, ModifyVpcAttributeRequest, VpcCidrBlockAssociation, VpcCidrBlockState,
};
use domain::network::{
    Cidr, DhcpOptions, InternetGateway, NatGateway, NetworkInterface, NetworkSettings, RouteTable, SecurityGroup,
    Subnet, Vpc, names,
};
use wire::ServiceError;

use super::{
    common::{Filterable, Query, begin, describe, find, invalid_value, refuse, required},
    default_vpc, tags,
};
use crate::Call;

const FILTERS: Filterable<Vpc> = Filterable {
    names: &[
        "vpc-id",
        "cidr",
        "cidr-block",
        "isDefault",
        "is-default",
        "state",
        "dhcp-options-id",
        "cidr-block-association.cidr-block",
        "cidr-block-association.association-id",
        "cidr-block-association.state",
    ],
    values: |_, vpc, name| {
        vec![match name {
            "vpc-id" => vpc.vpc_id.clone(),
            "isDefault" | "is-default" => vpc.is_default.to_string(),
            "state" => "available".to_owned(),
            "dhcp-options-id" => vpc.dhcp_options_id.clone(),
            "cidr-block-association.association-id" => vpc.cidr_association_id.clone(),
            "cidr-block-association.state" => "associated".to_owned(),
            _ => vpc.cidr.to_string(),
        }]
    },
};

pub(super) fn shape(vpc: &Vpc) -> api::ec2::Vpc {
    let association = VpcCidrBlockAssociation {
        association_id: Some(vpc.cidr_association_id.clone()),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_state: Some(VpcCidrBlockState { state: Some("associated".into()), ..Default::default() }),
    };
    api::ec2::Vpc {
        vpc_id: Some(vpc.vpc_id.clone()),
        owner_id: Some(vpc.scope.account.to_string()),
        state: Some("available".into()),
        cidr_block: Some(vpc.cidr.to_string()),
        cidr_block_association_set: Some(vec![association]),
        dhcp_options_id: Some(vpc.dhcp_options_id.clone()),
        instance_tenancy: Some("default".into()),
        is_default: Some(vpc.is_default),
        tags: tags::shape(&vpc.tags),
        ..Default::default()
    }
}

/// A VPC's or a subnet's block: /16 to /28.
pub(super) fn parse_block(text: &str, code: &str) -> Result<Cidr, ServiceError> {
    let block =
        Cidr::parse_lenient(text).map_err(|_| invalid_value(text, "cidrBlock", "This is not a valid CIDR block."))?;
    if (16..=28).contains(&block.prefix()) {
        return Ok(block);
    }
    Err(ServiceError::new(code, format!("The CIDR '{text:.64}' is invalid.")))
}

/// Blocks that no VPC can have: "this network", the loopback, link-local (where the platform answers), multicast and beyond.
const RESERVED: [Cidr; 4] = [
    Cidr::literal(Ipv4Addr::new(0, 0, 0, 0), 8),
    Cidr::literal(Ipv4Addr::new(127, 0, 0, 0), 8),
    Cidr::literal(Ipv4Addr::new(169, 254, 0, 0), 16),
    Cidr::literal(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// CreateVpc.
pub(super) async fn create(call: Call, input: CreateVpcRequest) -> Result<CreateVpcResult, ServiceError> {
    refuse!(input; ipv6_pool, ipv6_cidr_block, ipv4_ipam_pool_id, ipv4_netmask_length, ipv6_ipam_pool_id,
        ipv6_netmask_length, ipv6_cidr_block_network_border_group, vpc_encryption_control);
    if input.amazon_provided_ipv6_cidr_block == Some(true) {
        return Err(super::common::unsupported("amazon_provided_ipv6_cidr_block"));
    }
    if let Some(tenancy) = input.instance_tenancy.as_deref().filter(|tenancy| *tenancy != "default") {
        return Err(invalid_value(tenancy, "instanceTenancy", "Only the default tenancy is supported by Longshore."));
    }
    let auth = begin(&call, &["vpc/*".to_owned()], input.dry_run)?;
    let cidr = parse_block(&required(input.cidr_block, "cidrBlock")?, "InvalidVpc.Range")?;
    let tags = tags::specified(input.tag_specifications, "vpc")?;
    let vpc = auth
        .transact(|tx| {
            // Nor can it have the addresses by which this platform's VPCs reach the world.
            let own = tx.get::<NetworkSettings>(NetworkSettings::KEY).map(|settings| settings.public_block);
            if RESERVED.iter().chain(&own).any(|reserved| reserved.overlaps(&cidr)) {
                return Err(ServiceError::new("InvalidVpc.Range", format!("The CIDR '{cidr}' is invalid.")));
            }
            let mut ids = auth.platform().ids();
            Ok(default_vpc::create_vpc(tx, &call.scope, cidr, false, tags, &mut ids))
        })
        .await?;
    Ok(CreateVpcResult { vpc: Some(shape(&vpc)) })
}

/// CreateDefaultVpc: after the default VPC has been deleted.
pub(super) async fn create_default(
    call: Call,
    input: CreateDefaultVpcRequest,
) -> Result<CreateDefaultVpcResult, ServiceError> {
    let auth = begin(&call, &["vpc/*".to_owned()], input.dry_run)?;
    let vpc = auth
        .transact(|tx| {
            if let Some(vpc) = tx.list::<Vpc>(&call.scope.prefix()).find(|vpc| vpc.is_default) {
                let text = format!("A Default VPC already exists for this account in this region: {}.", vpc.vpc_id);
                return Err(ServiceError::new("DefaultVpcAlreadyExists", text));
            }
            let mut ids = auth.platform().ids();
            Ok(default_vpc::create_default_vpc(tx, &call.scope, &mut ids))
        })
        .await?;
    Ok(CreateDefaultVpcResult { vpc: Some(shape(&vpc)) })
}

/// DeleteVpc: with the main route table, the default group and the ACL that came with it, if nothing else is left.
pub(super) async fn delete(call: Call, input: DeleteVpcRequest) -> Result<(), ServiceError> {
    let id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &[format!("vpc/{id}")], input.dry_run)?;
    auth.transact(|tx| {
        let vpc = find::<Vpc>(&call, tx, &id)?;
        let in_use = tx.count::<Subnet>("vpc", id.as_str()) > 0
            || tx.count::<NetworkInterface>("vpc", id.as_str()) > 0
            || tx.count::<InternetGateway>("vpc", id.as_str()) > 0
            || tx.find::<NatGateway>("vpc", id.as_str()).any(|nat| nat.deleted_at.is_none())
            || tx.count::<SecurityGroup>("vpc", id.as_str()) > 1
            || tx.count::<RouteTable>("vpc", id.as_str()) > 1;
        if in_use {
            let text = format!("The vpc '{id}' has dependencies and cannot be deleted.");
            return Err(ServiceError::new("DependencyViolation", text));
        }
        let tables: Vec<String> =
            tx.find::<RouteTable>("vpc", id.as_str()).map(|table| vpc.scope.key(&table.route_table_id)).collect();
        let groups: Vec<String> =
            tx.find::<SecurityGroup>("vpc", id.as_str()).map(|group| vpc.scope.key(&group.group_id)).collect();
        tables.iter().for_each(|key| tx.delete::<RouteTable>(key));
        groups.iter().for_each(|key| tx.delete::<SecurityGroup>(key));
        tx.delete::<Vpc>(&vpc.scope.key(&id));
        Ok(())
    })
    .await
}

/// DescribeVpcs.
pub(super) async fn list(call: Call, input: DescribeVpcsRequest) -> Result<DescribeVpcsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.vpc_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let (vpcs, next_token) = describe(&call, &auth.snapshot(), query, &FILTERS)?;
    Ok(DescribeVpcsResult { vpcs: Some(vpcs.iter().map(|vpc| shape(vpc)).collect()), next_token })
}

/// DescribeVpcAttribute: one attribute at a time.
pub(super) async fn attribute(
    call: Call,
    input: DescribeVpcAttributeRequest,
) -> Result<DescribeVpcAttributeResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let id = required(input.vpc_id, "vpcId")?;
    let vpc = find::<Vpc>(&call, &auth.snapshot(), &id)?;
    let mut result = DescribeVpcAttributeResult { vpc_id: Some(id), ..Default::default() };
    let value = |value: bool| Some(AttributeBooleanValue { value: Some(value) });
    match input.attribute.as_deref() {
        Some("enableDnsSupport") => result.enable_dns_support = value(vpc.dns_support),
        Some("enableDnsHostnames") => result.enable_dns_hostnames = value(vpc.dns_hostnames),
        Some("enableNetworkAddressUsageMetrics") => result.enable_network_address_usage_metrics = value(false),
        other => return Err(invalid_value(other.unwrap_or_default(), "attribute", "There is no such attribute.")),
    }
    Ok(result)
}

/// ModifyVpcAttribute.
pub(super) async fn modify_attribute(call: Call, input: ModifyVpcAttributeRequest) -> Result<(), ServiceError> {
    let id = required(input.vpc_id, "vpcId")?;
    let auth = begin(&call, &[format!("vpc/{id}")], None)?;
    let set = |value: Option<AttributeBooleanValue>| value.and_then(|value| value.value);
    if set(input.enable_network_address_usage_metrics) == Some(true) {
        return Err(super::common::unsupported("enable_network_address_usage_metrics"));
    }
    let (support, hostnames) = (set(input.enable_dns_support), set(input.enable_dns_hostnames));
    auth.transact(|tx| {
        find::<Vpc>(&call, tx, &id)?;
        tx.update::<Vpc>(&call.scope.key(&id), |vpc| {
            vpc.dns_support = support.unwrap_or(vpc.dns_support);
            vpc.dns_hostnames = hostnames.unwrap_or(vpc.dns_hostnames);
        });
        Ok(())
    })
    .await
}

/// DescribeDhcpOptions: the one set that a region has.
pub(super) async fn dhcp_options(
    call: Call,
    input: DescribeDhcpOptionsRequest,
) -> Result<DescribeDhcpOptionsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let query = Query {
        ids: input.dhcp_options_ids,
        filters: input.filters,
        max_results: input.max_results,
        next_token: input.next_token,
    };
    let filters: Filterable<DhcpOptions> = Filterable {
        names: &["dhcp-options-id", "key", "value"],
        values: |_, options, name| match name {
            "dhcp-options-id" => vec![options.dhcp_options_id.clone()],
            "key" => vec!["domain-name".into(), "domain-name-servers".into()],
            _ => vec![names::dns_domain(&options.scope.region), "AmazonProvidedDNS".into()],
        },
    };
    let (options, next_token) = describe(&call, &auth.snapshot(), query, &filters)?;
    let configuration = |key: &str, value: String| DhcpConfiguration {
        key: Some(key.to_owned()),
        values: Some(vec![AttributeValue { value: Some(value) }]),
    };
    let options = options.iter().map(|options| api::ec2::DhcpOptions {
        dhcp_options_id: Some(options.dhcp_options_id.clone()),
        owner_id: Some(call.scope.account.to_string()),
        tags: tags::shape(&options.tags),
        dhcp_configurations: Some(vec![
            configuration("domain-name", names::dns_domain(&call.scope.region)),
            configuration("domain-name-servers", "AmazonProvidedDNS".to_owned()),
        ]),
    });
    Ok(DescribeDhcpOptionsResult { dhcp_options: Some(options.collect()), next_token })
}
