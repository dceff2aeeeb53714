//! The instance metadata service: 169.254.169.254 in every VPC's router. Who asks is known by the address its packets
//! come from, which the router has checked against the link; never by anything in the request.
//!
//! Everything but a role's credentials is answered from the slice, so that an instance can boot and ask while the control
//! plane is away; credentials are the server's to give, and the last ones given are repeated while it is away.
//!
//! Behaviour mirrored:
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>.

mod answer;
mod credentials;
mod token;
mod tree;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use domain::instances::InstanceItem;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};

use self::{answer::Answerer, credentials::Credentials, token::Tokens};
use crate::{
    desired::{Desired, DesiredVpc},
    endpoint::Guests,
};

/// The port at which it answers.
pub(crate) const PORT: u16 = 80;
/// Connections of one VPC at once.
const MAX_CONNECTIONS: usize = 1024;
/// How long a connection may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
/// How far any other answer may travel.
const HOPS: u32 = 64;

/// The instances of one VPC by their addresses.
pub(crate) type Instances = BTreeMap<Ipv4Addr, Arc<InstanceItem>>;

/// The instances of a VPC that are on.
pub(crate) fn instances_of(vpc: &DesiredVpc, desired: &Desired) -> Instances {
    desired
        .instances
        .values()
        .filter_map(|instance| {
            let interface = vpc.interfaces.get(&instance.interface_id)?;
            Some((interface.address, Arc::new(instance.clone())))
        })
        .collect()
}

/// What all VPCs' services share.
pub(crate) struct Shared {
    tokens: Tokens,
    credentials: Credentials,
}

impl Shared {
    /// `server` is the socket at which the server gives credentials.
    pub(crate) fn new(server: PathBuf) -> io::Result<Self> {
        Ok(Self { tokens: Tokens::new()?, credentials: Credentials::new(server) })
    }
}

/// Answers until the task is dropped.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    instances: watch::Receiver<Arc<Instances>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let guests = Guests::default();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, from)) => {
                let IpAddr::V4(address) = from.ip() else { continue };
                // A task or a load balancer has no metadata: its connection ends at once.
                if !instances.borrow().contains_key(&address) {
                    continue;
                }
                let Some(guest) = guests.admit(from.ip()) else { continue };
                let (instances, shared) = (instances.clone(), shared.clone());
                connections.spawn(async move {
                    let _held = (permit, guest);
                    connection(stream, address, instances, shared).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the instance metadata service");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    address: Ipv4Addr,
    instances: watch::Receiver<Arc<Instances>>,
    shared: Arc<Shared>,
) {
    let _ = stream.set_nodelay(true);
    // The same socket once more, to say how far the answer to a request for a token may travel.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let socket = Arc::new(socket);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let instance = instances.borrow().get(&address).cloned();
        let (shared, socket) = (shared.clone(), socket.clone());
        async move {
            let Some(instance) = instance else { return Ok::<_, Infallible>(answer::gone()) };
            let answerer =
                Answerer { instance: &instance, tokens: &shared.tokens, credentials: &shared.credentials, address };
            let (response, is_token) = answerer.answer(request.map(|_| ())).await;
            let hops = if is_token { u32::from(instance.metadata.options.hop_limit) } else { HOPS };
            if let Err(error) = sockopt::set_ip_ttl(&socket, hops) {
                tracing::warn!(%error, "the hop limit of an answer cannot be set");
                return Ok(answer::gone());
            }
            Ok(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    // How it ended is of interest to the client only. The time of a whole connection is bounded by its silences.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
