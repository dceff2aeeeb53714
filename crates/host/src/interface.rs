//! A network interface: a namespace of its own with one link, `eth0`, to the VPC's router.
//!
//! Neighbours are told, not asked for: the interface knows the router's hardware address and the router the
//! interface's, for good, so that nobody can pretend to be another on this link.

use std::{io, os::fd::AsFd, path::PathBuf};

use domain::network::{Cidr, host::InterfaceItem, names};

use crate::{
    netlink::{End, Netlink, NewRoute, parse_mac},
    netns,
    router::{self, LOOPBACK, ROUTER_MAC},
};

const ETH0: &str = "eth0";

/// Where an interface's namespace is named.
pub(crate) fn path(platform: &str, interface_id: &str) -> PathBuf {
    names::netns_path(platform, interface_id)
}

/// Makes the namespace and the link what they must be, or makes them. `ready` waits for the router's table; only then
/// the namespace gets its name, which is what others wait for.
pub(crate) fn ensure(
    platform: &str,
    item: &InterfaceItem,
    unprivileged_ports: bool,
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
        if unprivileged_ports {
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
