//! The platform's API inside every VPC: connections to 169.254.169.252 are passed on to the server's Unix socket, with a
//! line in front that says who connected (PROXY protocol, version 1). Who that is the router has checked.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep},
};

/// Connections of one VPC at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 2048;
/// How long a connection waits for a server that is being restarted.
const PATIENCE: Duration = Duration::from_secs(5);
const BUFFER: usize = 16 << 10;

/// Passes connections on until the task is dropped.
pub(crate) async fn serve(listener: std::net::TcpListener, server: PathBuf) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let server = Arc::new(server);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, from)) => {
                let server = server.clone();
                connections.spawn(async move {
                    let _permit = permit;
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
