//! The router of a VPC: a network namespace with one link to the host and one to each interface.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
};

use domain::{
    instances::METADATA_ADDRESS,
    network::{Cidr, ENDPOINT_ADDRESS, RESOLVER_ADDRESS, host::VpcItem, names},
};

use crate::{
    imds,
    netlink::{End, Netlink, NewRoute, Select},
    netns,
    ruleset::UPLINK,
};

/// Every link of a router has this address: they never meet.
pub(crate) const ROUTER_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 1];
/// The host's end of every link to a router.
pub(crate) const HOST_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 2];
/// The kernel gives the loopback link this index in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Addresses the host and the routers have towards each other, from the platform's public block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// The host's, the same on every link.
    pub(crate) host: Ipv4Addr,
    /// The router's, the same in every router.
    pub(crate) router: Ipv4Addr,
}

impl Uplink {
    /// The second and third address of the block.
    pub(crate) fn of(block: Cidr) -> Option<Self> {
        Some(Self { host: block.nth(1)?, router: block.nth(2)? })
    }
}

/// The sockets at which a router answers its interfaces.
pub(crate) struct Listeners {
    pub(crate) endpoint: TcpListener,
    pub(crate) metadata: TcpListener,
    pub(crate) names_udp: Vec<UdpSocket>,
    pub(crate) names_tcp: Vec<TcpListener>,
}

/// Where a router's namespace is named.
pub(crate) fn path(platform: &str, vpc_id: &str) -> PathBuf {
    names::netns_path(platform, vpc_id)
}

/// Makes the router what it must be, or makes it. What is right already stays untouched.
pub(crate) fn ensure(platform: &str, vpc: &VpcItem, uplink: Uplink) -> io::Result<()> {
    let path = path(platform, &vpc.vpc_id);
    let host = netns::current()?;
    netns::on_thread(|| {
        let exists = netns::is_ready(&path);
        if exists {
            netns::enter(&path)?;
        } else {
            netns::enter_new()?;
        }
        let mut router = Netlink::open()?;
        if !exists {
            set_parameters()?;
            router.set_up(LOOPBACK)?;
        }
        ensure_addresses(&mut router, vpc)?;
        ensure_uplink(platform, vpc, uplink, &mut router, &host)?;
        for block in [vpc.cidr, LINK_LOCAL] {
            router.set_blackhole(block)?;
        }
        if !exists {
            netns::name_current(&path)?;
        }
        Ok(())
    })
}

/// Link-local addresses are never routed on.
const LINK_LOCAL: Cidr = Cidr::literal(Ipv4Addr::new(169, 254, 0, 0), 16);

fn set_parameters() -> io::Result<()> {
    for (name, value) in [
        ("ipv4/ip_forward", "1"),
        // The source check is the table's, by link and address; the kernel's own knows no exceptions.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
    ] {
        netns::set_parameter(name, value)?;
    }
    // A kernel without IPv6 has nothing to switch off.
    let _ = netns::set_parameter("ipv6/conf/all/disable_ipv6", "1");
    let _ = netns::set_parameter("ipv6/conf/default/disable_ipv6", "1");
    Ok(())
}

fn ensure_addresses(router: &mut Netlink, vpc: &VpcItem) -> io::Result<()> {
    let present: BTreeSet<Ipv4Addr> = router.addresses()?.into_iter().map(|(_, address, _)| address).collect();
    let wanted =
        vpc.gateways.iter().copied().chain([vpc.resolver, ENDPOINT_ADDRESS, RESOLVER_ADDRESS, METADATA_ADDRESS]);
    for address in wanted.filter(|address| !present.contains(address)) {
        router.add_address(LOOPBACK, address, 32)?;
    }
    Ok(())
}

/// The pair of links between host and router, and what each must know of the other.
fn ensure_uplink(platform: &str, vpc: &VpcItem, uplink: Uplink, router: &mut Netlink, host: &File) -> io::Result<()> {
    let name = names::vpc_link(platform, &vpc.vpc_id);
    if router.link(UPLINK)?.is_none() {
        let here = End { name: UPLINK, mac: ROUTER_MAC };
        let there = End { name: &name, mac: HOST_MAC };
        let made = router.add_pair(&here, &there, host.as_fd());
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // The other end of a router that is gone.
            delete_host_link(host, &name)?;
            router.add_pair(&here, &there, host.as_fd())?;
        } else {
            made?;
        }
    }
    let up = router.link(UPLINK)?.ok_or_else(|| io::Error::other("the link to the host vanished"))?.index;
    router.add_address(up, uplink.router, 32)?;
    router.set_neighbour(up, uplink.host, HOST_MAC)?;
    let host = Some(uplink.host);
    router.set_route(&NewRoute { destination: Cidr::ANY, via: host, link: up, source: None })
}

fn delete_host_link(host: &File, name: &str) -> io::Result<()> {
    let host = host.try_clone()?;
    netns::on_thread(|| {
        nix::sched::setns(host, nix::sched::CloneFlags::CLONE_NEWNET)?;
        Netlink::open()?.delete_link(name)
    })
}

/// Opens the sockets at which the router answers.
pub(crate) fn listen(platform: &str, vpc: &VpcItem, endpoint_port: u16) -> io::Result<Listeners> {
    netns::within(&path(platform, &vpc.vpc_id), || {
        let endpoint = TcpListener::bind((ENDPOINT_ADDRESS, endpoint_port))?;
        endpoint.set_nonblocking(true)?;
        let metadata = TcpListener::bind((METADATA_ADDRESS, imds::PORT))?;
        metadata.set_nonblocking(true)?;
        let (mut names_udp, mut names_tcp) = (Vec::new(), Vec::new());
        for address in [vpc.resolver, RESOLVER_ADDRESS] {
            let udp = UdpSocket::bind((address, 53))?;
            udp.set_nonblocking(true)?;
            names_udp.push(udp);
            let tcp = TcpListener::bind((address, 53))?;
            tcp.set_nonblocking(true)?;
            names_tcp.push(tcp);
        }
        Ok(Listeners { endpoint, metadata, names_udp, names_tcp })
    })
}

/// Removes links to interfaces that are not wanted: those whose namespaces are still held by a process.
pub(crate) fn remove_links(platform: &str, vpc_id: &str, wanted: &BTreeSet<String>) -> io::Result<()> {
    let links = interface_links(platform, vpc_id)?;
    let unwanted: Vec<&String> = links.difference(wanted).collect();
    if unwanted.is_empty() {
        return Ok(());
    }
    netns::within(&path(platform, vpc_id), || {
        let mut netlink = Netlink::open()?;
        unwanted.iter().try_for_each(|link| netlink.delete_link(link))
    })
}

/// Removes the rules for the way back to interfaces that do not speak for others, or no longer.
pub(crate) fn remove_rules(platform: &str, vpc_id: &str, wanted: &BTreeSet<u32>) -> io::Result<()> {
    netns::within(&path(platform, vpc_id), || {
        let mut netlink = Netlink::open()?;
        let present = netlink.rule_marks()?;
        let mut unwanted = present.into_iter().filter(|mark| !wanted.contains(mark));
        unwanted.try_for_each(|mark| netlink.delete_rule(mark, &Select::Mark(mark)))
    })
}

/// The links of a router to interfaces, by name; empty when there is no such router.
pub(crate) fn interface_links(platform: &str, vpc_id: &str) -> io::Result<BTreeSet<String>> {
    let path = path(platform, vpc_id);
    if !netns::is_ready(&path) {
        return Ok(BTreeSet::new());
    }
    netns::within(&path, || {
        let links = Netlink::open()?.links()?;
        Ok(links.into_iter().map(|link| link.name).filter(|name| name.starts_with('e')).collect())
    })
}

/// Takes the router down: its link to the host and its name. Links to interfaces go with it.
pub(crate) fn remove(platform: &str, vpc_id: &str) -> io::Result<()> {
    Netlink::open()?.delete_link(&names::vpc_link(platform, vpc_id))?;
    netns::remove(&path(platform, vpc_id))
}
