//! Tasks as responses have them.

use api::ecs::*;
use domain::ecs::container_definition::port_range;
use domain::ecs::{
    AgentConnection, ContainerInstance, DesiredStatus, LaunchType, TaskContainer, TaskDefinition, TaskStatus,
};
use store::Snapshot;

use super::{Stored, overrides};
use crate::ecs::common::{number, pair, tags_shape, time};

/// GiB of disk of a Fargate task whose definition names no size.
const DEFAULT_STORAGE: u32 = 20;

/// A task, with its tags if they were asked for.
pub(super) fn task(view: &Snapshot, task: &Stored, with_tags: bool) -> Task {
    let over = task.last_status == TaskStatus::Stopped;
    let connected = task.connected_at.is_some()
        && (over
            || task.container_instance_arn.as_ref().is_some_and(|arn| view.contains::<AgentConnection>(arn.as_str())));
    let fargate = task.launch_type == LaunchType::Fargate;
    let storage = fargate.then(|| {
        let definition = view.get::<TaskDefinition>(task.task_definition_arn.as_str());
        number(definition.and_then(|definition| definition.ephemeral_storage).unwrap_or(DEFAULT_STORAGE))
    });
    let instance = task.container_instance_arn.as_ref().filter(|_| !fargate);
    let zone = match (&task.interface, instance) {
        (Some(interface), _) => Some(interface.availability_zone.clone()),
        (None, Some(arn)) => view.get::<ContainerInstance>(arn.as_str()).and_then(|one| one.zone().map(str::to_owned)),
        (None, None) => None,
    };
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    Task {
        attachments: Some(attachment(task).into_iter().collect()),
        attributes: Some(vec![Attribute {
            name: Some("ecs.cpu-architecture".to_owned()),
            value: Some(architecture.to_owned()),
            ..Attribute::default()
        }]),
        availability_zone: zone,
        capacity_provider_name: task.capacity_provider.clone(),
        cluster_arn: Some(task.cluster_arn.to_string()),
        container_instance_arn: instance.map(ToString::to_string),
        connectivity: task.connected_at.map(|_| if connected { "CONNECTED" } else { "DISCONNECTED" }.to_owned()),
        connectivity_at: task.connected_at.map(time),
        containers: Some(task.containers.iter().map(|known| container(task, known)).collect()),
        cpu: Some(task.cpu.to_string()),
        created_at: Some(time(task.created_at)),
        desired_status: Some(task.desired_status.as_str().to_owned()),
        enable_execute_command: Some(false),
        execution_stopped_at: task.execution_stopped_at.map(time),
        group: Some(task.group.clone()),
        health_status: Some(task.health_status().as_str().to_owned()),
        inference_accelerators: None,
        last_status: Some(task.last_status.as_str().to_owned()),
        launch_type: Some(task.launch_type.as_str().to_owned()),
        memory: Some(task.memory.to_string()),
        overrides: Some(overrides::shape(
            &task.overrides,
            task.containers.iter().map(|container| container.name.clone()),
        )),
        platform_version: task.platform_version.clone(),
        platform_family: fargate.then(|| domain::ecs::fargate::PLATFORM_FAMILY.to_owned()),
        pull_started_at: task.pull_started_at.map(time),
        pull_stopped_at: task.pull_stopped_at.map(time),
        started_at: task.started_at.map(time),
        started_by: task.started_by.clone(),
        stop_code: task.stop_code.map(|code| code.as_str().to_owned()),
        stopped_at: task.stopped_at.map(time),
        stopped_reason: task.stopped_reason.clone(),
        stopping_at: task.stopping_at.map(time),
        tags: Some(if with_tags { tags_shape(&task.tags) } else { Vec::new() }),
        task_arn: Some(task.arn.to_string()),
        task_definition_arn: Some(task.task_definition_arn.to_string()),
        version: Some(i64::try_from(task.version).unwrap_or(i64::MAX)),
        ephemeral_storage: storage.map(|size| EphemeralStorage { size_in_gi_b: Some(size) }),
        fargate_ephemeral_storage: storage
            .map(|size| TaskEphemeralStorage { size_in_gi_b: Some(size), kms_key_id: None }),
        ..Task::default()
    }
}

fn attachment(task: &Stored) -> Option<Attachment> {
    let interface = task.interface.as_ref()?;
    let status = match (task.last_status, interface.attached) {
        (TaskStatus::Stopped, _) => "DELETED",
        (_, true) => "ATTACHED",
        (_, false) if task.desired_status == DesiredStatus::Running => "PRECREATED",
        (_, false) => "DETACHED",
    };
    Some(Attachment {
        id: Some(interface.attachment_id.clone()),
        r#type: Some("ElasticNetworkInterface".to_owned()),
        status: Some(status.to_owned()),
        details: Some(vec![
            pair("subnetId", &interface.subnet_id),
            pair("networkInterfaceId", &interface.network_interface_id),
            pair("macAddress", &interface.mac_address),
            pair("privateDnsName", &interface.private_dns_name),
            pair("privateIPv4Address", interface.private_address.to_string()),
        ]),
    })
}

fn container(task: &Stored, known: &TaskContainer) -> Container {
    let binding = |binding: &domain::ecs::NetworkBinding| NetworkBinding {
        bind_ip: Some(binding.bind_ip.clone()),
        container_port: binding.range.is_none().then(|| binding.container_port.into()),
        host_port: binding.range.is_none().then(|| binding.host_port.into()),
        container_port_range: binding.range.map(|count| port_range(binding.container_port, count)),
        host_port_range: binding.range.map(|count| port_range(binding.host_port, count)),
        protocol: Some(binding.protocol.clone()),
    };
    let interfaces = task.interface.iter().map(|interface| NetworkInterface {
        attachment_id: Some(interface.attachment_id.clone()),
        private_ipv4_address: Some(interface.private_address.to_string()),
        ..NetworkInterface::default()
    });
    Container {
        container_arn: Some(known.arn.to_string()),
        task_arn: Some(task.arn.to_string()),
        name: Some(known.name.clone()),
        image: Some(known.image.clone()),
        image_digest: known.image_digest.clone(),
        runtime_id: known.runtime_id.clone(),
        last_status: Some(known.last_status.as_str().to_owned()),
        exit_code: known.exit_code,
        reason: known.reason.clone(),
        network_bindings: Some(known.network_bindings.iter().map(binding).collect()),
        network_interfaces: Some(interfaces.collect()),
        health_status: Some(known.health_status.as_str().to_owned()),
        cpu: Some(known.cpu.to_string()),
        memory: known.memory.map(|memory| memory.to_string()),
        memory_reservation: known.memory_reservation.map(|memory| memory.to_string()),
        gpu_ids: (!known.gpu_ids.is_empty()).then(|| known.gpu_ids.clone()),
        ..Container::default()
    }
}
