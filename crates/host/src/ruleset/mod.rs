//! Security groups, source checks and address translation of one VPC as an nftables table of its router. Pure: from
//! items to a [`Ruleset`], from two of those to the script that leads from one to the other in one transaction.
//!
//! A packet between two interfaces passes two base chains of the forward hook: `leaving`, where the sender's groups must
//! let it out, then `arriving`, where the receiver's must let it in. Both find the groups' chain by address in a map, so
//! that a packet's cost does not grow with the number of interfaces, and an interface comes and goes as a few elements.
//! A group named by another group's rule is the set of its members' addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

use domain::{
    instances::METADATA_ADDRESS,
    network::{
        Cidr, ENDPOINT_ADDRESS, Peer, Protocol, RESOLVER_ADDRESS,
        host::{Egress, InterfaceItem, RuleItem, SecurityGroupItem, VpcItem},
        names,
    },
};

use crate::{imds::PORT as METADATA_PORT, interface::mark};

/// The router's end of the link to the host.
pub(crate) const UPLINK: &str = "up0";

/// What the table of one router holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Ruleset {
    resolver: Option<Ipv4Addr>,
    endpoint_port: u16,
    /// Which address may send on which link.
    sources: BTreeSet<(String, Ipv4Addr)>,
    /// Links on which any address may send.
    unchecked: BTreeSet<String>,
    /// The combination of groups of each address.
    combination_of: BTreeMap<Ipv4Addr, String>,
    /// The groups of each combination.
    combinations: BTreeMap<String, Vec<String>>,
    /// The rules of each group: inwards and outwards.
    groups: BTreeMap<String, (Vec<String>, Vec<String>)>,
    /// The members of each group that exists or is named.
    members: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Links whose process connects with its clients' addresses: the groups they leave by, and the mark of what they begin.
    speakers: BTreeMap<String, (String, u32)>,
    /// The same links, by the groups they are in.
    speakers_of: BTreeMap<String, BTreeSet<String>>,
    /// Private to public addresses, both ways.
    public_of: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// Private addresses to those of NAT gateways, outwards only.
    nat_of: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

/// Whether a text is an id in Amazon's form. Nothing else may become part of a script: the items come from a process
/// with fewer privileges than ours.
pub(crate) fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=32).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    })
}

/// What the table must hold. Groups that an interface names and that are not among `groups` let nothing through.
pub(crate) fn compile<'a>(
    vpc: &VpcItem,
    groups: impl IntoIterator<Item = &'a SecurityGroupItem>,
    interfaces: impl IntoIterator<Item = &'a InterfaceItem>,
    speak_for_others: &BTreeSet<String>,
    endpoint_port: u16,
) -> Ruleset {
    let mut rules = Ruleset { resolver: vpc.dns_support.then_some(vpc.resolver), endpoint_port, ..Ruleset::default() };
    for group in groups {
        if !is_id(&group.group_id, "sg-") {
            continue;
        }
        let id = suffix(&group.group_id);
        for rule in &group.rules {
            if let Peer::Group(named) = &rule.peer
                && is_id(named, "sg-")
            {
                rules.members.entry(suffix(named)).or_default();
            }
        }
        let side = |egress: bool| -> Vec<String> {
            group.rules.iter().filter(|rule| rule.egress == egress).flat_map(statements).collect()
        };
        rules.members.entry(id.clone()).or_default();
        rules.groups.insert(id, (side(false), side(true)));
    }
    for interface in interfaces {
        let link = names::interface_link(&interface.interface_id);
        let speaks = speak_for_others.contains(&interface.interface_id);
        if interface.source_dest_check && !speaks {
            rules.sources.insert((link.clone(), interface.address));
        } else {
            rules.unchecked.insert(link.clone());
        }
        let mut mine: Vec<String> =
            interface.security_groups.iter().filter(|group| is_id(group, "sg-")).map(|group| suffix(group)).collect();
        mine.sort();
        mine.dedup();
        for group in &mine {
            rules.groups.entry(group.clone()).or_default();
            rules.members.entry(group.clone()).or_default().insert(interface.address);
        }
        let combination = combination_name(&mine);
        if speaks {
            rules.speakers.insert(link.clone(), (combination.clone(), mark(interface.address)));
            for group in &mine {
                rules.speakers_of.entry(group.clone()).or_default().insert(link.clone());
            }
        }
        rules.combination_of.insert(interface.address, combination.clone());
        rules.combinations.insert(combination, mine);
        match interface.egress {
            Egress::None => {}
            Egress::Public { address } => _ = rules.public_of.insert(interface.address, address),
            Egress::Nat { address } => _ = rules.nat_of.insert(interface.address, address),
        }
    }
    rules
}

fn suffix(group_id: &str) -> String {
    group_id.strip_prefix("sg-").unwrap_or(group_id).to_owned()
}

/// A chain name is at most 31 characters for some tools: one group is named by its id, several by a hash of theirs.
fn combination_name(groups: &[String]) -> String {
    match groups {
        [] => "none".to_owned(),
        [one] => one.clone(),
        several => {
            let hash = several
                .iter()
                .flat_map(|group| group.bytes().chain([b' ']))
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            format!("x{hash:016x}")
        }
    }
}

/// A rule as statements that accept; none when it can match nothing here.
fn statements(rule: &RuleItem) -> Vec<String> {
    let mut statements: Vec<String> = statement(rule).into_iter().collect();
    // A load balancer that speaks for its clients is known by its link: the address is theirs.
    if let (Peer::Group(group), false) = (&rule.peer, rule.egress)
        && is_id(group, "sg-")
    {
        statements.extend(accept(rule, &format!("iifname @l_{}", suffix(group))));
    }
    statements
}

fn statement(rule: &RuleItem) -> Option<String> {
    let peer = match (&rule.peer, rule.egress) {
        (Peer::Cidr(block), _) if *block == Cidr::ANY => "meta nfproto ipv4".to_owned(),
        (Peer::Cidr(block), false) => format!("ip saddr {block}"),
        (Peer::Cidr(block), true) => format!("ip daddr {block}"),
        (Peer::Group(group), false) if is_id(group, "sg-") => format!("ip saddr @m_{}", suffix(group)),
        (Peer::Group(group), true) if is_id(group, "sg-") => format!("ip daddr @m_{}", suffix(group)),
        (Peer::Group(_) | Peer::Ipv6(..), _) => return None,
    };
    accept(rule, &peer)
}

/// Accepts what a rule names of what a peer sends.
fn accept(rule: &RuleItem, peer: &str) -> Option<String> {
    let ports = |name: &str, from: u16, to: u16| match (from, to) {
        (0, u16::MAX) => format!("meta l4proto {name}"),
        (from, to) if from == to => format!("{name} dport {from}"),
        (from, to) => format!("{name} dport {from}-{to}"),
    };
    let protocol = match rule.protocol {
        Protocol::All => String::new(),
        Protocol::Tcp { from, to } => ports("tcp", from, to),
        Protocol::Udp { from, to } => ports("udp", from, to),
        Protocol::Icmp { kind_number: None, .. } => "meta l4proto icmp".to_owned(),
        Protocol::Icmp { kind_number: Some(kind), code: None } => format!("icmp type {kind}"),
        Protocol::Icmp { kind_number: Some(kind), code: Some(code) } => format!("icmp type {kind} icmp code {code}"),
        Protocol::Icmpv6 { .. } => return None,
        Protocol::Number { number } => format!("meta l4proto {number}"),
    };
    Some(if protocol.is_empty() { format!("{peer} accept") } else { format!("{peer} {protocol} accept") })
}

impl Ruleset {
    /// The script that makes the table what it must be, whatever it was: for a router that is new or adopted.
    pub(crate) fn replace(&self, table: &str) -> String {
        let mut script = format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
        script.push_str(&self.fixed());
        script.push_str("}\n");
        script.push_str(&Self::default().update(self, table));
        script
    }

    /// What does not depend on interfaces and groups.
    fn fixed(&self) -> String {
        let resolver = self.resolver.map(|address| format!("{address}, ")).unwrap_or_default();
        let port = self.endpoint_port;
        format!(
            "\tset sources {{ type ifname . ipv4_addr; }}
	set unchecked {{ type ifname; }}
	map leaving_by {{ type ifname : verdict; }}
	map begun_by {{ type ifname : mark; }}
	map leaving_of {{ type ipv4_addr : verdict; }}
	map arriving_of {{ type ipv4_addr : verdict; }}
	map public_of {{ type ipv4_addr : ipv4_addr; }}
	map private_of {{ type ipv4_addr : ipv4_addr; }}
	map nat_of {{ type ipv4_addr : ipv4_addr; }}
	set outbound {{ type ipv4_addr; }}
	chain check_source {{
		type filter hook prerouting priority raw; policy drop;
		iifname {{ \"lo\", \"{UPLINK}\" }} accept
		iifname . ip saddr @sources accept
		iifname @unchecked meta nfproto ipv4 accept
	}}
	chain way_back {{
		type filter hook prerouting priority mangle; policy accept;
		ct state new ct mark set iifname map @begun_by
		ct direction reply ct mark != 0 meta mark set ct mark
	}}
	chain from_outside {{
		type nat hook prerouting priority dstnat; policy accept;
		iifname \"{UPLINK}\" dnat ip to ip daddr map @private_of
	}}
	chain to_platform {{
		type filter hook input priority filter; policy drop;
		iifname \"lo\" accept
		ct state established,related accept
		iifname \"{UPLINK}\" drop
		ip daddr {{ {resolver}{RESOLVER_ADDRESS} }} meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr {ENDPOINT_ADDRESS} tcp dport {port} accept
		ip daddr {METADATA_ADDRESS} tcp dport {METADATA_PORT} accept
	}}
	chain leaving {{
		type filter hook forward priority filter - 10; policy drop;
		ct state established,related accept
		ct state invalid drop
		iifname \"{UPLINK}\" ct status dnat accept
		iifname vmap @leaving_by
		ip saddr vmap @leaving_of
	}}
	chain arriving {{
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		oifname \"{UPLINK}\" ip saddr @outbound accept
		ip daddr vmap @arriving_of
	}}
	chain to_outside {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"{UPLINK}\" snat ip to ip saddr map @public_of
		oifname \"{UPLINK}\" snat ip to ip saddr map @nat_of
	}}
"
        )
    }

    /// The script that leads from this table to the next; empty when they are equal. Both must have the same fixed
    /// part (see [`Ruleset::has_same_base`]).
    pub(crate) fn update(&self, next: &Ruleset, table: &str) -> String {
        let mut script = Script { table, text: String::new() };
        self.add_chains(next, &mut script);
        self.change_elements(next, &mut script);
        self.delete_chains(next, &mut script);
        script.text
    }

    /// Whether the parts of the table that [`Ruleset::update`] cannot change are the same.
    pub(crate) fn has_same_base(&self, next: &Ruleset) -> bool {
        self.resolver == next.resolver && self.endpoint_port == next.endpoint_port
    }

    fn add_chains(&self, next: &Ruleset, script: &mut Script<'_>) {
        for group in next.members.keys().filter(|group| !self.members.contains_key(*group)) {
            script.line("add set", format_args!("m_{group} {{ type ipv4_addr; }}"));
            script.line("add set", format_args!("l_{group} {{ type ifname; }}"));
        }
        for (group, (inwards, outwards)) in &next.groups {
            let old = self.groups.get(group);
            for (name, rules, old) in [("in", inwards, old.map(|old| &old.0)), ("out", outwards, old.map(|old| &old.1))]
            {
                script.chain(&format!("g{name}_{group}"), rules.iter().cloned(), old.is_some(), old == Some(rules));
            }
        }
        for (combination, groups) in &next.combinations {
            let old = self.combinations.get(combination);
            for name in ["in", "out"] {
                let jumps = groups.iter().map(|group| format!("jump g{name}_{group}"));
                script.chain(&format!("c{name}_{combination}"), jumps, old.is_some(), old == Some(groups));
            }
        }
    }

    fn change_elements(&self, next: &Ruleset, script: &mut Script<'_>) {
        script.elements("sources", &self.source_elements(), &next.source_elements());
        let quoted = |links: &BTreeSet<String>| links.iter().map(|link| format!("\"{link}\"")).collect();
        script.elements("unchecked", &quoted(&self.unchecked), &quoted(&next.unchecked));
        for (set, name) in [("leaving_of", "cout"), ("arriving_of", "cin")] {
            let verdicts = |rules: &Ruleset| -> BTreeMap<Ipv4Addr, String> {
                let jump = |combination: &String| format!("jump {name}_{combination}");
                rules.combination_of.iter().map(|(address, combination)| (*address, jump(combination))).collect()
            };
            script.mappings(set, &verdicts(self), &verdicts(next));
        }
        let speakers = |rules: &Ruleset, value: fn(&(String, u32)) -> String| -> BTreeSet<String> {
            rules.speakers.iter().map(|(link, of)| format!("\"{link}\" : {}", value(of))).collect()
        };
        // No way on from there: the address is not the load balancer's, and what its owner may do is not asked.
        let leaving: fn(&(String, u32)) -> String = |(combination, _)| format!("goto cout_{combination}");
        let mark: fn(&(String, u32)) -> String = |(_, mark)| format!("{mark:#x}");
        script.elements("leaving_by", &speakers(self, leaving), &speakers(next, leaving));
        script.elements("begun_by", &speakers(self, mark), &speakers(next, mark));
        let texts = |map: &BTreeMap<Ipv4Addr, Ipv4Addr>| map.iter().map(|(from, to)| (*from, to.to_string())).collect();
        script.mappings("public_of", &texts(&self.public_of), &texts(&next.public_of));
        let reversed =
            |map: &BTreeMap<Ipv4Addr, Ipv4Addr>| map.iter().map(|(from, to)| (*to, from.to_string())).collect();
        script.mappings("private_of", &reversed(&self.public_of), &reversed(&next.public_of));
        script.mappings("nat_of", &texts(&self.nat_of), &texts(&next.nat_of));
        script.elements("outbound", &self.outbound(), &next.outbound());
        for (group, members) in &next.members {
            let texts = |members: &BTreeSet<Ipv4Addr>| members.iter().map(Ipv4Addr::to_string).collect();
            let old = self.members.get(group).map(texts).unwrap_or_default();
            script.elements(&format!("m_{group}"), &old, &texts(members));
            let links = |rules: &Ruleset| rules.speakers_of.get(group).map(quoted).unwrap_or_default();
            script.elements(&format!("l_{group}"), &links(self), &links(next));
        }
    }

    fn delete_chains(&self, next: &Ruleset, script: &mut Script<'_>) {
        for combination in self.combinations.keys().filter(|key| !next.combinations.contains_key(*key)) {
            for name in ["in", "out"] {
                script.line("delete chain", format_args!("c{name}_{combination}"));
            }
        }
        for group in self.groups.keys().filter(|group| !next.groups.contains_key(*group)) {
            for name in ["in", "out"] {
                script.line("delete chain", format_args!("g{name}_{group}"));
            }
        }
        for group in self.members.keys().filter(|group| !next.members.contains_key(*group)) {
            script.line("delete set", format_args!("m_{group}"));
            script.line("delete set", format_args!("l_{group}"));
        }
    }

    fn source_elements(&self) -> BTreeSet<String> {
        self.sources.iter().map(|(link, address)| format!("\"{link}\" . {address}")).collect()
    }

    fn outbound(&self) -> BTreeSet<String> {
        self.public_of.keys().chain(self.nat_of.keys()).map(Ipv4Addr::to_string).collect()
    }
}

/// A script under construction.
struct Script<'a> {
    table: &'a str,
    text: String,
}

impl Script<'_> {
    fn line(&mut self, verb: &str, rest: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{verb} inet {} {rest}", self.table);
    }

    /// Makes a chain have these rules.
    fn chain(&mut self, name: &str, rules: impl Iterator<Item = String>, exists: bool, unchanged: bool) {
        if unchanged {
            return;
        }
        self.line(if exists { "flush chain" } else { "add chain" }, format_args!("{name}"));
        for rule in rules {
            self.line("add rule", format_args!("{name} {rule}"));
        }
    }

    /// Makes a set have these elements.
    fn elements(&mut self, set: &str, old: &BTreeSet<String>, new: &BTreeSet<String>) {
        for (verb, list) in [("delete element", old.difference(new)), ("add element", new.difference(old))] {
            let list: Vec<&str> = list.map(String::as_str).collect();
            for part in list.chunks(512) {
                self.line(verb, format_args!("{set} {{ {} }}", part.join(", ")));
            }
        }
    }

    /// Makes a map have these entries. An entry that changes is removed and added: the transaction makes that one step.
    fn mappings(&mut self, map: &str, old: &BTreeMap<Ipv4Addr, String>, new: &BTreeMap<Ipv4Addr, String>) {
        let pairs = |map: &BTreeMap<Ipv4Addr, String>| -> BTreeSet<String> {
            map.iter().map(|(key, value)| format!("{key} : {value}")).collect()
        };
        self.elements(map, &pairs(old), &pairs(new));
    }
}

#[cfg(test)]
mod tests;
