//! The ACS session: takes payloads, credentials and manifests in, and acknowledges them as Amazon's agent does.

use std::sync::Arc;
use std::time::Duration;

use domain::IdSource;
use domain::agent_protocol::SILENCE_SECONDS;
use domain::agent_protocol::acs::{
    Ack, CredentialsAck, FromAgent, HeartbeatAck, Manifest, Payload, StopVerification, TaskIdentifier, ToAgent,
};
use tokio::time::Instant;

use super::Backoff;
use super::connection::{Connection, Ended, Refused, Target, by_chance};
use crate::engine::driver::Driver;
use crate::engine::record::Desired;
use crate::engine::{Accepted, Engine};
use crate::identity::Identity;
use crate::roles::Roles;

/// A connection is closed and opened anew after this long, plus up to five minutes.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Answers what the control plane says. Knows no socket, so that recorded exchanges can be replayed against it.
pub struct Responder<D> {
    engine: Arc<Engine<D>>,
    roles: Arc<Roles>,
    cluster: String,
    instance: String,
    /// Highest sequence number or timeline seen.
    highest: i64,
    /// The manifest whose verification is awaited.
    manifest: Option<String>,
    /// Done with each heartbeat.
    at_heartbeat: Option<Box<dyn Fn() + Send + Sync>>,
}

impl<D: Driver> Responder<D> {
    /// A responder for one instance; `highest` is the number it remembered.
    pub fn new(engine: Arc<Engine<D>>, roles: Arc<Roles>, cluster: &str, instance: &str, highest: i64) -> Responder<D> {
        Responder {
            engine,
            roles,
            cluster: cluster.to_owned(),
            instance: instance.to_owned(),
            highest,
            manifest: None,
            at_heartbeat: None,
        }
    }

    /// The same, and with each heartbeat this is done too.
    pub fn at_heartbeat(self, what: impl Fn() + Send + Sync + 'static) -> Responder<D> {
        Responder { at_heartbeat: Some(Box::new(what)), ..self }
    }

    /// The number to remember across restarts.
    pub fn highest(&self) -> i64 {
        self.highest
    }

    /// The answers to one message.
    pub fn answer(&mut self, message: ToAgent) -> Vec<FromAgent> {
        match message {
            ToAgent::Heartbeat(heartbeat) => {
                if let Some(what) = &self.at_heartbeat {
                    what();
                }
                vec![FromAgent::HeartbeatAck(HeartbeatAck { message_id: heartbeat.message_id })]
            }
            ToAgent::Payload(payload) => self.payload(payload),
            ToAgent::Credentials(message) => {
                if message.message_id.is_empty() || message.role_credentials.credentials_id.is_empty() {
                    return Vec::new();
                }
                let ack = CredentialsAck {
                    message_id: message.message_id,
                    credentials_id: message.role_credentials.credentials_id.clone(),
                    expiration: message.role_credentials.expiration.clone(),
                };
                if !self.roles.refresh(&message.task_arn, &message.role_type, message.role_credentials) {
                    tracing::warn!(role = message.role_type, "credentials of an unknown type of role");
                    return Vec::new();
                }
                vec![FromAgent::CredentialsAck(ack)]
            }
            // The engine finds an interface by its id when the task arrives; there is nothing to wait for here.
            ToAgent::AttachTaskInterfaces(message) => vec![self.ack(message.message_id)],
            ToAgent::Manifest(manifest) => self.manifest(manifest),
            ToAgent::StopVerificationAck(verified) => {
                if self.manifest.take().is_some_and(|manifest| manifest == verified.message_id) {
                    for task in &verified.stop_tasks {
                        tracing::info!(task = task.task_arn, "stopping a task the control plane does not know");
                        self.engine.stop(&task.task_arn);
                    }
                }
                Vec::new()
            }
            ToAgent::Close(notice) | ToAgent::Error(notice) => {
                tracing::info!(text = notice.message, "the control plane says");
                Vec::new()
            }
        }
    }

    fn payload(&mut self, payload: Payload) -> Vec<FromAgent> {
        if payload.message_id.is_empty() {
            return Vec::new();
        }
        self.highest = self.highest.max(payload.seq_num);
        let mut answers = Vec::new();
        let mut all_valid = true;
        // Stopped ones first: they make room for the others.
        let (stopped, running): (Vec<_>, Vec<_>) =
            payload.tasks.into_iter().partition(|task| task.desired_status == "STOPPED");
        for mut task in stopped.into_iter().chain(running) {
            let sets = [task.role_credentials.clone(), task.execution_role_credentials.clone()];
            if task.desired_status != "STOPPED" {
                self.roles.learn(&task);
                // Where it is another than the instance's, the control plane says so.
                task.task_cluster_arn.get_or_insert_with(|| self.cluster.clone());
            }
            match self.engine.accept(task) {
                Accepted::Invalid => all_valid = false,
                Accepted::Known => {}
                Accepted::New => answers.extend(sets.into_iter().flatten().map(|credentials| {
                    FromAgent::CredentialsAck(CredentialsAck {
                        message_id: payload.message_id.clone(),
                        credentials_id: credentials.credentials_id,
                        expiration: credentials.expiration,
                    })
                })),
            }
        }
        if all_valid {
            answers.push(self.ack(payload.message_id));
        }
        answers
    }

    fn manifest(&mut self, manifest: Manifest) -> Vec<FromAgent> {
        if manifest.timeline <= self.highest {
            return Vec::new();
        }
        self.highest = manifest.timeline;
        let wanted =
            |arn: &str| manifest.tasks.iter().any(|task| task.task_arn == arn && task.desired_status != "STOPPED");
        let candidates: Vec<TaskIdentifier> = self
            .engine
            .views()
            .into_iter()
            .filter(|record| record.desired == Desired::Running && !wanted(&record.task.arn))
            .map(|record| TaskIdentifier {
                task_arn: record.task.arn.clone(),
                task_cluster_arn: record.task.task_cluster_arn.clone(),
                desired_status: "STOPPED".to_owned(),
            })
            .collect();
        self.manifest = Some(manifest.message_id.clone());
        let mut answers = vec![self.ack(manifest.message_id.clone())];
        if !candidates.is_empty() {
            answers.push(FromAgent::StopVerification(StopVerification {
                message_id: manifest.message_id,
                stop_candidates: candidates,
            }));
        }
        answers
    }

    fn ack(&self, message_id: String) -> FromAgent {
        FromAgent::Ack(Ack { cluster: self.cluster.clone(), container_instance: self.instance.clone(), message_id })
    }
}

/// Keeps an ACS session up until the control plane says that the instance is deregistered; gives what it said.
/// `remember` is told the number to remember.
pub async fn run<D: Driver>(identity: Arc<Identity>, mut responder: Responder<D>, remember: impl Fn(i64)) -> String {
    let mut ids = IdSource::from_system();
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(120), 1.5, 0.2);
    let mut ever_connected = false;
    loop {
        let pause = match connect(&identity, !ever_connected).await {
            Ok(connection) => {
                tracing::info!("connected to ACS");
                ever_connected = true;
                let opened = Instant::now();
                match serve(connection, &mut responder, &mut ids, &remember).await {
                    Ended::InOrder(why) => {
                        tracing::info!(why, "the ACS connection ended");
                        // An orderly close reconnects at once, but a server that closes at once is not asked in a loop.
                        if opened.elapsed() > Duration::from_secs(5) {
                            backoff.reset();
                            Duration::ZERO
                        } else {
                            backoff.pause(&mut ids)
                        }
                    }
                    Ended::Broken(why) => {
                        tracing::warn!(why, "the ACS connection broke");
                        backoff.pause(&mut ids)
                    }
                }
            }
            Err(Refused::Inactive(why)) => return why,
            Err(error) => {
                if matches!(error, Refused::Denied(_)) {
                    identity.credentials.forget();
                }
                tracing::warn!(%error, "no ACS connection");
                backoff.pause(&mut ids)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn connect(identity: &Identity, send_credentials: bool) -> Result<Connection, Refused> {
    let (endpoint, _) = identity.poll_endpoints().await.map_err(Refused::Failed)?;
    let parameters = [
        ("agentHash", crate::AGENT_HASH.to_owned()),
        ("agentVersion", env!("CARGO_PKG_VERSION").to_owned()),
        ("clusterArn", identity.cluster.clone()),
        ("containerInstanceArn", identity.instance_arn.clone()),
        ("dockerVersion", format!("DockerVersion: {}", identity.runtime_version)),
        ("protocolVersion", "2".to_owned()),
        ("sendCredentials", send_credentials.to_string()),
        ("seqNum", "1".to_owned()),
    ];
    let target = Target::new(&endpoint, &parameters).map_err(Refused::Failed)?;
    let keys = identity.credentials.keys("ecs").map_err(Refused::Denied)?;
    Connection::open(&target, &keys, identity.client.tls()).await
}

async fn serve<D: Driver>(
    mut connection: Connection,
    responder: &mut Responder<D>,
    ids: &mut IdSource,
    remember: &impl Fn(i64),
) -> Ended {
    let end = Instant::now() + LIFE + by_chance(Duration::from_secs(300), ids);
    let silence = Duration::from_secs(SILENCE_SECONDS);
    let mut patience = Instant::now() + silence + by_chance(silence, ids);
    loop {
        let text = tokio::select! {
            text = connection.receive() => match text {
                Ok(text) => text,
                Err(ended) => return ended,
            },
            () = tokio::time::sleep_until(patience) => {
                connection.close("no message").await;
                return Ended::Broken("no message for a minute".to_owned());
            }
            () = tokio::time::sleep_until(end) => {
                connection.close("ConnectionExpired: Reconnect to continue").await;
                return Ended::InOrder("half an hour is over".to_owned());
            }
        };
        patience = Instant::now() + silence + by_chance(silence, ids);
        let message = match ToAgent::decode(&text) {
            Ok(Some(message)) => message,
            Ok(None) => {
                tracing::info!("a message of a type this agent does not know was dropped");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a malformed message was dropped");
                continue;
            }
        };
        let before = responder.highest();
        let answers = responder.answer(message);
        if responder.highest() != before {
            remember(responder.highest());
        }
        for answer in answers {
            if let Err(ended) = connection.send(answer.encode()).await {
                return ended;
            }
        }
    }
}
