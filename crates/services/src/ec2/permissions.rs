//! Permissions of security groups as requests write them, one or several rules at a time, and as answers show them.

use std::net::Ipv6Addr;

use api::ec2::{IpPermission, IpRange, Ipv6Range, ReferencedSecurityGroup, UserIdGroupPair};
use domain::network::{Cidr, Peer, Protocol, SecurityGroup, SecurityGroupRule};
use store::Snapshot;
use wire::ServiceError;

use super::{
    common::{find, invalid_value, required, unsupported},
    tags,
};
use crate::Call;

/// A rule that a request describes, without an id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Permission {
    pub(super) protocol: Protocol,
    pub(super) peer: Peer,
    pub(super) description: Option<String>,
}

impl Permission {
    /// Whether the rule allows what this asks for; the description does not matter.
    pub(super) fn is(&self, rule: &SecurityGroupRule, egress: bool) -> bool {
        rule.egress == egress && rule.protocol == self.protocol && rule.peer == self.peer
    }
}

/// A protocol as requests write it: a name or number, and ports or ICMP type and code.
pub(super) fn protocol(name: &str, from: Option<i32>, to: Option<i32>) -> Result<Protocol, ServiceError> {
    let ports = || -> Result<(u16, u16), ServiceError> {
        let wrong = |value: Option<i32>, name: &str| {
            let value = value.map(|value| value.to_string()).unwrap_or_default();
            invalid_value(&value, name, "Must specify both from and to ports with TCP/UDP, 0 to 65535.")
        };
        let read = |value: Option<i32>, name: &str| {
            value.and_then(|value| u16::try_from(value).ok()).ok_or_else(|| wrong(value, name))
        };
        let (first, last) = (read(from, "fromPort")?, read(to, "toPort")?);
        if first > last {
            return Err(invalid_value(&format!("{first}-{last}"), "portRange", "The first port is above the last."));
        }
        Ok((first, last))
    };
    let icmp = |value: Option<i32>, name: &str| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u8::try_from(value)
            .map(Some)
            .map_err(|_| invalid_value(&value.to_string(), name, "ICMP types and codes are -1 to 255.")),
    };
    match name.to_ascii_lowercase().as_str() {
        "-1" | "all" => Ok(Protocol::All),
        "tcp" | "6" => ports().map(|(from, to)| Protocol::Tcp { from, to }),
        "udp" | "17" => ports().map(|(from, to)| Protocol::Udp { from, to }),
        "icmp" | "1" => Ok(Protocol::Icmp { kind_number: icmp(from, "fromPort")?, code: icmp(to, "toPort")? }),
        "icmpv6" | "58" => Ok(Protocol::Icmpv6 { kind_number: icmp(from, "fromPort")?, code: icmp(to, "toPort")? }),
        number => match number.parse::<u8>() {
            Ok(number) => Ok(Protocol::Number { number }),
            Err(_) => Err(invalid_value(name, "protocol", "It is no protocol's name or number.")),
        },
    }
}

/// An IPv4 block of a rule.
pub(super) fn ipv4(text: &str) -> Result<Peer, ServiceError> {
    let block = Cidr::parse_lenient(text).map_err(|_| malformed(text))?;
    Ok(Peer::Cidr(block))
}

/// An IPv6 block of a rule.
pub(super) fn ipv6(text: &str) -> Result<Peer, ServiceError> {
    let (address, prefix) = text.split_once('/').ok_or_else(|| malformed(text))?;
    let address: Ipv6Addr = address.parse().map_err(|_| malformed(text))?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 128).ok_or_else(|| malformed(text))?;
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix)) };
    Ok(Peer::Ipv6(Ipv6Addr::from(u128::from(address) & mask), prefix))
}

fn malformed(text: &str) -> ServiceError {
    ServiceError::new("InvalidParameterValue", format!("CIDR block {text:.64} is malformed"))
}

/// Another group named by a rule: by id, or by name within the same VPC.
pub(super) fn group(
    call: &Call,
    view: &Snapshot,
    own: &SecurityGroup,
    pair: &UserIdGroupPair,
) -> Result<Peer, ServiceError> {
    for (set, name) in [
        (pair.vpc_peering_connection_id.is_some(), "vpc_peering_connection_id"),
        (pair.user_id.as_deref().is_some_and(|user| user != call.scope.account.as_str()), "user_id"),
    ] {
        if set {
            return Err(unsupported(name));
        }
    }
    let named = match (&pair.group_id, &pair.group_name) {
        (Some(id), _) => find::<SecurityGroup>(call, view, id)?,
        (None, Some(name)) => view
            .find::<SecurityGroup>("vpc", own.vpc_id.as_str())
            .find(|group| group.name == *name)
            .ok_or_else(|| {
                let text = format!("The security group '{name:.255}' does not exist");
                ServiceError::new("InvalidGroup.NotFound", text)
            })?,
        (None, None) => required(None, "groupId")?,
    };
    if named.vpc_id != own.vpc_id {
        let text = "You have specified two resources that belong to different networks.";
        return Err(ServiceError::new("InvalidGroup.NotFound", text));
    }
    Ok(Peer::Group(named.group_id.clone()))
}

/// All rules that these permissions describe.
pub(super) fn read(
    call: &Call,
    view: &Snapshot,
    own: &SecurityGroup,
    permissions: &[IpPermission],
) -> Result<Vec<Permission>, ServiceError> {
    let mut read = Vec::new();
    for permission in permissions {
        if permission.prefix_list_ids.as_ref().is_some_and(|lists| !lists.is_empty()) {
            return Err(unsupported("prefix_list_ids"));
        }
        let name = required(permission.ip_protocol.as_deref(), "ipProtocol")?;
        let protocol = protocol(name, permission.from_port, permission.to_port)?;
        let before = read.len();
        for range in permission.ip_ranges.iter().flatten() {
            let peer = ipv4(required(range.cidr_ip.as_deref(), "cidrIp")?)?;
            read.push(Permission { protocol, peer, description: range.description.clone() });
        }
        for range in permission.ipv6_ranges.iter().flatten() {
            let peer = ipv6(required(range.cidr_ipv6.as_deref(), "cidrIpv6")?)?;
            read.push(Permission { protocol, peer, description: range.description.clone() });
        }
        for pair in permission.user_id_group_pairs.iter().flatten() {
            let peer = group(call, view, own, pair)?;
            read.push(Permission { protocol, peer, description: pair.description.clone() });
        }
        if read.len() == before {
            required::<()>(None, "ipRanges")?;
        }
    }
    Ok(read)
}

/// Protocol name, first and last port as answers show them.
pub(super) fn numbers(protocol: Protocol) -> (String, Option<i32>, Option<i32>) {
    let icmp = |value: Option<u8>| Some(value.map_or(-1, i32::from));
    match protocol {
        Protocol::All => ("-1".into(), None, None),
        Protocol::Tcp { from, to } => ("tcp".into(), Some(from.into()), Some(to.into())),
        Protocol::Udp { from, to } => ("udp".into(), Some(from.into()), Some(to.into())),
        Protocol::Icmp { kind_number, code } => ("icmp".into(), icmp(kind_number), icmp(code)),
        Protocol::Icmpv6 { kind_number, code } => ("icmpv6".into(), icmp(kind_number), icmp(code)),
        Protocol::Number { number } => (number.to_string(), None, None),
    }
}

/// A peer as text.
pub(super) fn peer_text(peer: &Peer) -> String {
    match peer {
        Peer::Cidr(block) => block.to_string(),
        Peer::Ipv6(address, prefix) => format!("{address}/{prefix}"),
        Peer::Group(id) => id.clone(),
    }
}

/// How Amazon words a rule in its errors.
pub(super) fn words(protocol: Protocol, peer: &Peer) -> String {
    let (name, from, to) = numbers(protocol);
    let name = if name == "-1" { "ALL".to_owned() } else { name.to_uppercase() };
    match (from, to) {
        (Some(from), Some(to)) => {
            format!("peer: {}, {name}, from port: {from}, to port: {to}, ALLOW", peer_text(peer))
        }
        _ => format!("peer: {}, {name}, ALLOW", peer_text(peer)),
    }
}

/// A group's rules of one direction, joined by protocol and ports as DescribeSecurityGroups shows them.
pub(super) fn joined(group: &SecurityGroup, egress: bool) -> Vec<IpPermission> {
    let mut joined: Vec<(Protocol, IpPermission)> = Vec::new();
    for rule in group.rules.iter().filter(|rule| rule.egress == egress) {
        let at = joined.iter().position(|(protocol, _)| *protocol == rule.protocol).unwrap_or_else(|| {
            let (name, from_port, to_port) = numbers(rule.protocol);
            let empty = IpPermission {
                ip_protocol: Some(name),
                from_port,
                to_port,
                user_id_group_pairs: Some(Vec::new()),
                ip_ranges: Some(Vec::new()),
                ipv6_ranges: Some(Vec::new()),
                prefix_list_ids: Some(Vec::new()),
            };
            joined.push((rule.protocol, empty));
            joined.len() - 1
        });
        let Some((_, permission)) = joined.get_mut(at) else { continue };
        let description = rule.description.clone();
        match &rule.peer {
            Peer::Cidr(block) => permission
                .ip_ranges
                .get_or_insert_default()
                .push(IpRange { cidr_ip: Some(block.to_string()), description }),
            Peer::Ipv6(..) => permission
                .ipv6_ranges
                .get_or_insert_default()
                .push(Ipv6Range { cidr_ipv6: Some(peer_text(&rule.peer)), description }),
            Peer::Group(id) => permission.user_id_group_pairs.get_or_insert_default().push(UserIdGroupPair {
                group_id: Some(id.clone()),
                user_id: Some(group.scope.account.to_string()),
                description,
                ..Default::default()
            }),
        }
    }
    joined.into_iter().map(|(_, permission)| permission).collect()
}

/// A rule by itself, as DescribeSecurityGroupRules shows it.
pub(super) fn shape(group: &SecurityGroup, rule: &SecurityGroupRule) -> api::ec2::SecurityGroupRule {
    let (name, from, to) = numbers(rule.protocol);
    let referenced = |id: &String| ReferencedSecurityGroup {
        group_id: Some(id.clone()),
        user_id: Some(group.scope.account.to_string()),
        ..Default::default()
    };
    let arn = group.scope.arn("ec2", &format!("security-group-rule/{}", rule.rule_id));
    api::ec2::SecurityGroupRule {
        security_group_rule_id: Some(rule.rule_id.clone()),
        security_group_rule_arn: Some(arn.to_string()),
        group_id: Some(group.group_id.clone()),
        group_owner_id: Some(group.scope.account.to_string()),
        is_egress: Some(rule.egress),
        ip_protocol: Some(name),
        from_port: Some(from.unwrap_or(-1)),
        to_port: Some(to.unwrap_or(-1)),
        cidr_ipv4: matches!(rule.peer, Peer::Cidr(_)).then(|| peer_text(&rule.peer)),
        cidr_ipv6: matches!(rule.peer, Peer::Ipv6(..)).then(|| peer_text(&rule.peer)),
        referenced_group_info: match &rule.peer {
            Peer::Group(id) => Some(referenced(id)),
            _ => None,
        },
        description: rule.description.clone(),
        tags: tags::shape(&rule.tags),
        prefix_list_id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_read_by_name_and_number() {
        let check = |name, from, to, expected: Option<Protocol>| {
            assert_eq!(protocol(name, from, to).ok(), expected, "{name} {from:?} {to:?}");
        };
        check("tcp", Some(80), Some(90), Some(Protocol::Tcp { from: 80, to: 90 }));
        check("6", Some(80), Some(80), Some(Protocol::Tcp { from: 80, to: 80 }));
        check("UDP", Some(0), Some(65535), Some(Protocol::Udp { from: 0, to: 65535 }));
        check("-1", Some(1), None, Some(Protocol::All));
        check("icmp", Some(8), Some(-1), Some(Protocol::Icmp { kind_number: Some(8), code: None }));
        check("50", None, None, Some(Protocol::Number { number: 50 }));
        for (from, to) in [(None, None), (Some(90), Some(80)), (Some(-1), Some(80)), (Some(0), Some(65536))] {
            check("tcp", from, to, None);
        }
        check("nonsense", None, None, None);
        check("256", None, None, None);
    }

    #[test]
    fn a_rule_is_worded_as_amazon_does() {
        let peer = ipv4("0.0.0.0/0").unwrap();
        let text = words(Protocol::Tcp { from: 80, to: 80 }, &peer);
        assert_eq!(text, "peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW");
        assert_eq!(words(Protocol::All, &Peer::Group("sg-0a".into())), "peer: sg-0a, ALL, ALLOW");
    }

    #[test]
    fn blocks_are_kept_without_the_bits_beyond_their_prefix() {
        assert_eq!(peer_text(&ipv6("2001:db8::1/32").unwrap()), "2001:db8::/32");
        assert_eq!(peer_text(&ipv4("10.1.2.3/8").unwrap()), "10.0.0.0/8");
        for wrong in ["::/129", "::", "x/1", ""] {
            assert!(ipv6(wrong).is_err(), "{wrong}");
        }
    }
}
