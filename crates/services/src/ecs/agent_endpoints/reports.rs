//! SubmitTaskStateChange and SubmitContainerStateChange: what agents report of their tasks.
//!
//! Agents repeat a report until it is taken, and drop it only on InvalidParameterException: so whatever can never be
//! accepted is answered with that, and repeated reports are fine.

use api::ecs::{
    ContainerStateChange, NetworkBinding as SentBinding, SubmitContainerStateChangeRequest,
    SubmitContainerStateChangeResponse, SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse,
};
use domain::ecs::container_definition::parse_port_range;
use domain::ecs::{ContainerInstance, ContainerReport, NetworkBinding, ReportedStatus, Task, TaskReport};
use domain::{Arn, Timestamp};
use store::Snapshot;
use wire::ServiceError;

use super::super::common::invalid;
use super::super::observe;
use super::agents_cluster;
use crate::{Authorised, Call};

/// Amazon's word for a report that was taken.
const ACKNOWLEDGMENT: &str = "ACK";

pub(in crate::ecs) async fn submit_task(
    call: Call,
    input: SubmitTaskStateChangeRequest,
) -> Result<SubmitTaskStateChangeResponse, ServiceError> {
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let task = input.task.as_deref().unwrap_or_default();
    let report = TaskReport {
        status: input.status.as_deref().map(status).transpose()?,
        reason: input.reason.clone().filter(|reason| !reason.is_empty()),
        containers: input.containers.iter().flatten().map(container).collect::<Result<_, _>>()?,
        attached: input.attachments.iter().flatten().any(|attachment| attachment.status.as_deref() == Some("ATTACHED")),
        pull_started_at: input.pull_started_at.map(time),
        pull_stopped_at: input.pull_stopped_at.map(time),
        execution_stopped_at: input.execution_stopped_at.map(time),
    };
    observe(&auth, input.cluster.as_deref(), task, report).await?;
    Ok(SubmitTaskStateChangeResponse { acknowledgment: Some(ACKNOWLEDGMENT.to_owned()) })
}

pub(in crate::ecs) async fn submit_container(
    call: Call,
    input: SubmitContainerStateChangeRequest,
) -> Result<SubmitContainerStateChangeResponse, ServiceError> {
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let task = input.task.as_deref().unwrap_or_default();
    let change = ContainerStateChange {
        container_name: input.container_name.clone(),
        status: input.status.clone(),
        runtime_id: input.runtime_id.clone(),
        exit_code: input.exit_code,
        reason: input.reason.clone(),
        network_bindings: input.network_bindings.clone(),
        ..Default::default()
    };
    let report = TaskReport { containers: vec![container(&change)?], ..TaskReport::default() };
    observe(&auth, input.cluster.as_deref(), task, report).await?;
    Ok(SubmitContainerStateChangeResponse { acknowledgment: Some(ACKNOWLEDGMENT.to_owned()) })
}

async fn observe(auth: &Authorised, cluster: Option<&str>, task: &str, report: TaskReport) -> Result<(), ServiceError> {
    let unknown = |_| invalid("The specified cluster was not found.");
    let cluster = agents_cluster(&auth.snapshot(), &auth.principal, &auth.scope, cluster).map_err(unknown)?;
    let now = auth.now();
    auth.transact(|tx| {
        let from = placed_on(tx, task, &cluster);
        let from =
            from.ok_or_else(|| invalid("The specified task does not exist on a container instance of this cluster."))?;
        observe::task(tx, task, Some(&from), &report, now)
    })
    .await
}

/// The instance a task is placed on, if that instance is in the cluster that the agent says it is in.
fn placed_on(view: &Snapshot, task: &str, cluster: &Arn) -> Option<Arn> {
    let placed = view.get::<Task>(task)?.container_instance_arn.clone()?;
    view.get::<ContainerInstance>(placed.as_str())
        .is_some_and(|instance| &instance.cluster_arn == cluster)
        .then_some(placed)
}

fn status(text: &str) -> Result<ReportedStatus, ServiceError> {
    ReportedStatus::parse(text).ok_or_else(|| invalid(format!("Unknown status {text}.")))
}

fn time(time: wire::Timestamp) -> Timestamp {
    Timestamp(time.millis())
}

fn container(change: &ContainerStateChange) -> Result<ContainerReport, ServiceError> {
    Ok(ContainerReport {
        name: change.container_name.clone().unwrap_or_default(),
        status: change.status.as_deref().map(status).transpose()?,
        runtime_id: change.runtime_id.clone(),
        image_digest: change.image_digest.clone(),
        exit_code: change.exit_code,
        reason: change.reason.clone().filter(|reason| !reason.is_empty()),
        network_bindings: change.network_bindings.iter().flatten().filter_map(binding).collect(),
    })
}

/// A binding without its ports says nothing.
fn binding(sent: &SentBinding) -> Option<NetworkBinding> {
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    let range = |range: &Option<String>| range.as_deref().filter(|range| !range.is_empty()).and_then(parse_port_range);
    let (container_port, host_port, range) = match (range(&sent.container_port_range), range(&sent.host_port_range)) {
        (Some((container, count)), Some((host, on_host))) if count == on_host => (container, host, Some(count)),
        _ => (port(sent.container_port)?, port(sent.host_port)?, None),
    };
    Some(NetworkBinding {
        bind_ip: sent.bind_ip.clone().unwrap_or_default(),
        container_port,
        host_port,
        range,
        protocol: sent.protocol.clone().unwrap_or_else(|| "tcp".to_owned()),
    })
}
