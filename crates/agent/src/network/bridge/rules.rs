//! The nftables rules of an agent's bridge, as one script that replaces what was there.

use std::collections::BTreeMap;
use std::fmt::Write;

use domain::network::names::digits as six;

use super::subnet::Subnet;
use crate::engine::record::ContainerNetwork;
use crate::metadata::PORT;

/// The table of an agent.
pub fn table(digits: &str) -> String {
    format!("ls_agent_{}", six(digits))
}

/// Everything that is to hold for these containers.
///
/// Published ports are led to their containers for packets from outside (`prerouting`) and from the machine itself
/// (`output`). What a container sends to a published port comes back to the bridge it came from, and what the machine
/// sends over its loopback has an address nobody can answer to: both get the bridge's own address, as does all that
/// leaves the machine. Everybody else is seen with the own address. The metadata endpoint's rule is for containers in
/// the machine's network; others have it in theirs.
pub fn script(digits: &str, bridge: &str, containers: &BTreeMap<String, ContainerNetwork>) -> String {
    let table = table(digits);
    let mut published = String::new();
    for network in containers.values() {
        let Some(address) = network.address else { continue };
        for binding in &network.bindings {
            let (protocol, host, container) = (&binding.protocol, binding.host_port, binding.container_port);
            for offset in 0..binding.range.unwrap_or(1) {
                let (host, container) = (host.saturating_add(offset), container.saturating_add(offset));
                let _ = writeln!(published, "\t\t{protocol} dport {host} dnat to {address}:{container}");
            }
        }
    }
    let block = containers.values().find_map(|network| network.address).map(Subnet::of).map(|subnet| {
        format!(
            "\t\tip saddr {subnet} oifname \"{bridge}\" ct status dnat masquerade
\t\tip saddr {subnet} oifname != \"{bridge}\" masquerade\n"
        )
    });
    let block = block.unwrap_or_default();
    format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
	chain published {{
{published}	}}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump published
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		ip daddr 169.254.170.2 tcp dport 80 redirect to :{PORT}
		fib daddr type local jump published
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
{block}	}}
}}
"
    )
}
