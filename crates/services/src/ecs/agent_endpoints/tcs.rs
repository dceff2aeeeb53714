//! The server of a TCS session: acknowledges everything, keeps container health, and lets the metrics go (what keeps
//! them comes with the issue that shows them).

use std::sync::Arc;
use std::time::Duration;

use domain::agent_protocol::HEARTBEAT_SECONDS;
use domain::agent_protocol::tcs::{AckPublish, Heartbeat, PublishHealth, ToAgent, ToServer, unframe};
use domain::ecs::{HealthStatus, Task};
use domain::{Arn, Scope};
use iam::Principal;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::ServiceError;

use super::agents_instance;
use super::query::parameter;
use super::socket::Socket;
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
    _scope: &Scope,
    query: &str,
) -> Result<Begun, ServiceError> {
    let arn = parameter(query, "containerInstance").unwrap_or_default();
    let instance = agents_instance(&platform.store.snapshot(), principal, &arn)?;
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
                _ = heartbeat.tick() => Some(ToAgent::Heartbeat(Heartbeat { healthy: true })),
                () = tokio::time::sleep_until(silence) => {
                    socket.close("no telemetry").await;
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

    async fn answer(&self, text: &str) -> Option<ToAgent> {
        let message = unframe(text).and_then(|(_, body)| ToServer::decode(body));
        let acknowledged = || AckPublish { message: "ok".to_owned() };
        match message {
            Ok(Some(ToServer::PublishMetrics(_))) => Some(ToAgent::AckPublishMetric(acknowledged())),
            Ok(Some(ToServer::PublishInstanceStatus(_))) => Some(ToAgent::AckPublishInstanceStatus(acknowledged())),
            Ok(Some(ToServer::PublishHealth(health))) => {
                self.keep(&health).await;
                Some(ToAgent::AckPublishHealth(acknowledged()))
            }
            Ok(None) => {
                tracing::info!("telemetry of an unknown type was dropped");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "malformed telemetry was dropped");
                None
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
                    tracing::debug!(task, container, %error, "a container's health was not taken");
                }
            }
            Ok::<(), ()>(())
        });
        if outcome.await.is_err() {
            tracing::warn!("container health could not be saved");
        }
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
