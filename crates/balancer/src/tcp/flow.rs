//! Carries one TCP connection: to its target and back until both sides have ended, with their half-closes passed on. A
//! side that fails, a target that cannot be reached, silence and a cut end both sides with a reset.
//!
//! Memory per connection is two buffers; who is slow to take bytes slows the other side down.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4},
    rc::Rc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::IpTransparent};
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpSocket, TcpStream},
};

use super::{Chosen, Ends, header};
use crate::{client::Activity, stream::ClientStream, worker::Worker};

/// The buffer of each direction.
const BUFFER: usize = 32 * 1024;

/// How long a target may take to answer a connection's first packet.
const CONNECT: Duration = Duration::from_secs(10);

/// Serves until both sides have ended.
pub async fn serve(worker: Rc<Worker>, client: TcpStream, port: u16) -> io::Result<()> {
    let ends = Ends { client: client.peer_addr()?, node: client.local_addr()? };
    let chosen = worker.table().routing.tcp.as_ref().and_then(|table| table.choose(port, ends));
    let Some(chosen) = chosen else { return client.set_zero_linger() };
    let mut cut = worker.flows.enter(&chosen);
    let target = tokio::select! {
        target = connect(&chosen, ends) => target,
        _ = cut.changed() => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let mut target = match target {
        Ok(target) => target,
        Err(error) => {
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    let activity = Activity::new();
    let mut client = ClientStream::new(client, activity.clone());
    let ended = tokio::select! {
        carried = copy_bidirectional_with_sizes(&mut client, &mut target, BUFFER, BUFFER) => carried.map(drop),
        () = silence(&worker, &activity) => Err(io::ErrorKind::TimedOut.into()),
        _ = cut.changed() => Err(io::ErrorKind::ConnectionAborted.into()),
    };
    if ended.is_err() {
        // What is closed next is reset: the other side learns that this was no orderly end.
        client.socket().set_zero_linger()?;
        target.set_zero_linger()?;
    }
    ended
}

async fn connect(chosen: &Chosen, ends: Ends) -> io::Result<TcpStream> {
    let connected = async {
        match ends.client {
            // The host's clients have no address that a target could answer to: it sees the node's, as without the attribute.
            SocketAddr::V4(client) if chosen.preserve_client_ip && !client.ip().is_loopback() => {
                connect_from(client, chosen.address).await
            }
            _ => TcpStream::connect(chosen.address).await,
        }
    };
    let mut target = tokio::time::timeout(CONNECT, connected).await??;
    target.set_nodelay(true)?;
    if chosen.proxy_protocol {
        target.write_all(&header::proxied(ends)).await?;
    }
    Ok(target)
}

/// Connects from a client's address. Its port is kept as well, unless another connection from there to this target has it.
async fn connect_from(client: SocketAddrV4, target: SocketAddr) -> io::Result<TcpStream> {
    let any_port = SocketAddrV4::new(*client.ip(), 0);
    let taken = match try_from(client, target).await {
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => error,
        other => return other,
    };
    tracing::trace!(%client, %target, error = %taken, "the client's port is in use");
    try_from(any_port, target).await
}

async fn try_from(source: SocketAddrV4, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // What makes an address that is not ours one to connect from, and needs CAP_NET_RAW.
    setsockopt(&socket, IpTransparent, &true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(source.into())?;
    socket.connect(target).await
}

/// Ends when no byte has gone to or come from the client for the idle timeout.
async fn silence(worker: &Worker, activity: &Activity) {
    loop {
        let quiet = Duration::from_millis(activity.elapsed().saturating_sub(activity.last()));
        match worker.idle_timeout().checked_sub(quiet) {
            Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
            _ => return,
        }
    }
}
