//! The VPC's resolver, at base plus two and 169.254.169.253: answers the platform's own names, passes other questions
//! on to the host's resolvers for interfaces that have a way out. The asking interface is known by its address, which
//! the router has checked.

pub(crate) mod message;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use domain::{
    Region,
    network::{Cidr, ENDPOINT_ADDRESS, host::Egress, names},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::desired::{Desired, DesiredVpc};
use message::{A, Code, Data, PTR, Question};

/// Questions of one VPC under way at once; more are dropped, as a busy resolver does.
const MAX_UNDER_WAY: usize = 256;
/// How long a host's resolver may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest datagram taken.
const MAX_DATAGRAM: usize = 4096;
/// Names under these are ours alone: unknown ones do not exist.
const OWN_DOMAINS: [&str; 2] = ["elb.longshore.internal", "longshore.internal"];

/// What the resolver of one VPC knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    enabled: bool,
    domain: String,
    region: String,
    cidr: Option<Cidr>,
    names: BTreeMap<String, Vec<Ipv4Addr>>,
    /// Interfaces whose questions may leave.
    may_ask_outside: BTreeSet<Ipv4Addr>,
}

impl Knowledge {
    /// What is to be known in this VPC.
    pub(crate) fn of(vpc: &DesiredVpc, desired: &Desired) -> Self {
        let names = desired.names.iter().map(|name| {
            let own = name.vpc_id.as_ref().is_none_or(|vpc_id| *vpc_id == vpc.item.vpc_id);
            let addresses = if own { &name.private_addresses } else { &name.public_addresses };
            // Addresses of the host's loopback mean the host only to the host itself.
            let addresses = addresses.iter().copied().filter(|address| !address.is_loopback()).collect();
            (name.name.to_ascii_lowercase(), addresses)
        });
        let leads_out = vpc.interfaces.values().filter(|interface| interface.egress != Egress::None);
        Self {
            enabled: vpc.item.dns_support,
            domain: vpc.item.region.parse::<Region>().map(|region| names::dns_domain(&region)).unwrap_or_default(),
            region: vpc.item.region.clone(),
            cidr: Some(vpc.item.cidr),
            names: names.collect(),
            may_ask_outside: leads_out.map(|interface| interface.address).collect(),
        }
    }

    /// The answer to a question, unless it must be asked elsewhere.
    fn answer(&self, question: &Question) -> Option<(Code, Vec<Data>)> {
        if !self.enabled {
            return Some((Code::Refused, Vec::new()));
        }
        let name = question.name.as_str();
        let addresses = |addresses: &[Ipv4Addr]| {
            let wanted = question.kind == A;
            addresses.iter().filter(|_| wanted).map(|address| Data::Address(*address)).collect()
        };
        if let Some(known) = self.names.get(name).filter(|known| !known.is_empty()) {
            return Some((Code::NoError, addresses(known)));
        }
        if self.is_registry(name) {
            return Some((Code::NoError, addresses(&[ENDPOINT_ADDRESS])));
        }
        if let Some(host) = name.strip_suffix(self.domain.as_str()).and_then(|host| host.strip_suffix('.')) {
            let address = private_name_address(host).filter(|address| self.has(*address));
            return Some(match address {
                Some(address) => (Code::NoError, addresses(&[address])),
                None => (Code::NameError, Vec::new()),
            });
        }
        if let Some(address) = reverse_name_address(name).filter(|address| self.has(*address)) {
            let [a, b, c, d] = address.octets();
            let back = Data::Name(format!("ip-{a}-{b}-{c}-{d}.{}", self.domain));
            return Some((Code::NoError, if question.kind == PTR { vec![back] } else { Vec::new() }));
        }
        let own = OWN_DOMAINS.iter().any(|domain| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
        own.then_some((Code::NameError, Vec::new()))
    }

    fn has(&self, address: Ipv4Addr) -> bool {
        self.cidr.is_some_and(|cidr| cidr.contains(address))
    }

    /// `{account}.dkr.ecr.{region}.localhost` and its form on Amazon: this platform's registry.
    fn is_registry(&self, name: &str) -> bool {
        let Some((account, rest)) = name.split_once(".dkr.ecr.") else { return false };
        account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && (rest.strip_suffix(".localhost").is_some() || rest.strip_suffix(".amazonaws.com") == Some(&self.region))
    }
}

/// The address in `ip-10-0-0-5`.
fn private_name_address(host: &str) -> Option<Ipv4Addr> {
    host.strip_prefix("ip-")?.replace('-', ".").parse().ok()
}

/// The address in `5.0.0.10.in-addr.arpa`.
fn reverse_name_address(name: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// What the tasks of one resolver share.
struct Resolver {
    knowledge: watch::Receiver<Arc<Knowledge>>,
    permits: Arc<Semaphore>,
}

/// Answers until the sockets' task is dropped. Returns when they fail for good.
pub(crate) async fn serve(
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    knowledge: watch::Receiver<Arc<Knowledge>>,
) -> io::Result<()> {
    let resolver = Arc::new(Resolver { knowledge, permits: Arc::new(Semaphore::new(MAX_UNDER_WAY)) });
    let mut tasks = tokio::task::JoinSet::new();
    for socket in udp {
        tasks.spawn(serve_udp(Arc::new(UdpSocket::from_std(socket)?), resolver.clone()));
    }
    for listener in tcp {
        tasks.spawn(serve_tcp(TcpListener::from_std(listener)?, resolver.clone()));
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let mut under_way = tokio::task::JoinSet::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        while under_way.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error about an earlier answer, most likely.
                tracing::debug!(%error, "a resolver's socket");
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let Ok(permit) = resolver.permits.clone().try_acquire_owned() else { continue };
        let query = buffer[..length].to_vec();
        let (socket, resolver) = (socket.clone(), resolver.clone());
        under_way.spawn(async move {
            let _permit = permit;
            if let Some(answer) = resolver.resolve(&query, from, false).await {
                // Whoever asked may be gone.
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = resolver.permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let resolver = resolver.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    // A connection that is silent for long is closed by the timeout within.
                    let _ = converse(stream, from, &resolver).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn converse(mut stream: TcpStream, from: SocketAddr, resolver: &Resolver) -> io::Result<()> {
    loop {
        let query = timeout(PATIENCE, read_message(&mut stream)).await??;
        let Some(answer) = resolver.resolve(&query, from, true).await else { return Ok(()) };
        write_message(&mut stream, &answer).await?;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

impl Resolver {
    async fn resolve(&self, query: &[u8], from: SocketAddr, tcp: bool) -> Option<Vec<u8>> {
        let Some(question) = message::parse(query) else { return message::refuse(query) };
        let knowledge = self.knowledge.borrow().clone();
        if let Some((code, answers)) = knowledge.answer(&question) {
            return Some(message::respond(query, &question, code, &answers));
        }
        let allowed = matches!(from.ip(), IpAddr::V4(address) if knowledge.may_ask_outside.contains(&address));
        if allowed && let Some(answer) = ask_outside(query, tcp).await {
            return Some(answer);
        }
        Some(message::respond(query, &question, Code::ServerFailure, &[]))
    }
}

/// Passes a question on to the host's resolvers, one after the other.
async fn ask_outside(query: &[u8], tcp: bool) -> Option<Vec<u8>> {
    let configuration = tokio::fs::read_to_string("/etc/resolv.conf").await.ok()?;
    for server in nameservers(&configuration) {
        let asked = async {
            if tcp {
                let mut stream = TcpStream::connect(server).await?;
                write_message(&mut stream, query).await?;
                return read_message(&mut stream).await;
            }
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
            // A port of its own for every question: an answer cannot be guessed from outside.
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(server).await?;
            socket.send(query).await?;
            let mut buffer = vec![0; MAX_DATAGRAM];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            Ok::<_, io::Error>(buffer)
        };
        if let Ok(Ok(answer)) = timeout(PATIENCE / 2, asked).await
            && answer.get(..2) == query.get(..2)
        {
            return Some(answer);
        }
    }
    None
}

/// The first three servers of a resolver's configuration.
fn nameservers(configuration: &str) -> Vec<SocketAddr> {
    configuration
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knowledge() -> Knowledge {
        Knowledge {
            enabled: true,
            domain: "ec2.internal".into(),
            region: "us-east-1".into(),
            cidr: Some("10.0.0.0/16".parse().unwrap()),
            names: BTreeMap::from([
                ("lb.us-east-1.elb.longshore.internal".into(), vec![Ipv4Addr::new(10, 0, 0, 9)]),
                ("internal.us-east-1.elb.longshore.internal".into(), vec![]),
            ]),
            may_ask_outside: BTreeSet::new(),
        }
    }

    fn check(name: &str, kind: u16, expected: Option<(Code, Vec<Data>)>) {
        let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.push(0);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        let question = message::parse(&query).unwrap();
        assert_eq!(knowledge().answer(&question), expected, "{name}");
    }

    #[test]
    fn the_platforms_names_are_answered_and_others_passed_on() {
        let address = |address: [u8; 4]| Some((Code::NoError, vec![Data::Address(address.into())]));
        check("LB.us-east-1.elb.longshore.internal", A, address([10, 0, 0, 9]));
        check("lb.us-east-1.elb.longshore.internal", 28, Some((Code::NoError, vec![])));
        check("internal.us-east-1.elb.longshore.internal", A, Some((Code::NameError, vec![])));
        check("nobody.us-east-1.elb.longshore.internal", A, Some((Code::NameError, vec![])));
        check("123456789012.dkr.ecr.us-east-1.localhost", A, address(ENDPOINT_ADDRESS.octets()));
        check("123456789012.dkr.ecr.us-east-1.amazonaws.com", A, address(ENDPOINT_ADDRESS.octets()));
        check("123456789012.dkr.ecr.eu-west-1.amazonaws.com", A, None);
        check("ip-10-0-3-4.ec2.internal", A, address([10, 0, 3, 4]));
        check("ip-192-168-3-4.ec2.internal", A, Some((Code::NameError, vec![])));
        let name = Data::Name("ip-10-0-3-4.ec2.internal".into());
        check("4.3.0.10.in-addr.arpa", PTR, Some((Code::NoError, vec![name])));
        check("1.1.1.1.in-addr.arpa", PTR, None);
        check("example.com", A, None);
    }

    #[test]
    fn servers_are_read_from_the_hosts_configuration() {
        let text = "# comment\nsearch x\nnameserver 127.0.0.53\n nameserver ::1\nnameserver nonsense\n";
        assert_eq!(nameservers(text), ["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
