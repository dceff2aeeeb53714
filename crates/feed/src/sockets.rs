//! Handing listening sockets from a process that may open them to one that may use them: `host` opens ports of the host
//! and of other network namespaces, a load balancer's process, which has no privileges, serves them.
//!
//! Packets on a Unix socket that keeps their boundaries: the request is one packet, a JSON object; each answer is one
//! packet, with the socket attached (`SCM_RIGHTS`) unless it is refused. Who may have what is the provider's decision,
//! which it takes on the peer's process id as the kernel tells it.

use std::{
    fs, io,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddrV4, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};
use serde::{Deserialize, Serialize};

/// Sockets asked for at once.
pub const MAX_PLACES: usize = 256;
const MAX_PACKET: usize = 64 << 10;
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// The place of a [`Place`] that is the host's own network namespace.
pub const HOST: &str = "host";

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// [`HOST`], or the id of the network interface (`eni-…`) in whose network namespace it listens.
    pub place: String,
    /// The address and port.
    pub address: SocketAddrV4,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// What was asked for.
    pub place: Place,
    /// The socket, listening and non-blocking; or why there is none, for people.
    pub socket: Result<TcpListener, String>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    want: Vec<Place>,
}

#[derive(Serialize, Deserialize)]
struct Reply {
    place: Place,
    refused: Option<String>,
}

fn open() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn patient(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    Ok(())
}

/// Asks the provider at `path` for sockets and waits for all answers, at most ten seconds for each. Blocks.
pub fn request(path: &Path, want: &[Place]) -> io::Result<Vec<Answer>> {
    if want.len() > MAX_PLACES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets asked for at once"));
    }
    let socket = open()?;
    patient(&socket)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    let packet = serde_json::to_vec(&Request { want: want.to_vec() })?;
    rustix::net::send(&socket, &packet, SendFlags::NOSIGNAL)?;
    let mut answers = Vec::with_capacity(want.len());
    while answers.len() < want.len() {
        let (packet, attached) = receive(&socket)?;
        if packet.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let reply: Reply = serde_json::from_slice(&packet)?;
        let socket = match (reply.refused, attached) {
            (Some(reason), _) => Err(reason),
            (None, Some(socket)) => Ok(TcpListener::from(socket)),
            (None, None) => Err("the socket was lost on its way".to_owned()),
        };
        answers.push(Answer { place: reply.place, socket });
    }
    Ok(answers)
}

fn receive(socket: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut packet = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut attached = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            // Further ones, which no provider of ours sends, are closed here.
            attached = sockets.last();
        }
    }
    packet.truncate(received.bytes);
    Ok((packet, attached))
}

/// The provider's end: one per machine and platform.
#[derive(Debug)]
pub struct Provider(OwnedFd);

impl Provider {
    /// Listens at `path`, in place of a socket left there by a dead process.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let socket = open()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        // The peer's process id decides, not the file's mode.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        rustix::net::listen(&socket, 64)?;
        Ok(Self(socket))
    }

    /// Waits for one request and answers it: `provide` gets the asking process's id and a place, and opens the socket
    /// or says why not. Blocks; an error concerns this request only.
    pub fn serve_one(&self, mut provide: impl FnMut(i32, &Place) -> Result<TcpListener, String>) -> io::Result<()> {
        let connection = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?;
        patient(&connection)?;
        let peer = sockopt::socket_peercred(&connection)?;
        let (packet, _) = receive(&connection)?;
        let request: Request = serde_json::from_slice(&packet)?;
        if request.want.len() > MAX_PLACES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets asked for at once"));
        }
        for place in request.want {
            let outcome = provide(peer.pid.as_raw_nonzero().get(), &place);
            let (socket, refused) = match outcome {
                Ok(socket) => (Some(socket), None),
                Err(reason) => (None, Some(reason)),
            };
            let packet = serde_json::to_vec(&Reply { place, refused })?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let attached: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
            if !attached.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&attached)) {
                return Err(io::Error::other("no room for a socket in a packet"));
            }
            rustix::net::sendmsg(&connection, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, thread};

    use super::*;

    #[test]
    fn sockets_come_listening_and_refusals_with_their_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sockets");
        let provider = Provider::bind(&path).unwrap();
        let serving = thread::spawn(move || {
            provider.serve_one(|pid, place| {
                assert_eq!(u32::try_from(pid).unwrap(), std::process::id());
                if place.place != HOST {
                    return Err(format!("{} is not yours", place.place));
                }
                TcpListener::bind(place.address).map_err(|error| error.to_string())
            })
        });
        let wanted = |place: &str| Place { place: place.into(), address: "127.0.0.1:0".parse().unwrap() };
        let answers = request(&path, &[wanted(HOST), wanted("eni-1")]).unwrap();
        serving.join().unwrap().unwrap();
        let listener = answers[0].socket.as_ref().unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        drop(accepted);
        assert_eq!(answers[1].socket.as_ref().unwrap_err(), "eni-1 is not yours");
    }

    #[test]
    fn a_provider_takes_the_place_of_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sockets");
        drop(Provider::bind(&path).unwrap());
        let provider = Provider::bind(&path).unwrap();
        let serving = thread::spawn(move || provider.serve_one(|_, _| Err("no".into())));
        assert!(request(&path, &[]).unwrap().is_empty());
        serving.join().unwrap().unwrap();
    }
}
