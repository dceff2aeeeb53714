//! DescribeInstanceTypes and DescribeInstanceTypeOfferings: the types of this machine's architecture, in every zone.

use api::ec2::{
    DescribeInstanceTypeOfferingsRequest, DescribeInstanceTypeOfferingsResult, DescribeInstanceTypesRequest,
    DescribeInstanceTypesResult, EbsInfo, Filter, InstanceTypeInfo, InstanceTypeOffering, MemoryInfo, NetworkInfo,
    PlacementGroupInfo, ProcessorInfo, VCpuInfo,
};
use domain::instances::{ARCHITECTURE, InstanceType, instance_type, instance_types};
use wire::ServiceError;

use crate::{
    Call,
    ec2::{
        common::{begin, check_filters, invalid_value, matches_any, page, unsupported},
        facts::zone_id,
    },
};

const FILTERS: [&str; 23] = [
    "auto-recovery-supported",
    "bare-metal",
    "burstable-performance-supported",
    "current-generation",
    "dedicated-hosts-supported",
    "ebs-info.ebs-optimized-support",
    "ebs-info.encryption-support",
    "free-tier-eligible",
    "hibernation-supported",
    "hypervisor",
    "instance-storage-supported",
    "instance-type",
    "memory-info.size-in-mib",
    "network-info.efa-supported",
    "network-info.ena-support",
    "network-info.ipv4-addresses-per-interface",
    "network-info.ipv6-supported",
    "network-info.maximum-network-interfaces",
    "processor-info.supported-architecture",
    "supported-root-device-type",
    "supported-usage-class",
    "supported-virtualization-type",
    "vcpu-info.default-vcpus",
];

fn number(value: u32) -> Option<i32> {
    i32::try_from(value).ok()
}

/// A type. What Amazon's hardware has and a system container has not is left out: clock speed, bandwidth, GPUs.
fn shape(kind: &InstanceType) -> InstanceTypeInfo {
    let threads = kind.threads_per_core;
    InstanceTypeInfo {
        instance_type: Some(kind.name.clone()),
        current_generation: Some(!kind.name.starts_with("t2.")),
        free_tier_eligible: Some(matches!(kind.name.as_str(), "t2.micro" | "t3.micro")),
        supported_usage_classes: Some(vec!["on-demand".into()]),
        supported_root_device_types: Some(vec!["ebs".into()]),
        supported_virtualization_types: Some(vec!["hvm".into()]),
        bare_metal: Some(false),
        hypervisor: Some(kind.hypervisor.into()),
        processor_info: Some(ProcessorInfo {
            supported_architectures: Some(vec![ARCHITECTURE.to_owned()]),
            ..ProcessorInfo::default()
        }),
        vcpu_info: Some(VCpuInfo {
            default_vcpus: number(kind.vcpus),
            default_cores: number((kind.vcpus / threads).max(1)),
            default_threads_per_core: number(threads),
            ..VCpuInfo::default()
        }),
        memory_info: Some(MemoryInfo { size_in_mi_b: i64::try_from(kind.memory_mib).ok() }),
        instance_storage_supported: Some(false),
        ebs_info: Some(EbsInfo {
            ebs_optimized_support: Some(ebs_optimized(kind).into()),
            encryption_support: Some("unsupported".into()),
            nvme_support: Some("unsupported".into()),
            ..EbsInfo::default()
        }),
        network_info: Some(NetworkInfo {
            maximum_network_interfaces: number(kind.max_interfaces),
            maximum_network_cards: Some(1),
            default_network_card_index: Some(0),
            ipv4_addresses_per_interface: number(kind.addresses_per_interface),
            ipv6_addresses_per_interface: Some(0),
            ipv6_supported: Some(false),
            ena_support: Some(if kind.hypervisor == "nitro" { "required" } else { "unsupported" }.into()),
            efa_supported: Some(false),
            encryption_in_transit_supported: Some(false),
            ..NetworkInfo::default()
        }),
        placement_group_info: Some(PlacementGroupInfo { supported_strategies: Some(Vec::new()) }),
        hibernation_supported: Some(false),
        burstable_performance_supported: Some(kind.burstable),
        dedicated_hosts_supported: Some(false),
        auto_recovery_supported: Some(false),
        supported_boot_modes: Some(Vec::new()),
        ..InstanceTypeInfo::default()
    }
}

fn ebs_optimized(kind: &InstanceType) -> &'static str {
    if kind.hypervisor == "nitro" { "default" } else { "unsupported" }
}

fn value(kind: &InstanceType, name: &str) -> String {
    match name {
        "burstable-performance-supported" => kind.burstable.to_string(),
        "current-generation" => (!kind.name.starts_with("t2.")).to_string(),
        "ebs-info.ebs-optimized-support" => ebs_optimized(kind).to_owned(),
        "ebs-info.encryption-support" => "unsupported".to_owned(),
        "free-tier-eligible" => matches!(kind.name.as_str(), "t2.micro" | "t3.micro").to_string(),
        "hypervisor" => kind.hypervisor.to_owned(),
        "instance-type" => kind.name.clone(),
        "memory-info.size-in-mib" => kind.memory_mib.to_string(),
        "network-info.ena-support" => if kind.hypervisor == "nitro" { "required" } else { "unsupported" }.to_owned(),
        "network-info.ipv4-addresses-per-interface" => kind.addresses_per_interface.to_string(),
        "network-info.maximum-network-interfaces" => kind.max_interfaces.to_string(),
        "processor-info.supported-architecture" => ARCHITECTURE.to_owned(),
        "supported-root-device-type" => "ebs".to_owned(),
        "supported-usage-class" => "on-demand".to_owned(),
        "supported-virtualization-type" => "hvm".to_owned(),
        "vcpu-info.default-vcpus" => kind.vcpus.to_string(),
        // All others ask for what no type here has.
        _ => "false".to_owned(),
    }
}

/// DescribeInstanceTypes.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeInstanceTypesRequest,
) -> Result<DescribeInstanceTypesResult, ServiceError> {
    if input.include_unsupported_in_region == Some(true) {
        return Err(unsupported("include_unsupported_in_region"));
    }
    begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check(&filters, &FILTERS)?;
    let wanted = input.instance_types.unwrap_or_default();
    let unknown: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|name| instance_type(name).is_none()).take(10).collect();
    if !unknown.is_empty() {
        let text = format!("The following supplied instance types do not exist: [{:.512}]", unknown.join(", "));
        return Err(ServiceError::new("InvalidInstanceType", text));
    }
    let found = instance_types()
        .into_iter()
        .filter(|kind| wanted.is_empty() || wanted.contains(&kind.name))
        .filter(|kind| matches(&filters, |name| value(kind, name)))
        .map(|kind| (kind.name.clone(), shape(&kind)));
    let (types, next_token) = page(&call, found.collect(), input.max_results, input.next_token.as_deref())?;
    Ok(DescribeInstanceTypesResult { instance_types: Some(types), next_token })
}

/// Neither a type nor an offering has tags or an owner.
fn check(filters: &[Filter], names: &[&str]) -> Result<(), ServiceError> {
    check_filters(filters, names)?;
    let unknown = filters.iter().filter_map(|filter| filter.name.as_deref()).find(|name| !names.contains(name));
    match unknown {
        Some(name) => Err(ServiceError::new("InvalidParameterValue", format!("The filter '{name:.64}' is invalid"))),
        None => Ok(()),
    }
}

fn matches(filters: &[Filter], value: impl Fn(&str) -> String) -> bool {
    filters.iter().all(|filter| {
        let known = value(filter.name.as_deref().unwrap_or_default());
        matches_any(filter.values.as_deref().unwrap_or_default(), &[known])
    })
}

/// DescribeInstanceTypeOfferings: each type in each location of the kind asked for.
pub(in crate::ec2) async fn offerings(
    call: Call,
    input: DescribeInstanceTypeOfferingsRequest,
) -> Result<DescribeInstanceTypeOfferingsResult, ServiceError> {
    begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check(&filters, &["instance-type", "location"])?;
    let zones = call.scope.availability_zones();
    let location_type = input.location_type.unwrap_or_else(|| "region".to_owned());
    let locations: Vec<String> = match location_type.as_str() {
        "region" => vec![call.scope.region.to_string()],
        "availability-zone" => zones.into(),
        "availability-zone-id" => zones.iter().map(|zone| zone_id(zone)).collect(),
        other => return Err(invalid_value(other, "locationType", "There is no such kind of location here.")),
    };
    let mut found = Vec::new();
    for kind in instance_types() {
        for location in &locations {
            let wanted =
                matches(&filters, |name| if name == "location" { location.clone() } else { kind.name.clone() });
            if wanted {
                let offering = InstanceTypeOffering {
                    instance_type: Some(kind.name.clone()),
                    location_type: Some(location_type.clone()),
                    location: Some(location.clone()),
                };
                found.push((format!("{} {location}", kind.name), offering));
            }
        }
    }
    let (offerings, next_token) = page(&call, found, input.max_results, input.next_token.as_deref())?;
    Ok(DescribeInstanceTypeOfferingsResult { instance_type_offerings: Some(offerings), next_token })
}
