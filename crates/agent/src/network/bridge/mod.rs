//! bridge mode: every container has a network namespace of its own, a link to the machine's bridge, an address there,
//! and the host ports that its definition publishes.
//!
//! As Docker's default network, and with kernel objects that carry the agent's six digits: the bridge `ls{digits}b0`,
//! a link `ls{digits}v{address}` and a namespace `ls-{digits}-{task}-{container}` per container, the nftables table
//! `ls_agent_{digits}`. What a container was given is written down before it is made, so that whatever a killed agent
//! leaves is found by the next; a container that is restarted in place keeps all of it.

pub mod forwarding;
pub mod ports;
mod rules;
mod subnet;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::agent_protocol::docker::HostConfig;
use domain::agent_protocol::payload::PortMapping;
use domain::network::Cidr;
use domain::network::names::{link_prefix, netns, netns_path, netns_prefix};

pub use ports::Protocol;
use ports::{Ports, Refused};
use subnet::Subnet;

use plumbing::netlink::{End, Netlink, NewRoute};
use plumbing::{netns, nft};

use super::{Names, names};
use crate::engine::record::ContainerNetwork;
use crate::state;

/// The networks of this agent's containers that are not the network host's business.
pub struct Bridge {
    digits: String,
    directory: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    containers: BTreeMap<String, ContainerNetwork>,
    ports: Ports,
    /// Where the next address is looked for, so that one that was just given back is not given out at once.
    last: Option<Ipv4Addr>,
}

/// Why a container has no network.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A host port cannot be had.
    #[error("{0}")]
    Port(#[from] Refused),
    /// The kernel or a tool refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Bridge {
    /// Takes over what is there of the containers `known` and removes the rest. `directory` is the bridge's own; host
    /// ports that a definition leaves open come from `range`.
    pub fn open(
        digits: &str,
        directory: PathBuf,
        range: RangeInclusive<u16>,
        known: &HashSet<String>,
    ) -> io::Result<Bridge> {
        std::fs::create_dir_all(&directory)?;
        netns::prepare_directory()?;
        let bridge = Bridge {
            digits: digits.to_owned(),
            inner: Mutex::new(Inner { containers: BTreeMap::new(), ports: Ports::new(range), last: None }),
            directory,
        };
        let mut inner = bridge.lock();
        for entry in std::fs::read_dir(&bridge.directory)? {
            let path = entry?.path();
            let Some(key) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
            match state::read::<ContainerNetwork>(&path) {
                Ok(Some(network)) if known.contains(key) && path.extension().is_some_and(|end| end == "json") => {
                    inner.ports.take_over(&network.bindings);
                    inner.containers.insert(key.to_owned(), network);
                }
                _ => state::remove(&path)?,
            }
        }
        bridge.remove_unknown(&inner)?;
        bridge.apply_rules(&inner)?;
        drop(inner);
        Ok(bridge)
    }

    /// Gives a container its network, or the one it has already. With `link`, on the bridge; else a loopback only.
    pub fn attach(&self, key: &str, link: bool, mappings: &[PortMapping]) -> Result<ContainerNetwork, AttachError> {
        let mut inner = self.lock();
        let path = self.namespace(key);
        if let Some(network) = inner.containers.get(key) {
            // An agent may have been killed in the middle of this; what is there is made complete or made anew.
            if netns::is_ready(&path) && configure(&path, network).is_ok() {
                return Ok(network.clone());
            }
            self.take_away(&mut inner, key)?;
        }
        let mut network = ContainerNetwork::default();
        let mut port = None;
        if link {
            let (subnet, index) = self.ensure_bridge()?;
            let given: HashSet<Ipv4Addr> = inner.containers.values().filter_map(|other| other.address).collect();
            let address = subnet.free(inner.last, &given).ok_or_else(|| io::Error::other("no address is free"))?;
            network = ContainerNetwork { address: Some(address), bindings: inner.ports.take(address, mappings)? };
            inner.last = Some(address);
            port = Some((index, address));
        }
        inner.containers.insert(key.to_owned(), network.clone());
        let made = self.make(&inner, key, &network, port);
        if let Err(error) = made {
            if let Err(error) = self.take_away(&mut inner, key) {
                tracing::warn!(container = key, %error, "a half-made network could not be removed");
            }
            return Err(error.into());
        }
        Ok(network)
    }

    fn make(
        &self,
        inner: &Inner,
        key: &str,
        network: &ContainerNetwork,
        port: Option<(u32, Ipv4Addr)>,
    ) -> io::Result<()> {
        state::write(&self.file(key), network)?;
        let path = self.namespace(key);
        netns::remove(&path)?;
        netns::make(&path)?;
        if let Some((bridge, address)) = port {
            let mut netlink = Netlink::open()?;
            let name = self.link(address);
            // One that an agent left which was killed.
            netlink.delete_link(&name)?;
            let (here, there) = (End { name: &name, mac: port_mac(address) }, End { name: "eth0", mac: mac(address) });
            netlink.add_pair(&here, &there, File::open(&path)?.as_fd())?;
            netlink.attach_to_bridge(&name, bridge)?;
            let _ = netns::set_parameter(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
        }
        configure(&path, network)?;
        // The first one on the bridge also brings the rules for what leaves it.
        let alone = inner.containers.values().filter(|other| other.address.is_some()).count() == 1;
        let needed = !network.bindings.is_empty() || (alone && network.address.is_some());
        if needed { self.apply_rules(inner) } else { Ok(()) }
    }

    /// Takes a container's network away and gives its address and ports back. Safe to repeat.
    pub fn detach(&self, key: &str) -> io::Result<()> {
        self.take_away(&mut self.lock(), key)
    }

    fn take_away(&self, inner: &mut Inner, key: &str) -> io::Result<()> {
        let Some(network) = inner.containers.remove(key) else { return Ok(()) };
        let rules = if network.bindings.is_empty() { Ok(()) } else { self.apply_rules(inner) };
        inner.ports.give_back(&network.bindings);
        let link = network.address.map_or(Ok(()), |address| Netlink::open()?.delete_link(&self.link(address)));
        // What does not go must not keep the rest.
        rules.and(link).and(netns::remove(&self.namespace(key))).and(state::remove(&self.file(key)))
    }

    /// What a container was given, if it has anything.
    pub fn network(&self, key: &str) -> Option<ContainerNetwork> {
        self.lock().containers.get(key).cloned()
    }

    /// The containers that have something.
    pub fn keys(&self) -> Vec<String> {
        self.lock().containers.keys().cloned().collect()
    }

    /// Where a container's network namespace is.
    pub fn namespace(&self, key: &str) -> PathBuf {
        netns_path(&self.digits, key)
    }

    /// The bridge, made if it is not there: its block of addresses and its index.
    fn ensure_bridge(&self) -> io::Result<(Subnet, u32)> {
        let name = self.bridge_name();
        let mut netlink = Netlink::open()?;
        if let Some(link) = netlink.link(&name)?
            && let Some((_, gateway, prefix)) = netlink.addresses()?.into_iter().find(|(on, ..)| *on == link.index)
        {
            return Ok((Subnet::around(gateway, prefix), link.index));
        }
        netlink.delete_link(&name)?;
        let subnet = Subnet::choose(&netlink.destinations()?)
            .ok_or_else(|| io::Error::other("every address block for the bridge is routed elsewhere"))?;
        netlink.add_bridge(&End { name: &name, mac: mac(subnet.gateway()) })?;
        let index = netlink.link(&name)?.ok_or_else(|| io::Error::other(format!("{name} is not there")))?.index;
        // The loopback's ports are published to the host itself too: its packets go over the bridge.
        netns::set_parameter(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        let _ = netns::set_parameter(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
        forwarding::ensure(&self.digits)?;
        // The last of it, by which a bridge is known to be complete.
        netlink.add_address_and_route(index, subnet.gateway(), subnet.prefix)?;
        Ok((subnet, index))
    }

    fn apply_rules(&self, inner: &Inner) -> io::Result<()> {
        nft::apply(&rules::script(&self.digits, &self.bridge_name(), &inner.containers))
    }

    fn remove_unknown(&self, inner: &Inner) -> io::Result<()> {
        let wanted: HashSet<String> = inner.containers.keys().map(|key| netns(&self.digits, key)).collect();
        for name in netns::list(&netns_prefix(&self.digits))?.into_iter().filter(|name| !wanted.contains(name)) {
            tracing::warn!(name, "removing a network namespace no task knows");
            netns::remove(&Path::new(domain::network::names::NETNS_DIRECTORY).join(name))?;
        }
        let wanted: HashSet<String> =
            inner.containers.values().filter_map(|network| network.address).map(|address| self.link(address)).collect();
        let mut netlink = Netlink::open()?;
        let ports = format!("{}v", link_prefix(&self.digits));
        for link in netlink.links()?.into_iter().filter(|link| link.name.starts_with(&ports)) {
            if !wanted.contains(&link.name) {
                tracing::warn!(name = link.name, "removing a link no task knows");
                netlink.delete_link(&link.name)?;
            }
        }
        Ok(())
    }

    fn bridge_name(&self) -> String {
        format!("{}b0", link_prefix(&self.digits))
    }

    /// The machine's end of a container's link. The block has 16 bits for containers, so four digits tell them apart.
    fn link(&self, address: Ipv4Addr) -> String {
        let [_, _, third, fourth] = address.octets();
        format!("{}v{third:02x}{fourth:02x}", link_prefix(&self.digits))
    }

    fn file(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets up what is inside a container's namespace. Safe to repeat.
fn configure(path: &Path, network: &ContainerNetwork) -> io::Result<()> {
    netns::within(path, || {
        let mut netlink = Netlink::open()?;
        netlink.set_up(1)?;
        let Some(address) = network.address else { return Ok(()) };
        let subnet = Subnet::of(address);
        // There is no IPv6 to be had here; a kernel without it has no such parameter.
        let _ = netns::set_parameter("ipv6/conf/all/disable_ipv6", "1");
        let link = netlink.link("eth0")?.ok_or_else(|| io::Error::other("eth0 is not there"))?.index;
        netlink.add_address_and_route(link, address, subnet.prefix)?;
        netlink.set_up(link)?;
        let via = Some(subnet.gateway());
        netlink.set_route(&NewRoute { destination: Cidr::ANY, via, link, source: None })
    })
}

/// By what a container on the bridge knows names. `links` are addresses with the names they are to have.
pub fn names(hostname: String, address: Option<Ipv4Addr>, links: &[(Ipv4Addr, String)], host: &HostConfig) -> Names {
    let mut hosts = String::from("127.0.0.1 localhost\n");
    if let Some(address) = address {
        hosts.push_str(&format!("{address} {hostname}\n"));
    }
    for (address, names) in links {
        hosts.push_str(&format!("{address} {names}\n"));
    }
    hosts.push_str(&names::extra_hosts(host));
    Names { resolvers: names::reachable_resolvers().resolv_conf(host), hostname, hosts }
}

/// As Docker makes them: locally administered, and the address in it.
fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Of the machine's end of a container's link: another one than the container's, and as lasting.
fn port_mac(address: Ipv4Addr) -> [u8; 6] {
    let [_, _, a, b, c, d] = mac(address);
    [0x02, 0x43, a, b, c, d]
}

/// Removes everything of an agent from the machine's networks, whatever state it is in; says what it was.
pub fn teardown(digits: &str) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in netns::list(&netns_prefix(digits))? {
        netns::remove(&Path::new(domain::network::names::NETNS_DIRECTORY).join(&name))?;
        removed.push(format!("network namespace {name}"));
    }
    let mut netlink = Netlink::open()?;
    let prefix = link_prefix(digits);
    let ours = |name: &str| name.strip_prefix(&prefix).is_some_and(|rest| rest == "b0" || is_port(rest));
    for link in netlink.links()?.into_iter().filter(|link| ours(&link.name)) {
        netlink.delete_link(&link.name)?;
        removed.push(format!("link {}", link.name));
    }
    let table = rules::table(digits);
    if nft::tables().contains(&table) {
        nft::apply(&format!("delete table ip {table}\n"))?;
        removed.push(format!("nftables table ip {table}"));
    }
    removed.extend(forwarding::restore(digits)?);
    Ok(removed)
}

/// `v` and four digits: another process of a platform with the same digits names its links otherwise.
fn is_port(rest: &str) -> bool {
    rest.strip_prefix('v').is_some_and(|tail| tail.len() == 4 && tail.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
