//! The server of a TCS session: acknowledges everything, keeps the health of containers and of the instance, and lets the
//! metrics go (what keeps them comes with the issue that shows them).

use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::HEARTBEAT_SECONDS;
use domain::agent_protocol::tcs::{
    AckPublish, Heartbeat, InstanceStatus, PublishHealth, PublishInstanceStatus, ToAgent, ToServer, unframe,
};
use domain::ecs::{
    ContainerInstance, ContainerInstanceStatus, HealthStatus, InstanceHealthStatus, RuntimeHealth, Task,
};
use domain::{Arn, Scope, Timestamp};
use iam::Principal;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::ServiceError;

use super::query::parameter;
use super::sessions_instance;
use super::socket::{CloseCode, Socket, short};
use crate::Platform;
use crate::ecs::observe;

/// Agents publish each 20 seconds; one that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(180);

/// A session whose handshake was accepted.
pub struct Begun {
    platform: Arc<Platform>,
    instance: Arn,
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
    let instance = sessions_instance(&view, principal, scope, &text("cluster"), &text("containerInstance"))?;
    Ok(Begun { platform: platform.clone(), instance: instance.arn.clone() })
}

impl Begun {
    /// Serves the session until the agent goes.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self, io: S) {
        let mut socket = Socket::new(io).await;
        let mut heartbeat = tokio::time::interval(Duration::from_secs(HEARTBEAT_SECONDS));
        let mut silence = tokio::time::Instant::now() + SILENCE;
        loop {
            let reply = tokio::select! {
                text = socket.receive() => match text {
                    Ok(text) => {
                        silence = tokio::time::Instant::now() + SILENCE;
                        self.answer(&text).await
                    }
                    Err(_) => return,
                },
                _ = heartbeat.tick() => {
                    if self.is_over() {
                        socket.close(CloseCode::Normal, "the container instance was deregistered").await;
                        return;
                    }
                    Some(ToAgent::Heartbeat(Heartbeat { healthy: true }))
                }
                () = tokio::time::sleep_until(silence) => {
                    socket.close(CloseCode::Normal, "no telemetry").await;
                    return;
                }
            };
            if let Some(reply) = reply
                && socket.send(reply.encode()).await.is_err()
            {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let instance = self.platform.store.snapshot().get::<ContainerInstance>(self.instance.as_str());
        instance.is_none_or(|instance| instance.status == ContainerInstanceStatus::Inactive)
    }

    async fn answer(&self, text: &str) -> Option<ToAgent> {
        let message = unframe(text).and_then(|(_, body)| ToServer::decode(body));
        let acknowledged = || AckPublish { message: "ok".to_owned() };
        match message {
            Ok(Some(ToServer::PublishMetrics(_))) => Some(ToAgent::AckPublishMetric(acknowledged())),
            Ok(Some(ToServer::PublishInstanceStatus(status))) => {
                self.keep_status(&status).await;
                Some(ToAgent::AckPublishInstanceStatus(acknowledged()))
            }
            Ok(Some(ToServer::PublishHealth(health))) => {
                self.keep(&health).await;
                Some(ToAgent::AckPublishHealth(acknowledged()))
            }
            Ok(None) => {
                tracing::info!("telemetry of an unknown type was dropped");
                Some(ToAgent::BadRequest(AckPublish { message: "The type of the message is unknown.".to_owned() }))
            }
            Err(error) => {
                let error = short(&error.to_string());
                tracing::warn!(error, "malformed telemetry was dropped");
                let message = format!("The message is malformed: {error}");
                Some(ToAgent::BadRequest(AckPublish { message }))
            }
        }
    }

    /// Keeps what changed; most publications change nothing and cost no commit.
    async fn keep(&self, health: &PublishHealth) {
        let view = self.platform.store.snapshot();
        let mut changes = Vec::new();
        for task in &health.tasks {
            let Some(known) = view.get::<Task>(&task.task_arn) else { continue };
            for container in &task.containers {
                let Some(status) = parse(&container.health_status) else { continue };
                let same = known
                    .containers
                    .iter()
                    .any(|known| known.name == container.container_name && known.health_status == status);
                if !same {
                    changes.push((task.task_arn.as_str(), container.container_name.as_str(), status));
                }
            }
        }
        if changes.is_empty() {
            return;
        }
        let outcome = self.platform.store.transact(|tx| {
            for (task, container, status) in &changes {
                // A task of another instance, or one that is over meanwhile, is not the agent's to speak of.
                if let Err(error) = observe::container_health(tx, task, Some(&self.instance), container, *status) {
                    tracing::debug!(task = short(task), container = short(container), %error, "a container's health was not taken");
                }
            }
            Ok::<(), ()>(())
        });
        if outcome.await.is_err() {
            tracing::warn!("container health could not be saved");
        }
    }
}

impl Begun {
    /// Keeps what the agent says of its container runtime.
    async fn keep_status(&self, published: &PublishInstanceStatus) {
        let Some(health) = published.statuses.iter().find_map(|status| self.runtime_health(status)) else {
            tracing::info!("an instance's status without that of its container runtime was dropped");
            return;
        };
        let key = self.instance.as_str();
        let outcome = self.platform.store.transact(|tx| {
            let there = tx
                .get::<ContainerInstance>(key)
                .is_some_and(|instance| instance.status != ContainerInstanceStatus::Inactive);
            if there && tx.get::<RuntimeHealth>(key).as_deref() != Some(&health) {
                tx.put(health);
            }
            Ok::<(), ()>(())
        });
        if outcome.await.is_err() {
            tracing::warn!("an instance's health could not be saved");
        }
    }

    fn runtime_health(&self, status: &InstanceStatus) -> Option<RuntimeHealth> {
        if status.kind != "ContainerRuntime" {
            return None;
        }
        // Far from every number that an agent may write, so that nothing overflows.
        let time = |seconds: f64| Timestamp((seconds.clamp(0.0, 1e11) * 1000.0) as i64);
        Some(RuntimeHealth {
            container_instance_arn: self.instance.clone(),
            status: InstanceHealthStatus::parse(&status.status)?,
            reason: status.status_reason.as_deref().filter(|text| !text.is_empty()).map(short),
            last_updated: time(status.last_updated),
            last_status_change: time(status.last_status_change),
        })
    }
}

fn parse(text: &str) -> Option<HealthStatus> {
    match text {
        "HEALTHY" => Some(HealthStatus::Healthy),
        "UNHEALTHY" => Some(HealthStatus::Unhealthy),
        "UNKNOWN" => Some(HealthStatus::Unknown),
        _ => None,
    }
}
