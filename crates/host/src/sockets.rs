//! Giving load balancers' processes the listening sockets they cannot open themselves: at the host's own addresses, and
//! in the namespaces of their further interfaces. Only what the slice says is theirs.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddrV4, TcpListener},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use domain::network::host::RefusedListener;
use feed::sockets::{HOST, Place, Provider};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{interface, netns};

/// What one load balancer's process may have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permit {
    pub(crate) arn: String,
    pub(crate) pid: Option<i32>,
    pub(crate) host_listeners: Vec<SocketAddrV4>,
    /// Address of each of its interfaces, by the interface's id.
    pub(crate) interfaces: BTreeMap<String, std::net::Ipv4Addr>,
    pub(crate) listener_ports: Vec<u16>,
}

/// What the provider decides on, and what it had to refuse.
#[derive(Default)]
pub(crate) struct Ledger {
    permits: Mutex<Vec<Permit>>,
    refused: Mutex<BTreeMap<String, Vec<RefusedListener>>>,
}

impl Ledger {
    pub(crate) fn set(&self, permits: Vec<Permit>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|arn, _| permits.iter().any(|permit| permit.arn == *arn));
        *self.permits.lock().unwrap_or_else(PoisonError::into_inner) = permits;
    }

    /// The addresses this load balancer asked for last and could not have.
    pub(crate) fn refused(&self, arn: &str) -> Vec<RefusedListener> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(arn).cloned().unwrap_or_default()
    }

    fn permit_of(&self, pid: i32) -> Option<Permit> {
        let permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        permits.iter().find(|permit| permit.pid == Some(pid)).cloned()
    }

    fn note(&self, arn: &str, address: SocketAddrV4, outcome: &Result<TcpListener, String>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let list = refused.entry(arn.to_owned()).or_default();
        list.retain(|one| one.address != address);
        if let Err(reason) = outcome
            && list.len() < feed::sockets::MAX_PLACES
        {
            list.push(RefusedListener { address, reason: reason.clone() });
        }
    }
}

/// Serves requests for ever. Blocks; runs on a thread of its own, in the host's network namespace.
pub(crate) fn serve(path: &Path, platform: &str, ledger: &Arc<Ledger>, changed: impl Fn()) -> io::Result<()> {
    let provider = Provider::bind(path)?;
    loop {
        let served = provider.serve_one(|pid, place| {
            let permit = ledger.permit_of(pid).ok_or("this process is no load balancer's")?;
            let outcome = provide(platform, &permit, place);
            ledger.note(&permit.arn, place.address, &outcome);
            changed();
            outcome
        });
        if let Err(error) = served {
            tracing::warn!(%error, "a request for sockets failed");
        }
    }
}

fn provide(platform: &str, permit: &Permit, place: &Place) -> Result<TcpListener, String> {
    let address = place.address;
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => format!("port already taken: {address}"),
        _ => format!("{address}: {error}"),
    };
    if place.place == HOST {
        if !permit.host_listeners.contains(&address) || !address.ip().is_loopback() {
            return Err(format!("{address} of the host is not this load balancer's"));
        }
        return listen(address).map_err(said);
    }
    if permit.interfaces.get(&place.place) != Some(address.ip()) || !permit.listener_ports.contains(&address.port()) {
        return Err(format!("{address} of {} is not this load balancer's", place.place));
    }
    netns::within(&interface::path(platform, &place.place), || listen(address)).map_err(said)
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // A listener that ended a moment ago has connections that linger.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 4096)?;
    Ok(TcpListener::from(socket))
}
