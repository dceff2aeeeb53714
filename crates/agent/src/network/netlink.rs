//! The few requests to the kernel's routing socket that a bridge and its containers need, each waited for.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good: it may be used from a thread that
//! has moved on.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An address block: its first address and the length of its prefix.
pub type Block = (Ipv4Addr, u8);

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
}

/// A connection to the kernel's routing socket.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects, in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a bridge, up.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut message = up(named(name));
        message.attributes.push(LinkAttribute::Address(mac.to_vec()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a pair of links: `name` here, up, a port of the bridge, and `eth0` in another namespace, down: the kernel
    /// cannot set it up before both exist. Neither is ever in the wrong one.
    pub fn add_port(&mut self, name: &str, bridge: u32, mac: [u8; 6], namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut peer = named("eth0");
        peer.attributes.push(LinkAttribute::Address(mac.to_vec()));
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut message = up(named(name));
        message.attributes.push(LinkAttribute::Controller(bridge));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        // What a container sends to a port it publishes itself comes back where it came from.
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = up(LinkMessage::default());
        message.header.index = index;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a link and its other end. Does nothing when there is none.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelLink(named(name)), 0) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewLink(message) = answer else { return None };
            let name = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            Some(Link { index: message.header.index, name: name? })
        });
        Ok(links.collect())
    }

    /// The link of this name.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Gives a link an address, and with it the route to its neighbours.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = link;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The IPv4 addresses of a link, each with the length of its prefix.
    pub fn addresses(&mut self, link: u32) -> io::Result<Vec<Block>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let mut addresses = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetAddress(message))? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            for attribute in message.attributes.iter().filter(|_| message.header.index == link) {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                    addresses.push((*address, message.header.prefix_len));
                }
            }
        }
        Ok(addresses)
    }

    /// Makes the default route.
    pub fn set_default_route(&mut self, via: Ipv4Addr, link: u32) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(link));
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(via)));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Where the main table leads to, but for the default route, which leads everywhere.
    pub fn destinations(&mut self) -> io::Result<Vec<Block>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let mut blocks = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetRoute(message))? {
            let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
            if message.header.table != RouteHeader::RT_TABLE_MAIN {
                continue;
            }
            for attribute in &message.attributes {
                if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
                    blocks.push((*address, message.header.destination_prefix_length));
                }
            }
        }
        Ok(blocks)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        Ok(())
    }

    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.answers(|_| {})
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(message, NLM_F_DUMP)?;
        let mut answers = Vec::new();
        self.answers(|answer| answers.push(answer))?;
        Ok(answers)
    }

    /// Reads answers to the last request up to its acknowledgement or the end of the dump.
    fn answers(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while rest.len() >= 16 {
                let message: NetlinkMessage<RouteNetlinkMessage> = NetlinkMessage::deserialize(rest)
                    .map_err(|error| io::Error::other(format!("an answer of the kernel is not understood: {error}")))?;
                let length = (message.header.length as usize).next_multiple_of(4).max(16);
                if message.header.sequence_number == self.sequence {
                    match message.payload {
                        NetlinkPayload::Done(_) => return Ok(()),
                        NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                        NetlinkPayload::Error(error) => return Err(error.to_io()),
                        NetlinkPayload::InnerMessage(message) => take(message),
                        _ => {}
                    }
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}
