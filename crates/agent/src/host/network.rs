//! A container's network, as its task's network mode has it, and the metadata endpoint that is reached through it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use domain::agent_protocol::payload::{Container, Task};
use domain::ecs::status::reason;
use tokio::time::Instant;

use super::storage::Storage;
use super::{Host, lock, reasons};
use crate::engine::Engine;
use crate::engine::machine::Failure;
use crate::engine::record::{
    ContainerNetwork, ContainerStatus, TaskRecord, docker_config, docker_host_config, task_id,
};
use crate::metadata;
use crate::network::bridge::{self, Bridge};
use crate::network::{Joined, Mode, awsvpc, host, is_namespace, none};

/// Finds the network namespace of a container by its name.
type Namespaces = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;

/// How long a task's network may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the bridge knows a container by. It stays when the container is restarted in place.
pub fn key(task: &Task, index: usize) -> String {
    format!("{}-{index}", task_id(&task.arn))
}

/// The containers of these tasks that still need what they were given.
pub fn keys(records: &[TaskRecord]) -> impl Iterator<Item = String> {
    records.iter().filter(|record| !record.cleaned).flat_map(|record| {
        let unfinished = |index: &usize| record.containers[*index].status != ContainerStatus::Stopped;
        (0..record.containers.len()).filter(unfinished).map(|index| key(&record.task, index))
    })
}

impl Host {
    /// Whether the task's network mode is one of this kind of instance.
    pub(super) fn mode(&self, task: &Task) -> Result<Mode, Failure> {
        let refused = |why: String| reasons::resource("failed to configure the task's network", &why);
        let mode = Mode::of(task).map_err(|other| refused(format!("networkMode {other} is unknown")))?;
        self.settings.kind.accepts(mode).map_err(refused)?;
        Ok(mode)
    }

    /// Opens what containers in the machine's own network reach. They start only if it is there; others do not need it.
    pub async fn open_for_the_machine(&self) {
        if let Err(Failure(reason)) = self.open_own_endpoint().await {
            tracing::warn!(reason, "tasks with networkMode host cannot run yet");
        }
    }

    /// Gives a container its network.
    pub(super) async fn join(&self, task: &Arc<Task>, index: usize) -> Result<Joined, Failure> {
        let mode = self.mode(task)?;
        let Some(definition) = task.containers.get(index) else { return Ok(Joined::default()) };
        let (config, docker) = (docker_config(definition), docker_host_config(definition));
        let id: String = task_id(&task.arn).chars().take(10).collect();
        // Docker's is the first twelve digits of the container's id, too.
        let hostname = if config.hostname.is_empty() { format!("{id}{index:02x}") } else { config.hostname };
        match mode {
            Mode::Awsvpc => {
                let (namespace, names) = (self.wait_for_network(task).await?, awsvpc::names(task, &docker));
                Ok(Joined { namespace, names, network: ContainerNetwork::default() })
            }
            Mode::Host => Ok(host::join(definition, &docker)),
            Mode::Bridge | Mode::None => {
                let bridge = self.bridge()?;
                let (making, key, mappings) = (bridge.clone(), key(task, index), definition.port_mappings.clone());
                let namespace = bridge.namespace(&key);
                let attached =
                    tokio::task::spawn_blocking(move || making.attach(&key, mode == Mode::Bridge, &mappings)).await;
                let network = match attached {
                    Ok(Ok(network)) => network,
                    Ok(Err(error)) => return Err(reasons::network(&definition.name, task_id(&task.arn), &error)),
                    Err(error) => return Err(reasons::network(&definition.name, task_id(&task.arn), &error)),
                };
                let names = match mode {
                    Mode::None => none::names(hostname, &docker),
                    _ => bridge::names(hostname, network.address, &links(&bridge, task, definition), &docker),
                };
                Ok(Joined { namespace, names, network })
            }
        }
    }

    /// Takes back what a container was given, if anything.
    pub(super) async fn leave(&self, task: &Task, index: usize) {
        let Some(bridge) = self.bridge.clone() else { return };
        let key = key(task, index);
        lock(&self.endpoints).remove(&bridge.namespace(&key));
        let detached = tokio::task::spawn_blocking(move || bridge.detach(&key)).await;
        if let Ok(Err(error)) = detached {
            tracing::warn!(task = task_id(&task.arn), %error, "a container's network could not be removed");
        }
    }

    /// What a container was given, after a restart of the agent.
    pub(super) fn network_of(&self, task: &Task, index: usize) -> ContainerNetwork {
        match (Mode::of(task), task.containers.get(index)) {
            (Ok(Mode::Host), Some(definition)) => host::join(definition, &docker_host_config(definition)).network,
            (Ok(Mode::Bridge | Mode::None), Some(_)) => {
                self.bridge.as_ref().and_then(|bridge| bridge.network(&key(task, index))).unwrap_or_default()
            }
            _ => ContainerNetwork::default(),
        }
    }

    fn bridge(&self) -> Result<Arc<Bridge>, Failure> {
        let bridge = self.bridge.clone();
        bridge.ok_or_else(|| reasons::resource("failed to configure the task's network", &"there is no bridge here"))
    }

    /// The task's network namespace, once the network host has completed it.
    pub(super) async fn wait_for_network(&self, task: &Task) -> Result<PathBuf, Failure> {
        let Some(netns) = self.settings.interfaces.netns(task) else {
            return Err(reasons::resource("failed to configure ENI", &"the task has no network interface"));
        };
        let deadline = Instant::now() + PATIENCE;
        let mut looks = 0u32;
        while !is_namespace(&netns) {
            looks += 1;
            if Instant::now() > deadline {
                return Err(Failure(reason::NETWORK_TIMEOUT.to_owned()));
            }
            if looks.is_multiple_of(20) && !self.is_wanted(&task.arn) {
                return Err(Failure("the task was stopped".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(if looks < 200 { 5 } else { 50 })).await;
        }
        Ok(netns)
    }

    /// What of a task's network is there before its containers are. `again` after a restart of the agent, when the
    /// endpoints of what runs are to be opened again.
    pub(super) async fn prepare_network(&self, task: &Arc<Task>, again: bool) -> Result<(), Failure> {
        match self.mode(task)? {
            Mode::Awsvpc => {
                let netns = self.wait_for_network(task).await?;
                // The endpoint of a task that is new opens while its containers are made.
                if again { self.open_endpoint(task, &netns).await } else { Ok(()) }
            }
            Mode::Host => self.open_own_endpoint().await,
            Mode::Bridge if again => {
                let bridge = self.bridge()?;
                for key in (0..task.containers.len()).map(|index| key(task, index)) {
                    if bridge.network(&key).is_some_and(|network| network.address.is_some()) {
                        self.open_endpoint(task, &bridge.namespace(&key)).await?;
                    }
                }
                Ok(())
            }
            Mode::Bridge | Mode::None => Ok(()),
        }
    }

    /// Opens the metadata endpoint that a container reaches, unless it is open: none may start without it.
    pub(super) async fn endpoint_for(&self, task: &Task, joined: &Joined) -> Result<(), Failure> {
        match self.mode(task)? {
            Mode::Awsvpc | Mode::Bridge => self.open_endpoint(task, &joined.namespace).await,
            Mode::Host => self.open_own_endpoint().await,
            Mode::None => Ok(()),
        }
    }

    async fn open_endpoint(&self, task: &Task, netns: &Path) -> Result<(), Failure> {
        let Some(engine) = self.engine.get().cloned() else { return Ok(()) };
        let context = self.context(task, engine);
        let endpoint = lock(&self.endpoints).entry(netns.to_owned()).or_default().clone();
        let opened = endpoint.get_or_try_init(|| metadata::Endpoint::open(netns.to_owned(), context)).await;
        opened.map(drop).map_err(|error| reasons::resource("failed to open the task metadata endpoint", &error))
    }

    /// Opens the endpoint of the machine's own network.
    pub(super) async fn open_own_endpoint(&self) -> Result<(), Failure> {
        let host = self.this.clone();
        let finder: metadata::Finder = Arc::new(move |id: &str| {
            let host = host.upgrade()?;
            let engine = host.engine.get()?.clone();
            let upgraded = engine.upgrade()?;
            let record = host.task_named(&upgraded, id)?;
            Some(host.context(&record.task, engine))
        });
        let opened = self.own_endpoint.get_or_try_init(|| metadata::Endpoint::open_own(finder)).await;
        opened.map(drop).map_err(|error| reasons::resource("failed to open the task metadata endpoint", &error))
    }

    /// The task in the machine's network that has a container or credentials of this id.
    fn task_named(&self, engine: &Engine<Host>, id: &str) -> Option<Arc<TaskRecord>> {
        let in_host_mode = |record: &Arc<TaskRecord>| Mode::of(&record.task) == Ok(Mode::Host);
        engine.views().into_iter().filter(in_host_mode).find(|record| {
            let ids = record.containers.iter().flat_map(|one| one.runtime_id.iter().chain(&one.former_ids));
            let task = &record.task;
            let roles = [&task.role_credentials, &task.execution_role_credentials];
            ids.chain(roles.into_iter().flatten().map(|role| &role.credentials_id)).any(|own| own == id)
        })
    }

    fn context(&self, task: &Task, engine: Weak<Engine<Host>>) -> metadata::Context {
        metadata::Context {
            kind: self.settings.kind,
            tags: {
                let (identity, arn) = (self.identity.clone(), task.arn.clone());
                Arc::new(move || {
                    let (identity, arn) = (identity.clone(), arn.clone());
                    let tags: metadata::Tags = Box::pin(async move { identity.tags_of(&arn).await });
                    tags
                })
            },
            api: self.identity.client.clone(),
            network: {
                let netns = self.namespaces(task);
                let read = |netns: PathBuf| metadata::read_counters(&netns).ok();
                Arc::new(move |container| netns(&container.name).and_then(read).unwrap_or_default())
            },
            readings: lock(&self.readings).entry(task.arn.clone()).or_default().clone(),
            task_arn: task.arn.clone(),
            availability_zone: task.zone.clone().unwrap_or_else(|| self.settings.availability_zone.clone()),
            roles: self.roles.clone(),
            view: {
                let arn = task.arn.clone();
                Arc::new(move || engine.upgrade()?.view(&arn))
            },
            stats: {
                let runtime = self.runtime.clone();
                Arc::new(move |id: &str| runtime.get(id)?.stats().ok())
            },
            storage: {
                let storage = Storage::of(&self.settings, task_id(&task.arn));
                Arc::new(move || storage.usage())
            },
        }
    }

    /// Where the counters of each container of a task are read.
    fn namespaces(&self, task: &Task) -> Namespaces {
        match (Mode::of(task), &self.bridge) {
            (Ok(Mode::Awsvpc), _) => {
                let netns = self.settings.interfaces.netns(task);
                Arc::new(move |_| netns.clone())
            }
            (Ok(Mode::Bridge), Some(bridge)) => {
                let names = task.containers.iter().enumerate();
                let all: Vec<(String, PathBuf)> = names
                    .map(|(index, container)| (container.name.clone(), bridge.namespace(&key(task, index))))
                    .collect();
                Arc::new(move |name| all.iter().find(|(of, _)| of == name).map(|(_, netns)| netns.clone()))
            }
            _ => Arc::new(|_| None),
        }
    }
}

/// Addresses of the containers that `definition` is linked to, each with the names it is to have.
fn links(bridge: &Bridge, task: &Task, definition: &Container) -> Vec<(Ipv4Addr, String)> {
    let linked = definition.links.iter().filter_map(|link| {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let place = task.containers.iter().position(|other| other.name == name)?;
        let address = bridge.network(&key(task, place))?.address?;
        Some((address, if alias == name { name.to_owned() } else { format!("{alias} {name}") }))
    });
    linked.collect()
}
