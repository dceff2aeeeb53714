//! What follows for a load balancer's process from the store, and from its reports for the store.

use std::net::IpAddr;

use domain::{
    Arn, Resource, Scope, Tags, Timestamp,
    balancing::{
        Action, Classic, ClassicListener, ClassicProtocol, GroupStickiness, HealthCheck, HealthReason, HealthState,
        Listener, LoadBalancer, LoadBalancerAttributes, LoadBalancerState, ObservedHealth, ProtocolVersion, Scheme,
        TargetGroup, TargetGroupAttributes, TargetHealth, TargetRegistration, TargetType, WeightedTargetGroup, Zone,
        classic::{self, ANY_PORT},
        slice::{BalancerReport, RefusedSocket, SliceItem, TargetReport},
    },
    network::{Peer, Protocol, SecurityGroup, SecurityGroupRule},
};
use store::{Kinds, Store, TransactError, Transaction};

use super::{balancer_slice, host_items};
use crate::elbv2::{kinds, observe_balancer, target_health};

const PREFIX: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012";

struct World {
    store: Store,
    _directory: tempfile::TempDir,
}

fn scope() -> Scope {
    Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

fn arn(resource: &str) -> Arn {
    format!("{PREFIX}:{resource}").parse().unwrap()
}

fn load_balancer() -> LoadBalancer {
    let zone = |letter: &str, number: u8| Zone {
        zone_name: format!("us-east-1{letter}"),
        subnet_id: format!("subnet-{letter}"),
        interface_id: format!("eni-{letter}"),
        address: [10, 0, 0, number].into(),
    };
    LoadBalancer {
        arn: arn("loadbalancer/app/web/1"),
        scope: scope(),
        name: "web".into(),
        dns_name: "web-1.us-east-1.elb.longshore.internal".into(),
        scheme: Scheme::InternetFacing,
        vpc_id: "vpc-1".into(),
        zones: vec![zone("a", 4), zone("b", 5)],
        security_groups: vec!["sg-1".into()],
        attributes: LoadBalancerAttributes::default(),
        host_address: Some([127, 64, 0, 1].into()),
        state: LoadBalancerState::Provisioning,
        classic: None,
        tags: Tags::default(),
        created_at: Timestamp(0),
    }
}

fn group(name: &str) -> TargetGroup {
    TargetGroup {
        arn: arn(&format!("targetgroup/{name}/1")),
        scope: scope(),
        name: name.into(),
        target_type: TargetType::Ip,
        protocol_version: ProtocolVersion::Http1,
        secure: false,
        port: 80,
        vpc_id: "vpc-1".into(),
        health_check: HealthCheck::default(),
        attributes: TargetGroupAttributes::default(),
        tcp: None,
        tags: Tags::default(),
        created_at: Timestamp(0),
    }
}

fn registration(number: u8, zone: &str, draining: bool) -> TargetRegistration {
    TargetRegistration {
        instance_id: None,
        target_group: group("used").arn,
        address: IpAddr::from([10, 0, 1, number]),
        port: 80,
        availability_zone: Some(zone.into()),
        registered_at: Timestamp(0),
        draining_until: draining.then_some(Timestamp(9)),
    }
}

fn security_group(protocol: Protocol, block: &str) -> SecurityGroup {
    let rule = SecurityGroupRule {
        rule_id: "sgr-1".into(),
        egress: false,
        protocol,
        peer: Peer::Cidr(block.parse().unwrap()),
        description: None,
        tags: Tags::default(),
    };
    SecurityGroup {
        scope: scope(),
        group_id: "sg-1".into(),
        name: "web".into(),
        description: String::new(),
        vpc_id: "vpc-1".into(),
        rules: vec![rule],
        tags: Tags::default(),
    }
}

/// A load balancer on port 80 with one used and one unused target group, and three targets in the used one.
async fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let kinds = crate::ec2::kinds(kinds(Kinds::new()));
    let store = Store::open(store::embedded::open(directory.path()).unwrap(), kinds).unwrap();
    let world = World { store, _directory: directory };
    world
        .write(|tx| {
            tx.put(load_balancer());
            tx.put(group("used"));
            tx.put(group("unused"));
            tx.put(registration(1, "us-east-1a", false));
            tx.put(registration(2, "us-east-1a", true));
            tx.put(registration(3, "us-east-1c", false));
            tx.put(security_group(Protocol::Tcp { from: 80, to: 80 }, "0.0.0.0/0"));
            let groups = vec![WeightedTargetGroup { target_group: group("used").arn.to_string(), weight: 1 }];
            tx.put(Listener {
                arn: arn("listener/app/web/1/1"),
                scope: scope(),
                load_balancer: load_balancer().arn,
                port: 80,
                tls: None,
                default_action: Action::Forward { groups, stickiness: GroupStickiness::default() },
                default_rule: arn("listener-rule/app/web/1/1/1"),
                tags: Tags::default(),
                created_at: Timestamp(0),
            });
        })
        .await;
    world
}

impl World {
    async fn write(&self, work: impl FnOnce(&mut Transaction)) {
        let done: Result<(), TransactError<()>> = self
            .store
            .transact(|tx| {
                work(tx);
                Ok(())
            })
            .await;
        done.unwrap();
    }

    async fn report(&self, report: &BalancerReport) {
        let report = serde_json::to_value(report).unwrap();
        self.write(|tx| observe_balancer(tx, load_balancer().arn.as_str(), &report)).await;
    }

    fn state(&self) -> &'static str {
        self.store.snapshot().get::<LoadBalancer>(load_balancer().arn.as_str()).unwrap().state.code()
    }

    fn health(&self, registration: &TargetRegistration) -> TargetHealth {
        let view = self.store.snapshot();
        target_health(&view, &view.get::<TargetRegistration>(&registration.key()).unwrap())
    }

    /// Where the listener listens besides its own network namespace.
    fn places(&self) -> Vec<String> {
        let slice = balancer_slice(&self.store.snapshot(), &load_balancer());
        let places = slice.values().find_map(|item| match item {
            SliceItem::Listener(listener) => Some(&listener.places),
            _ => None,
        });
        places.unwrap().iter().map(|place| place.place.clone()).collect()
    }
}

fn verdict(number: u8, health: TargetHealth) -> TargetReport {
    TargetReport {
        target_group: group("used").arn.to_string(),
        address: IpAddr::from([10, 0, 1, number]),
        port: 80,
        health,
    }
}

#[tokio::test]
async fn the_slice_holds_used_groups_with_the_targets_of_enabled_zones() {
    let world = world().await;
    let slice = balancer_slice(&world.store.snapshot(), &load_balancer());
    let keys: Vec<&str> = slice.keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    let group_item = slice.get(&format!("target-group/{}", group("used").arn)).unwrap();
    let SliceItem::TargetGroup(item) = group_item else { panic!("{group_item:?}") };
    let targets: Vec<(String, bool)> =
        item.targets.iter().map(|target| (target.address.to_string(), target.draining)).collect();
    assert_eq!(targets, [("10.0.1.1".to_owned(), false), ("10.0.1.2".to_owned(), true)]);
    assert_eq!(world.places(), ["host", "eni-b"]);
}

#[tokio::test]
async fn the_host_is_let_in_as_the_security_groups_say() {
    let world = world().await;
    let host_listeners = || {
        let items: Vec<_> = host_items(&world.store.snapshot()).collect();
        items
            .iter()
            .map(|(_, item)| serde_json::to_string(item).unwrap())
            .find(|text| text.contains("host_listeners"))
            .unwrap()
    };
    assert!(host_listeners().contains("127.64.0.1:80"));
    for (protocol, block, expected) in [
        (Protocol::Tcp { from: 81, to: 90 }, "0.0.0.0/0", false),
        (Protocol::Udp { from: 80, to: 80 }, "0.0.0.0/0", false),
        (Protocol::All, "10.0.0.0/8", false),
        (Protocol::All, "127.0.0.1/32", true),
        (Protocol::Tcp { from: 1, to: 100 }, "0.0.0.0/0", true),
    ] {
        world.write(|tx| tx.put(security_group(protocol, block))).await;
        assert_eq!(world.places().contains(&"host".to_owned()), expected, "{protocol:?} {block}");
        assert_eq!(host_listeners().contains("127.64.0.1:80"), expected, "{protocol:?} {block}");
    }
}

#[tokio::test]
async fn a_load_balancer_is_active_once_its_sockets_are_open() {
    let world = world().await;
    let refused = |pending: bool| RefusedSocket {
        place: "host".into(),
        address: "127.64.0.1:80".parse().unwrap(),
        reason: "port already taken".into(),
        pending,
    };
    assert_eq!(world.state(), "provisioning");
    world.report(&BalancerReport { refused: vec![refused(true)], ..BalancerReport::default() }).await;
    assert_eq!(world.state(), "provisioning");
    world.report(&BalancerReport { refused: vec![refused(false)], ..BalancerReport::default() }).await;
    assert_eq!(world.state(), "active_impaired");
    world.report(&BalancerReport { listening: vec![80], ..BalancerReport::default() }).await;
    assert_eq!(world.state(), "active");
}

#[tokio::test]
async fn health_is_what_was_last_reported_of_targets_that_are_checked() {
    let world = world().await;
    let (one, draining, elsewhere) = (
        registration(1, "us-east-1a", false),
        registration(2, "us-east-1a", true),
        registration(3, "us-east-1c", false),
    );
    assert_eq!(world.health(&one), TargetHealth::REGISTERING);
    let failed = TargetHealth::unhealthy(HealthReason::ResponseCodeMismatch { status: 500 });
    let report = BalancerReport {
        listening: vec![80],
        targets: vec![verdict(1, failed.clone()), verdict(2, TargetHealth::HEALTHY), verdict(9, TargetHealth::HEALTHY)],
        ..BalancerReport::default()
    };
    world.report(&report).await;
    assert_eq!(world.health(&one), failed);
    assert_eq!(world.health(&draining), TargetHealth::DRAINING);
    assert_eq!(world.health(&elsewhere), TargetHealth::NOT_IN_USE);
    world.report(&BalancerReport { listening: vec![80], ..BalancerReport::default() }).await;
    assert_eq!(world.health(&one).state, HealthState::Initial);
}

#[tokio::test]
async fn the_ports_of_a_classic_load_balancer_are_groups_of_instances_that_are_registered_once() {
    let world = world().await;
    let listener =
        |port: u16, protocol: ClassicProtocol, instance_port: u16| ClassicListener { port, protocol, instance_port };
    let listeners = vec![
        listener(80, ClassicProtocol::Http, 8080),
        listener(81, ClassicProtocol::Http, 8080),
        listener(90, ClassicProtocol::Tcp, 8080),
    ];
    let arn = classic::arn(&scope(), "web");
    let balancer = LoadBalancer {
        arn: arn.clone(),
        classic: Some(Classic { listeners, draining_timeout_seconds: 300 }),
        ..load_balancer()
    };
    let registered =
        TargetRegistration { target_group: arn.clone(), port: ANY_PORT, ..registration(1, "us-east-1a", false) };
    let elsewhere = TargetRegistration {
        address: IpAddr::from([10, 0, 1, 3]),
        availability_zone: Some("us-east-1c".into()),
        ..registered.clone()
    };
    world
        .write(|tx| {
            tx.put(balancer.clone());
            tx.put(TargetGroup { arn: arn.clone(), target_type: TargetType::Instance, ..group("web") });
            tx.put(registered.clone());
            tx.put(elsewhere);
        })
        .await;
    let slice = balancer_slice(&world.store.snapshot(), &balancer);
    let mut seen = Vec::new();
    for item in slice.values() {
        match item {
            SliceItem::TargetGroup(item) => {
                let targets: Vec<String> =
                    item.targets.iter().map(|to| format!("{}:{}", to.address, to.port)).collect();
                assert_eq!((targets, item.fail_closed), (vec!["10.0.1.1:8080".to_owned()], true));
                seen.push(format!("{} tcp={}", item.arn, item.tcp.is_some()));
            }
            SliceItem::Listener(item) => {
                seen.push(format!("{} {}", item.port, item.default_action.target_groups().collect::<String>()));
            }
            SliceItem::LoadBalancer(_) | SliceItem::Certificate(_) => {}
        }
    }
    let (http, tcp) = (format!("{arn}/HTTP/8080"), format!("{arn}/TCP/8080"));
    let expected = [
        format!("80 {http}"),
        format!("81 {http}"),
        format!("90 {tcp}"),
        format!("{http} tcp=false"),
        format!("{tcp} tcp=true"),
    ];
    assert_eq!(seen, expected);

    // What the process says of either port is said of the instance.
    let verdict =
        |group: &str| TargetReport { target_group: group.to_owned(), port: 8080, ..verdict(1, TargetHealth::HEALTHY) };
    let report = BalancerReport { targets: vec![verdict(&http), verdict(&tcp)], ..BalancerReport::default() };
    world.write(|tx| observe_balancer(tx, arn.as_str(), &serde_json::to_value(&report).unwrap())).await;
    let observed = world.store.snapshot().get::<ObservedHealth>(&registered.key()).unwrap();
    assert_eq!(observed.health, TargetHealth::HEALTHY);
    world
        .write(|tx| observe_balancer(tx, arn.as_str(), &serde_json::to_value(BalancerReport::default()).unwrap()))
        .await;
    assert!(!world.store.snapshot().contains::<ObservedHealth>(&registered.key()));
}
