//! SubmitTaskStateChange, SubmitContainerStateChange and SubmitAttachmentStateChanges: what agents report of their tasks.
//!
//! Agents repeat a report until it is taken, and drop it only on InvalidParameterException: so whatever can never be
//! accepted is answered with that, and repeated reports are fine.

use std::net::IpAddr;

use api::ecs::{
    AttachmentStateChange, ContainerStateChange, NetworkBinding as SentBinding, SubmitAttachmentStateChangesRequest,
    SubmitAttachmentStateChangesResponse, SubmitContainerStateChangeRequest, SubmitContainerStateChangeResponse,
    SubmitTaskStateChangeRequest, SubmitTaskStateChangeResponse,
};
use domain::ecs::container_definition::parse_port_range;
use domain::ecs::{
    ContainerInstance, ContainerReport, NetworkBinding, ReportedStatus, Task, TaskReport, TransportProtocol,
};
use domain::{Arn, Timestamp};
use iam::Principal;
use store::Snapshot;
use wire::ServiceError;

use super::super::common::{Given, invalid, refuse};
use super::super::observe;
use super::agents_cluster;
use crate::{Authorised, Call};

/// Amazon's word for a report that was taken.
const ACKNOWLEDGMENT: &str = "ACK";
/// As many as a container definition may have port mappings.
const MOST_BINDINGS: usize = 100;
/// The longest name that an agent gives anything: images' digests and containers' ids are far shorter.
const LONGEST_NAME: usize = 255;
/// Attachments in one request.
const MOST_ATTACHMENTS: usize = 100;

pub(in crate::ecs) async fn submit_task(
    call: Call,
    input: SubmitTaskStateChangeRequest,
) -> Result<SubmitTaskStateChangeResponse, ServiceError> {
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let task = input.task.as_deref().unwrap_or_default();
    // No payload asks for one.
    refuse(&[("managedAgents", input.managed_agents.given())])?;
    let attached = attached(input.attachments.as_deref().unwrap_or_default())?;
    let report = TaskReport {
        status: input.status.as_deref().map(status).transpose()?,
        reason: input.reason.clone().filter(|reason| !reason.is_empty()),
        containers: input.containers.iter().flatten().map(container).collect::<Result<_, _>>()?,
        attached: !attached.is_empty(),
        pull_started_at: input.pull_started_at.map(time),
        pull_stopped_at: input.pull_stopped_at.map(time),
        execution_stopped_at: input.execution_stopped_at.map(time),
    };
    observe(&auth, input.cluster.as_deref(), task, &attached, report).await?;
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
    observe(&auth, input.cluster.as_deref(), task, &[], report).await?;
    Ok(SubmitContainerStateChangeResponse { acknowledgment: Some(ACKNOWLEDGMENT.to_owned()) })
}

/// The attachments that there can be are the network interfaces of tasks: no message offers an instance any of its own.
pub(in crate::ecs) async fn submit_attachments(
    call: Call,
    input: SubmitAttachmentStateChangesRequest,
) -> Result<SubmitAttachmentStateChangesResponse, ServiceError> {
    let auth = call.authorise(&[super::super::common::cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let attached = attached(input.attachments.as_deref().unwrap_or_default())?;
    if attached.is_empty() {
        return Err(invalid("Attachments cannot be empty."));
    }
    let cluster = reporting_cluster(&auth, input.cluster.as_deref())?;
    let report = TaskReport { attached: true, ..TaskReport::default() };
    let now = auth.now();
    auth.transact(|tx| {
        let mut known = Vec::new();
        for instance in tx.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, cluster.as_str()) {
            let tasks = tx.find::<Task>(Task::ON_INSTANCE, instance.arn.as_str());
            known.extend(tasks.filter_map(|task| Some((task.attachment_arn()?, task))));
        }
        for arn in &attached {
            let found = known.iter().find(|(known, _)| known.as_str() == arn);
            let (_, task) = found.ok_or_else(|| invalid(format!("The attachment {arn} does not exist.")))?;
            observe::task(tx, task.arn.as_str(), None, &report, now)?;
        }
        Ok(())
    })
    .await?;
    Ok(SubmitAttachmentStateChangesResponse { acknowledgment: Some(ACKNOWLEDGMENT.to_owned()) })
}

/// The ARNs of attachments that an agent says are attached, which is all it may say of them.
fn attached(changes: &[AttachmentStateChange]) -> Result<Vec<String>, ServiceError> {
    if changes.len() > MOST_ATTACHMENTS {
        return Err(invalid(format!("A request cannot have more than {MOST_ATTACHMENTS} attachments.")));
    }
    let arn = |change: &AttachmentStateChange| match change.status.as_deref() {
        Some("ATTACHED") => Ok(change.attachment_arn.clone().unwrap_or_default()),
        other => Err(invalid(format!("Unknown status of an attachment: {}.", other.unwrap_or_default()))),
    };
    changes.iter().map(arn).collect()
}

async fn observe(
    auth: &Authorised,
    cluster: Option<&str>,
    task: &str,
    attached: &[String],
    report: TaskReport,
) -> Result<(), ServiceError> {
    let cluster = reporting_cluster(auth, cluster)?;
    let now = auth.now();
    auth.transact(|tx| {
        let from = placed_on(tx, task, &cluster);
        let from =
            from.ok_or_else(|| invalid("The specified task does not exist on a container instance of this cluster."))?;
        let ec2 = tx.get::<ContainerInstance>(from.as_str()).and_then(|instance| instance.ec2_instance_id.clone());
        if !may_report(&auth.principal, ec2.as_deref()) {
            return Err(invalid("The specified task is not on the container instance that reports it."));
        }
        let own = tx.get::<Task>(task).and_then(|task| task.attachment_arn());
        if let Some(other) = attached.iter().find(|arn| own.as_ref().is_none_or(|own| own.as_str() != arn.as_str())) {
            return Err(invalid(format!("The attachment {other} is not one of this task.")));
        }
        observe::task(tx, task, Some(&from), &report, now)
    })
    .await
}

fn reporting_cluster(auth: &Authorised, cluster: Option<&str>) -> Result<Arn, ServiceError> {
    let unknown = |_| invalid("The specified cluster was not found.");
    agents_cluster(&auth.snapshot(), &auth.principal, &auth.scope, cluster).map_err(unknown)
}

/// Whether a caller may speak of what is on an EC2 instance. The request itself names no container instance; the session of an
/// instance's own credentials is named after it. Other callers' sessions name no instance, and machines of the user's have
/// whatever keys they were given.
fn may_report(caller: &Principal, ec2_instance: Option<&str>) -> bool {
    match (caller, ec2_instance) {
        (Principal::AssumedRole { session, .. }, Some(id)) => !session.starts_with("i-") || session == id,
        _ => true,
    }
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
    let names = [("runtimeId", &change.runtime_id), ("imageDigest", &change.image_digest)];
    if let Some((name, _)) = names.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.len() > LONGEST_NAME))
    {
        return Err(invalid(format!("{name} cannot be longer than {LONGEST_NAME}.")));
    }
    if change.network_bindings.as_ref().is_some_and(|bindings| bindings.len() > MOST_BINDINGS) {
        return Err(invalid(format!("A container cannot have more than {MOST_BINDINGS} network bindings.")));
    }
    Ok(ContainerReport {
        name: change.container_name.clone().unwrap_or_default(),
        status: change.status.as_deref().map(status).transpose()?,
        runtime_id: change.runtime_id.clone(),
        image_digest: change.image_digest.clone(),
        exit_code: change.exit_code,
        reason: change.reason.clone().filter(|reason| !reason.is_empty()),
        network_bindings: change.network_bindings.iter().flatten().map(binding).collect::<Result<_, _>>()?,
    })
}

fn binding(sent: &SentBinding) -> Result<NetworkBinding, ServiceError> {
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    let bind_ip = sent.bind_ip.clone().unwrap_or_default();
    if !bind_ip.is_empty() && bind_ip.parse::<IpAddr>().is_err() {
        return Err(invalid("The bindIP of a network binding is not an address."));
    }
    let protocol = sent.protocol.as_deref().unwrap_or("tcp");
    if ![TransportProtocol::Tcp, TransportProtocol::Udp].iter().any(|known| known.as_str() == protocol) {
        return Err(invalid("Unknown protocol of a network binding."));
    }
    let (container_port, host_port, range) = if sent.container_port_range.given() || sent.host_port_range.given() {
        let range = |range: &Option<String>| parse_port_range(range.as_deref().unwrap_or_default());
        match (range(&sent.container_port_range), range(&sent.host_port_range)) {
            (Some((container, count)), Some((host, on_host))) if count == on_host => (container, host, Some(count)),
            _ => return Err(invalid("The port ranges of a network binding must be two of the same length.")),
        }
    } else {
        match (port(sent.container_port), port(sent.host_port)) {
            (Some(container), Some(host)) => (container, host, None),
            _ => return Err(invalid("A network binding must have its containerPort and hostPort, 0 to 65535.")),
        }
    };
    Ok(NetworkBinding { bind_ip, container_port, host_port, range, protocol: protocol.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r30_an_instance_reports_only_what_is_on_it() {
        let session = |name: &str| Principal::AssumedRole {
            account: "123456789012".parse().unwrap(),
            role: Arn::global(&"123456789012".parse().unwrap(), "iam", "role/ecsInstanceRole"),
            role_id: "AROA".to_owned(),
            session: name.to_owned(),
        };
        let one = "i-0123456789abcdef0";
        assert!(may_report(&session(one), Some(one)));
        assert!(!may_report(&session("i-0123456789abcdef1"), Some(one)));
        assert!(may_report(&session("operator"), Some(one)));
        assert!(may_report(&session(one), None));
        assert!(may_report(&Principal::Root { account: "123456789012".parse().unwrap() }, Some(one)));
    }
}
