//! Those who want tasks: several callers at once, each with ten tasks per call, as many as the API allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::ecs::*;

use crate::connection::Connection;
use crate::measure::{Latencies, Percentiles};
use crate::{Options, World};

/// Tasks per call.
const PER_CALL: usize = 10;
/// What is run.
const FAMILY: &str = "fleet";

/// Makes the cluster and the task definition.
pub async fn prepare(world: &Arc<World>) -> Result<(), String> {
    let mut connection = world.connection();
    let input = CreateClusterRequest { cluster_name: Some(world.cluster.clone()), ..Default::default() };
    let _: CreateClusterResponse = connection.call(&operation::CREATE_CLUSTER, &input).await?;
    let variable =
        |name: &str, value: &str| KeyValuePair { name: Some(name.to_owned()), value: Some(value.to_owned()) };
    let container = ContainerDefinition {
        name: Some("web".to_owned()),
        image: Some("public.ecr.aws/docker/library/nginx:1.27".to_owned()),
        essential: Some(true),
        cpu: Some(64),
        memory: Some(100),
        port_mappings: Some(vec![PortMapping { container_port: Some(80), host_port: Some(0), ..Default::default() }]),
        environment: Some(vec![variable("STAGE", "production"), variable("LOG_LEVEL", "info")]),
        ..Default::default()
    };
    let input = RegisterTaskDefinitionRequest {
        family: Some(FAMILY.to_owned()),
        network_mode: Some("bridge".to_owned()),
        requires_compatibilities: Some(vec!["EC2".to_owned()]),
        container_definitions: Some(vec![container]),
        ..Default::default()
    };
    let _: RegisterTaskDefinitionResponse = connection.call(&operation::REGISTER_TASK_DEFINITION, &input).await?;
    Ok(())
}

/// How many tasks the control plane counts as RUNNING.
pub async fn running(connection: &mut Connection, world: &World) -> Result<usize, String> {
    let input = DescribeClustersRequest { clusters: Some(vec![world.cluster.clone()]), ..Default::default() };
    let output: DescribeClustersResponse = connection.call(&operation::DESCRIBE_CLUSTERS, &input).await?;
    let count = output.clusters.and_then(|clusters| clusters.first().and_then(|cluster| cluster.running_tasks_count));
    Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
}

/// The callers that run.
pub struct Callers {
    shared: Arc<Shared>,
    callers: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

struct Shared {
    world: Arc<World>,
    /// Tasks that nobody has asked for yet.
    left: AtomicI64,
    next: AtomicUsize,
    failures: AtomicUsize,
    latencies: Latencies,
    /// The instances in turn, where the callers choose them.
    instances: Option<Arc<Vec<String>>>,
}

/// How the calls went.
pub struct Answers {
    pub latencies: Percentiles,
    /// Tasks that were refused at first.
    pub failures: usize,
}

impl Callers {
    pub fn start(world: &Arc<World>, options: &Options, instances: Arc<Vec<String>>) -> Self {
        let shared = Arc::new(Shared {
            world: world.clone(),
            left: AtomicI64::new(i64::try_from(options.tasks).unwrap_or(i64::MAX)),
            next: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
            latencies: Latencies::default(),
            instances: options.placed.then_some(instances),
        });
        let callers = (0..options.callers.max(1)).map(|_| tokio::spawn(shared.clone().call())).collect();
        Self { shared, callers }
    }

    /// Ends the callers, and says how it went.
    pub async fn stop(self) -> Result<Answers, String> {
        for caller in self.callers {
            if caller.is_finished() {
                caller.await.map_err(|error| error.to_string())??;
            } else {
                caller.abort();
            }
        }
        let failures = self.shared.failures.load(Ordering::Relaxed);
        Ok(Answers { latencies: self.shared.latencies.percentiles(), failures })
    }
}

impl Shared {
    async fn call(self: Arc<Self>) -> Result<(), String> {
        let mut connection = self.world.connection();
        loop {
            let most = PER_CALL as i64;
            let wanted = self.left.fetch_sub(most, Ordering::Relaxed).clamp(0, most) as usize;
            if wanted == 0 {
                return Ok(());
            }
            let begin = Instant::now();
            let made = match &self.instances {
                None => self.run(&mut connection, wanted).await?,
                Some(instances) => self.start(&mut connection, instances, wanted).await?,
            };
            self.latencies.add(begin.elapsed());
            let failed = wanted.saturating_sub(made);
            if failed > 0 {
                if self.failures.fetch_add(failed, Ordering::Relaxed) == 0 {
                    eprintln!("{failed} of {wanted} tasks were refused");
                }
                self.left.fetch_max(0, Ordering::Relaxed);
                self.left.fetch_add(failed as i64, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn run(&self, connection: &mut Connection, count: usize) -> Result<usize, String> {
        let input = RunTaskRequest {
            cluster: Some(self.world.cluster.clone()),
            task_definition: Some(FAMILY.to_owned()),
            launch_type: Some("EC2".to_owned()),
            count: i32::try_from(count).ok(),
            ..Default::default()
        };
        let output: RunTaskResponse = connection.call(&operation::RUN_TASK, &input).await?;
        Ok(output.tasks.map_or(0, |tasks| tasks.len()))
    }

    async fn start(&self, connection: &mut Connection, all: &[String], count: usize) -> Result<usize, String> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let instances = (first..first + count).filter_map(|number| all.get(number % all.len())).cloned().collect();
        let input = StartTaskRequest {
            cluster: Some(self.world.cluster.clone()),
            task_definition: Some(FAMILY.to_owned()),
            container_instances: Some(instances),
            ..Default::default()
        };
        let output: StartTaskResponse = connection.call(&operation::START_TASK, &input).await?;
        Ok(output.tasks.map_or(0, |tasks| tasks.len()))
    }
}
