//! The host's own network namespace: what a VPC's packets meet between its router and the world. A few objects, all
//! under the platform's names: a link and host routes per VPC, one nftables table, and, where the host forwards nothing
//! by default (Docker sets it so), two iptables rules that let our links through.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use domain::network::{Cidr, names};

use crate::{
    netlink::{Netlink, NewRoute},
    netns, nft,
    router::{ROUTER_MAC, Uplink},
};

/// Whether the host forwards packets at all: one switch for everybody on it.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// An empty table that says: one of our platforms has switched that on. It goes with the machine's next start, as the
/// switch's position does, and belongs to all platforms of the machine.
const FORWARDING_MARK: &str = "ls_forwarding";

/// Makes the host's side what it must be: `public` are the public addresses in each VPC, by VPC id. Other VPCs' links
/// and routes are removed. Returns what could not be had, for people.
pub(crate) fn ensure(
    platform: &str,
    block: Cidr,
    uplink: Uplink,
    public: &BTreeMap<String, BTreeSet<Ipv4Addr>>,
) -> io::Result<()> {
    let mut host = Netlink::open()?;
    let prefix = names::link_prefix(platform);
    let wanted: BTreeMap<String, &BTreeSet<Ipv4Addr>> =
        public.iter().map(|(vpc, addresses)| (names::vpc_link(platform, vpc), addresses)).collect();
    let routes = host.our_routes()?;
    let present: BTreeSet<(u32, Ipv4Addr)> =
        host.addresses()?.into_iter().map(|(link, address, _)| (link, address)).collect();
    for link in host.links()?.into_iter().filter(|link| link.name.starts_with(&prefix)) {
        let Some(addresses) = wanted.get(&link.name) else {
            host.delete_link(&link.name)?;
            continue;
        };
        if !present.contains(&(link.index, uplink.host)) {
            // The link's other end has no IPv6, nor shall this one have.
            let _ = netns::set_parameter(&format!("ipv6/conf/{}/disable_ipv6", link.name), "1");
            host.set_up(link.index)?;
            host.add_address(link.index, uplink.host, 32)?;
            host.set_neighbour(link.index, uplink.router, ROUTER_MAC)?;
        }
        let there: BTreeSet<Cidr> = routes.iter().filter(|route| route.1 == link.index).map(|route| route.0).collect();
        let needed: BTreeSet<Cidr> = addresses.iter().map(|address| Cidr::host(*address)).collect();
        for destination in there.difference(&needed) {
            host.delete_route(*destination, link.index)?;
        }
        for destination in needed.difference(&there).filter(|destination| block.contains_block(destination)) {
            let (via, source) = (Some(uplink.router), Some(uplink.host));
            host.set_route(&NewRoute { destination: *destination, via, link: link.index, source })?;
        }
    }
    Ok(())
}

/// Makes the host forward our packets, and translate those that go further than the host. Idempotent.
pub(crate) fn ensure_forwarding(platform: &str, block: Cidr) -> io::Result<()> {
    if fs::read_to_string(FORWARD)?.trim() != "1" {
        nft::apply(&format!("add table ip {FORWARDING_MARK}\n"))?;
        fs::write(FORWARD, "1")?;
    }
    let (table, links) = (names::table(platform), names::link_prefix(platform));
    nft::apply(&format!(
        "table ip {table}
delete table ip {table}
table ip {table} {{
	chain check_source {{
		type filter hook prerouting priority raw; policy accept;
		iifname \"{links}*\" ip saddr != {block} drop
	}}
	chain to_outside {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {block} oifname != \"{links}*\" masquerade
	}}
}}
"
    ))?;
    accept_forwarded(platform)
}

/// Whether the table is there.
pub(crate) fn has_table(platform: &str) -> bool {
    !nft::list(&["list", "table", "ip", &names::table(platform)]).is_empty()
}

/// Inserts iptables rules for our links where forwarding is refused by default: another table's `accept` does not
/// undo a `drop` of that one. Docker leaves the chain DOCKER-USER to others; without it the rules go into FORWARD.
fn accept_forwarded(platform: &str) -> io::Result<()> {
    let Some(rules) = iptables(&["-S", "FORWARD"])? else { return Ok(()) };
    if !rules.contains("-P FORWARD DROP") {
        return Ok(());
    }
    let chain = if iptables(&["-S", "DOCKER-USER"])?.is_some() { "DOCKER-USER" } else { "FORWARD" };
    for direction in ["-i", "-o"] {
        let rule = forward_rule(platform, direction);
        let mut check = vec!["-C", chain];
        check.extend(rule.iter().map(String::as_str));
        if iptables(&check)?.is_none() {
            check[0] = "-I";
            if iptables(&check)?.is_none() {
                return Err(io::Error::other(format!(
                    "the iptables chain {chain} takes no rule for {}",
                    rule.join(" ")
                )));
            }
        }
    }
    Ok(())
}

fn forward_rule(platform: &str, direction: &str) -> [String; 8] {
    let links = format!("{}+", names::link_prefix(platform));
    let comment = format!("ls-{}", names::digits(platform));
    [direction, &links, "-m", "comment", "--comment", &comment, "-j", "ACCEPT"].map(str::to_owned)
}

/// Runs iptables: what it printed, or `None` when it refused or is not installed, which is no harm: then nothing here
/// was set up with it.
fn iptables(arguments: &[&str]) -> io::Result<Option<String>> {
    let output = Command::new("iptables").arg("-w").args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes everything of the platform from the host's namespace and says what it was.
pub(crate) fn remove(platform: &str) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut host = Netlink::open()?;
    let prefix = names::link_prefix(platform);
    for link in host.links()?.into_iter().filter(|link| link.name.starts_with(&prefix)) {
        host.delete_link(&link.name)?;
        removed.push(format!("link {}", link.name));
    }
    let table = names::table(platform);
    if has_table(platform) {
        nft::apply(&format!("delete table ip {table}\n"))?;
        removed.push(format!("nftables table ip {table}"));
    }
    for chain in ["DOCKER-USER", "FORWARD"] {
        for direction in ["-i", "-o"] {
            let rule = forward_rule(platform, direction);
            let mut delete = vec!["-D", chain];
            delete.extend(rule.iter().map(String::as_str));
            // Once for each time it was inserted; a bound, because nobody should wait for a tool that misbehaves.
            for _ in 0..8 {
                if iptables(&delete)?.is_none() {
                    break;
                }
                removed.push(format!("iptables rule {} in {chain}", rule.join(" ")));
            }
        }
    }
    removed.extend(restore_forwarding()?);
    Ok(removed)
}

/// Switches forwarding off again, if it was us who switched it on, no other platform of ours is there, and nobody else
/// has set up packet filtering or translation meanwhile: who has may rely on it, as Docker does, which finds it on and
/// leaves it so. A router that stops routing is worse than a switch left on.
fn restore_forwarding() -> io::Result<Option<String>> {
    let tables = nft::list(&["list", "tables"]);
    let tables: Vec<&str> = tables.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    if !tables.contains(&FORWARDING_MARK) {
        return Ok(None);
    }
    let is_platform = |name: &str| name.strip_prefix("ls_").is_some_and(|digits| digits.len() == 6);
    if tables.iter().any(|name| is_platform(name)) {
        return Ok(None);
    }
    let others = tables.iter().any(|name| *name != FORWARDING_MARK)
        || fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.trim().is_empty());
    if !others {
        fs::write(FORWARD, "0")?;
    }
    nft::apply(&format!("delete table ip {FORWARDING_MARK}\n"))?;
    Ok((!others).then(|| "forwarding, which was off before".to_owned()))
}
