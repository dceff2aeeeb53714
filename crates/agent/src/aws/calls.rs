//! The operations the agent uses, each as one function.

use std::collections::BTreeMap;

use api::{ecr, ecs, logs};
use base64::Engine as _;
use domain::ecs::container_definition::port_range;
use wire::sigv4::Keys;

use super::client::{CallError, Client};
use crate::engine::record::{ContainerChange, NetworkBinding, StateChange};
use crate::logs::awslogs::lines::Event;

impl Client {
    /// Registers the instance; the ARN it got and its attributes as the control plane has them.
    pub async fn register(
        &self,
        input: &ecs::RegisterContainerInstanceRequest,
        keys: &Keys,
    ) -> Result<ecs::ContainerInstance, CallError> {
        let output: ecs::RegisterContainerInstanceResponse =
            self.call(&ecs::operation::REGISTER_CONTAINER_INSTANCE, input, keys).await?;
        output.container_instance.ok_or_else(|| missing("containerInstance"))
    }

    /// Where ACS and TCS are.
    pub async fn discover_poll_endpoint(
        &self,
        cluster: &str,
        instance: &str,
        keys: &Keys,
    ) -> Result<(String, String), CallError> {
        let input = ecs::DiscoverPollEndpointRequest {
            cluster: Some(cluster.to_owned()),
            container_instance: Some(instance.to_owned()),
        };
        let output: ecs::DiscoverPollEndpointResponse =
            self.call(&ecs::operation::DISCOVER_POLL_ENDPOINT, &input, keys).await?;
        let endpoint = output.endpoint.ok_or_else(|| missing("endpoint"))?;
        let telemetry = output.telemetry_endpoint.ok_or_else(|| missing("telemetryEndpoint"))?;
        Ok((endpoint, telemetry))
    }

    /// Tells one change of a task.
    pub async fn submit(&self, cluster: &str, task: &str, change: &StateChange, keys: &Keys) -> Result<(), CallError> {
        let time = |time: Option<domain::Timestamp>| time.map(|time| wire::Timestamp(time.millis()));
        let input = ecs::SubmitTaskStateChangeRequest {
            cluster: Some(cluster.to_owned()),
            task: Some(task.to_owned()),
            status: Some(change.status.clone()),
            reason: Some(change.reason.clone()),
            containers: Some(change.containers.iter().map(container_change).collect()),
            pull_started_at: time(change.pull_started_at),
            pull_stopped_at: time(change.pull_stopped_at),
            execution_stopped_at: time(change.execution_stopped_at),
            ..Default::default()
        };
        let _: ecs::SubmitTaskStateChangeResponse =
            self.call(&ecs::operation::SUBMIT_TASK_STATE_CHANGE, &input, keys).await?;
        Ok(())
    }

    /// Sets a container instance to DRAINING.
    pub async fn drain(&self, cluster: &str, instance: &str, keys: &Keys) -> Result<(), CallError> {
        let input = ecs::UpdateContainerInstancesStateRequest {
            cluster: Some(cluster.to_owned()),
            container_instances: Some(vec![instance.to_owned()]),
            status: Some("DRAINING".to_owned()),
        };
        let output: ecs::UpdateContainerInstancesStateResponse =
            self.call(&ecs::operation::UPDATE_CONTAINER_INSTANCES_STATE, &input, keys).await?;
        match output.failures.unwrap_or_default().into_iter().next() {
            None => Ok(()),
            Some(failure) => Err(CallError::Transport(failure.reason.unwrap_or_default())),
        }
    }

    /// The tags of a resource.
    pub async fn tags(&self, arn: &str, keys: &Keys) -> Result<BTreeMap<String, String>, CallError> {
        let input = ecs::ListTagsForResourceRequest { resource_arn: Some(arn.to_owned()) };
        let output: ecs::ListTagsForResourceResponse =
            self.call(&ecs::operation::LIST_TAGS_FOR_RESOURCE, &input, keys).await?;
        let tags = output.tags.unwrap_or_default().into_iter();
        Ok(tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())).collect())
    }

    /// Whether a task is protected from scale-in; asked for as the task.
    pub async fn task_protection(
        &self,
        cluster: &str,
        task: &str,
        keys: &Keys,
    ) -> Result<ecs::GetTaskProtectionResponse, CallError> {
        let input =
            ecs::GetTaskProtectionRequest { cluster: Some(cluster.to_owned()), tasks: Some(vec![task.to_owned()]) };
        self.call(&ecs::operation::GET_TASK_PROTECTION, &input, keys).await
    }

    /// Protects a task from scale-in, or no longer; asked for as the task.
    pub async fn protect_task(
        &self,
        cluster: &str,
        task: &str,
        enabled: bool,
        minutes: Option<i32>,
        keys: &Keys,
    ) -> Result<ecs::UpdateTaskProtectionResponse, CallError> {
        let input = ecs::UpdateTaskProtectionRequest {
            cluster: Some(cluster.to_owned()),
            tasks: Some(vec![task.to_owned()]),
            protection_enabled: Some(enabled),
            expires_in_minutes: minutes,
        };
        self.call(&ecs::operation::UPDATE_TASK_PROTECTION, &input, keys).await
    }

    /// User name and password of a registry.
    pub async fn registry_login(&self, registry: &str, keys: &Keys) -> Result<(String, String), CallError> {
        let input = ecr::GetAuthorizationTokenRequest { registry_ids: Some(vec![registry.to_owned()]) };
        let output: ecr::GetAuthorizationTokenResponse =
            self.call(&ecr::operation::GET_AUTHORIZATION_TOKEN, &input, keys).await?;
        let token = output
            .authorization_data
            .and_then(|data| data.into_iter().next())
            .and_then(|data| data.authorization_token)
            .ok_or_else(|| missing("authorizationToken"))?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(token.as_bytes()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let (user, password) = text.split_once(':').ok_or_else(|| missing("authorizationToken"))?;
        Ok((user.to_owned(), password.to_owned()))
    }

    /// Creates a log stream; fine if it exists.
    pub async fn create_log_stream(&self, group: &str, stream: &str, keys: &Keys) -> Result<(), CallError> {
        let input = logs::CreateLogStreamRequest {
            log_group_name: Some(group.to_owned()),
            log_stream_name: Some(stream.to_owned()),
        };
        existing(self.call::<()>(&logs::operation::CREATE_LOG_STREAM, &input, keys).await)
    }

    /// Creates a log group; fine if it exists.
    pub async fn create_log_group(&self, group: &str, keys: &Keys) -> Result<(), CallError> {
        let input = logs::CreateLogGroupRequest { log_group_name: Some(group.to_owned()), ..Default::default() };
        existing(self.call::<()>(&logs::operation::CREATE_LOG_GROUP, &input, keys).await)
    }

    /// Delivers log events; how many of them the service did not want (too old, too new, expired).
    pub async fn put_log_events(
        &self,
        group: &str,
        stream: &str,
        events: &[Event],
        keys: &Keys,
    ) -> Result<usize, CallError> {
        let event = |event: &Event| logs::InputLogEvent {
            timestamp: Some(event.time.millis()),
            message: Some(event.message.clone()),
        };
        let input = logs::PutLogEventsRequest {
            log_group_name: Some(group.to_owned()),
            log_stream_name: Some(stream.to_owned()),
            log_events: Some(events.iter().map(event).collect()),
            ..Default::default()
        };
        let output: logs::PutLogEventsResponse = self.call(&logs::operation::PUT_LOG_EVENTS, &input, keys).await?;
        let Some(rejected) = output.rejected_log_events_info else { return Ok(0) };
        let place = |index: Option<i32>| index.and_then(|index| usize::try_from(index).ok());
        let old = place(rejected.too_old_log_event_end_index).max(place(rejected.expired_log_event_end_index));
        let new = place(rejected.too_new_log_event_start_index).map(|start| events.len().saturating_sub(start));
        Ok(old.unwrap_or(0) + new.unwrap_or(0))
    }
}

fn container_change(change: &ContainerChange) -> ecs::ContainerStateChange {
    ecs::ContainerStateChange {
        container_name: Some(change.container_name.clone()),
        status: Some(change.status.clone()),
        runtime_id: change.runtime_id.clone(),
        image_digest: change.image_digest.clone(),
        exit_code: change.exit_code,
        reason: change.reason.clone(),
        network_bindings: Some(change.network_bindings.iter().map(network_binding).collect())
            .filter(|bindings: &Vec<_>| !bindings.is_empty()),
    }
}

fn network_binding(binding: &NetworkBinding) -> ecs::NetworkBinding {
    ecs::NetworkBinding {
        bind_ip: Some(binding.bind_ip.clone()),
        container_port: binding.range.is_none().then(|| i32::from(binding.container_port)),
        host_port: binding.range.is_none().then(|| i32::from(binding.host_port)),
        container_port_range: binding.range.map(|count| port_range(binding.container_port, count)),
        host_port_range: binding.range.map(|count| port_range(binding.host_port, count)),
        protocol: Some(binding.protocol.clone()),
    }
}

fn existing(outcome: Result<(), CallError>) -> Result<(), CallError> {
    match outcome {
        Err(error) if error.code() == Some("ResourceAlreadyExistsException") => Ok(()),
        other => other,
    }
}

fn missing(member: &str) -> CallError {
    CallError::Transport(format!("the answer has no {member}"))
}
