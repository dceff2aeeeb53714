//! The agent's life: open what is on disk, register, adopt, connect; and the removal of everything for `down`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::FARGATE_CLUSTER;
use domain::network::ENDPOINT_ADDRESS;
use runtime::{Group, Helper, ImageStore, Runtime, RuntimeOptions, StoreOptions};

use crate::aws::credentials::InstanceCredentials;
use crate::aws::{Client, Endpoint, tls};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::record::TaskRecord;
use crate::host::{Host, Settings, network};
use crate::identity::{Identity, RegisterError};
use crate::instance::{Kind, ec2, external, fargate, machine, spot};
use crate::network::awsvpc::Interfaces;
use crate::network::bridge::{self, Bridge};
use crate::roles::Roles;
use crate::session::status::RuntimeStatus;
use crate::session::{acs, tcs};
use crate::{Options, introspection, state};

/// Where an agent keeps its state when nobody says.
const DIRECTORY: &str = "/var/lib/longshore-agent";
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
    if plan.options.teardown {
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

/// What the command line, the environment and the configuration file say together.
struct Plan {
    kind: Kind,
    options: Options,
    config: Config,
    cluster: String,
    region: Option<String>,
    endpoint: String,
    directory: PathBuf,
    platform: String,
}

impl Plan {
    fn new(options: Options) -> Result<Plan, Error> {
        let kind = match (options.fargate, options.ec2) {
            (true, _) => Kind::Fargate,
            (false, true) => Kind::Ec2,
            (false, false) => Kind::External,
        };
        // The Fargate host belongs to its platform, which tells it everything.
        let mut config = match kind {
            Kind::Fargate => Config::default(),
            Kind::Ec2 => {
                Config::load(Some(Path::new(ec2::DEFAULTS)), options.config.as_deref()).map_err(Error::Option)?
            }
            Kind::External => Config::load(None, options.config.as_deref()).map_err(Error::Option)?,
        };
        for name in &config.ignored {
            tracing::warn!(name, "this variable is set, and this agent does not honour it");
        }
        for attribute in &options.instance_attributes {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            config.attributes.insert(name.to_owned(), value.to_owned());
        }
        let or = |flag: &Option<String>, variable: &Option<String>, default: &str| {
            flag.clone().or_else(|| variable.clone()).unwrap_or_else(|| default.to_owned())
        };
        let cluster = if kind == Kind::Fargate { FARGATE_CLUSTER } else { "default" };
        let directory = options.data_dir.clone().or_else(|| config.data_dir.clone());
        let directory = directory.unwrap_or_else(|| DIRECTORY.into());
        let directory = std::fs::create_dir_all(&directory)
            .and_then(|()| directory.canonicalize())
            .map_err(|source| Error::Directory { what: directory.display().to_string(), source })?;
        let platform = match &options.platform {
            Some(platform) => platform.trim_start_matches("ls-").to_ascii_lowercase(),
            None => machine::marked(&directory)
                .map_err(|source| Error::Directory { what: directory.display().to_string(), source })?,
        };
        if !machine::is_mark(&platform) {
            return Err(Error::Option(format!("--platform {platform} is not six hexadecimal digits")));
        }
        Ok(Plan {
            kind,
            cluster: or(&options.cluster, &config.cluster, cluster),
            region: options.region.clone().or_else(|| config.region.clone()),
            endpoint: or(&options.endpoint, &config.endpoint, "http://127.0.0.1:4580"),
            directory,
            platform,
            config,
            options,
        })
    }

    fn settings(&self, endpoint: &Endpoint, zone: &str) -> Result<Settings, Error> {
        let mut mirrors = Vec::new();
        for mirror in self.options.registry_mirrors.iter().filter(|mirror| !mirror.is_empty()) {
            let (name, url) = mirror
                .split_once('=')
                .ok_or_else(|| Error::Option(format!("--registry-mirror {mirror} is not of the form NAME=URL")))?;
            mirrors.push((name.to_owned(), url.to_owned()));
        }
        let port = endpoint.authority.rsplit_once(':').map_or("80", |(_, port)| port);
        let reached = match self.kind {
            Kind::Fargate => format!("http://{ENDPOINT_ADDRESS}:{port}"),
            Kind::Ec2 | Kind::External => format!("{}://{}", endpoint.scheme(), endpoint.authority),
        };
        Ok(Settings {
            kind: self.kind,
            platform: self.platform.clone(),
            interfaces: match self.kind {
                Kind::Ec2 => Interfaces::HandedOver(domain::instances::INTERFACES_DIRECTORY.into()),
                Kind::Fargate | Kind::External => Interfaces::OfPlatform(self.platform.clone()),
            },
            directory: self.directory.clone(),
            task_endpoint: self.options.task_endpoint.clone().unwrap_or(reached),
            authorities: self.options.ca_bundle.as_ref().map(|path| read_authorities(path)).transpose()?,
            mirrors,
            availability_zone: zone.to_owned(),
            image_cache: self.options.image_cache << 20,
            stop_timeout: self.config.stop_timeout,
        })
    }

    fn offer(&self, place: &Place) -> Result<crate::identity::Offer, Error> {
        let (cpu, memory) = (self.options.cpu, self.options.memory);
        let offer = match (self.kind, &place.instance) {
            (_, Some(instance)) => instance.offer(cpu, memory, &self.directory, &self.config),
            (Kind::Fargate, None) => fargate::offer(cpu, memory, &place.zone, &self.directory),
            (_, None) => external::offer(cpu, memory, &place.zone, &self.directory, &self.config),
        };
        offer.map_err(|source| Error::Directory { what: "the host's memory".to_owned(), source })
    }

    /// The networks of this instance's own, with what is left of them from before.
    fn bridge(&self, records: &[TaskRecord]) -> Result<Option<Arc<Bridge>>, Error> {
        if self.kind == Kind::Fargate {
            return Ok(None);
        }
        let range = self.config.host_ports.clone().unwrap_or_else(bridge::ports::kernels_range);
        let known: HashSet<String> = network::keys(records).collect();
        let opened = Bridge::open(&self.platform, self.directory.join("network"), range, &known);
        opened
            .map(|bridge| Some(Arc::new(bridge)))
            .map_err(|source| Error::Directory { what: "the machine's network".to_owned(), source })
    }
}

/// Where this machine is, and what it is called with.
struct Place {
    region: String,
    zone: String,
    credentials: InstanceCredentials,
    /// Where it is an EC2 instance.
    instance: Option<ec2::Instance>,
}

impl Plan {
    /// An EC2 instance asks its metadata service, for as long as it takes; others have been told.
    async fn place(&self) -> Result<Place, Error> {
        let zone = self.options.availability_zone.clone();
        if self.kind == Kind::Ec2 {
            let instance = ec2::Instance::discover().await;
            let region = self.region.clone().unwrap_or_else(|| instance.region.clone());
            let zone = zone.unwrap_or_else(|| instance.zone.clone());
            let credentials = InstanceCredentials::from_metadata(instance.imds.clone(), &region).await;
            return Ok(Place { region, zone, credentials, instance: Some(instance) });
        }
        let region = self.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let credentials = InstanceCredentials::from_environment(&region).map_err(Error::Option)?;
        let zone = zone.unwrap_or_else(|| format!("{region}a"));
        Ok(Place { region, zone, credentials, instance: None })
    }
}

fn read_authorities(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Directory { what: path.display().to_string(), source })
}

async fn serve(plan: Plan) -> Result<(), Error> {
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
    let (file, sequence) = (settings.directory.join("instance.json"), settings.directory.join("sequence.json"));
    let tls = tls::config(plan.options.ca_bundle.as_deref()).map_err(Error::Option)?;
    let client = Client::new(endpoint, tls);
    // Running tasks do not wait for this: their shims and their spools go on without an agent.
    let identity = Identity::register(client, place.credentials, &plan.cluster, &place.region, &offer, &file).await?;
    let identity = Arc::new(identity);

    match place.instance {
        Some(instance) if plan.config.spot_draining => {
            tokio::spawn(spot::drain_when_interrupted(instance.imds, identity.clone()));
        }
        None if plan.config.spot_draining => tracing::warn!("only an EC2 instance can be a Spot Instance"),
        _ => {}
    }

    let records = read_tasks(&settings)?;
    let roles = Arc::new(Roles::default());
    for record in &records {
        roles.learn(&record.task);
    }
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
        let engine = engine.clone();
        tokio::spawn(introspection::serve(introspection::Context {
            cluster: plan.cluster.clone(),
            instance_arn: identity.instance_arn.clone(),
            tasks: Box::new(move || engine.views()),
        }));
    }

    let meter: tcs::Meter = {
        let host = host.clone();
        Arc::new(move |id: &str| host.usage(id))
    };
    let status = {
        let host = host.clone();
        RuntimeStatus::watch(Box::new(move || host.check_runtime()))
    };
    tokio::spawn(tcs::run(identity.clone(), engine.clone(), meter, status.clone()));
    let highest = highest(&sequence, &identity.instance_arn);
    let responder = acs::Responder::new(engine, roles, &plan.cluster, &identity.instance_arn, highest)
        .at_heartbeat(move || status.check());
    let instance = identity.instance_arn.clone();
    let remember = move |highest: i64| {
        if let Err(error) = state::write(&sequence, &(&instance, highest)) {
            tracing::error!(%error, "the last sequence number cannot be remembered");
        }
    };
    let why = acs::run(identity, responder, remember).await;
    if plan.kind != Kind::Fargate {
        // As Amazon's agent: whoever deregistered the instance does not want it back at once.
        tracing::error!(why, "this container instance is deregistered: waiting for an hour");
        tokio::time::sleep(DEREGISTERED).await;
    }
    // Started again, it registers as a new instance. A Fargate host belongs to its platform and does not wait: it may be
    // unknown there after a reset of the account.
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
