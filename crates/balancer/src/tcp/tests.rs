//! Which target a flow gets, and which flows are cut.

use std::collections::BTreeSet;

use domain::balancing::{
    Action, HealthCheck, LoadBalancerAttributes, ProtocolVersion, WeightedTargetGroup,
    network::{TcpForwarding, ZoneTargets},
    slice::{ListenerItem, LoadBalancerItem, TargetItem},
};
use proptest::prelude::*;

use super::*;

fn address(number: usize) -> SocketAddr {
    SocketAddr::new([10, 0, 0, u8::try_from(number).unwrap()].into(), 80)
}

fn table(states: &[(HealthState, bool)], settings: TcpTargetGroup, zones: Vec<ZoneTargets>) -> Table {
    let target = |(index, (_, draining)): (usize, &(HealthState, bool))| TargetItem {
        address: address(index).ip(),
        port: 80,
        draining: *draining,
    };
    let items = [
        SliceItem::LoadBalancer(LoadBalancerItem {
            arn: "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/a/1".into(),
            attributes: LoadBalancerAttributes::default(),
        }),
        SliceItem::Listener(ListenerItem {
            arn: "listener".into(),
            port: 80,
            places: Vec::new(),
            tls: None,
            rules: Vec::new(),
            default_action: Action::Forward {
                groups: vec![WeightedTargetGroup { target_group: "group".into(), weight: 1 }],
                stickiness: Default::default(),
            },
        }),
        SliceItem::TargetGroup(TargetGroupItem {
            fail_closed: false,
            arn: "group".into(),
            protocol_version: ProtocolVersion::Http1,
            secure: false,
            tcp: Some(TcpForwarding { settings, zones }),
            health_check: HealthCheck::default(),
            choice: Default::default(),
            targets: states.iter().enumerate().map(target).collect(),
        }),
    ];
    let state = |_: &str, found: IpAddr, _: u16| {
        let index = (0..states.len()).find(|index| address(*index).ip() == found).unwrap();
        states[index].0
    };
    Table::compile(items.iter(), &state).unwrap()
}

fn ends(client: u8, port: u16) -> Ends {
    let client = SocketAddr::new([198, 18, 0, client].into(), port);
    Ends { client, node: SocketAddr::new([10, 0, 9, 9].into(), 80) }
}

fn chosen(table: &Table, ends: Ends) -> Option<SocketAddr> {
    table.choose(80, ends).map(|chosen| chosen.address)
}

const HEALTHY: (HealthState, bool) = (HealthState::Healthy, false);

proptest! {
    #[test]
    fn flows_go_to_healthy_targets_or_to_all_that_do_not_drain(
        states in prop::collection::vec((prop::sample::select(vec![HealthState::Initial, HealthState::Healthy, HealthState::Unhealthy]), any::<bool>()), 0..6),
    ) {
        let table = table(&states, TcpTargetGroup::default(), Vec::new());
        let seen: BTreeSet<SocketAddr> = (0..400).filter_map(|port| chosen(&table, ends(1, port))).collect();
        let with = |healthy: bool| -> BTreeSet<SocketAddr> {
            let active = states.iter().enumerate().filter(|(_, (_, draining))| !draining);
            active.filter(|(_, (state, _))| !healthy || *state == HealthState::Healthy).map(|(i, _)| address(i)).collect()
        };
        prop_assert_eq!(seen, if with(true).is_empty() { with(false) } else { with(true) });
    }
}

#[test]
fn a_flow_stays_where_it_is_when_another_target_goes() {
    let before = table(&[HEALTHY; 4], TcpTargetGroup::default(), Vec::new());
    let after = table(&[HEALTHY; 3], TcpTargetGroup::default(), Vec::new());
    for port in 0..200 {
        let old = chosen(&before, ends(1, port)).unwrap();
        assert!(old == address(3) || chosen(&after, ends(1, port)) == Some(old));
    }
}

#[test]
fn sticky_clients_keep_their_target() {
    let sticky = TcpTargetGroup { source_ip_stickiness: true, ..TcpTargetGroup::default() };
    let table = table(&[HEALTHY; 4], sticky, Vec::new());
    let of = |client: u8| -> BTreeSet<_> { (0..50).filter_map(|port| chosen(&table, ends(client, port))).collect() };
    assert!((0..50).all(|client| of(client).len() == 1));
    assert!((0..50).flat_map(of).collect::<BTreeSet<_>>().len() == 4);
}

#[test]
fn without_cross_zone_a_node_uses_its_own_zone_while_it_can() {
    let zones =
        |target: usize| vec![ZoneTargets { node: [10, 0, 9, 9].into(), targets: vec![(address(target).ip(), 80)] }];
    let states = [HEALTHY, (HealthState::Unhealthy, false)];
    let own = table(&[HEALTHY, HEALTHY], TcpTargetGroup::default(), zones(0));
    assert!((0..50).all(|port| chosen(&own, ends(1, port)) == Some(address(0))));
    let elsewhere = table(&states, TcpTargetGroup::default(), zones(1));
    assert!((0..50).all(|port| chosen(&elsewhere, ends(1, port)) == Some(address(0))));
}

#[test]
fn only_what_the_attributes_say_is_cut() {
    let chosen = |number| Chosen {
        group: "group".into(),
        address: address(number),
        proxy_protocol: false,
        preserve_client_ip: false,
    };
    let keeps = |states: &[(HealthState, bool)], settings: &TcpTargetGroup, number| {
        table(states, settings.clone(), Vec::new()).keeps(&chosen(number))
    };
    let unhealthy = (HealthState::Unhealthy, false);
    let default = TcpTargetGroup::default();
    let other = TcpTargetGroup { deregistration_termination: true, unhealthy_termination: false, ..default.clone() };
    assert!(keeps(&[HEALTHY], &default, 1) && !keeps(&[HEALTHY], &other, 1), "the delay is over");
    assert!(keeps(&[(HealthState::Initial, true)], &other, 0), "within its delay");
    assert!(!keeps(&[unhealthy, HEALTHY], &default, 0) && keeps(&[unhealthy, HEALTHY], &other, 0));
    assert!(keeps(&[unhealthy, unhealthy], &default, 0), "fails open");
}

#[test]
fn a_header_tells_the_ends() {
    let header = header::proxied(ends(7, 0x1234));
    assert_eq!(header.len(), 28);
    assert_eq!(header[12..], [0x21, 0x11, 0, 12, 198, 18, 0, 7, 10, 0, 9, 9, 0x12, 0x34, 0, 80]);
    assert_eq!(header::local()[12..], [0x20, 0, 0, 0]);
}

#[test]
fn a_classic_load_balancer_carries_connections_of_its_tcp_listeners_only() {
    let arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/web";
    let group = |protocol: &str, tcp: Option<TcpForwarding>| {
        SliceItem::TargetGroup(TargetGroupItem {
            arn: format!("{arn}/{protocol}/80"),
            protocol_version: ProtocolVersion::Http1,
            tcp,
            health_check: HealthCheck::default(),
            choice: Default::default(),
            fail_closed: true,
            secure: false,
            targets: vec![TargetItem { address: [10, 0, 0, 1].into(), port: 80, draining: false }],
        })
    };
    let listener = |port: u16, protocol: &str| {
        SliceItem::Listener(ListenerItem {
            arn: format!("{arn}/{port}"),
            port,
            places: Vec::new(),
            tls: None,
            rules: Vec::new(),
            default_action: Action::Forward {
                groups: vec![WeightedTargetGroup { target_group: format!("{arn}/{protocol}/80"), weight: 1 }],
                stickiness: Default::default(),
            },
        })
    };
    let http = [listener(80, "HTTP"), group("HTTP", None)];
    assert!(Table::compile(http.iter(), &|_, _, _| HealthState::Healthy).is_none());
    let both: Vec<SliceItem> =
        http.into_iter().chain([listener(81, "TCP"), group("TCP", Some(TcpForwarding::default()))]).collect();
    let table = |state: HealthState| Table::compile(both.iter(), &|_, _, _| state).unwrap();
    let healthy = table(HealthState::Healthy);
    assert!(!healthy.carries(80) && healthy.carries(81));
    assert!(healthy.choose(81, ends(1, 1)).is_some());
    assert!(table(HealthState::Unhealthy).choose(81, ends(1, 1)).is_none(), "fails closed");
}
