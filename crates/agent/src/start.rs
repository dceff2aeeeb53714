//! The agent's life: open what is on disk, register, adopt, connect; and the removal of everything for `down`.

use std::path::Path;
use std::sync::Arc;

use domain::network::ENDPOINT_ADDRESS;
use runtime::{Group, Helper, ImageStore, Runtime, RuntimeOptions, StoreOptions};

use crate::aws::credentials::InstanceCredentials;
use crate::aws::{Client, Endpoint};
use crate::engine::Engine;
use crate::engine::record::TaskRecord;
use crate::host::{Host, Settings};
use crate::identity::{Identity, RegisterError};
use crate::roles::Roles;
use crate::session::{acs, tcs};
use crate::{Options, fargate, state};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot be honoured.
    #[error("{0}")]
    Option(String),
    /// Registration failed for good.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The agent's directory.
    #[error("{what}: {source}")]
    Directory {
        /// What was done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The control plane does not know this instance any more.
    #[error("this container instance is deregistered: {0}")]
    Deregistered(String),
    /// The runtime.
    #[error("the container runtime: {0}")]
    Runtime(String),
}

/// Runs the agent until SIGTERM or SIGINT. Its tasks stay: the next start takes them over.
pub fn main(options: Options) -> Result<(), Error> {
    if !options.fargate {
        return Err(Error::Option("only --fargate is supported by this agent".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("agent")
        .build()
        .map_err(|source| Error::Directory { what: "threads".to_owned(), source })?;
    let outcome = runtime.block_on(run(options));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}

async fn run(options: Options) -> Result<(), Error> {
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::select! {
        outcome = serve(options) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    tokio::signal::unix::signal(kind).map_err(|source| Error::Directory { what: "signals".to_owned(), source })
}

async fn serve(options: Options) -> Result<(), Error> {
    let endpoint = Endpoint::parse(&options.endpoint).map_err(Error::Option)?;
    let credentials = InstanceCredentials::from_environment(&options.region).map_err(Error::Option)?;
    let zone = options.availability_zone.clone().unwrap_or_else(|| format!("{}a", options.region));
    let settings = settings(&options, &endpoint, &zone)?;
    let runtime_error = |error: &dyn std::fmt::Display| Error::Runtime(error.to_string());
    let helper = Helper::current().map_err(|error| runtime_error(&error))?;
    let containers = RuntimeOptions { directory: settings.containers(), helper: helper.clone() };
    let containers = Runtime::open(containers).await.map_err(|error| runtime_error(&error))?;
    let store = StoreOptions { root: settings.directory.join("images"), helper, limits: Default::default() };
    let images = tokio::task::spawn_blocking(move || ImageStore::open(store)).await;
    let images = images.map_err(|error| runtime_error(&error))?.map_err(|error| runtime_error(&error))?;

    let offer = fargate::offer(options.cpu, options.memory, &zone, &settings.directory)
        .map_err(|source| Error::Directory { what: "the host's memory".to_owned(), source })?;
    let (file, sequence) = (settings.directory.join("instance.json"), settings.directory.join("sequence.json"));
    let client = Client::new(endpoint);
    // Running tasks do not wait for this: their shims and their spools go on without an agent.
    let identity = Identity::register(client, credentials, &options.cluster, &options.region, &offer, &file).await?;
    let identity = Arc::new(identity);

    let records = read_tasks(&settings)?;
    let roles = Arc::new(Roles::default());
    for record in &records {
        roles.learn(&record.task);
    }
    let host = Host::new(settings, identity.clone(), roles.clone(), containers, images);
    let engine = Arc::new(Engine::new(host.clone()));
    host.serve(&engine);
    host.remove_orphans(&records).await;
    tracing::info!(tasks = records.len(), "tasks found on disk");
    engine.restore(records);
    tokio::spawn(host.clone().collect_images());

    let meter: tcs::Meter = {
        let host = host.clone();
        Arc::new(move |id: &str| host.usage(id))
    };
    tokio::spawn(tcs::run(identity.clone(), engine.clone(), meter));
    let highest = highest(&sequence, &identity.instance_arn);
    let responder = acs::Responder::new(engine, roles, &options.cluster, &identity.instance_arn, highest);
    let instance = identity.instance_arn.clone();
    let remember = move |highest: i64| {
        if let Err(error) = state::write(&sequence, &(&instance, highest)) {
            tracing::error!(%error, "the last sequence number cannot be remembered");
        }
    };
    let why = acs::run(identity, responder, remember).await;
    // Amazon's agent waits an hour here. A Fargate host belongs to its platform: started again, it registers as a new
    // instance, as after a reset of the account.
    state::remove(&file).map_err(|source| Error::Directory { what: file.display().to_string(), source })?;
    Err(Error::Deregistered(why))
}

/// The last sequence number that this instance has seen. One that is lost, or damaged by a power cut, costs nothing but
/// that the next manifest is looked at again.
fn highest(file: &Path, instance: &str) -> i64 {
    match state::read::<(String, i64)>(file) {
        Ok(Some((of, highest))) if of == instance => highest,
        Ok(_) => 0,
        Err(error) => {
            tracing::warn!(%error, "the last sequence number cannot be read");
            0
        }
    }
}

fn settings(options: &Options, endpoint: &Endpoint, zone: &str) -> Result<Settings, Error> {
    let platform = options.platform.trim_start_matches("ls-").to_owned();
    if platform.len() != 6 || !platform.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::Option(format!("--platform {platform} is not six hexadecimal digits")));
    }
    let port = endpoint.authority.rsplit_once(':').map_or("80", |(_, port)| port);
    let mut mirrors = Vec::new();
    for mirror in options.registry_mirrors.iter().filter(|mirror| !mirror.is_empty()) {
        let (name, url) = mirror
            .split_once('=')
            .ok_or_else(|| Error::Option(format!("--registry-mirror {mirror} is not of the form NAME=URL")))?;
        mirrors.push((name.to_owned(), url.to_owned()));
    }
    std::fs::create_dir_all(&options.data_dir)
        .and_then(|()| options.data_dir.canonicalize())
        .map_err(|source| Error::Directory { what: options.data_dir.display().to_string(), source })
        .map(|directory| Settings {
            platform,
            directory,
            task_endpoint: options.task_endpoint.clone().unwrap_or_else(|| format!("http://{ENDPOINT_ADDRESS}:{port}")),
            mirrors,
            availability_zone: zone.to_owned(),
            image_cache: options.image_cache << 20,
        })
}

fn read_tasks(settings: &Settings) -> Result<Vec<TaskRecord>, Error> {
    for directory in [settings.tasks(), settings.volumes()] {
        std::fs::create_dir_all(&directory)
            .map_err(|source| Error::Directory { what: directory.display().to_string(), source })?;
    }
    let tasks = settings.tasks();
    state::read_all(&tasks).map_err(|source| Error::Directory { what: tasks.display().to_string(), source })
}

/// Stops and removes every task of an agent's directory from this host: containers, cgroups, mounts, ephemeral
/// storage, and what is remembered of them. Safe to repeat, and safe without a running agent; returns what it removed.
pub fn teardown(platform: &str, data_dir: &Path) -> Result<Vec<String>, Error> {
    let platform = platform.trim_start_matches("ls-");
    let directory = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let mut removed = Vec::new();
    let report = Runtime::destroy(&directory.join("containers"), &format!("longshore/{platform}"))
        .map_err(|error| Error::Runtime(error.to_string()))?;
    for (count, what) in
        [(report.containers, "containers"), (report.processes, "processes"), (report.mounts, "mounts of containers")]
    {
        if count > 0 {
            removed.push(format!("{count} {what}"));
        }
    }
    if let Ok(all_platforms) = Group::open("longshore") {
        all_platforms.remove_if_empty();
    }
    let volumes = directory.join("volumes");
    let unmounted = runtime::rootfs::unmount_under(&volumes).map_err(|error| Error::Runtime(error.to_string()))?;
    if unmounted > 0 {
        removed.push(format!("{unmounted} mounts of ephemeral storage"));
    }
    match std::fs::remove_dir_all(&volumes) {
        Ok(()) => removed.push(volumes.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Directory { what: volumes.display().to_string(), source }),
    }
    mark_stopped(&directory.join("tasks"))?;
    Ok(removed)
}

/// The tasks are gone from the host, but the control plane does not know: the next start of the agent tells it.
fn mark_stopped(tasks: &Path) -> Result<(), Error> {
    let failed = |source| Error::Directory { what: tasks.display().to_string(), source };
    if !tasks.exists() {
        return Ok(());
    }
    let now = domain::Clock::system_now();
    for mut record in state::read_all::<TaskRecord>(tasks).map_err(failed)? {
        record.stopped_with_host(now);
        state::write(&tasks.join(format!("{}.json", record.id())), &record).map_err(failed)?;
    }
    Ok(())
}
