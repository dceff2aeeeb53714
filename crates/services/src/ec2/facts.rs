//! Facts that tools ask for before they do anything: regions, zones, account attributes, network ACLs, prefix lists.

use std::collections::BTreeSet;

use api::ec2::{
    AccountAttribute, AccountAttributeValue, AvailabilityZone, DescribeAccountAttributesRequest,
    DescribeAccountAttributesResult, DescribeAvailabilityZonesRequest, DescribeAvailabilityZonesResult,
    DescribeManagedPrefixListsRequest, DescribeManagedPrefixListsResult, DescribeNetworkAclsRequest,
    DescribeNetworkAclsResult, DescribePrefixListsRequest, DescribePrefixListsResult, DescribeRegionsRequest,
    DescribeRegionsResult, Filter, NetworkAcl, NetworkAclAssociation, NetworkAclEntry, Region,
};
use domain::network::{DhcpOptions, Subnet, Vpc};
use store::Snapshot;
use wire::ServiceError;

use super::common::{Filterable, Query, begin, check_filters, describe, invalid_value, matches_any};
use crate::Call;

/// Regions that every account has at Amazon; here any other comes into being when it is used.
const REGIONS: [&str; 17] = [
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// A zone's id in Amazon's form: `use1-az1` for `us-east-1a`.
pub(super) fn zone_id(zone: &str) -> String {
    let (region, letter) = zone.split_at(zone.len().saturating_sub(1));
    let number = letter.bytes().next().map_or(0, |letter| letter.wrapping_sub(b'a').wrapping_add(1));
    let mut short = String::new();
    for (index, part) in region.split('-').enumerate() {
        match part {
            _ if index == 0 => short.push_str(part),
            "northeast" => short.push_str("ne"),
            "northwest" => short.push_str("nw"),
            "southeast" => short.push_str("se"),
            "southwest" => short.push_str("sw"),
            _ if part.bytes().all(|byte| byte.is_ascii_digit()) => short.push_str(part),
            _ => short.push_str(part.get(..1).unwrap_or_default()),
        }
    }
    format!("{short}-az{number}")
}

/// DescribeRegions.
pub(super) async fn regions(call: Call, input: DescribeRegionsRequest) -> Result<DescribeRegionsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &["endpoint", "opt-in-status", "region-name"])?;
    let in_use = auth.snapshot();
    let mut names: BTreeSet<String> = REGIONS.iter().map(|name| (*name).to_owned()).collect();
    names.extend(
        in_use.list::<DhcpOptions>(&format!("{}/", call.scope.account)).map(|one| one.scope.region.to_string()),
    );
    names.insert(call.scope.region.to_string());
    let wanted = input.region_names.unwrap_or_default();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(*name)) {
        return Err(invalid_value(unknown, "region", "There is no such region in use."));
    }
    let regions = names
        .into_iter()
        .filter(|name| wanted.is_empty() || wanted.contains(name))
        .map(|name| Region {
            endpoint: Some(format!("ec2.{name}.amazonaws.com")),
            opt_in_status: Some("opt-in-not-required".into()),
            region_name: Some(name),
            ..Default::default()
        })
        .filter(|region| {
            filters.iter().all(|filter| {
                let value = match filter.name.as_deref() {
                    Some("endpoint") => &region.endpoint,
                    Some("opt-in-status") => &region.opt_in_status,
                    Some("region-name") => &region.region_name,
                    _ => &None,
                };
                matches_any(filter.values.as_deref().unwrap_or_default(), &value.iter().cloned().collect::<Vec<_>>())
            })
        });
    Ok(DescribeRegionsResult { regions: Some(regions.collect()) })
}

/// DescribeAvailabilityZones: three in every region.
pub(super) async fn availability_zones(
    call: Call,
    input: DescribeAvailabilityZonesRequest,
) -> Result<DescribeAvailabilityZonesResult, ServiceError> {
    begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(
        &filters,
        &["zone-name", "zone-id", "state", "region-name", "group-name", "opt-in-status", "zone-type"],
    )?;
    let (names, ids) = (input.zone_names.unwrap_or_default(), input.zone_ids.unwrap_or_default());
    let zones = call.scope.availability_zones();
    if let Some(unknown) = names.iter().find(|name| !zones.contains(name)) {
        return Err(invalid_value(unknown, "ZoneNames", "Invalid availability zone."));
    }
    let region = call.scope.region.to_string();
    let shown = zones
        .iter()
        .map(|zone| AvailabilityZone {
            zone_name: Some(zone.clone()),
            zone_id: Some(zone_id(zone)),
            zone_type: Some("availability-zone".into()),
            state: Some("available".into()),
            region_name: Some(region.clone()),
            group_name: Some(region.clone()),
            network_border_group: Some(region.clone()),
            opt_in_status: Some("opt-in-not-required".into()),
            messages: Some(Vec::new()),
            ..Default::default()
        })
        .filter(|zone| {
            let chosen = |list: &[String], value: &Option<String>| {
                list.is_empty() || value.as_ref().is_some_and(|value| list.contains(value))
            };
            chosen(&names, &zone.zone_name)
                && chosen(&ids, &zone.zone_id)
                && filters.iter().all(|filter| {
                    let value = match filter.name.as_deref() {
                        Some("zone-name") => &zone.zone_name,
                        Some("zone-id") => &zone.zone_id,
                        Some("state") => &zone.state,
                        Some("region-name" | "group-name") => &zone.region_name,
                        Some("opt-in-status") => &zone.opt_in_status,
                        Some("zone-type") => &zone.zone_type,
                        _ => &None,
                    };
                    let values: Vec<String> = value.iter().cloned().collect();
                    matches_any(filter.values.as_deref().unwrap_or_default(), &values)
                })
        });
    Ok(DescribeAvailabilityZonesResult { availability_zones: Some(shown.collect()) })
}

/// DescribeAccountAttributes.
pub(super) async fn account_attributes(
    call: Call,
    input: DescribeAccountAttributesRequest,
) -> Result<DescribeAccountAttributesResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let default = auth.snapshot().list::<Vpc>(&call.scope.prefix()).find(|vpc| vpc.is_default);
    let all = [
        ("supported-platforms", "VPC".to_owned()),
        ("default-vpc", default.map_or_else(|| "none".to_owned(), |vpc| vpc.vpc_id.clone())),
        ("vpc-max-security-groups-per-interface", "5".to_owned()),
    ];
    let wanted = input.attribute_names.unwrap_or_default();
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|(known, _)| known == name)) {
        return Err(invalid_value(unknown, "attributeName", "There is no such attribute here."));
    }
    let attributes = all.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|one| one == name)).map(
        |(name, value)| AccountAttribute {
            attribute_name: Some(name.to_owned()),
            attribute_values: Some(vec![AccountAttributeValue { attribute_value: Some(value) }]),
        },
    );
    Ok(DescribeAccountAttributesResult { account_attributes: Some(attributes.collect()) })
}

fn acl(view: &Snapshot, vpc: &Vpc) -> NetworkAcl {
    let entry = |egress: bool, number: i32, action: &str| NetworkAclEntry {
        cidr_block: Some("0.0.0.0/0".into()),
        egress: Some(egress),
        protocol: Some("-1".into()),
        rule_action: Some(action.to_owned()),
        rule_number: Some(number),
        ..Default::default()
    };
    let associations = view.find::<Subnet>("vpc", vpc.vpc_id.as_str()).map(|subnet| NetworkAclAssociation {
        // One per subnet, for as long as the subnet exists: its id follows from the subnet's.
        network_acl_association_id: Some(subnet.subnet_id.replacen("subnet-", "aclassoc-", 1)),
        network_acl_id: Some(vpc.network_acl_id.clone()),
        subnet_id: Some(subnet.subnet_id.clone()),
    });
    NetworkAcl {
        network_acl_id: Some(vpc.network_acl_id.clone()),
        vpc_id: Some(vpc.vpc_id.clone()),
        owner_id: Some(vpc.scope.account.to_string()),
        is_default: Some(true),
        associations: Some(associations.collect()),
        entries: Some(vec![
            entry(true, 100, "allow"),
            entry(true, 32767, "deny"),
            entry(false, 100, "allow"),
            entry(false, 32767, "deny"),
        ]),
        tags: Some(Vec::new()),
    }
}

/// DescribeNetworkAcls: the one of each VPC, which lets everything through.
pub(super) async fn network_acls(
    call: Call,
    input: DescribeNetworkAclsRequest,
) -> Result<DescribeNetworkAclsResult, ServiceError> {
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let mut filters = input.filters.unwrap_or_default();
    if let Some(ids) = input.network_acl_ids.filter(|ids| !ids.is_empty()) {
        let unknown =
            ids.iter().find(|id| !view.list::<Vpc>(&call.scope.prefix()).any(|vpc| vpc.network_acl_id == **id));
        if let Some(id) = unknown {
            let text = format!("The networkAcl ID '{id:.64}' does not exist");
            return Err(ServiceError::new("InvalidNetworkAclID.NotFound", text));
        }
        filters.push(Filter { name: Some("network-acl-id".into()), values: Some(ids) });
    }
    let tagged = |filter: &Filter| filter.name.as_deref().is_some_and(|name| name.starts_with("tag"));
    if filters.iter().any(tagged) {
        // These ACLs have no tags.
        return Ok(DescribeNetworkAclsResult { network_acls: Some(Vec::new()), next_token: None });
    }
    let query =
        Query { ids: None, filters: Some(filters), max_results: input.max_results, next_token: input.next_token };
    let filters: Filterable<Vpc> = Filterable {
        names: &["network-acl-id", "vpc-id", "default", "association.subnet-id", "association.network-acl-id"],
        values: |view, vpc, name| match name {
            "vpc-id" => vec![vpc.vpc_id.clone()],
            "default" => vec!["true".to_owned()],
            "association.subnet-id" => {
                view.find::<Subnet>("vpc", vpc.vpc_id.as_str()).map(|subnet| subnet.subnet_id.clone()).collect()
            }
            _ => vec![vpc.network_acl_id.clone()],
        },
    };
    let (vpcs, next_token) = describe(&call, &view, query, &filters)?;
    Ok(DescribeNetworkAclsResult { network_acls: Some(vpcs.iter().map(|vpc| acl(&view, vpc)).collect()), next_token })
}

fn no_prefix_list(ids: Option<Vec<String>>) -> Result<(), ServiceError> {
    match ids.unwrap_or_default().first() {
        Some(id) => {
            let text = format!("The prefix list ID '{id:.64}' does not exist");
            Err(ServiceError::new("InvalidPrefixListID.NotFound", text))
        }
        None => Ok(()),
    }
}

/// DescribePrefixLists: there are none, since no endpoint here is reached by a route.
pub(super) async fn prefix_lists(
    call: Call,
    input: DescribePrefixListsRequest,
) -> Result<DescribePrefixListsResult, ServiceError> {
    begin(&call, &[], input.dry_run)?;
    check_filters(input.filters.as_deref().unwrap_or_default(), &["prefix-list-id", "prefix-list-name"])?;
    no_prefix_list(input.prefix_list_ids)?;
    Ok(DescribePrefixListsResult { prefix_lists: Some(Vec::new()), next_token: None })
}

/// DescribeManagedPrefixLists: there are none.
pub(super) async fn managed_prefix_lists(
    call: Call,
    input: DescribeManagedPrefixListsRequest,
) -> Result<DescribeManagedPrefixListsResult, ServiceError> {
    begin(&call, &[], input.dry_run)?;
    check_filters(input.filters.as_deref().unwrap_or_default(), &["prefix-list-id", "prefix-list-name"])?;
    no_prefix_list(input.prefix_list_ids)?;
    Ok(DescribeManagedPrefixListsResult { prefix_lists: Some(Vec::new()), next_token: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zone_ids_have_amazons_form() {
        for (zone, id) in [
            ("us-east-1a", "use1-az1"),
            ("eu-central-1c", "euc1-az3"),
            ("ap-southeast-2b", "apse2-az2"),
            ("ap-northeast-1a", "apne1-az1"),
            ("us-gov-west-1a", "usgw1-az1"),
        ] {
            assert_eq!(zone_id(zone), id);
        }
    }
}
