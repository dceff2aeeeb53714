//! The agents: each registers, holds its ACS session, acknowledges what it is sent, and reports each task RUNNING.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent::aws::tls;
use agent::session::{Connection as Session, Target};
use api::ecs::*;
use domain::agent_protocol::acs::{Ack, FromAgent, HeartbeatAck, ToAgent};
use domain::agent_protocol::payload;
use futures_util::{StreamExt, stream};

use crate::World;
use crate::connection::Connection;
use crate::measure::{Latencies, Percentiles};

/// What Amazon's agent 1.9x sends on Amazon Linux; those with a value come on top.
const CAPABILITIES: &[&str] = &[
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    "com.amazonaws.ecs.capability.docker-remote-api.1.23",
    "com.amazonaws.ecs.capability.docker-remote-api.1.24",
    "com.amazonaws.ecs.capability.docker-remote-api.1.25",
    "com.amazonaws.ecs.capability.docker-remote-api.1.29",
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.syslog",
    "com.amazonaws.ecs.capability.privileged-container",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.execution-role-awslogs",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.full-sync",
    "ecs.capability.task-cpu-mem-limit",
    "ecs.capability.task-eni",
];

/// How many agents come at the same time.
const AT_ONCE: usize = 64;
/// Room for 32 tasks of the benchmark's size.
const CPU: i32 = 2048;
/// MiB.
const MEMORY: i32 = 3900;

/// The agents that run.
pub struct Fleet {
    instances: Arc<Vec<String>>,
    shared: Arc<Shared>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

/// What all agents count together.
#[derive(Default)]
struct Shared {
    connected: AtomicUsize,
    reported: AtomicUsize,
    broken: AtomicUsize,
    latencies: Latencies,
}

impl Fleet {
    /// Registers all agents, and waits until the control plane has greeted each on its session.
    pub async fn start(world: &Arc<World>, count: usize) -> Result<Fleet, String> {
        let shared = Arc::new(Shared::default());
        let tls = tls::config(None)?;
        let coming = stream::iter(0..count).map(|number| {
            let (world, shared, tls) = (world.clone(), shared.clone(), tls.clone());
            async move {
                let mut connection = world.connection();
                let instance = register(&mut connection, &world, number).await?;
                let endpoint = poll_endpoint(&mut connection, &world, &instance).await?;
                let agent = Agent { world, shared, instance: instance.clone(), endpoint, connection, port: 32_768 };
                let session = agent.open(&tls).await?;
                Ok::<_, String>((instance, tokio::spawn(agent.live(session, tls))))
            }
        });
        let mut coming = coming.buffer_unordered(AT_ONCE);
        let (mut instances, mut agents) = (Vec::with_capacity(count), Vec::with_capacity(count));
        while let Some(outcome) = coming.next().await {
            let (instance, agent) = outcome?;
            instances.push(instance);
            agents.push(agent);
        }
        drop(coming);
        while shared.connected.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Fleet { instances: Arc::new(instances), shared, agents })
    }

    /// The ARNs of all instances.
    pub fn instances(&self) -> Arc<Vec<String>> {
        self.instances.clone()
    }

    /// How many reports of a running task were taken.
    pub fn reported(&self) -> usize {
        self.shared.reported.load(Ordering::Relaxed)
    }

    /// How many sessions ended.
    pub fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// From a payload's arrival to the answers to its reports.
    pub fn latencies(&self) -> Percentiles {
        self.shared.latencies.percentiles()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.agents.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn register(connection: &mut Connection, world: &World, number: usize) -> Result<String, String> {
    let integer = |name: &str, value: i32| Resource {
        name: Some(name.to_owned()),
        r#type: Some("INTEGER".to_owned()),
        integer_value: Some(value),
        ..Resource::default()
    };
    let ports = |name: &str, ports: &[&str]| Resource {
        name: Some(name.to_owned()),
        r#type: Some("STRINGSET".to_owned()),
        string_set_value: Some(ports.iter().map(|port| (*port).to_owned()).collect()),
        ..Resource::default()
    };
    let zone = ["us-east-1a", "us-east-1b", "us-east-1c"].get(number % 3).copied().unwrap_or_default();
    let subnet = format!("subnet-{:017x}", number % 3 + 1);
    let valued = [
        ("ecs.ami-id", "ami-0123456789abcdef0"),
        ("ecs.availability-zone", zone),
        ("ecs.cpu-architecture", "x86_64"),
        ("ecs.instance-type", "t3.medium"),
        ("ecs.os-family", "LINUX"),
        ("ecs.os-type", "linux"),
        ("ecs.subnet-id", subnet.as_str()),
        ("ecs.vpc-id", "vpc-0123456789abcdef0"),
    ];
    let attribute = |name: &str, value: Option<&str>| Attribute {
        name: Some(name.to_owned()),
        value: value.map(str::to_owned),
        ..Attribute::default()
    };
    let bare = CAPABILITIES.iter().map(|name| attribute(name, None));
    let input = RegisterContainerInstanceRequest {
        cluster: Some(world.cluster.clone()),
        total_resources: Some(vec![
            integer("CPU", CPU),
            integer("MEMORY", MEMORY),
            ports("PORTS", &["22", "2375", "2376", "51678", "51679"]),
            ports("PORTS_UDP", &[]),
        ]),
        attributes: Some(bare.chain(valued.iter().map(|(name, value)| attribute(name, Some(value)))).collect()),
        ..Default::default()
    };
    let output: RegisterContainerInstanceResponse =
        connection.call(&operation::REGISTER_CONTAINER_INSTANCE, &input).await?;
    let instance = output.container_instance.and_then(|instance| instance.container_instance_arn);
    instance.ok_or_else(|| "RegisterContainerInstance: no ARN in the answer".to_owned())
}

async fn poll_endpoint(connection: &mut Connection, world: &World, instance: &str) -> Result<String, String> {
    let input = DiscoverPollEndpointRequest {
        cluster: Some(world.cluster.clone()),
        container_instance: Some(instance.to_owned()),
    };
    let output: DiscoverPollEndpointResponse = connection.call(&operation::DISCOVER_POLL_ENDPOINT, &input).await?;
    output.endpoint.ok_or_else(|| "DiscoverPollEndpoint: no endpoint in the answer".to_owned())
}

struct Agent {
    world: Arc<World>,
    shared: Arc<Shared>,
    instance: String,
    endpoint: String,
    connection: Connection,
    /// The next port that a container gets on its host.
    port: i32,
}

impl Agent {
    async fn open(&self, tls: &Arc<rustls::ClientConfig>) -> Result<Session, String> {
        let parameters = [
            ("agentHash", "simulated".to_owned()),
            ("agentVersion", "1.92.0".to_owned()),
            ("clusterArn", self.world.cluster.clone()),
            ("containerInstanceArn", self.instance.clone()),
            ("dockerVersion", "DockerVersion: 20.10.24".to_owned()),
            ("protocolVersion", "2".to_owned()),
            ("sendCredentials", "true".to_owned()),
            ("seqNum", "1".to_owned()),
        ];
        let target = Target::new(&self.endpoint, &parameters)?;
        Session::open(&target, &self.world.keys, tls).await.map_err(|error| error.to_string())
    }

    async fn live(mut self, mut session: Session, tls: Arc<rustls::ClientConfig>) {
        let mut greeted = false;
        loop {
            if let Err(why) = self.follow(&mut session, &mut greeted).await
                && self.shared.broken.fetch_add(1, Ordering::Relaxed) == 0
            {
                eprintln!("a session ended: {why}");
            }
            session = loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Ok(session) = self.open(&tls).await {
                    break session;
                }
            };
        }
    }

    async fn follow(&mut self, session: &mut Session, greeted: &mut bool) -> Result<(), String> {
        loop {
            let text = session.receive().await.map_err(|ended| format!("{ended:?}"))?;
            let message = ToAgent::decode(&text).map_err(|error| error.to_string())?;
            let (answer, tasks) = match message {
                Some(ToAgent::Heartbeat(heartbeat)) => {
                    (FromAgent::HeartbeatAck(HeartbeatAck { message_id: heartbeat.message_id }), Vec::new())
                }
                Some(ToAgent::Payload(payload)) => (self.acknowledge(payload.message_id), payload.tasks),
                Some(ToAgent::Manifest(manifest)) => {
                    if !std::mem::replace(greeted, true) {
                        self.shared.connected.fetch_add(1, Ordering::Relaxed);
                    }
                    (self.acknowledge(manifest.message_id), Vec::new())
                }
                _ => continue,
            };
            let arrived = Instant::now();
            session.send(answer.encode()).await.map_err(|ended| format!("{ended:?}"))?;
            for task in &tasks {
                self.report(task).await?;
                self.shared.latencies.add(arrived.elapsed());
                self.shared.reported.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn acknowledge(&self, message_id: String) -> FromAgent {
        let (cluster, container_instance) = (self.world.cluster.clone(), self.instance.clone());
        FromAgent::Ack(Ack { cluster, container_instance, message_id })
    }

    /// Says of a task what it was told to become, with all its containers in one report, as Amazon's agent does.
    async fn report(&mut self, task: &payload::Task) -> Result<(), String> {
        let now = agent::aws::now();
        let mut containers = Vec::with_capacity(task.containers.len());
        for container in &task.containers {
            let mut bindings = Vec::new();
            for mapping in &container.port_mappings {
                bindings.push(NetworkBinding {
                    bind_ip: Some("0.0.0.0".to_owned()),
                    container_port: i32::try_from(mapping.container_port).ok(),
                    host_port: Some(self.port),
                    protocol: Some(mapping.protocol.clone()),
                    ..NetworkBinding::default()
                });
                self.port = 32_768 + (self.port - 32_767) % 28_000;
            }
            let id = container.container_arn.rsplit('/').next().unwrap_or_default().replace('-', "");
            containers.push(ContainerStateChange {
                container_name: Some(container.name.clone()),
                status: Some(task.desired_status.clone()),
                runtime_id: Some(format!("{id}{id}")),
                image_digest: Some(format!("sha256:{id}{id}")),
                network_bindings: Some(bindings),
                ..Default::default()
            });
        }
        let input = SubmitTaskStateChangeRequest {
            cluster: Some(self.world.cluster.clone()),
            task: Some(task.arn.clone()),
            status: Some(task.desired_status.clone()),
            containers: Some(containers),
            pull_started_at: Some(now),
            pull_stopped_at: Some(now),
            ..Default::default()
        };
        let _: SubmitTaskStateChangeResponse =
            self.connection.call(&operation::SUBMIT_TASK_STATE_CHANGE, &input).await?;
        Ok(())
    }
}
