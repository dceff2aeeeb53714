//! Containers through Docker Engine: create and start, find again, wait, stop, check, remove.
//!
//! Docker gives identifiers by itself; until one is known, a container is found by its labels: a task has one container
//! of each name, which a restart in place starts again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::Timestamp;
use domain::agent_protocol::payload::Task;
use http::Method;
use serde_json::json;
use tokio::sync::watch;

use super::client::{EngineError, TIMEOUT};
use super::create::{self, AGENT_LABEL, CONTAINER_LABEL, TASK_LABEL};
use super::logs::Follower;
use super::{Docker, api, files, lock};
use crate::engine::driver::{Driver, Found, Named, StartOrder, Started};
use crate::engine::health::{Check, Outcome};
use crate::engine::machine::{Ended, Failure};
use crate::engine::record::docker_host_config;
use crate::host::spec;
use crate::logs::Lines;
use crate::network::{Mode, host};

/// Before an engine that went away is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// What the engine may take beyond a container's own stop timeout.
const KILL_PATIENCE: Duration = Duration::from_secs(60);
/// How long the last lines of before may keep a container from being started again.
const LINES_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks for the outcome of a health check.
const LOOK: Duration = Duration::from_millis(250);
/// What Docker may take to run a health check beyond its own time.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);

impl Docker {
    pub(super) async fn start_container(&self, order: StartOrder) -> Result<Started, Failure> {
        let created = |error: EngineError| Failure(format!("CannotCreateContainerError: {error}"));
        let started = |error: EngineError| Failure(format!("CannotStartContainerError: {error}"));
        let task = &order.task;
        let here = self.of_task(&task.arn).await.map_err(created)?;
        let name = task.containers.get(order.index).map(|one| one.name.clone()).unwrap_or_default();
        let own = here.iter().find(|one| one.labels.get(CONTAINER_LABEL) == Some(&name));
        let named = match own {
            // Never started: it may have been made by an agent that was killed in the middle of it.
            Some(own) if own.state == "created" => {
                self.remove(&own.id).await.map_err(created)?;
                self.create(&order, &here).await?
            }
            Some(own) => {
                let before = lock(&self.drains).get(&own.id).cloned();
                if let Some(mut before) = before {
                    let _ = tokio::time::timeout(LINES_PATIENCE, before.wait_for(|done| *done)).await;
                }
                Named { id: own.id.clone(), name: own.name().unwrap_or_default().to_owned() }
            }
            None => self.create(&order, &here).await?,
        };
        let id = named.id.clone();
        lock(&self.names).insert(order.runtime_id.clone(), named);
        let path = format!("/containers/{id}/start");
        self.client.act(Method::POST, &path, Bytes::new(), Some(TIMEOUT)).await.map_err(started)?;
        let container = self.inspect(&id).await.map_err(started)?;
        self.follow(task, order.index, &id);
        Ok(self.started(task, order.index, &container))
    }

    async fn create(&self, order: &StartOrder, here: &[api::Listed]) -> Result<Named, Failure> {
        let failed = |error: EngineError| Failure(format!("CannotCreateContainerError: {error}"));
        let task = order.task.as_ref();
        let Some(container) = task.containers.get(order.index) else {
            return Err(Failure("CannotCreateContainerError: no such container".to_owned()));
        };
        let (image, image_id) = self.image_of(task, order.index).await?;
        let pairs =
            here.iter().filter_map(|one| Some((one.labels.get(CONTAINER_LABEL)?.clone(), one.name()?.to_owned())));
        let names: BTreeMap<String, String> = pairs.collect();
        let group = self.group_of(task);
        let around = |image| create::Surroundings {
            settings: &self.settings,
            image,
            id: &order.runtime_id,
            names: &names,
            group: group.as_deref(),
            host_ports: self.engine.host_ports.as_ref(),
        };
        let name = create::name(task, container, &lock(&self.source).hex(20));
        let path = format!("/containers/create?name={}", wire::percent_encode(&name));
        let body = create::body(task, container, &around(&image))?;
        let mut made: api::Created = self.client.post(&path, &body).await.map_err(failed)?;
        // The tag may have been moved between the pull and now.
        if image != image_id && self.inspect(&made.id).await.map_err(failed)?.image != image_id {
            self.remove(&made.id).await.map_err(failed)?;
            let body = create::body(task, container, &around(&image_id))?;
            made = self.client.post(&path, &body).await.map_err(failed)?;
        }
        if let Some(file) = spec::authorities(&self.settings) {
            let path = format!("/containers/{}/archive?path=/", made.id);
            let put = self.client.act(Method::PUT, &path, files::archive(&file), Some(TIMEOUT)).await;
            match put {
                Err(error) if docker_host_config(container).readonly_rootfs => {
                    tracing::warn!(container = name, %error, "a read-only container does not get the platform's authority");
                }
                put => put.map_err(failed)?,
            }
        }
        Ok(Named { id: made.id, name })
    }

    fn started(&self, task: &Task, index: usize, container: &api::Container) -> Started {
        let network = match (Mode::of(task), task.containers.get(index)) {
            (Ok(Mode::Host), Some(definition)) => host::join(definition, &docker_host_config(definition)).network,
            _ => container.network_settings.told(),
        };
        let name = container.name.trim_start_matches('/').to_owned();
        self.measure(&container.id);
        Started {
            at: container.state.started().unwrap_or_else(|| self.now()),
            network,
            named: Some(Named { id: container.id.clone(), name }),
        }
    }

    pub(super) async fn find_container(&self, task: &Arc<Task>, index: usize, runtime_id: &str) -> Found {
        let container = loop {
            match self.look_for(task, index, runtime_id).await {
                Ok(found) => break found,
                Err(error) => tracing::warn!(container = runtime_id, %error, "a container cannot be looked for yet"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let Some(container) = container else { return Found::Nothing };
        let name = container.name.trim_start_matches('/').to_owned();
        lock(&self.names).insert(runtime_id.to_owned(), Named { id: container.id.clone(), name });
        if container.state.running {
            self.follow(task, index, &container.id);
            return Found::Running(self.started(task, index, &container));
        }
        if container.state.started().is_none() {
            // It goes with the next start of this container, or with its task.
            return Found::Nothing;
        }
        self.follow(task, index, &container.id);
        Found::Ended(container.state.started(), ended(&container.state, self.now()))
    }

    async fn look_for(&self, task: &Task, index: usize, id: &str) -> Result<Option<api::Container>, EngineError> {
        let name = task.containers.get(index).map(|one| one.name.as_str()).unwrap_or_default();
        let here = self.of_task(&task.arn).await?;
        let known = here.iter().find(|one| one.id == id);
        let known =
            known.or_else(|| here.iter().find(|one| one.labels.get(CONTAINER_LABEL).is_some_and(|own| own == name)));
        let Some(known) = known else { return Ok(None) };
        match self.inspect(&known.id).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Delivers what the container prints, if it has a log driver and nobody does already.
    fn follow(&self, task: &Task, index: usize, id: &str) {
        let Some(definition) = task.containers.get(index) else { return };
        let Some(sink) = self.sink(task, definition, id) else { return };
        let (sender, receiver) = watch::channel(false);
        let mut drains = lock(&self.drains);
        if drains.get(id).is_some_and(|drain| !*drain.borrow()) {
            return;
        }
        drains.insert(id.to_owned(), receiver);
        drop(drains);
        let directory = self.lines_of(id);
        let lines = Lines::Docker(Follower::open(self.client.clone(), id, &directory));
        tokio::spawn(sink.run(lines, directory, sender));
    }

    pub(super) async fn wait_for(&self, runtime_id: &str) -> Ended {
        let id = self.resolve(runtime_id);
        loop {
            let path = format!("/containers/{id}/wait");
            let waited = self.client.act(Method::POST, &path, Bytes::new(), None).await;
            match self.inspect(&id).await {
                Ok(container) if !container.state.running => return ended(&container.state, self.now()),
                Err(error) if error.is_absent() => {
                    return Ended { exit_code: None, out_of_memory: false, at: self.now() };
                }
                Ok(_) if waited.is_ok() => {}
                // The engine is being restarted; its containers need not be.
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Docker knows the image's stop signal by itself.
    pub(super) async fn stop_container(&self, runtime_id: &str, grace: Duration) {
        let path = format!("/containers/{}/stop?t={}", self.resolve(runtime_id), grace.as_secs());
        match self.client.act(Method::POST, &path, Bytes::new(), Some(grace + KILL_PATIENCE)).await {
            Err(error) if !error.is_absent() => tracing::warn!(container = runtime_id, %error, "not stopped"),
            _ => {}
        }
    }

    /// The next outcome of the health check that Docker runs by itself.
    pub(super) async fn next_outcome(&self, runtime_id: &str, check: &Check) -> Outcome {
        let id = self.resolve(runtime_id);
        let limit = tokio::time::Instant::now() + check.interval + check.timeout + CHECK_PATIENCE;
        loop {
            match self.inspect(&id).await {
                Ok(container) => {
                    let newest = container.state.health.log.last().cloned().unwrap_or_default();
                    let seen = lock(&self.seen).get(&id).cloned().unwrap_or_default();
                    if newest.end != seen {
                        lock(&self.seen).insert(id, newest.end);
                        // Docker's word for one that took too long is -1.
                        let exit_code = Some(newest.exit_code).filter(|code| *code >= 0);
                        return Outcome { exit_code, output: newest.output };
                    }
                }
                Err(error) => tracing::debug!(container = id, %error, "its health cannot be read"),
            }
            if tokio::time::Instant::now() > limit {
                let timeout = check.timeout.as_secs();
                return Outcome { exit_code: None, output: format!("Health check exceeded timeout ({timeout} s)") };
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes a container with its anonymous volumes, as Amazon's agent does; it need not be there.
    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{id}?force=1&v=1");
        match self.client.act(Method::DELETE, &path, Bytes::new(), Some(TIMEOUT)).await {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<api::Container, EngineError> {
        self.client.get(&format!("/containers/{id}/json")).await
    }

    /// The containers of a task, whatever state they are in.
    pub(super) async fn of_task(&self, arn: &str) -> Result<Vec<api::Listed>, EngineError> {
        self.labelled(&format!("{TASK_LABEL}={arn}")).await
    }

    /// The containers of this agent with another label.
    pub(super) async fn labelled(&self, label: &str) -> Result<Vec<api::Listed>, EngineError> {
        let own = format!("{AGENT_LABEL}={}", self.settings.platform);
        let filters = json!({ "label": [own, label] }).to_string();
        self.client.get(&format!("/containers/json?all=1&filters={}", wire::percent_encode(&filters))).await
    }

    /// Docker's identifier of a container that may be known by another one still.
    pub(super) fn resolve(&self, runtime_id: &str) -> String {
        lock(&self.names).get(runtime_id).map_or_else(|| runtime_id.to_owned(), |named| named.id.clone())
    }
}

fn ended(state: &api::State, now: Timestamp) -> Ended {
    Ended { exit_code: Some(state.exit_code), out_of_memory: state.oom_killed, at: state.finished().unwrap_or(now) }
}
