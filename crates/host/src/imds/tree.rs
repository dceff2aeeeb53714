//! What an instance is told, by path.

use std::collections::{BTreeMap, BTreeSet};

use domain::instances::InstanceItem;

/// Everything below `meta-data/` but credentials: path → text.
pub(super) fn meta_data(instance: &InstanceItem) -> BTreeMap<String, String> {
    let metadata = &instance.metadata;
    let mut tree = BTreeMap::new();
    let mut set = |path: &str, text: &str| {
        tree.insert(path.to_owned(), text.to_owned());
    };
    set("ami-id", &metadata.image_id);
    set("ami-launch-index", &metadata.launch_index.to_string());
    set("ami-manifest-path", "(unknown)");
    for (name, device) in &metadata.block_devices {
        set(&format!("block-device-mapping/{name}"), device);
    }
    set("hostname", &instance.hostname);
    set("instance-action", "none");
    set("instance-id", &instance.instance_id);
    set("instance-life-cycle", if metadata.spot { "spot" } else { "on-demand" });
    // Not there before the notice.
    if let Some(time) = &metadata.interruption {
        set("spot/instance-action", &serde_json::json!({"action": "terminate", "time": time}).to_string());
        set("spot/termination-time", time);
    }
    set("instance-type", &metadata.instance_type);
    set("local-hostname", &instance.hostname);
    let address = metadata.private_address.to_string();
    set("local-ipv4", &address);
    set("mac", &metadata.mac_address);
    let (groups, group_ids) = (metadata.security_groups.join("\n"), metadata.security_group_ids.join("\n"));
    let interface = format!("network/interfaces/macs/{}", metadata.mac_address);
    for (name, text) in [
        ("device-number", "0"),
        ("interface-id", &instance.interface_id),
        ("local-hostname", &instance.hostname),
        ("local-ipv4s", &address),
        ("mac", &metadata.mac_address),
        ("owner-id", &metadata.account),
        ("security-group-ids", &group_ids),
        ("security-groups", &groups),
        ("subnet-id", &metadata.subnet_id),
        ("subnet-ipv4-cidr-block", &metadata.subnet_cidr),
        ("vpc-id", &metadata.vpc_id),
        ("vpc-ipv4-cidr-block", &metadata.vpc_cidr),
        ("vpc-ipv4-cidr-blocks", &metadata.vpc_cidr),
    ] {
        set(&format!("{interface}/{name}"), text);
    }
    if let Some(public) = metadata.public_address {
        set("public-ipv4", &public.to_string());
        set(&format!("{interface}/public-ipv4s"), &public.to_string());
        set(&format!("{interface}/ipv4-associations/{public}"), &address);
    }
    if let Some(name) = &metadata.public_hostname {
        set("public-hostname", name);
        set(&format!("{interface}/public-hostname"), name);
    }
    set("placement/availability-zone", &metadata.availability_zone);
    set("placement/availability-zone-id", &metadata.availability_zone_id);
    set("placement/region", &instance.region);
    set("profile", "default-hvm");
    set("reservation-id", &metadata.reservation_id);
    set("security-groups", &groups);
    set("services/domain", "amazonaws.com");
    set("services/partition", "aws");
    if let Some((_, key)) = &metadata.key {
        set("public-keys/0/openssh-key", key);
    }
    if let Some((arn, id)) = &metadata.profile {
        let info = serde_json::json!({"Code": "Success", "InstanceProfileArn": arn, "InstanceProfileId": id});
        set("iam/info", &serde_json::to_string_pretty(&info).unwrap_or_default());
    }
    if metadata.options.tags {
        for (name, value) in &metadata.tags {
            // A name with a slash cannot be asked for; Amazon does not let such an instance show its tags.
            set(&format!("tags/instance/{name}"), value);
        }
    }
    tree
}

/// What is at a path of such a tree: its text, or the names directly below it, directories with a slash behind.
pub(super) fn at(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    if let Some(text) = tree.get(path) {
        return Some(text.clone());
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let names: BTreeSet<String> = tree
        .range(prefix.clone()..)
        .take_while(|(name, _)| name.starts_with(&prefix))
        .filter_map(|(name, _)| name.strip_prefix(&prefix))
        .map(|rest| match rest.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => rest.to_owned(),
        })
        .collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
}
