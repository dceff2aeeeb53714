//! The server of an ACS session.
//!
//! Level-triggered: each change of the store, each answer and each tick leads to the same look at the tasks placed on
//! the instance. The newest connection of an instance wins.

mod messages;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::HEARTBEAT_SECONDS;
use domain::agent_protocol::acs::{
    FromAgent, Heartbeat, Notice, Payload, StopVerification, StopVerificationAck, ToAgent,
};
use domain::ecs::container_instance::host_patience;
use domain::ecs::{
    AgentAbsence, AgentConnection, ContainerInstance, ContainerInstanceStatus, DesiredStatus, ReportedStatus, Task,
    TaskReport,
};
use domain::{Arn, Clock, Scope, Timestamp};
use iam::Principal;
use store::Snapshot;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::ServiceError;

use super::query::parameter;
use super::sessions_instance;
use super::socket::{CloseCode, Over, Socket, short};
use super::wake::Woken;
use super::work::Work;
use crate::Platform;
use crate::ecs::observe;

/// Heartbeats in a row that an agent may leave unanswered.
const UNANSWERED: u32 = 3;

/// How often a session looks for what was not acknowledged, and for credentials that will soon not work any more.
const AGAIN: Duration = Duration::from_secs(5);
/// With each so-manieth of those looks it goes through all tasks of its instance, whether or not it was woken for them.
const LOOK_EACH: u32 = 12;

/// A session whose handshake was accepted.
pub struct Begun {
    platform: Arc<Platform>,
    instance: Arn,
    agent_version: String,
    agent_hash: String,
    runtime_version: String,
    /// The agent has no credentials: it has not been connected since it started.
    send_credentials: bool,
}

/// Checks who comes, and as which instance.
pub fn begin(
    platform: &Arc<Platform>,
    principal: &Principal,
    scope: &Scope,
    query: &str,
) -> Result<Begun, ServiceError> {
    let text = |name: &str| parameter(query, name).unwrap_or_default();
    let view = platform.store.snapshot();
    let instance = sessions_instance(&view, principal, scope, &text("clusterArn"), &text("containerInstanceArn"))?;
    Ok(Begun {
        platform: platform.clone(),
        instance: instance.arn.clone(),
        agent_version: short(&text("agentVersion")),
        agent_hash: short(&text("agentHash")),
        runtime_version: short(&text("dockerVersion")),
        send_credentials: text("sendCredentials") == "true",
    })
}

impl Begun {
    /// Serves the session until the agent goes, or another connection of the same agent comes.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self, io: S) {
        let connection_id = self.platform.ids().uuid();
        let mut session = Session {
            clock: self.platform.clock,
            connection_id: connection_id.clone(),
            work: Work::default(),
            expirations: HashMap::new(),
            sequence: 0,
            unanswered: 0,
            begun: self,
        };
        if session.connected().await {
            tracing::info!(instance = session.begun.instance.as_str(), "an agent connected");
            session.run(Socket::new(io).await).await;
            session.disconnected().await;
            tracing::info!(instance = session.begun.instance.as_str(), "an agent's connection ended");
        }
    }
}

struct Session {
    begun: Begun,
    clock: Clock,
    connection_id: String,
    work: Work,
    /// When the credentials sent on this connection stop working, by task.
    expirations: HashMap<String, Timestamp>,
    sequence: i64,
    unanswered: u32,
}

impl Session {
    /// Makes the connection known; false if the instance is gone by now.
    async fn connected(&self) -> bool {
        let begun = &self.begun;
        let connection = AgentConnection {
            container_instance_arn: begun.instance.clone(),
            connected_at: self.clock.now(),
            connection_id: self.connection_id.clone(),
            patience: host_patience(&self.clock),
        };
        let outcome = begun.platform.store.transact(|tx| {
            let instance = tx.get::<ContainerInstance>(begun.instance.as_str()).ok_or(())?;
            let now = ContainerInstance {
                agent_version: begun.agent_version.clone(),
                agent_hash: begun.agent_hash.clone(),
                runtime_version: begun.runtime_version.clone(),
                ..ContainerInstance::clone(&instance)
            };
            if *instance != now {
                tx.put(now);
            }
            tx.put(connection);
            tx.delete::<AgentAbsence>(begun.instance.as_str());
            Ok::<(), ()>(())
        });
        outcome.await.is_ok()
    }

    async fn disconnected(&self) {
        let (key, id) = (self.begun.instance.as_str(), self.connection_id.as_str());
        let now = self.clock.now();
        let outcome = self.begun.platform.store.transact(|tx| {
            if tx.get::<AgentConnection>(key).is_some_and(|connection| connection.connection_id == id) {
                tx.delete::<AgentConnection>(key);
                let instance = tx.get::<ContainerInstance>(key);
                if let Some(instance) = instance.filter(|one| one.status != ContainerInstanceStatus::Inactive) {
                    let lost_after = self.begun.platform.options.lost_instance_after;
                    tx.put(super::absence(&instance, now, host_patience(&self.clock), lost_after));
                }
            }
            Ok::<(), ()>(())
        });
        if outcome.await.is_err() {
            tracing::debug!(instance = key, "the end of an agent's connection could not be kept: the store is closing");
        }
    }

    /// What an agent is told first. One that has just started gets the credentials of what it runs before anything else.
    async fn greet<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut Socket<S>) -> Result<(), Over> {
        if self.begun.send_credentials {
            self.send_credentials(socket).await?;
        }
        self.catch_up(socket).await?;
        self.send_manifest(socket).await
    }

    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut socket: Socket<S>) {
        let sleep = self.begun.platform.wakeups.sleep(self.begun.instance.as_str());
        let mut heartbeat = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
        let mut again = tokio::time::interval(AGAIN);
        let mut ticks = 0u32;
        if self.greet(&mut socket).await.is_err() {
            return;
        }
        loop {
            let outcome = tokio::select! {
                text = socket.receive() => match text {
                    Ok(text) => self.answer(&text, &mut socket).await,
                    Err(Over) => return,
                },
                woken = sleep.woken() => match woken {
                    Some(Woken::Tasks(tasks)) => self.catch_up_with(&tasks, &mut socket).await,
                    Some(Woken::Everything) => {
                        if let Some((code, reason)) = self.is_over() {
                            socket.close(code, reason).await;
                            return;
                        }
                        self.catch_up(&mut socket).await
                    }
                    None => {
                        socket.close(CloseCode::Away, "the control plane stops").await;
                        return;
                    }
                },
                _ = heartbeat.tick() => {
                    if self.unanswered >= UNANSWERED {
                        socket.close(CloseCode::Normal, "no answer to heartbeats").await;
                        return;
                    }
                    self.unanswered += 1;
                    let heartbeat = Heartbeat { message_id: self.message_id(), healthy: true };
                    socket.send(ToAgent::Heartbeat(heartbeat).encode()).await
                }
                _ = again.tick() => {
                    ticks += 1;
                    self.end_unknown().await;
                    // With thousands of sessions, looking at all tasks is left to when there is a reason.
                    let outcome = if self.work.is_awaiting() || ticks.is_multiple_of(LOOK_EACH) {
                        self.catch_up(&mut socket).await
                    } else {
                        Ok(())
                    };
                    match outcome {
                        Ok(()) => self.renew_credentials(&mut socket).await,
                        over => over,
                    }
                }
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    fn message_id(&self) -> String {
        self.begun.platform.ids().uuid()
    }

    /// Sequence numbers and timelines grow with the clock, so that they also grow across restarts.
    fn next_sequence(&mut self) -> i64 {
        self.sequence = (self.sequence + 1).max(Clock::system_now().millis());
        self.sequence
    }

    /// Why this connection is not to go on: deregistered, or replaced by a newer one. An agent that is replaced is not to
    /// come back at once, as it would after a normal close: two of them would take turns for ever.
    fn is_over(&self) -> Option<(CloseCode, &'static str)> {
        let view = self.begun.platform.store.snapshot();
        let key = self.begun.instance.as_str();
        let instance = view.get::<ContainerInstance>(key);
        if instance.is_none_or(|instance| instance.status == ContainerInstanceStatus::Inactive) {
            return Some((CloseCode::Normal, "the container instance was deregistered"));
        }
        let connection = view.get::<AgentConnection>(key);
        let replaced = connection.is_none_or(|connection| connection.connection_id != self.connection_id);
        replaced.then_some((CloseCode::Policy, "a newer connection of this agent"))
    }

    fn tasks(&self, view: &Snapshot) -> BTreeMap<String, (Arc<Task>, DesiredStatus)> {
        view.find::<Task>(Task::ON_INSTANCE, self.begun.instance.as_str())
            .filter_map(|task| Some((task.arn.to_string(), (task.clone(), task.wanted_on_host()?))))
            .collect()
    }

    /// Sends the agent what it has not been sent, or has not acknowledged for a while.
    async fn catch_up<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: &mut Socket<S>) -> Result<(), Over> {
        let view = self.begun.platform.store.snapshot();
        let tasks = self.tasks(&view);
        self.expirations.retain(|task, _| tasks.contains_key(task));
        self.work.retain(|task| tasks.contains_key(task));
        self.send_due(&view, &tasks, socket).await
    }

    /// As [`Self::catch_up`], when only these tasks have changed.
    async fn catch_up_with<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        changed: &[String],
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        let view = self.begun.platform.store.snapshot();
        let mut tasks = BTreeMap::new();
        for arn in changed {
            let task = view.get::<Task>(arn);
            let task = task.filter(|task| task.container_instance_arn.as_ref() == Some(&self.begun.instance));
            match task.and_then(|task| task.wanted_on_host().map(|wanted| (task, wanted))) {
                Some(wanted) => drop(tasks.insert(arn.clone(), wanted)),
                None => {
                    self.expirations.remove(arn);
                    self.work.forget(arn);
                }
            }
        }
        self.send_due(&view, &tasks, socket).await
    }

    async fn send_due<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        view: &Snapshot,
        tasks: &BTreeMap<String, (Arc<Task>, DesiredStatus)>,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        let now = Clock::system_now();
        let wanted = tasks.iter().map(|(arn, (_, wanted))| (arn.as_str(), *wanted));
        for batch in self.work.due(wanted, now) {
            let (mut sent, mut bodies) = (Vec::new(), Vec::new());
            for arn in batch {
                let Some((task, wanted)) = tasks.get(&arn) else { continue };
                match self.task_body(view, task, *wanted) {
                    Some(body) => bodies.push(body),
                    None => tracing::error!(task = arn, "a task's definition or interface is gone: it cannot be sent"),
                }
                sent.push((arn, *wanted));
            }
            let message_id = self.message_id();
            self.work.sent(&sent, &message_id, now);
            if bodies.is_empty() {
                continue;
            }
            let payload = Payload {
                message_id,
                cluster_arn: self.cluster(),
                container_instance_arn: self.begun.instance.to_string(),
                generated_at: now.millis(),
                seq_num: self.next_sequence(),
                timeline: None,
                tasks: bodies,
            };
            socket.send(ToAgent::Payload(payload).encode()).await?;
        }
        Ok(())
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        text: &str,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        match FromAgent::decode(text) {
            Ok(Some(FromAgent::Ack(ack))) => self.work.acknowledged(&ack.message_id, Clock::system_now()),
            Ok(Some(FromAgent::HeartbeatAck(_))) => self.unanswered = 0,
            Ok(Some(FromAgent::CredentialsAck(_))) => {}
            Ok(Some(FromAgent::Nack(nack))) => {
                tracing::warn!(
                    instance = self.begun.instance.as_str(),
                    reason = short(&nack.reason),
                    "an agent refuses a message"
                );
            }
            Ok(Some(FromAgent::StopVerification(offered))) => {
                let verified = self.verify(offered);
                return socket.send(ToAgent::StopVerificationAck(verified).encode()).await;
            }
            Ok(None) => {
                tracing::info!("a message of an unknown type from an agent was dropped");
                return self.complain("The type of the message is unknown.".to_owned(), socket).await;
            }
            Err(error) => {
                let error = short(&error.to_string());
                tracing::warn!(error, "a malformed message of an agent was dropped");
                return self.complain(format!("The message is malformed: {error}"), socket).await;
            }
        }
        Ok(())
    }

    /// Tells the agent what it did wrong; it writes that to its log.
    async fn complain<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        message: String,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        socket.send(ToAgent::Error(Notice { message }).encode()).await
    }

    /// Ends tasks that were to stop before their agent had heard of them: it acknowledges that, and never speaks of them.
    async fn end_unknown(&self) {
        let silent = self.work.silent(Clock::system_now());
        if silent.is_empty() {
            return;
        }
        let report = TaskReport { status: Some(ReportedStatus::Stopped), ..TaskReport::default() };
        let now = self.clock.now();
        let outcome = self.begun.platform.store.transact(|tx| {
            for arn in &silent {
                if tx.get::<Task>(arn).is_some_and(|task| task.connected_at.is_none()) {
                    observe::task(tx, arn, Some(&self.begun.instance), &report, now)?;
                }
            }
            Ok::<(), ServiceError>(())
        });
        if let Err(error) = outcome.await {
            tracing::warn!(%error, "tasks that their agent does not know could not be ended");
        }
    }

    /// Of the tasks an agent offers to stop, those that really are not to run there.
    fn verify(&self, offered: StopVerification) -> StopVerificationAck {
        let tasks = self.tasks(&self.begun.platform.store.snapshot());
        let wanted = |arn: &str| tasks.get(arn).is_some_and(|(_, wanted)| *wanted == DesiredStatus::Running);
        let stop_tasks = offered.stop_candidates.into_iter().filter(|task| !wanted(&task.task_arn)).collect();
        StopVerificationAck { message_id: offered.message_id, generated_at: Clock::system_now().millis(), stop_tasks }
    }

    fn cluster(&self) -> String {
        let view = self.begun.platform.store.snapshot();
        let instance = view.get::<ContainerInstance>(self.begun.instance.as_str());
        instance.map(|instance| instance.cluster_arn.to_string()).unwrap_or_default()
    }
}
