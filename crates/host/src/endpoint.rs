//! The platform's API inside every VPC: connections to 169.254.169.252 are passed on to the server's Unix socket, with a
//! line in front that says who connected (PROXY protocol, version 1). Who that is the router has checked.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep},
};

/// Connections of one VPC at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 2048;
/// Connections of one task at once; more are closed, so that it cannot take all that its VPC has.
const MAX_OF_ONE: usize = 256;
/// How long a connection waits for a server that is being restarted.
const PATIENCE: Duration = Duration::from_secs(5);
const BUFFER: usize = 16 << 10;

/// Passes connections on until the task is dropped.
pub(crate) async fn serve(listener: std::net::TcpListener, server: PathBuf) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let server = Arc::new(server);
    let mut connections = tokio::task::JoinSet::new();
    let guests = Guests::default();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(guest) = guests.admit(from.ip()) else { continue };
                let server = server.clone();
                connections.spawn(async move {
                    let _held = (permit, guest);
                    if let Err(error) = pass_on(stream, from, &server).await {
                        tracing::debug!(%from, %error, "a connection to the platform's endpoint ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the platform's endpoint");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
pub(crate) struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection; it counts until this is dropped.
pub(crate) struct Guest(Guests, IpAddr);

impl Guests {
    /// One connection more from there, unless it has its share.
    pub(crate) fn admit(&self, from: IpAddr) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(from).or_default();
        (*count < MAX_OF_ONE).then(|| {
            *count += 1;
            Guest(self.clone(), from)
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

async fn pass_on(mut client: TcpStream, from: SocketAddr, server: &PathBuf) -> io::Result<()> {
    client.set_nodelay(true)?;
    let to = client.local_addr()?;
    let deadline = Instant::now() + PATIENCE;
    let mut server = loop {
        match UnixStream::connect(server).await {
            Ok(server) => break server,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    let line = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
    server.write_all(line.as_bytes()).await?;
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_cannot_take_all_connections() {
        let guests = Guests::default();
        let (greedy, other) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([10, 0, 0, 10]));
        let mut held: Vec<Guest> = (0..MAX_OF_ONE).filter_map(|_| guests.admit(greedy)).collect();
        assert_eq!(held.len(), MAX_OF_ONE);
        assert!(guests.admit(greedy).is_none() && guests.admit(other).is_some());
        held.pop();
        assert!(guests.admit(greedy).is_some());
        held.clear();
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
