//! What a session tells its agent beside payloads: manifests and credentials, and the body of a task in a payload.

use domain::Clock;
use domain::agent_protocol::acs::{Credentials, Manifest, TASK_APPLICATION, TaskIdentifier, ToAgent};
use domain::agent_protocol::payload;
use domain::ecs::{DesiredStatus, Task};
use store::Snapshot;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::credentials::{self, RENEW_BEFORE};
use super::super::socket::{Over, Socket};
use super::Session;
use crate::ecs::payload as task_payload;

impl Session {
    pub(super) fn task_body(&mut self, view: &Snapshot, task: &Task, wanted: DesiredStatus) -> Option<payload::Task> {
        if wanted == DesiredStatus::Stopped {
            return Some(payload::Task {
                arn: task.arn.to_string(),
                task_cluster_arn: Some(task.cluster_arn.to_string()),
                desired_status: "STOPPED".to_owned(),
                ..payload::Task::default()
            });
        }
        let platform = self.begun.platform.clone();
        let mut body = task_payload::task(view, task, &platform.options)?;
        for (kind, credentials, expiration) in credentials::issue(&platform, view, task) {
            self.expirations.insert(task.arn.to_string(), expiration);
            if kind == TASK_APPLICATION {
                body.role_credentials = Some(credentials);
            } else {
                body.execution_role_credentials = Some(credentials);
            }
        }
        Some(body)
    }

    /// Tells the agent everything it should run, so that it offers to stop what it should not.
    pub(super) async fn send_manifest<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        let tasks = self.tasks(&self.begun.platform.store.snapshot());
        let manifest = Manifest {
            message_id: self.message_id(),
            cluster_arn: self.cluster(),
            container_instance_arn: self.begun.instance.to_string(),
            generated_at: Clock::system_now().millis(),
            timeline: self.next_sequence(),
            tasks: tasks
                .values()
                .map(|(task, wanted)| TaskIdentifier {
                    task_arn: task.arn.to_string(),
                    task_cluster_arn: Some(task.cluster_arn.to_string()),
                    desired_status: wanted.as_str().to_owned(),
                })
                .collect(),
        };
        socket.send(ToAgent::Manifest(manifest).encode()).await
    }

    /// Sends the credentials of every task that the agent has begun.
    pub(super) async fn send_credentials<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        let view = self.begun.platform.store.snapshot();
        for (task, _) in self.tasks(&view).into_values().filter(|(task, _)| task.connected_at.is_some()) {
            self.send_credentials_of(&view, &task, socket).await?;
        }
        Ok(())
    }

    /// Sends new credentials of tasks whose old ones will soon not work any more.
    pub(super) async fn renew_credentials<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        let now = self.clock.now();
        let due: Vec<String> = self
            .expirations
            .iter()
            .filter(|(_, expiration)| now + RENEW_BEFORE >= **expiration)
            .map(|(task, _)| task.clone())
            .collect();
        let view = self.begun.platform.store.snapshot();
        for arn in due {
            let Some(task) = view.get::<Task>(&arn) else { continue };
            self.send_credentials_of(&view, &task, socket).await?;
        }
        Ok(())
    }

    async fn send_credentials_of<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        view: &Snapshot,
        task: &Task,
        socket: &mut Socket<S>,
    ) -> Result<(), Over> {
        for (kind, role_credentials, expiration) in credentials::issue(&self.begun.platform, view, task) {
            self.expirations.insert(task.arn.to_string(), expiration);
            let message = Credentials {
                message_id: self.message_id(),
                task_arn: task.arn.to_string(),
                task_cluster_arn: Some(task.cluster_arn.to_string()),
                role_type: kind.to_owned(),
                role_credentials,
            };
            socket.send(ToAgent::Credentials(message).encode()).await?;
        }
        Ok(())
    }
}
