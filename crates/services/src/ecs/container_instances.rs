//! Container instances as users see them. The hosts behind Fargate are in a cluster that nobody can name.

use std::collections::BTreeSet;

use api::ecs::*;
use domain::{
    Scope,
    ecs::{
        AgentAbsence, AgentConnection, Cluster, ContainerInstanceStatus, HostPort, InstanceHealthStatus, RuntimeHealth,
        Task, TaskStatus, TransportProtocol, names,
    },
};
use store::{Snapshot, Transaction};
use wire::ServiceError;

use super::common::{cluster, cluster_arn, count, invalid, missing, number, page, page_size, tags_shape, time};
use super::compute::query;
use crate::Call;

type Stored = domain::ecs::ContainerInstance;

pub(super) async fn list(
    call: Call,
    input: ListContainerInstancesRequest,
) -> Result<ListContainerInstancesResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let filter = input.filter.filter(|filter| !filter.is_empty());
    let query = filter.map(|filter| query(&filter)).transpose();
    let query = query.map_err(|error| invalid(format!("Invalid filter expression: {error}.")))?;
    let size = page_size(input.max_results, 100, 100)?;
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let arns = view
        .find::<Stored>(Stored::BY_CLUSTER, cluster.arn.as_str())
        .filter(|stored| input.status.as_deref().is_none_or(|status| stored.status.as_str() == status))
        .filter(|stored| {
            query.as_ref().is_none_or(|query| placement::instance(&view, stored.clone()).selected_by(query))
        })
        .map(|stored| stored.arn.to_string());
    let (container_instance_arns, next_token) =
        page(&operation::LIST_CONTAINER_INSTANCES, arns, input.next_token.as_deref(), size)?;
    Ok(ListContainerInstancesResponse { container_instance_arns: Some(container_instance_arns), next_token })
}

pub(super) async fn describe(
    call: Call,
    input: DescribeContainerInstancesRequest,
) -> Result<DescribeContainerInstancesResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let asked = input.container_instances.unwrap_or_default();
    if asked.is_empty() {
        return Err(invalid("Container instances cannot be empty."));
    }
    if asked.len() > 100 {
        return Err(invalid("Container instances cannot be more than 100."));
    }
    let include = input.include.unwrap_or_default();
    if let Some(other) = include.iter().find(|part| !["TAGS", "CONTAINER_INSTANCE_HEALTH"].contains(&part.as_str())) {
        return Err(invalid(format!("Unknown value of include: {other}.")));
    }
    let included = |part: &str| include.iter().any(|one| one == part);
    let view = auth.snapshot();
    let cluster = cluster(&view, &auth.scope, input.cluster.as_deref())?;
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for text in asked {
        let arn = names::in_cluster(&auth.scope, &cluster.name, "container-instance", &text);
        match arn.as_ref().and_then(|arn| view.get::<Stored>(arn)) {
            Some(stored) => found.push(ContainerInstance {
                health_status: included("CONTAINER_INSTANCE_HEALTH").then(|| health(&view, &stored)),
                ..shape(&view, &stored, included("TAGS"))
            }),
            None => failures.push(missing(arn.unwrap_or(text))),
        }
    }
    Ok(DescribeContainerInstancesResponse { container_instances: Some(found), failures: Some(failures) })
}

/// Takes an instance out of its cluster for good. With `force` it leaves its tasks behind, which are replaced if services
/// want them; without, it must have none.
pub(super) async fn deregister(
    call: Call,
    input: DeregisterContainerInstanceRequest,
) -> Result<DeregisterContainerInstanceResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let text = input.container_instance.unwrap_or_default();
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let instance = find(tx, &auth.scope, &cluster, &text)
            .filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
            .ok_or_else(|| invalid("Referenced container instance was not found."))?;
        let busy = tx.find::<Task>(Task::ON_INSTANCE, instance.arn.as_str()).next().is_some();
        if busy && input.force != Some(true) {
            return Err(invalid("Found running tasks on the instance."));
        }
        let instance = retire(tx, &instance);
        Ok(DeregisterContainerInstanceResponse { container_instance: Some(shape(tx, &instance, true)) })
    })
    .await
}

/// An instance that will not come back: what it ran is lost, and nobody waits for its agent.
pub(super) fn retire(tx: &mut Transaction, instance: &Stored) -> Stored {
    let retired = Stored { status: ContainerInstanceStatus::Inactive, ..instance.clone() };
    tx.put(retired.clone());
    tx.delete::<AgentAbsence>(instance.arn.as_str());
    tx.delete::<RuntimeHealth>(instance.arn.as_str());
    retired
}

/// `DRAINING`: no new tasks are placed on it. `ACTIVE`: they are again.
pub(super) async fn update_state(
    call: Call,
    input: UpdateContainerInstancesStateRequest,
) -> Result<UpdateContainerInstancesStateResponse, ServiceError> {
    let auth = call.authorise(&[cluster_arn(&call.scope, input.cluster.as_deref())])?;
    let asked = input.container_instances.unwrap_or_default();
    if !(1..=10).contains(&asked.len()) {
        return Err(invalid("A request must have 1 to 10 container instances."));
    }
    let status = match input.status.as_deref() {
        Some("ACTIVE") => ContainerInstanceStatus::Active,
        Some("DRAINING") => ContainerInstanceStatus::Draining,
        _ => return Err(invalid("The status of a container instance can be set to ACTIVE or DRAINING.")),
    };
    auth.transact(|tx| {
        let cluster = cluster(tx, &auth.scope, input.cluster.as_deref())?;
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for text in &asked {
            match find(tx, &auth.scope, &cluster, text) {
                Some(instance) if instance.status == ContainerInstanceStatus::Inactive => failures.push(Failure {
                    arn: Some(instance.arn.to_string()),
                    reason: Some("INACTIVE".to_owned()),
                    ..Failure::default()
                }),
                Some(mut instance) => {
                    instance.status = status;
                    tx.put(instance.clone());
                    found.push(shape(tx, &instance, false));
                }
                None => {
                    let arn = names::in_cluster(&auth.scope, &cluster.name, "container-instance", text);
                    failures.push(missing(arn.unwrap_or_else(|| text.clone())));
                }
            }
        }
        Ok(UpdateContainerInstancesStateResponse { container_instances: Some(found), failures: Some(failures) })
    })
    .await
}

/// The instance of a cluster that a request means by its id or ARN.
pub(super) fn find(view: &Snapshot, scope: &Scope, cluster: &Cluster, text: &str) -> Option<Stored> {
    let arn = names::in_cluster(scope, &cluster.name, "container-instance", text)?;
    view.get::<Stored>(&arn).map(|instance| Stored::clone(&instance))
}

/// How well an instance is. What its agent has not said is not known.
fn health(view: &Snapshot, stored: &Stored) -> ContainerInstanceHealthStatus {
    let runtime = view.get::<RuntimeHealth>(stored.arn.as_str());
    let overall = runtime.as_ref().map_or(InstanceHealthStatus::InsufficientData, |runtime| runtime.status);
    let detail = |runtime: &RuntimeHealth| InstanceHealthCheckResult {
        r#type: Some("CONTAINER_RUNTIME".to_owned()),
        status: Some(runtime.status.as_str().to_owned()),
        status_reason: runtime.reason.clone(),
        last_updated: Some(time(runtime.last_updated)),
        last_status_change: Some(time(runtime.last_status_change)),
    };
    ContainerInstanceHealthStatus {
        overall_status: Some(overall.as_str().to_owned()),
        details: Some(runtime.iter().map(|runtime| detail(runtime)).collect()),
    }
}

/// A container instance, as RegisterContainerInstance answers it too.
pub(super) fn shape(view: &Snapshot, stored: &Stored, with_tags: bool) -> ContainerInstance {
    let arn = stored.arn.as_str();
    let (mut cpu, mut memory, mut running, mut pending) = (0u32, 0u32, 0, 0);
    let mut held = BTreeSet::new();
    let mut free_gpus = stored.gpus.clone();
    for task in view.find::<Task>(Task::ON_INSTANCE, arn) {
        cpu = cpu.saturating_add(task.cpu);
        memory = memory.saturating_add(task.memory);
        running += usize::from(task.last_status == TaskStatus::Running);
        pending += usize::from(task.last_status.is_starting());
        held.extend(task.held_ports());
        free_gpus.retain(|id| task.held_gpus().all(|held| held != id));
    }
    // What remains of the ports is told as what is taken of them.
    let ports = |reserved: &[u16], held: &BTreeSet<HostPort>, protocol: TransportProtocol| {
        let held = held.iter().filter(|port| port.protocol == protocol).map(|port| port.port);
        let all: BTreeSet<u16> = reserved.iter().copied().chain(held).collect();
        all.iter().map(u16::to_string).collect::<Vec<_>>()
    };
    let resources = |cpu: u32, memory: u32, held: &BTreeSet<HostPort>, gpus: &[String]| {
        let integer = |name: &str, value: u32| Resource {
            name: Some(name.to_owned()),
            r#type: Some("INTEGER".to_owned()),
            integer_value: Some(number(value)),
            double_value: Some(0.0),
            long_value: Some(0),
            ..Resource::default()
        };
        let set = |name: &str, values: Vec<String>| Resource {
            name: Some(name.to_owned()),
            r#type: Some("STRINGSET".to_owned()),
            string_set_value: Some(values),
            integer_value: Some(0),
            double_value: Some(0.0),
            long_value: Some(0),
        };
        let mut resources = vec![
            integer("CPU", cpu),
            integer("MEMORY", memory),
            set("PORTS", ports(&stored.reserved_ports, held, TransportProtocol::Tcp)),
            set("PORTS_UDP", ports(&stored.reserved_udp_ports, held, TransportProtocol::Udp)),
        ];
        if !stored.gpus.is_empty() {
            resources.push(set("GPU", gpus.to_vec()));
        }
        resources
    };
    let attributes = stored.attributes.iter().map(|attribute| Attribute {
        name: Some(attribute.name.clone()),
        value: attribute.value.clone(),
        ..Attribute::default()
    });
    ContainerInstance {
        container_instance_arn: Some(arn.to_owned()),
        ec2_instance_id: stored.ec2_instance_id.clone(),
        version: Some(1),
        version_info: Some(VersionInfo {
            agent_version: Some(stored.agent_version.clone()),
            agent_hash: Some(stored.agent_hash.clone()).filter(|hash| !hash.is_empty()),
            docker_version: Some(stored.runtime_version.clone()),
        }),
        remaining_resources: Some(resources(
            stored.cpu.saturating_sub(cpu),
            stored.memory.saturating_sub(memory),
            &held,
            &free_gpus,
        )),
        registered_resources: Some(resources(stored.cpu, stored.memory, &BTreeSet::new(), &stored.gpus)),
        status: Some(stored.status.as_str().to_owned()),
        agent_connected: Some(
            stored.status != ContainerInstanceStatus::Inactive && view.contains::<AgentConnection>(arn),
        ),
        running_tasks_count: Some(count(running)),
        pending_tasks_count: Some(count(pending)),
        attributes: Some(attributes.collect()),
        registered_at: Some(time(stored.registered_at)),
        attachments: Some(Vec::new()),
        tags: Some(if with_tags { tags_shape(&stored.tags) } else { Vec::new() }),
        ..ContainerInstance::default()
    }
}
