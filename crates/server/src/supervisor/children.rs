//! What the supervisor's children do once they are started. Their working directory is DATA.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};

use super::{Error, privileges};
use crate::{
    data_directory::{DataDirectory, SERVICE_USER, Settings},
    front_door::{self, FrontDoor, Listener},
    platform::ControlPlane,
    publish,
};

fn settings() -> Result<Settings, Error> {
    let json = std::env::var("LONGSHORE_SETTINGS")
        .map_err(|_| "this part of the platform is started by `longshore up`, not by hand")?;
    Ok(serde_json::from_str(&json)?)
}

/// The control plane: front door, services, reconcilers, registry. Unprivileged as soon as its port is open.
pub fn server() -> Result<(), Error> {
    let settings = settings()?;
    let sockets = front_door::open(settings.listen)?;
    privileges::drop_to(SERVICE_USER)?;
    // What it makes is for its own user, but for the sockets, whose callers are known by the kernel's word.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(settings, sockets))
}

async fn serve(settings: Settings, sockets: Vec<std::net::TcpListener>) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let data = DataDirectory::here();
    let control_plane = ControlPlane::start(&data, &settings).await?;
    let background = [
        tokio::spawn(publish::publish(control_plane.clone())),
        tokio::spawn(publish::observe(control_plane.clone())),
        tokio::spawn(services::logs::expire_forever(control_plane.platform.clone())),
    ];
    let front_door = Arc::new(FrontDoor::new(control_plane, settings.allow_reset));
    let limit = front_door::connection_limit();
    let vpc = Listener::Vpc(bind_unix("run/vpc.sock")?);
    let mut listeners = front_door::bind(sockets, std::path::Path::new("keys"))?;
    listeners.push(vpc);
    let serving = listeners
        .into_iter()
        .map(|listener| tokio::spawn(front_door::serve(front_door.clone(), listener, limit.clone())));
    let all: Vec<_> = background.into_iter().chain(serving).collect();
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        // A listener or a background task never ends: when one does the process ends, and starts again whole.
        (ended, _, _) = futures_util::future::select_all(all) => {
            Err(format!("a background task has ended: {ended:?}").into())
        }
    }
}

fn bind_unix(path: &str) -> Result<UnixListener, Error> {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("{path}: {error}").into());
    }
    Ok(UnixListener::bind(path)?)
}

/// The machine's hypervisor. Needs root: it makes namespaces, links and firewall rules.
pub fn host() -> Result<(), Error> {
    let settings = settings()?;
    let data = DataDirectory::here();
    host::main(host::Config {
        platform: data.instance_id()?,
        data_dir: std::env::current_dir()?,
        executable: std::env::current_exe()?,
        user: (SERVICE_USER, SERVICE_USER),
        endpoint_port: settings.listen.port(),
        feed_socket: PathBuf::from("run/feed.sock"),
        control_socket: PathBuf::from("run/host.sock"),
        vpc_socket: PathBuf::from("run/vpc.sock"),
        hosts_file: settings.hosts.then(|| PathBuf::from("/etc/hosts")),
    })?;
    Ok(())
}
