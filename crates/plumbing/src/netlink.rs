//! The few requests to the kernel's routing socket that routers, interfaces and bridges need, each waited for.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good: it may be used from a thread that
//! has moved on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use domain::network::Cidr;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    },
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The protocol number that marks our routes.
const OURS: RouteProtocol = RouteProtocol::Other(0x4c);

/// A link as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of it, in its namespace.
    pub index: u32,
    /// Its name, in its namespace.
    pub name: String,
    /// Its hardware address.
    pub mac: Vec<u8>,
}

/// One end of a pair of links to be made.
pub struct End<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// A route to be made.
pub struct NewRoute {
    /// Where it leads to.
    pub destination: Cidr,
    /// Over whom; nobody when the destination is on the link itself.
    pub via: Option<Ipv4Addr>,
    /// The link's index.
    pub link: u32,
    /// The address that packets over it come from.
    pub source: Option<Ipv4Addr>,
}

/// The packets that a rule is about.
pub enum Select<'a> {
    /// Those that come over a link.
    From(&'a str),
    /// Those with a mark.
    Mark(u32),
}

/// Our rules come before those of the main table.
const RULE_PRIORITY: u32 = 100;

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

    /// Makes a pair of links: `here` in this socket's namespace, up, `there` in another, down: the kernel cannot set it
    /// up before both exist. Neither is ever in the wrong one, and nothing is moved, which would cost a grace period.
    pub fn add_pair(&mut self, here: &End<'_>, there: &End<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut peer = link_message(there);
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut message = link_message(here);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a bridge, up.
    pub fn add_bridge(&mut self, bridge: &End<'_>) -> io::Result<()> {
        let mut message = link_message(bridge);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a link a port of a bridge. What it sends may come back over it: to itself, by an address of the bridge's.
    pub fn attach_to_bridge(&mut self, name: &str, bridge: u32) -> io::Result<()> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Controller(bridge));
        self.request(RouteNetlinkMessage::NewLink(message), 0)?;
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a link and its other end. Does nothing when there is none.
    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        let message = named(name);
        match self.request(RouteNetlinkMessage::DelLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Some(read_link(&message)),
                _ => None,
            })
            .collect())
    }

    /// The link of this name. Costs the same however many there are.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = named(name);
        self.send(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
        let mut found = None;
        let answered = self.answers(|answer| {
            if let RouteNetlinkMessage::NewLink(message) = answer {
                found = Some(read_link(&message));
            }
        });
        match answered {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Gives a link an address, without the route to its neighbours that the kernel would add.
    pub fn add_address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.add_address_with(link, address, prefix, &[AddressFlags::Noprefixroute])
    }

    /// Gives a link an address, and with it the route to its neighbours.
    pub fn add_address_and_route(&mut self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.add_address_with(link, address, prefix, &[])
    }

    fn add_address_with(&mut self, link: u32, address: Ipv4Addr, prefix: u8, flags: &[AddressFlags]) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = link;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
        message.attributes.extend(flags.iter().map(|flags| AddressAttribute::Flags(*flags)));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// The IPv4 addresses of the namespace, each with its link and the length of its prefix.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Addr, u8)>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.dump(RouteNetlinkMessage::GetAddress(message))?;
        let mut addresses = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            for attribute in &message.attributes {
                if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                    addresses.push((message.header.index, *address, message.header.prefix_len));
                }
            }
        }
        Ok(addresses)
    }

    /// Makes a route, in place of one to the same destination.
    pub fn set_route(&mut self, route: &NewRoute) -> io::Result<()> {
        let mut message = route_message(route.destination, RouteType::Unicast);
        if route.via.is_none() {
            message.header.scope = RouteScope::Link;
        }
        message.attributes.push(RouteAttribute::Oif(route.link));
        if let Some(via) = route.via {
            // The next hop is no address of ours or of a subnet: the neighbour entry alone says where it is.
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(via)));
        }
        if let Some(source) = route.source {
            message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(source)));
        }
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Makes a table of its own lead everything over one neighbour.
    pub fn set_table(&mut self, table: u32, via: Ipv4Addr, link: u32) -> io::Result<()> {
        let mut message = table_message(table, RouteType::Unicast);
        message.attributes.push(RouteAttribute::Oif(link));
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(via)));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Makes a table of its own take everything for this machine's, whatever address it is sent to.
    pub fn set_table_local(&mut self, table: u32, link: u32) -> io::Result<()> {
        let mut message = table_message(table, RouteType::Local);
        message.header.scope = RouteScope::Host;
        message.attributes.push(RouteAttribute::Oif(link));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Has the table of this number decide on some packets, before the main one.
    pub fn add_rule(&mut self, table: u32, select: &Select<'_>) -> io::Result<()> {
        let added = self.request(RouteNetlinkMessage::NewRule(rule_message(table, select)), NLM_F_CREATE | NLM_F_EXCL);
        match added {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Removes such a rule.
    pub fn delete_rule(&mut self, table: u32, select: &Select<'_>) -> io::Result<()> {
        self.request(RouteNetlinkMessage::DelRule(rule_message(table, select)), 0)
    }

    /// The marks that our rules name.
    pub fn rule_marks(&mut self) -> io::Result<Vec<u32>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        let mut marks = Vec::new();
        for answer in self.dump(RouteNetlinkMessage::GetRule(message))? {
            let RouteNetlinkMessage::NewRule(message) = answer else { continue };
            marks.extend(message.attributes.iter().filter_map(|attribute| match attribute {
                RuleAttribute::FwMark(mark) => Some(*mark),
                _ => None,
            }));
        }
        Ok(marks)
    }

    /// Where the main table leads to, but for the default route, which leads everywhere.
    pub fn destinations(&mut self) -> io::Result<Vec<Cidr>> {
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
                    blocks.push(Cidr::literal(*address, message.header.destination_prefix_length));
                }
            }
        }
        Ok(blocks)
    }

    /// Drops everything to a block that no narrower route takes.
    pub fn set_blackhole(&mut self, destination: Cidr) -> io::Result<()> {
        let message = route_message(destination, RouteType::BlackHole);
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes one of our routes over a link.
    pub fn delete_route(&mut self, destination: Cidr, link: u32) -> io::Result<()> {
        let mut message = route_message(destination, RouteType::Unicast);
        message.header.scope = RouteScope::NoWhere;
        message.attributes.push(RouteAttribute::Oif(link));
        match self.request(RouteNetlinkMessage::DelRoute(message), 0) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// The IPv4 routes of the main table that have our mark, each with its link.
    pub fn our_routes(&mut self) -> io::Result<Vec<(Cidr, u32)>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.dump(RouteNetlinkMessage::GetRoute(message))?;
        let mut routes = Vec::new();
        for answer in answers {
            let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
            if message.header.protocol != OURS || message.header.table != RouteHeader::RT_TABLE_MAIN {
                continue;
            }
            let (mut destination, mut link) = (Ipv4Addr::UNSPECIFIED, None);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
                    RouteAttribute::Oif(index) => link = Some(*index),
                    _ => {}
                }
            }
            if let Some(link) = link {
                routes.push((Cidr::literal(destination, message.header.destination_prefix_length), link));
            }
        }
        Ok(routes)
    }

    /// Tells where a neighbour is, for good: nobody needs to ask, and nobody can answer falsely.
    pub fn set_neighbour(&mut self, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = link;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
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

fn link_message(end: &End<'_>) -> LinkMessage {
    let mut message = named(end.name);
    message.attributes.push(LinkAttribute::Address(end.mac.to_vec()));
    message
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), mac: Vec::new() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            _ => {}
        }
    }
    link
}

fn route_message(destination: Cidr, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = OURS;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination.first())));
    message
}

/// A route to everywhere in a table of its own.
fn table_message(table: u32, kind: RouteType) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = OURS;
    message.header.scope = RouteScope::Universe;
    message.header.kind = kind;
    message.attributes.push(RouteAttribute::Table(table));
    message
}

fn rule_message(table: u32, select: &Select<'_>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(RULE_PRIORITY));
    message.attributes.push(RuleAttribute::Table(table));
    message.attributes.push(match select {
        Select::From(link) => RuleAttribute::Iifname((*link).to_owned()),
        Select::Mark(mark) => RuleAttribute::FwMark(*mark),
    });
    message
}

/// Reads a MAC address such as `0a:12:34:56:78:9a`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}
