//! The machine's ports that containers publish: which are given out, and keeping others off them.
//!
//! Packets to a published port are led to its container before any socket of the machine would see them. So that no
//! program of the machine takes the port as well and wonders why nobody calls, a socket holds it: a listening one for
//! TCP, as anything less lets others bind it with `SO_REUSEADDR`. It is what Docker's proxy does; nothing ever reaches
//! it.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use domain::agent_protocol::payload::PortMapping;
use domain::ecs::container_definition::parse_port_range;

use crate::engine::record::NetworkBinding;

/// The kernel's range where it does not say.
const FALLBACK: RangeInclusive<u16> = 49_153..=65_535;

/// What a port is a port of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol of a mapping; TCP if it has none, nothing if there is no such protocol.
    pub fn of(mapping: &PortMapping) -> Option<Protocol> {
        Protocol::named(&mapping.protocol)
    }

    fn named(text: &str) -> Option<Protocol> {
        match text {
            "" | "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// Amazon's and Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// A host port that cannot be had, in Docker's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another container of ours has it.
    #[error("Bind for 0.0.0.0:{0} failed: port is already allocated")]
    Allocated(u16),
    /// Another program has it, or the kernel does not give it.
    #[error("failed to bind host port for 0.0.0.0:{host}:{address}:{container}/{}: {why}", .protocol.as_str())]
    Taken {
        /// On the machine.
        host: u16,
        /// The container's address.
        address: Ipv4Addr,
        /// In the container.
        container: u16,
        /// Of this.
        protocol: Protocol,
        /// What the kernel said.
        why: String,
    },
    /// Every port that may be given out is taken.
    #[error("all dynamic host ports are allocated")]
    None,
    /// No port at all.
    #[error("invalid port mapping: {0}")]
    Invalid(String),
}

/// A socket that keeps others off a port for as long as it is open.
#[derive(Debug)]
#[expect(dead_code, reason = "open is all it has to be")]
enum Held {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// Somebody else took it while no agent was there.
    Lost,
}

/// The machine's ports.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    held: HashMap<(Protocol, u16), Held>,
    last: u16,
}

impl Ports {
    /// No port is given out; open ones come from this range.
    pub fn new(range: RangeInclusive<u16>) -> Ports {
        Ports { range, held: HashMap::new(), last: 0 }
    }

    /// Gives out the ports of a container, all of them or none.
    pub fn take(&mut self, address: Ipv4Addr, mappings: &[PortMapping]) -> Result<Vec<NetworkBinding>, Refused> {
        let mut bindings = Vec::new();
        for mapping in mappings {
            match self.take_one(address, mapping) {
                Ok(binding) => bindings.push(binding),
                Err(refused) => {
                    self.give_back(&bindings);
                    return Err(refused);
                }
            }
        }
        Ok(bindings)
    }

    fn take_one(&mut self, address: Ipv4Addr, mapping: &PortMapping) -> Result<NetworkBinding, Refused> {
        let protocol = Protocol::of(mapping).ok_or_else(|| Refused::Invalid(mapping.protocol.clone()))?;
        if !mapping.container_port_range.is_empty() {
            let range = &mapping.container_port_range;
            let (container_port, count) = parse_port_range(range).ok_or_else(|| Refused::Invalid(range.clone()))?;
            return Ok(NetworkBinding {
                bind_ip: Ipv4Addr::UNSPECIFIED.to_string(),
                container_port,
                host_port: self.take_range(protocol, count)?,
                range: Some(count),
                protocol: protocol.as_str().to_owned(),
            });
        }
        let port = |number: i64| u16::try_from(number).map_err(|_| Refused::Invalid(number.to_string()));
        let (container, wanted) = (port(mapping.container_port)?, port(mapping.host_port)?);
        let host = if wanted == 0 {
            self.take_open(protocol)?
        } else {
            if self.held.contains_key(&(protocol, wanted)) {
                return Err(Refused::Allocated(wanted));
            }
            let held = hold(protocol, wanted).map_err(|error| Refused::Taken {
                host: wanted,
                address,
                container,
                protocol,
                why: said(&error),
            })?;
            self.held.insert((protocol, wanted), held);
            wanted
        };
        Ok(NetworkBinding {
            bind_ip: Ipv4Addr::UNSPECIFIED.to_string(),
            container_port: container,
            host_port: host,
            range: None,
            protocol: protocol.as_str().to_owned(),
        })
    }

    /// The next port of the range that nobody has, after the one that was given out last.
    fn take_open(&mut self, protocol: Protocol) -> Result<u16, Refused> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let start = self.last.checked_add(1).filter(|next| self.range.contains(next)).unwrap_or(first);
        for port in (start..=last).chain(first..start) {
            if self.held.contains_key(&(protocol, port)) {
                continue;
            }
            if let Ok(held) = hold(protocol, port) {
                self.held.insert((protocol, port), held);
                self.last = port;
                return Ok(port);
            }
        }
        Err(Refused::None)
    }

    /// The first of so many ports in a row that nobody has.
    fn take_range(&mut self, protocol: Protocol, count: u16) -> Result<u16, Refused> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let mut start = first;
        while start.checked_add(count.saturating_sub(1)).is_some_and(|end| end <= last) {
            let mut taken = 0;
            while taken < count && !self.held.contains_key(&(protocol, start + taken)) {
                let Ok(held) = hold(protocol, start + taken) else { break };
                self.held.insert((protocol, start + taken), held);
                taken += 1;
            }
            if taken == count {
                return Ok(start);
            }
            // The one that is in the way is in the way of all that begin before it.
            (0..taken).for_each(|offset| drop(self.held.remove(&(protocol, start + offset))));
            let Some(next) = start.checked_add(taken + 1) else { break };
            start = next;
        }
        Err(Refused::None)
    }

    /// Goes on holding what an agent before this one had given out.
    pub fn take_over(&mut self, bindings: &[NetworkBinding]) {
        for binding in bindings {
            let Some(protocol) = Protocol::named(&binding.protocol) else { continue };
            for port in ports_of(binding) {
                let held = hold(protocol, port).unwrap_or_else(|error| {
                    tracing::warn!(port, %error, "another program has taken a published port meanwhile");
                    Held::Lost
                });
                self.held.insert((protocol, port), held);
            }
        }
    }

    /// Takes a container's ports back.
    pub fn give_back(&mut self, bindings: &[NetworkBinding]) {
        for binding in bindings {
            if let Some(protocol) = Protocol::named(&binding.protocol) {
                ports_of(binding).for_each(|port| drop(self.held.remove(&(protocol, port))));
            }
        }
    }
}

/// The instance's ports of a binding.
fn ports_of(binding: &NetworkBinding) -> impl Iterator<Item = u16> + use<> {
    let first = binding.host_port;
    (0..binding.range.unwrap_or(1)).map(move |offset| first.saturating_add(offset))
}

fn hold(protocol: Protocol, port: u16) -> io::Result<Held> {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(Held::Tcp),
        Protocol::Udp => UdpSocket::bind(address).map(Held::Udp),
    }
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// The kernel's own range of ports that anybody may be given, which is also Amazon's default.
pub fn kernels_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first <= last => first..=last,
        _ => FALLBACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

    fn mapping(container: i64, host: i64) -> PortMapping {
        PortMapping { container_port: container, host_port: host, protocol: "tcp".into(), ..PortMapping::default() }
    }

    /// The ports of these tests: in a network of its own, nobody else has them.
    const PORTS: RangeInclusive<u16> = 20_000..=20_003;

    /// Runs a test in a network of its own, where no other test and no program of the machine takes a port.
    fn alone(test: impl FnOnce() + Send) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: it needs root");
            return;
        }
        let ran = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
                    plumbing::netlink::Netlink::open().and_then(|mut link| link.set_up(1)).expect("a loopback");
                    test();
                })
                .join()
        });
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn ports_are_given_out_once_and_kept_from_others() {
        alone(|| {
            let mut ports = Ports::new(20_000..=20_001);
            let one = ports.take(ADDRESS, &[mapping(80, 0), mapping(81, 0)]).expect("ports");
            assert_ne!(one[0].host_port, one[1].host_port);
            assert_eq!(ports.take(ADDRESS, &[mapping(80, 0)]), Err(Refused::None));
            let taken = i64::from(one[0].host_port);
            let refused = ports.take(ADDRESS, &[mapping(80, taken)]).expect_err("allocated");
            assert_eq!(refused.to_string(), format!("Bind for 0.0.0.0:{taken} failed: port is already allocated"));
            // Even for one who would share it.
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, one[0].host_port)).is_err());
            ports.give_back(&one);
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, one[0].host_port)).is_ok());
        });
    }

    #[test]
    fn a_range_is_had_in_a_row_around_what_is_taken() {
        alone(|| {
            let mut ports = Ports::new(PORTS);
            let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 20_000)).expect("a listener");
            let wanted = |text: &str| {
                [PortMapping { container_port_range: text.into(), protocol: "tcp".into(), ..PortMapping::default() }]
            };
            let taken = ports.take(ADDRESS, &wanted("8000-8002")).expect("ports");
            assert_eq!((taken[0].container_port, taken[0].host_port, taken[0].range), (8000, 20_001, Some(3)));
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, 20_003)).is_err());
            assert_eq!(ports.take(ADDRESS, &wanted("8000-8001")), Err(Refused::None));
            assert_eq!(ports.take(ADDRESS, &wanted("9-8")), Err(Refused::Invalid("9-8".to_owned())));
            ports.give_back(&taken);
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, 20_003)).is_ok());
            drop(other);
        });
    }

    #[test]
    fn a_port_of_another_program_is_refused_in_dockers_words_and_nothing_is_kept() {
        alone(|| {
            let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 20_001)).expect("a listener");
            let mut ports = Ports::new(PORTS);
            let mappings = [mapping(80, 20_000), mapping(81, 20_001)];
            let refused = ports.take(ADDRESS, &mappings).expect_err("taken");
            let text = "failed to bind host port for 0.0.0.0:20001:172.17.0.2:81/tcp: address already in use";
            assert_eq!(refused.to_string(), text);
            assert!(ports.take(ADDRESS, &mappings[..1]).is_ok());
            drop(other);
        });
    }

    #[test]
    fn what_an_agent_before_gave_out_is_held_again() {
        alone(|| {
            let binding = NetworkBinding { host_port: 20_000, protocol: "tcp".into(), ..NetworkBinding::default() };
            let mut ports = Ports::new(20_000..=20_000);
            ports.take_over(std::slice::from_ref(&binding));
            assert_eq!(ports.take(ADDRESS, &[mapping(80, 0)]), Err(Refused::None));
            assert_eq!(ports.take(ADDRESS, &[mapping(70_000, 0)]), Err(Refused::Invalid("70000".to_owned())));
        });
    }
}
