//! What follows from the state for others: each load balancer's slice, and what `host` must make for them. Computed from
//! a snapshot, never stored.

mod classic;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
};

use domain::{
    balancing::{
        LoadBalancer, TargetGroup, TargetRegistration,
        slice::{
            ListenerItem, ListeningPlace, LoadBalancerItem, RuleItem, SliceItem, TargetGroupItem, TargetItem, TlsItem,
        },
    },
    network::{
        NetworkSettings, Peer, Protocol, SecurityGroup, SecurityGroupRule,
        host::{self, HostItem},
    },
};
use store::Snapshot;

use super::{
    certificates, find, network,
    targets::{in_zone, is_on},
};

/// The place of sockets in the host's own network namespace.
const HOST: &str = "host";

/// The slice of one load balancer's process.
pub fn balancer_slice(view: &Snapshot, load_balancer: &LoadBalancer) -> BTreeMap<String, SliceItem> {
    let arn = &load_balancer.arn;
    let mut items = vec![SliceItem::LoadBalancer(LoadBalancerItem {
        arn: arn.to_string(),
        attributes: load_balancer.attributes.clone(),
    })];
    if let Some(classic) = &load_balancer.classic {
        items.extend(classic::items(view, load_balancer, classic));
    }
    let listeners = find::listeners_of(view, arn);
    items.extend(certificates::items(view, &listeners).into_iter().map(SliceItem::Certificate));
    for listener in listeners {
        let rules = find::rules_of(view, &listener.arn).into_iter().map(|rule| RuleItem {
            arn: rule.arn.to_string(),
            conditions: rule.conditions.clone(),
            action: rule.action.clone(),
        });
        items.push(SliceItem::Listener(ListenerItem {
            arn: listener.arn.to_string(),
            port: listener.port,
            places: places(view, load_balancer, listener.port),
            tls: listener.tls.as_ref().map(|tls| TlsItem {
                ssl_policy: tls.ssl_policy.clone(),
                certificates: listener.certificates().into_iter().map(str::to_owned).collect(),
            }),
            rules: rules.collect(),
            default_action: listener.default_action.clone(),
        }));
    }
    for text in find::target_groups_of(view, arn) {
        if let Some(group) = view.get::<TargetGroup>(&text) {
            items.push(SliceItem::TargetGroup(target_group(view, &group, load_balancer)));
        }
    }
    items.into_iter().map(|item| (item.key(), item)).collect()
}

/// Where the process listens besides its own network namespace, which is the first interface's.
fn places(view: &Snapshot, load_balancer: &LoadBalancer, port: u16) -> Vec<ListeningPlace> {
    let host = host_address(view, load_balancer, port).map(|address| ListeningPlace { place: HOST.into(), address });
    let others = load_balancer
        .zones
        .iter()
        .skip(1)
        .map(|zone| ListeningPlace { place: zone.interface_id.clone(), address: zone.address });
    host.into_iter().chain(others).collect()
}

/// The host's address for a listener of an internet-facing load balancer, if the security groups let the host in.
///
/// Connections from the host do not cross the VPC's router, where the kernel holds to the groups, so it is done here.
fn host_address(view: &Snapshot, load_balancer: &LoadBalancer, port: u16) -> Option<Ipv4Addr> {
    let address = load_balancer.host_address?;
    if load_balancer.security_groups.is_empty() {
        return Some(address);
    }
    let settings = view.get::<NetworkSettings>(NetworkSettings::KEY);
    let own = settings.and_then(|settings| settings.public_block.nth(1));
    let lets_in = |rule: &SecurityGroupRule| {
        let to_port = match rule.protocol {
            Protocol::All => true,
            Protocol::Tcp { from, to } => (from..=to).contains(&port),
            _ => false,
        };
        let from_host = match &rule.peer {
            Peer::Cidr(block) => block.contains(Ipv4Addr::LOCALHOST) || own.is_some_and(|own| block.contains(own)),
            _ => false,
        };
        !rule.egress && to_port && from_host
    };
    let mut groups =
        load_balancer.security_groups.iter().filter_map(|id| view.get::<SecurityGroup>(&load_balancer.scope.key(id)));
    groups.any(|group| group.rules.iter().any(lets_in)).then_some(address)
}

fn target_group(view: &Snapshot, group: &TargetGroup, load_balancer: &LoadBalancer) -> TargetGroupItem {
    let targets = view
        .find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, group.arn.as_str())
        .filter(|registration| in_zone(registration, load_balancer) && is_on(view, registration))
        .map(|registration| TargetItem {
            address: registration.address,
            port: registration.port,
            draining: registration.draining_until.is_some(),
        });
    TargetGroupItem {
        arn: group.arn.to_string(),
        protocol_version: group.protocol_version,
        secure: group.secure,
        tcp: network::forwarding(view, group, load_balancer),
        health_check: group.health_check.clone(),
        choice: group.attributes.choice.clone(),
        fail_closed: false,
        targets: targets.collect(),
    }
}

/// What `host` makes for the load balancers: their processes, the sockets they may have, and their names.
pub fn host_items(view: &Snapshot) -> impl Iterator<Item = (String, HostItem)> {
    view.list::<LoadBalancer>("")
        .flat_map(move |load_balancer| {
            let ports: Vec<u16> = match &load_balancer.classic {
                Some(classic) => classic.listeners.iter().map(|listener| listener.port).collect(),
                None => find::listeners_of(view, &load_balancer.arn).iter().map(|listener| listener.port).collect(),
            };
            let host_listeners = ports
                .iter()
                .filter_map(|port| Some(SocketAddrV4::new(host_address(view, &load_balancer, *port)?, *port)))
                .collect();
            let process = HostItem::LoadBalancer(host::LoadBalancerItem {
                arn: load_balancer.arn.to_string(),
                vpc_id: load_balancer.vpc_id.clone(),
                interface_ids: load_balancer.zones.iter().map(|zone| zone.interface_id.clone()).collect(),
                host_listeners,
                listener_ports: ports,
            });
            let name = HostItem::Name(host::NameItem {
                name: load_balancer.dns_name.clone(),
                vpc_id: Some(load_balancer.vpc_id.clone()),
                private_addresses: load_balancer.zones.iter().map(|zone| zone.address).collect(),
                public_addresses: load_balancer.host_address.into_iter().collect(),
            });
            [process, name]
        })
        .map(|item| (item.key(), item))
}

#[cfg(test)]
mod tests;
