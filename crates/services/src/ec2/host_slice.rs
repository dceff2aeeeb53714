//! What the `host` process must make of networks, instances and volumes: computed from a snapshot, never stored.

mod instance;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use domain::{
    ecs::{ContainerInstance, Task},
    instances::{Instance, Volume, VolumeItem},
    network::{
        Cidr, NatGateway, NatGatewayState, NetworkInterface, NetworkInterfaceOwner, NetworkSettings, Peer, Protocol,
        RouteTable, RouteTarget, SecurityGroup, Subnet, Vpc,
        host::{Egress, HostItem, InterfaceItem, PlatformItem, RuleItem, SecurityGroupItem, VpcItem},
    },
};
use store::Snapshot;

/// The slice of the one host: every instance that is not off, every volume, every interface that something real has, with
/// the VPCs and security groups it needs, and `extra` items (names, load balancers) from others. `sign` signs instance
/// identity documents. A VPC also stays for as long as a stopped task of it is remembered:
/// where tasks come one after the other, none waits for a router to be made.
pub fn host_slice(
    view: &Snapshot,
    sign: &dyn Fn(&str) -> String,
    extra: impl IntoIterator<Item = (String, HostItem)>,
) -> BTreeMap<String, HostItem> {
    let mut slice: BTreeMap<String, HostItem> = extra.into_iter().collect();
    let mut add = |item: HostItem| {
        slice.insert(item.key(), item);
    };
    if let Some(settings) = view.get::<NetworkSettings>(NetworkSettings::KEY) {
        add(HostItem::Platform(PlatformItem { public_block: settings.public_block }));
    }
    let mut instances: BTreeSet<String> = BTreeSet::new();
    for instance in view.list::<Instance>("").filter(|instance| instance.is_on_host()) {
        if let Some(item) = instance::item(view, &instance, sign) {
            instances.insert(instance.instance_id.clone());
            add(HostItem::Instance(Box::new(item)));
        }
    }
    for volume in view.list::<Volume>("") {
        add(HostItem::Volume(VolumeItem {
            volume_id: volume.volume_id.clone(),
            size_gib: volume.size_gib,
            layers: volume.layers.clone(),
        }));
    }
    let mut vpcs: BTreeMap<String, Arc<Vpc>> = BTreeMap::new();
    let mut groups: BTreeMap<String, Arc<SecurityGroup>> = BTreeMap::new();
    for interface in view.list::<NetworkInterface>("") {
        let in_use = match &interface.owner {
            NetworkInterfaceOwner::Instance { id, .. } => instances.contains(id),
            owner => owner.is_attached(),
        };
        if !in_use {
            continue;
        }
        let Some(vpc) = view.get::<Vpc>(&interface.scope.key(&interface.vpc_id)) else { continue };
        let Some(subnet) = view.get::<Subnet>(&interface.scope.key(&interface.subnet_id)) else { continue };
        for id in &interface.security_groups {
            if !groups.contains_key(id)
                && let Some(group) = view.get::<SecurityGroup>(&interface.scope.key(id))
            {
                groups.insert(id.clone(), group);
            }
        }
        if is_open(&interface) {
            add(HostItem::SecurityGroup(open_group(&interface.vpc_id)));
        }
        add(HostItem::Interface(interface_item(view, &interface, &subnet)));
        vpcs.entry(vpc.vpc_id.clone()).or_insert(vpc);
    }
    for task in view.list::<Task>("") {
        let Some(interface) = &task.interface else { continue };
        let Some(subnet) = view.get::<Subnet>(&task.scope.key(&interface.subnet_id)) else { continue };
        if !vpcs.contains_key(&subnet.vpc_id)
            && let Some(vpc) = view.get::<Vpc>(&task.scope.key(&subnet.vpc_id))
        {
            vpcs.insert(vpc.vpc_id.clone(), vpc);
        }
    }
    for vpc in vpcs.values() {
        add(HostItem::Vpc(VpcItem {
            vpc_id: vpc.vpc_id.clone(),
            region: vpc.scope.region.to_string(),
            cidr: vpc.cidr,
            resolver: vpc.resolver_address(),
            dns_support: vpc.dns_support,
            gateways: view.find::<Subnet>("vpc", vpc.vpc_id.as_str()).map(|subnet| subnet.gateway()).collect(),
        }));
    }
    for group in groups.values() {
        let mut rules: Vec<RuleItem> = group
            .rules
            .iter()
            .filter(|rule| !matches!(rule.peer, Peer::Ipv6(..)))
            .map(|rule| RuleItem { egress: rule.egress, protocol: rule.protocol, peer: rule.peer.clone() })
            .collect();
        rules.sort();
        rules.dedup();
        add(HostItem::SecurityGroup(SecurityGroupItem {
            group_id: group.group_id.clone(),
            vpc_id: group.vpc_id.clone(),
            rules,
        }));
    }
    slice
}

/// A network load balancer without security groups lets everything in and out.
fn is_open(interface: &NetworkInterface) -> bool {
    interface.security_groups.is_empty() && matches!(interface.owner, NetworkInterfaceOwner::LoadBalancer { .. })
}

/// What `host` is told instead of no group, which would let nothing through. No group of a user can have its id.
fn open_group(vpc_id: &str) -> SecurityGroupItem {
    let rule = |egress| RuleItem { egress, protocol: Protocol::All, peer: Peer::Cidr(Cidr::ANY) };
    SecurityGroupItem {
        group_id: format!("sg-open{}", vpc_id.trim_start_matches("vpc-")),
        vpc_id: vpc_id.to_owned(),
        rules: vec![rule(false), rule(true)],
    }
}

fn interface_item(view: &Snapshot, interface: &NetworkInterface, subnet: &Subnet) -> InterfaceItem {
    let mut security_groups = interface.security_groups.clone();
    security_groups.sort();
    if is_open(interface) {
        security_groups.push(open_group(&interface.vpc_id).group_id);
    }
    InterfaceItem {
        interface_id: interface.network_interface_id.clone(),
        vpc_id: interface.vpc_id.clone(),
        mac_address: interface.mac_address.clone(),
        address: interface.private_address,
        prefix: subnet.cidr.prefix(),
        gateway: subnet.gateway(),
        security_groups,
        egress: egress(view, interface, subnet),
        source_dest_check: interface.source_dest_check,
        task_of_instance: task_of_instance(view, interface),
    }
}

/// The EC2 instance on which the interface's task runs, if it runs on one.
fn task_of_instance(view: &Snapshot, interface: &NetworkInterface) -> Option<String> {
    let NetworkInterfaceOwner::Task { arn } = &interface.owner else { return None };
    let host = view.get::<Task>(arn)?.container_instance_arn.clone()?;
    view.get::<ContainerInstance>(host.as_str())?.ec2_instance_id.clone()
}

/// The route table a subnet uses: its own, else the VPC's main one.
pub(super) fn route_table(view: &Snapshot, subnet: &Subnet) -> Option<Arc<RouteTable>> {
    let mut main = None;
    for table in view.find::<RouteTable>("vpc", subnet.vpc_id.as_str()) {
        if table.associations.iter().any(|association| association.subnet_id.as_ref() == Some(&subnet.subnet_id)) {
            return Some(table);
        }
        if table.is_main() {
            main = Some(table);
        }
    }
    main
}

fn egress(view: &Snapshot, interface: &NetworkInterface, subnet: &Subnet) -> Egress {
    match route_table(view, subnet).as_ref().and_then(|table| table.default_target()) {
        Some(RouteTarget::InternetGateway(_)) => match &interface.public_address {
            Some(public) => Egress::Public { address: public.address },
            None => Egress::None,
        },
        Some(RouteTarget::NatGateway(id)) => nat_egress(view, interface, id).unwrap_or(Egress::None),
        Some(RouteTarget::Local) | None => Egress::None,
    }
}

/// A NAT gateway leads out when it works and its own subnet has a way out.
fn nat_egress(view: &Snapshot, interface: &NetworkInterface, id: &str) -> Option<Egress> {
    let gateway = view.get::<NatGateway>(&interface.scope.key(id))?;
    let subnet = view.get::<Subnet>(&interface.scope.key(&gateway.subnet_id))?;
    let table = route_table(view, &subnet)?;
    let leads_out = gateway.state == NatGatewayState::Available
        && matches!(table.default_target(), Some(RouteTarget::InternetGateway(_)));
    leads_out.then_some(Egress::Nat { address: gateway.public_address })
}
