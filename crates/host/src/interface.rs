//! A network interface: a namespace of its own with one link, `eth0`, to the VPC's router.
//!
//! Neighbours are told, not asked for: the interface knows the router's hardware address and the router the
//! interface's, for good, so that nobody can pretend to be another on this link.

use std::{io, net::Ipv4Addr, os::fd::AsFd, path::PathBuf};

use domain::network::{Cidr, host::InterfaceItem, names};

use crate::{
    netlink::{End, Netlink, NewRoute, Select, parse_mac},
    netns,
    router::{self, LOOPBACK, ROUTER_MAC},
};

const ETH0: &str = "eth0";

/// The table of a namespace that speaks for others: what comes is for it, whatever address it is sent to.
const SPEAKS_FOR_OTHERS: u32 = 100;

/// What is special about an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Role {
    /// Its processes may listen on ports below 1024 without privileges.
    pub(crate) unprivileged_ports: bool,
    /// Its process connects with its clients' addresses, and gets what is sent back to them: a network load balancer.
    pub(crate) speaks_for_others: bool,
}

/// The mark of connections that such an interface has begun, and the router's table for the way back to it.
pub(crate) fn mark(address: Ipv4Addr) -> u32 {
    address.to_bits()
}

/// Where an interface's namespace is named.
pub(crate) fn path(platform: &str, interface_id: &str) -> PathBuf {
    names::netns_path(platform, interface_id)
}

/// Makes the namespace and the link what they must be, or makes them. `ready` waits for the router's table; only then
/// the namespace gets its name, which is what others wait for.
pub(crate) fn ensure(
    platform: &str,
    item: &InterfaceItem,
    role: Role,
    ready: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    let mac = parse_mac(&item.mac_address)
        .ok_or_else(|| io::Error::other(format!("'{}' is not a MAC address", item.mac_address)))?;
    let path = path(platform, &item.interface_id);
    let link = names::interface_link(&item.interface_id);
    netns::on_thread(|| {
        netns::enter(&router::path(platform, &item.vpc_id))?;
        let mut router = Netlink::open()?;
        let exists = netns::is_ready(&path);
        if exists {
            netns::enter(&path)?;
        } else {
            netns::enter_new()?;
            // Set before the link exists: it never gets an IPv6 address. A kernel without IPv6 has no such parameter.
            let _ = netns::set_parameter("ipv6/conf/default/disable_ipv6", "1");
        }
        if role.unprivileged_ports {
            netns::set_parameter("ipv4/ip_unprivileged_port_start", "0")?;
        }
        let mut inside = Netlink::open()?;
        inside.set_up(LOOPBACK)?;
        let here = inside.link(ETH0)?;
        let there = router.link(&link)?;
        if here.as_ref().is_none_or(|here| here.mac != mac) || there.is_none() {
            // Half a pair, or a pair of something else: begin again.
            if there.is_some() {
                router.delete_link(&link)?;
            }
            if here.is_some() {
                inside.delete_link(ETH0)?;
            }
            let own = netns::current()?;
            router.add_pair(&End { name: &link, mac: ROUTER_MAC }, &End { name: ETH0, mac }, own.as_fd())?;
        }
        let vanished = || io::Error::other("a link vanished while it was made");
        let here = inside.link(ETH0)?.ok_or_else(vanished)?.index;
        let there = router.link(&link)?.ok_or_else(vanished)?.index;
        inside.set_up(here)?;
        inside.add_address(here, item.address, item.prefix)?;
        inside.set_neighbour(here, item.gateway, ROUTER_MAC)?;
        let gateway = Cidr::host(item.gateway);
        inside.set_route(&NewRoute { destination: gateway, via: None, link: here, source: None })?;
        inside.set_route(&NewRoute { destination: Cidr::ANY, via: Some(item.gateway), link: here, source: None })?;
        router.set_neighbour(there, item.address, mac)?;
        let own = Cidr::host(item.address);
        router.set_route(&NewRoute { destination: own, via: None, link: there, source: None })?;
        if role.speaks_for_others {
            inside.set_table_local(SPEAKS_FOR_OTHERS, LOOPBACK)?;
            inside.add_rule(SPEAKS_FOR_OTHERS, &Select::From(ETH0))?;
            router.set_table(mark(item.address), item.address, there)?;
            router.add_rule(mark(item.address), &Select::Mark(mark(item.address)))?;
        }
        // The name tells the agent that all is ready: nothing may be missing when it appears.
        ready()?;
        if exists { Ok(()) } else { netns::name_current(&path) }
    })
}

/// Takes an interface's name away. Its namespace goes, with the link, when no process is left in it, which the kernel
/// does by itself and for many at once; until then the router's table lets nothing of it through.
pub(crate) fn remove(platform: &str, interface_id: &str) -> io::Result<()> {
    netns::remove(&path(platform, interface_id))
}
