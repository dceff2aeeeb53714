//! The agent's life: open what is on disk, register, adopt, connect; and the removal of everything for `down`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::{Group, Helper, ImageStore, Runtime, RuntimeOptions, StoreOptions};

use crate::aws::{Client, Endpoint, tls};
use crate::docker::machine::Machine;
use crate::docker::{self, Docker};
use crate::engine::Engine;
use crate::engine::driver::Driver;
use crate::engine::record::TaskRecord;
use crate::host::{Host, Settings};
use crate::identity::{Identity, Offer, RegisterError};
use crate::instance::{Kind, spot};
use crate::network::bridge;
use crate::options::Runtime as Choice;
use crate::plan::{Place, Plan};
use crate::roles::Roles;
use crate::session::status::{Probe, RuntimeStatus};
use crate::session::{acs, tcs};
use crate::{Options, introspection, state};

/// How long an instance of the user's stays away after it was deregistered.
const DEREGISTERED: Duration = Duration::from_secs(3600);

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
    let plan = Plan::new(options)?;
    if plan.options.teardown && plan.options.runtime == Choice::Own {
        for what in teardown(&plan.platform, &plan.directory)? {
            tracing::info!(what, "removed");
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .thread_name("agent")
        .build()
        .map_err(|source| Error::Directory { what: "threads".to_owned(), source })?;
    let outcome = runtime.block_on(run(plan));
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    outcome
}

async fn run(plan: Plan) -> Result<(), Error> {
    if plan.options.teardown {
        return teardown_docker(&plan).await;
    }
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    tokio::select! {
        outcome = serve(plan) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, Error> {
    tokio::signal::unix::signal(kind).map_err(|source| Error::Directory { what: "signals".to_owned(), source })
}

async fn serve(plan: Plan) -> Result<(), Error> {
    match plan.options.runtime {
        Choice::Own => serve_own(plan).await,
        Choice::Docker => serve_docker(plan).await,
    }
}

async fn serve_own(plan: Plan) -> Result<(), Error> {
    let endpoint = Endpoint::parse(&plan.endpoint).map_err(Error::Option)?;
    let place = plan.place().await?;
    let settings = plan.settings(&endpoint, &place.zone)?;
    let runtime_error = |error: &dyn std::fmt::Display| Error::Runtime(error.to_string());
    let helper = Helper::current().map_err(|error| runtime_error(&error))?;
    let containers = RuntimeOptions { directory: settings.containers(), helper: helper.clone() };
    let containers = Runtime::open(containers).await.map_err(|error| runtime_error(&error))?;
    let store = StoreOptions { root: settings.directory.join("images"), helper, limits: Default::default() };
    let images = tokio::task::spawn_blocking(move || ImageStore::open(store)).await;
    let images = images.map_err(|error| runtime_error(&error))?.map_err(|error| runtime_error(&error))?;

    let offer = plan.offer(&place)?;
    let identity = plan.register(endpoint, place, &offer).await?;
    let (records, roles) = remembered(&settings)?;
    let bridge = plan.bridge(&records)?;
    let host = Host::new(settings, identity.clone(), roles.clone(), containers, images, bridge);
    let engine = Arc::new(Engine::new(host.clone()));
    host.serve(&engine);
    host.remove_orphans(&records).await;
    tracing::info!(tasks = records.len(), "tasks found on disk");
    engine.restore(records);
    tokio::spawn(host.clone().collect_images());
    if plan.kind != Kind::Fargate {
        host.open_for_the_machine().await;
    }
    let probed = host.clone();
    let probe: Probe = Box::new(move || probed.check_runtime());
    plan.converse(identity, engine, roles, Arc::new(move |id: &str| host.usage(id)), probe).await
}

async fn serve_docker(plan: Plan) -> Result<(), Error> {
    let endpoint = Endpoint::parse(&plan.endpoint).map_err(Error::Option)?;
    let place = plan.place().await?;
    let settings = plan.settings(&endpoint, &place.zone)?;
    let mut machine = Machine::prepare(&settings, &plan.config).await.map_err(Error::Runtime)?;
    let mut offer = plan.offer(&place)?;
    machine.narrow(&mut offer);
    let identity = plan.register(endpoint, place, &offer).await?;
    let (records, roles) = remembered(&settings)?;
    let listeners = std::mem::take(&mut machine.listeners);
    let docker = Docker::new(settings, identity.clone(), roles.clone(), machine);
    let engine = Arc::new(Engine::new(docker.clone()));
    docker.serve(&engine);
    docker.remove_orphans(&records).await;
    tracing::info!(tasks = records.len(), "tasks found on disk");
    engine.restore(records);
    docker.open_endpoints(listeners);
    let probed = docker.clone();
    let probe: Probe = Box::new(move || probed.check_runtime());
    plan.converse(identity, engine, roles, Arc::new(move |id: &str| docker.usage(id)), probe).await
}

/// The tasks on disk, and the ids of their credentials.
fn remembered(settings: &Settings) -> Result<(Vec<TaskRecord>, Arc<Roles>), Error> {
    let records = read_tasks(settings)?;
    let roles = Arc::new(Roles::default());
    for record in &records {
        roles.learn(&record.task);
    }
    Ok((records, roles))
}

impl Plan {
    async fn register(&self, endpoint: Endpoint, place: Place, offer: &Offer) -> Result<Arc<Identity>, Error> {
        let tls = tls::config(self.options.ca_bundle.as_deref()).map_err(Error::Option)?;
        let client = Client::new(endpoint, tls);
        let file = self.directory.join("instance.json");
        // Running tasks do not wait for this: they go on without an agent.
        let identity =
            Identity::register(client, place.credentials, &self.cluster, &place.region, offer, &file).await?;
        let identity = Arc::new(identity);
        match place.instance {
            Some(instance) if self.config.spot_draining => {
                tokio::spawn(spot::drain_when_interrupted(instance.imds, identity.clone()));
            }
            None if self.config.spot_draining => tracing::warn!("only an EC2 instance can be a Spot Instance"),
            _ => {}
        }
        Ok(identity)
    }

    /// Speaks with the control plane until the instance is deregistered.
    async fn converse<D: Driver>(
        &self,
        identity: Arc<Identity>,
        engine: Arc<Engine<D>>,
        roles: Arc<Roles>,
        meter: tcs::Meter,
        probe: Probe,
    ) -> Result<(), Error> {
        let (file, sequence) = (self.directory.join("instance.json"), self.directory.join("sequence.json"));
        if self.kind != Kind::Fargate {
            let engine = engine.clone();
            tokio::spawn(introspection::serve(introspection::Context {
                cluster: self.cluster.clone(),
                instance_arn: identity.instance_arn.clone(),
                tasks: Box::new(move || engine.views()),
            }));
        }
        let status = RuntimeStatus::watch(probe);
        tokio::spawn(tcs::run(identity.clone(), engine.clone(), meter, status.clone()));
        let highest = highest(&sequence, &identity.instance_arn);
        let responder = acs::Responder::new(engine, roles, &self.cluster, &identity.instance_arn, highest)
            .at_heartbeat(move || status.check());
        let instance = identity.instance_arn.clone();
        let remember = move |highest: i64| {
            if let Err(error) = state::write(&sequence, &(&instance, highest)) {
                tracing::error!(%error, "the last sequence number cannot be remembered");
            }
        };
        let why = acs::run(identity, responder, remember).await;
        if self.kind != Kind::Fargate {
            // As Amazon's agent: whoever deregistered the instance does not want it back at once.
            tracing::error!(why, "this container instance is deregistered: waiting for an hour");
            tokio::time::sleep(DEREGISTERED).await;
        }
        // Started again, it registers as a new instance. A Fargate host belongs to its platform and does not wait: it may
        // be unknown there after a reset of the account.
        state::remove(&file).map_err(|source| Error::Directory { what: file.display().to_string(), source })?;
        Err(Error::Deregistered(why))
    }
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
    let networks = directory.join("network");
    // Only an agent that has made networks of its own has this; the network host's are the network host's to remove.
    if networks.exists() || directory.join("platform.json").exists() {
        let failed = |source| Error::Directory { what: "the machine's network".to_owned(), source };
        removed.extend(bridge::teardown(platform).map_err(failed)?);
        if networks.exists() {
            std::fs::remove_dir_all(&networks).map_err(failed)?;
        }
    }
    mark_stopped(&directory.join("tasks"))?;
    Ok(removed)
}

async fn teardown_docker(plan: &Plan) -> Result<(), Error> {
    for what in docker::teardown::teardown(&plan.platform, &plan.directory).await.map_err(Error::Runtime)? {
        tracing::info!(what, "removed");
    }
    mark_stopped(&plan.directory.join("tasks"))
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
