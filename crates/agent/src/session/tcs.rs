//! The TCS session: metrics each 20 seconds, container health also as soon as it changes, the runtime's status whenever
//! it was checked; every frame signed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::SILENCE_SECONDS;
use domain::agent_protocol::tcs::{
    ContainerHealth, ContainerMetric, InstanceStatus, Metadata, PublishHealth, PublishInstanceStatus, PublishMetrics,
    RestartStatsSet, StatsSet, StorageStatsSet, TaskHealth, TaskMetric, ToAgent, ToServer, frame,
};
use domain::{Clock, IdSource, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};

use super::Backoff;
use super::connection::{Connection, Ended, Refused, Target, by_chance};
use super::status::RuntimeStatus;
use crate::engine::Engine;
use crate::engine::driver::Driver;
use crate::engine::record::{ContainerStatus, TaskRecord};
use crate::identity::Identity;

/// Between two publications.
const PERIOD: Duration = Duration::from_secs(20);
/// Between two looks at the containers.
const SAMPLING: Duration = Duration::from_secs(1);
/// Seconds between two samples of a container's resources.
const SAMPLE_EACH: u64 = 5;
/// Tasks in one message.
const TASKS_PER_MESSAGE: usize = 10;

/// What a container used since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of one core.
    pub cpu_nanoseconds: u64,
    /// Cores of the host.
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub read: u64,
    /// Bytes.
    pub written: u64,
}

/// Reads what a container used, by its id in the runtime.
pub type Meter = Arc<dyn Fn(&str) -> Option<Usage> + Send + Sync>;

/// Samples of containers between two publications.
#[derive(Default)]
struct Samples {
    last: HashMap<String, (Instant, Usage)>,
    sets: HashMap<String, (StatsSet, StatsSet, StorageStatsSet)>,
}

impl Samples {
    fn take(&mut self, id: &str, usage: Usage, now: Instant) {
        let (cpu, memory, storage) = self.sets.entry(id.to_owned()).or_default();
        // Whole MiB, as Amazon's agent sends them.
        memory.add((usage.memory >> 20) as f64);
        if let Some((then, before)) = self.last.insert(id.to_owned(), (now, usage)) {
            let elapsed = now.duration_since(then).as_nanos() as f64 * f64::from(usage.cores.max(1));
            let used = usage.cpu_nanoseconds.saturating_sub(before.cpu_nanoseconds) as f64;
            if elapsed > 0.0 {
                cpu.add(100.0 * used / elapsed);
            }
            storage.read_size_bytes.add(usage.read.saturating_sub(before.read));
            storage.write_size_bytes.add(usage.written.saturating_sub(before.written));
        }
    }

    fn keep(&mut self, records: &[Arc<TaskRecord>]) {
        let known = |id: &String| {
            records.iter().flat_map(|record| &record.containers).any(|one| one.runtime_id.as_ref() == Some(id))
        };
        self.last.retain(|id, _| known(id));
        self.sets.retain(|id, _| known(id));
    }
}

/// What lasts from one session to the next.
struct Own {
    samples: Samples,
    status: RuntimeStatus,
}

/// Keeps a TCS session up for ever.
pub async fn run<D: Driver>(identity: Arc<Identity>, engine: Arc<Engine<D>>, meter: Meter, status: RuntimeStatus) {
    let mut ids = IdSource::from_system();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 2.0, 0.2);
    let mut own = Own { samples: Samples::default(), status };
    loop {
        let pause = match connect(&identity).await {
            Ok((connection, target)) => {
                let opened = Instant::now();
                match serve(connection, &target, &identity, &engine, &meter, &mut own, &mut ids).await {
                    Ended::InOrder(_) if opened.elapsed() > Duration::from_secs(5) => {
                        backoff.reset();
                        Duration::ZERO
                    }
                    Ended::InOrder(why) | Ended::Broken(why) => {
                        tracing::info!(why, "the TCS connection ended");
                        backoff.pause(&mut ids)
                    }
                }
            }
            Err(error) => {
                if matches!(error, Refused::Denied(_)) {
                    identity.credentials.forget();
                }
                tracing::info!(%error, "no TCS connection");
                backoff.pause(&mut ids)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn connect(identity: &Identity) -> Result<(Connection, Target), Refused> {
    let (_, endpoint) = identity.poll_endpoints().await.map_err(Refused::Failed)?;
    let parameters = [
        ("agentHash", crate::AGENT_HASH.to_owned()),
        ("agentVersion", env!("CARGO_PKG_VERSION").to_owned()),
        ("cluster", identity.cluster.clone()),
        ("containerInstance", identity.instance_arn.clone()),
        ("dockerVersion", identity.runtime_version.clone()),
    ];
    let target = Target::new(&endpoint, &parameters).map_err(Refused::Failed)?;
    let keys = identity.credentials.keys("ecs").map_err(Refused::Denied)?;
    Ok((Connection::open(&target, &keys, identity.client.tls()).await?, target))
}

async fn serve<D: Driver>(
    mut connection: Connection,
    target: &Target,
    identity: &Identity,
    engine: &Engine<D>,
    meter: &Meter,
    own: &mut Own,
    ids: &mut IdSource,
) -> Ended {
    let samples = &mut own.samples;
    let mut status = own.status.follow();
    let silence = Duration::from_secs(SILENCE_SECONDS);
    let mut patience = Instant::now() + silence + by_chance(silence, ids);
    let mut sampling = tokio::time::interval(SAMPLING);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut publish_at = Instant::now();
    let mut told: Vec<TaskHealth> = Vec::new();
    let mut round = 0u64;
    loop {
        tokio::select! {
            text = connection.receive() => match text {
                Ok(text) => {
                    patience = Instant::now() + silence + by_chance(silence, ids);
                    if let Ok(Some(ToAgent::StopTelemetrySession(_))) = ToAgent::decode(&text) {
                        return Ended::Broken("the control plane stopped the telemetry session".to_owned());
                    }
                }
                Err(ended) => return ended,
            },
            () = tokio::time::sleep_until(patience) => {
                return Ended::Broken("no message for a minute".to_owned());
            }
            Ok(()) = status.changed() => {
                let checked = status.borrow_and_update().clone();
                if let Some(checked) = checked
                    && let Err(ended) = send(&mut connection, target, identity, &status_message(identity, checked, ids)).await
                {
                    return ended;
                }
            }
            now = sampling.tick() => {
                let records = engine.views();
                if round.is_multiple_of(SAMPLE_EACH) {
                    samples.keep(&records);
                    sample(&records, meter, samples, now);
                }
                round += 1;
                let due = now >= publish_at;
                let mut messages = Vec::new();
                if due {
                    publish_at = now + PERIOD;
                    messages.extend(metrics(identity, &records, std::mem::take(&mut samples.sets), ids));
                }
                let health = health(&records);
                if !health.is_empty() && (due || health != told) {
                    messages.extend(health_messages(identity, &health, ids));
                }
                told = health;
                for message in messages {
                    if let Err(ended) = send(&mut connection, target, identity, &message).await {
                        return ended;
                    }
                }
            }
        }
    }
}

fn sample(records: &[Arc<TaskRecord>], meter: &Meter, samples: &mut Samples, now: Instant) {
    for container in records.iter().flat_map(|record| &record.containers) {
        let Some(id) = container.runtime_id.as_deref().filter(|_| container.status == ContainerStatus::Running) else {
            continue;
        };
        if let Some(usage) = meter(id) {
            samples.take(id, usage, now);
        }
    }
}

async fn send(
    connection: &mut Connection,
    target: &Target,
    identity: &Identity,
    message: &ToServer,
) -> Result<(), Ended> {
    let body = message.encode();
    let keys = identity.credentials.keys("ecs").map_err(Ended::Broken)?;
    let headers = target.signed_headers(body.as_bytes(), &keys).map_err(Ended::Broken)?;
    // Header names as Amazon's agent spells them.
    let spelled = |name: &str| match name {
        "host" => "Host".to_owned(),
        "authorization" => "Authorization".to_owned(),
        "x-amz-date" => "X-Amz-Date".to_owned(),
        "x-amz-security-token" => "X-Amz-Security-Token".to_owned(),
        other => other.to_owned(),
    };
    let headers: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(name, value)| Some((spelled(name.as_str()), value.to_str().ok()?.to_owned())))
        .collect();
    connection.send(frame(&headers, &body)).await
}

fn metadata(identity: &Identity, message_id: &str, last: bool) -> Metadata {
    Metadata {
        cluster: identity.cluster.clone(),
        container_instance: identity.instance_arn.clone(),
        message_id: message_id.to_owned(),
        fin: Some(last),
        ..Metadata::default()
    }
}

fn metrics(
    identity: &Identity,
    records: &[Arc<TaskRecord>],
    mut sets: HashMap<String, (StatsSet, StatsSet, StorageStatsSet)>,
    ids: &mut IdSource,
) -> Vec<ToServer> {
    let mut tasks = Vec::new();
    for record in records {
        let mut containers = Vec::new();
        for container in &record.containers {
            let Some((cpu, memory, storage)) = container.runtime_id.as_ref().and_then(|id| sets.remove(id)) else {
                continue;
            };
            containers.push(ContainerMetric {
                container_name: container.name.clone(),
                cpu_stats_set: (cpu.sample_count > 0).then_some(cpu),
                memory_stats_set: Some(memory),
                storage_stats_set: Some(storage),
                restart_stats_set: Some(RestartStatsSet { restart_count: container.restart_count }),
            });
        }
        if !containers.is_empty() {
            tasks.push(TaskMetric {
                task_arn: record.task.arn.clone(),
                cluster_arn: record.task.task_cluster_arn.clone(),
                task_definition_family: record.task.family.clone(),
                task_definition_version: record.task.version.clone(),
                container_metrics: containers,
                ephemeral_storage_metrics: None,
            });
        }
    }
    let message_id = ids.uuid();
    let timestamp = seconds(Clock::system_now());
    let idle = tasks.is_empty();
    let mut pages: Vec<Vec<TaskMetric>> = tasks.chunks(TASKS_PER_MESSAGE).map(<[TaskMetric]>::to_vec).collect();
    if idle {
        pages.push(Vec::new());
    }
    let count = pages.len();
    pages
        .into_iter()
        .enumerate()
        .map(|(page, task_metrics)| {
            let mut metadata = metadata(identity, &message_id, page + 1 == count);
            metadata.idle = Some(idle);
            ToServer::PublishMetrics(PublishMetrics { metadata, timestamp, task_metrics })
        })
        .collect()
}

fn health_messages(identity: &Identity, health: &[TaskHealth], ids: &mut IdSource) -> Vec<ToServer> {
    let message_id = ids.uuid();
    let timestamp = seconds(Clock::system_now());
    let count = health.len().div_ceil(TASKS_PER_MESSAGE);
    health
        .chunks(TASKS_PER_MESSAGE)
        .enumerate()
        .map(|(page, tasks)| {
            let metadata = metadata(identity, &message_id, page + 1 == count);
            ToServer::PublishHealth(PublishHealth { metadata, timestamp, tasks: tasks.to_vec() })
        })
        .collect()
}

fn status_message(identity: &Identity, checked: InstanceStatus, ids: &mut IdSource) -> ToServer {
    let metadata = Metadata {
        cluster: identity.cluster.clone(),
        container_instance: identity.instance_arn.clone(),
        request_id: ids.uuid(),
        ..Metadata::default()
    };
    let timestamp = seconds(Clock::system_now());
    ToServer::PublishInstanceStatus(PublishInstanceStatus { metadata, timestamp, statuses: vec![checked] })
}

/// The health of every container that has a check.
fn health(records: &[Arc<TaskRecord>]) -> Vec<TaskHealth> {
    let mut tasks = Vec::new();
    for record in records {
        let containers: Vec<ContainerHealth> = record
            .containers
            .iter()
            .filter_map(|container| {
                let health = container.health.as_ref()?;
                Some(ContainerHealth {
                    container_name: container.name.clone(),
                    health_status: health.status.as_str().to_owned(),
                    status_since: health.since.or(container.created_at).map(seconds).unwrap_or_default(),
                    status_message: None,
                })
            })
            .collect();
        if !containers.is_empty() {
            tasks.push(TaskHealth {
                task_arn: record.task.arn.clone(),
                cluster_arn: record.task.task_cluster_arn.clone(),
                task_definition_family: record.task.family.clone(),
                task_definition_version: record.task.version.clone(),
                containers,
            });
        }
    }
    tasks.sort_by(|one, other| one.task_arn.cmp(&other.task_arn));
    tasks
}

/// Epoch seconds as Amazon's JSON has them.
fn seconds(time: Timestamp) -> f64 {
    time.millis() as f64 / 1000.0
}
