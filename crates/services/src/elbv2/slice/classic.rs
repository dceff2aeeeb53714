//! What the process of a Classic Load Balancer follows: each port of the instances that a listener names is a target group, and
//! every listener forwards to one.

use std::collections::BTreeMap;

use domain::balancing::{
    Action, Algorithm, Classic, ClassicListener, ClassicProtocol, GroupStickiness, LoadBalancer, ProtocolVersion,
    TargetChoice, TargetGroup, TargetRegistration, TcpTargetGroup, WeightedTargetGroup,
    classic::process_group,
    network::TcpForwarding,
    slice::{ListenerItem, SliceItem, TargetGroupItem, TargetItem},
};
use store::Snapshot;

use super::{
    super::targets::{in_zone, is_on},
    places,
};

pub(super) fn items(view: &Snapshot, load_balancer: &LoadBalancer, classic: &Classic) -> Vec<SliceItem> {
    let Some(group) = view.get::<TargetGroup>(load_balancer.arn.as_str()) else { return Vec::new() };
    let instances: Vec<_> = view
        .find::<TargetRegistration>(TargetRegistration::BY_TARGET_GROUP, load_balancer.arn.as_str())
        .filter(|registration| in_zone(registration, load_balancer) && is_on(view, registration))
        .collect();
    let mut groups: BTreeMap<String, SliceItem> = BTreeMap::new();
    let mut items = Vec::new();
    for listener in &classic.listeners {
        let name = process_group(&load_balancer.arn, listener);
        let of_instance = |registration: &TargetRegistration| TargetItem {
            address: registration.address,
            port: listener.instance_port,
            draining: registration.draining_until.is_some(),
        };
        let targets = instances.iter().map(|registration| of_instance(registration)).collect();
        groups
            .entry(name.clone())
            .or_insert_with(|| SliceItem::TargetGroup(of_port(name.clone(), listener, &group, targets)));
        let only = WeightedTargetGroup { target_group: name, weight: 1 };
        items.push(SliceItem::Listener(ListenerItem {
            arn: format!("{}/{}", load_balancer.arn, listener.port),
            port: listener.port,
            places: places(view, load_balancer, listener.port),
            tls: None,
            rules: Vec::new(),
            default_action: Action::Forward { groups: vec![only], stickiness: GroupStickiness::default() },
        }));
    }
    items.into_iter().chain(groups.into_values()).collect()
}

fn of_port(arn: String, listener: &ClassicListener, group: &TargetGroup, targets: Vec<TargetItem>) -> TargetGroupItem {
    let tcp = (listener.protocol == ClassicProtocol::Tcp).then(|| TcpForwarding {
        settings: TcpTargetGroup {
            // Connection draining ends with the connections; that checks fail ends none.
            deregistration_termination: true,
            unhealthy_termination: false,
            ..TcpTargetGroup::default()
        },
        zones: Vec::new(),
    });
    TargetGroupItem {
        arn,
        protocol_version: ProtocolVersion::Http1,
        secure: false,
        tcp,
        health_check: group.health_check.clone(),
        choice: TargetChoice { algorithm: Algorithm::LeastOutstandingRequests, ..TargetChoice::default() },
        fail_closed: true,
        targets,
    }
}
