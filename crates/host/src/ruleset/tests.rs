//! The compiled table as text, and the steps between two tables as the kernel takes them.

use proptest::prelude::*;

use super::*;
use crate::{netns, nft, testing::needs_root};

fn vpc() -> VpcItem {
    VpcItem {
        vpc_id: "vpc-0a".into(),
        region: "us-east-1".into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        resolver: Ipv4Addr::new(10, 0, 0, 2),
        dns_support: true,
        gateways: vec![Ipv4Addr::new(10, 0, 0, 1)],
    }
}

fn check(protocol: Protocol, peer: Peer, egress: bool, expected: Option<&str>) {
    let item = RuleItem { egress, protocol, peer };
    assert_eq!(statement(&item).as_deref(), expected);
}

#[test]
fn rules_become_statements() {
    let block = || Peer::Cidr("10.1.0.0/16".parse().unwrap());
    check(Protocol::All, Peer::Cidr(Cidr::ANY), false, Some("meta nfproto ipv4 accept"));
    check(Protocol::Tcp { from: 80, to: 80 }, block(), false, Some("ip saddr 10.1.0.0/16 tcp dport 80 accept"));
    check(Protocol::Udp { from: 1, to: 9 }, block(), true, Some("ip daddr 10.1.0.0/16 udp dport 1-9 accept"));
    check(Protocol::Tcp { from: 0, to: 65535 }, block(), true, Some("ip daddr 10.1.0.0/16 meta l4proto tcp accept"));
    check(Protocol::All, Peer::Group("sg-0ab".into()), false, Some("ip saddr @m_0ab accept"));
    let echo = Protocol::Icmp { kind_number: Some(8), code: Some(0) };
    check(echo, Peer::Group("sg-0ab".into()), true, Some("ip daddr @m_0ab icmp type 8 icmp code 0 accept"));
    check(Protocol::Number { number: 50 }, block(), false, Some("ip saddr 10.1.0.0/16 meta l4proto 50 accept"));
    check(Protocol::All, Peer::Ipv6("::".parse().unwrap(), 0), false, None);
    check(Protocol::Icmpv6 { kind_number: None, code: None }, Peer::Cidr(Cidr::ANY), false, None);
}

#[test]
fn nothing_of_another_form_becomes_part_of_a_script() {
    for wrong in
        ["sg-0; flush ruleset", "sg-", "sg-0A", "sg-0-1", "eni-0", "sg-0\n", "", "sg-000000000000000000000000000000001"]
    {
        assert!(!is_id(wrong, "sg-"), "{wrong:?}");
    }
    check(Protocol::All, Peer::Group("sg-0 } accept".into()), false, None);
}

fn rule() -> impl Strategy<Value = RuleItem> {
    let protocol = prop_oneof![
        Just(Protocol::All),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Protocol::Tcp { from: a.min(b), to: a.max(b) }),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Protocol::Udp { from: a.min(b), to: a.max(b) }),
        (proptest::option::of(any::<u8>()), proptest::option::of(any::<u8>()))
            .prop_map(|(kind_number, code)| Protocol::Icmp { kind_number, code }),
        any::<u8>().prop_map(|number| Protocol::Number { number }),
    ];
    let peer = prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(address, prefix)| Peer::Cidr(Cidr::literal(address.into(), prefix))),
        (0u8..4).prop_map(|group| Peer::Group(format!("sg-{group}"))),
    ];
    (any::<bool>(), protocol, peer).prop_map(|(egress, protocol, peer)| RuleItem { egress, protocol, peer })
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let groups = proptest::collection::btree_map(0u8..4, proptest::collection::vec(rule(), 0..5), 0..4);
    let egress = prop_oneof![Just(0u8), Just(1), Just(2)];
    let interface = (proptest::collection::btree_set(0u8..4, 1..3), egress, any::<bool>(), any::<bool>());
    let interfaces = proptest::collection::btree_map(4u8..12, interface, 0..8);
    (groups, interfaces).prop_map(|(groups, interfaces)| {
        let groups: Vec<SecurityGroupItem> = groups
            .into_iter()
            .map(|(id, rules)| SecurityGroupItem { group_id: format!("sg-{id}"), vpc_id: "vpc-0a".into(), rules })
            .collect();
        let speakers = interfaces.iter().filter(|(_, (.., speaks))| *speaks).map(|(host, _)| format!("eni-{host}"));
        let speakers: BTreeSet<String> = speakers.collect();
        let interfaces: Vec<InterfaceItem> = interfaces
            .into_iter()
            .map(|(host, (groups, egress, source_dest_check, _))| InterfaceItem {
                interface_id: format!("eni-{host}"),
                vpc_id: "vpc-0a".into(),
                mac_address: String::new(),
                address: Ipv4Addr::new(10, 0, 0, host),
                prefix: 24,
                gateway: Ipv4Addr::new(10, 0, 0, 1),
                security_groups: groups.into_iter().map(|group| format!("sg-{group}")).collect(),
                egress: match egress {
                    0 => Egress::None,
                    1 => Egress::Public { address: Ipv4Addr::new(198, 18, 0, host) },
                    _ => Egress::Nat { address: Ipv4Addr::new(198, 18, 0, 200) },
                },
                source_dest_check,
                task_of_instance: None,
            })
            .collect();
        compile(&vpc(), &groups, &interfaces, &speakers, 4580)
    })
}

/// The table as the kernel has it, in an order that does not depend on its history.
fn listed() -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut block = String::new();
    let text = nft::list(&["list", "table", "inet", "ls_test"]);
    // Sets wrap their elements over lines: one string per set or chain, its parts sorted.
    for line in text.lines().map(str::trim) {
        if line == "}" {
            if block.starts_with("set") || block.starts_with("map") {
                let mut parts: Vec<&str> = block.split([',', '{', '}', '\n']).map(str::trim).collect();
                parts.sort_unstable();
                block = parts.join(" ");
            }
            lines.push(std::mem::take(&mut block));
        } else {
            block.push_str(line);
            block.push('\n');
        }
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_step_leads_to_the_same_table_as_a_replacement(one in ruleset(), other in ruleset()) {
        if needs_root() {
            return Ok(());
        }
        let (stepped, replaced) = netns::on_thread(|| {
            netns::enter_new()?;
            nft::apply(&one.replace("ls_test"))?;
            nft::apply(&one.update(&other, "ls_test"))?;
            let stepped = listed();
            nft::apply(&other.replace("ls_test"))?;
            Ok((stepped, listed()))
        }).unwrap();
        prop_assert!(stepped.len() > 10);
        prop_assert_eq!(stepped, replaced);
        prop_assert!(one.update(&one, "ls_test").is_empty());
    }
}
