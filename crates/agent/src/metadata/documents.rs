//! The metadata documents of a task and its containers, versions 2 to 4, with the members that Fargate, or Amazon's
//! agent on other instances, gives them.

use domain::Timestamp;
use domain::agent_protocol::payload::{Container, Task};
use serde_json::{Map, Value, json};

use super::Context;
use crate::engine::health::HealthStatus;
use crate::engine::record::{
    ContainerRecord, ContainerStatus, Desired, TaskRecord, TaskStatus, docker_config, docker_host_config,
};
use crate::instance::Kind;
use crate::logs::LogDriver;
use crate::network::Mode;

/// RFC 3339 with nanoseconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    wire::Timestamp(time.millis()).to_rfc3339()
}

fn desired(record: &TaskRecord) -> &'static str {
    match record.desired {
        Desired::Running => "RUNNING",
        Desired::Stopped => "STOPPED",
    }
}

/// The document of one container.
pub fn container(record: &TaskRecord, container: &ContainerRecord, version: u8, kind: Kind) -> Value {
    let definition = record.task.containers.iter().find(|definition| definition.name == container.name);
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    set("DockerId", json!(container.runtime_id));
    set("Name", json!(container.name));
    set("DockerName", json!(container.runtime_name.as_ref().unwrap_or(&container.name)));
    if let Some(definition) = definition {
        set("Image", json!(definition.defined_image.as_ref().unwrap_or(&definition.image)));
    }
    set("ImageID", json!(container.image_digest.clone().unwrap_or_default()));
    let ports = ports(container);
    if !ports.is_empty() {
        set("Ports", Value::Array(ports));
    }
    if let Some(definition) = definition {
        set("Labels", labels(record, container, definition));
    }
    set("DesiredStatus", json!(desired(record)));
    set("KnownStatus", json!(known(container.status)));
    if let Some(code) = container.exit_code {
        set("ExitCode", json!(code));
    }
    if let Some(definition) = definition {
        let mut limits = json!({ "CPU": definition.cpu.max(2) });
        if definition.memory > 0 {
            limits["Memory"] = json!(definition.memory);
        }
        set("Limits", limits);
    }
    let times = [
        ("CreatedAt", container.created_at),
        ("StartedAt", container.started_at),
        ("FinishedAt", container.finished_at),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            set(name, json!(rfc3339(time)));
        }
    }
    set("Type", json!("NORMAL"));
    if let Some(health) = container.health.as_ref().filter(|health| health.status != HealthStatus::Unknown) {
        let mut shown = json!({ "status": health.status.as_str(), "output": health.output });
        if let Some(since) = health.since {
            shown["statusSince"] = json!(rfc3339(since));
        }
        if let Some(code) = health.exit_code {
            shown["exitCode"] = json!(code);
        }
        set("Health", shown);
    }
    if version >= 4 {
        if let Some(log) = definition.and_then(|definition| docker_host_config(definition).log_config) {
            let id = container.runtime_id.as_deref().unwrap_or_default();
            // The driver was checked when the task was received.
            let driver = LogDriver::new(&log).unwrap_or(LogDriver::None);
            set("LogDriver", json!(log.kind));
            set("LogOptions", json!(driver.shown(&log, &record.task.arn, &container.name, id)));
        }
        if let Some(definition) = definition.filter(|definition| !definition.container_arn.is_empty()) {
            set("ContainerARN", json!(definition.container_arn));
        }
    }
    set("Networks", networks(&record.task, container, version));
    if version >= 4 {
        if kind == Kind::Fargate {
            set("Snapshotter", json!("overlayfs"));
        }
        if definition.is_some_and(|definition| definition.restart_policy.as_ref().is_some_and(|policy| policy.enabled))
        {
            set("RestartCount", json!(container.restart_count));
        }
    }
    Value::Object(out)
}

fn known(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::None => "NONE",
        ContainerStatus::Pulled => "PULLED",
        ContainerStatus::Running => "RUNNING",
        ContainerStatus::Stopped => "STOPPED",
    }
}

/// The labels by which a container is known to be one of a task.
pub fn own_labels<'a>(task: &'a Task, container: &'a str) -> [(&'static str, &'a str); 5] {
    [
        ("com.amazonaws.ecs.cluster", cluster(task)),
        ("com.amazonaws.ecs.container-name", container),
        ("com.amazonaws.ecs.task-arn", &task.arn),
        ("com.amazonaws.ecs.task-definition-family", &task.family),
        ("com.amazonaws.ecs.task-definition-version", &task.version),
    ]
}

fn labels(record: &TaskRecord, container: &ContainerRecord, definition: &Container) -> Value {
    let mut labels = json!({});
    for (name, value) in own_labels(&record.task, &container.name) {
        labels[name] = json!(value);
    }
    for (name, value) in docker_config(definition).labels {
        labels[name] = json!(value);
    }
    labels
}

fn cluster(task: &Task) -> &str {
    task.task_cluster_arn.as_deref().unwrap_or_default()
}

/// Published ports as the metadata endpoint shows them.
pub fn ports(container: &ContainerRecord) -> Vec<Value> {
    let shown = |binding: &crate::engine::record::NetworkBinding, offset: u16| {
        json!({
            "ContainerPort": binding.container_port.saturating_add(offset),
            "Protocol": binding.protocol,
            "HostPort": binding.host_port.saturating_add(offset),
            "HostIp": binding.bind_ip,
        })
    };
    let bindings = container.network.bindings.iter();
    bindings.flat_map(|binding| (0..binding.range.unwrap_or(1)).map(move |offset| shown(binding, offset))).collect()
}

/// The networks a container is in: one of its own, or its task's interfaces.
pub fn networks(task: &Task, container: &ContainerRecord, version: u8) -> Value {
    match Mode::of(task) {
        Ok(Mode::Awsvpc) | Err(_) => interfaces(task, version),
        Ok(mode) => {
            let address = container.network.address.map(|address| address.to_string()).unwrap_or_default();
            json!([{ "NetworkMode": mode.as_str(), "IPv4Addresses": [address] }])
        }
    }
}

fn interfaces(task: &Task, version: u8) -> Value {
    let mut networks = Vec::new();
    for (index, interface) in task.elastic_network_interfaces.iter().enumerate() {
        let addresses: Vec<&str> =
            interface.ipv4_addresses.iter().map(|address| address.private_address.as_str()).collect();
        let mut network = json!({ "NetworkMode": "awsvpc", "IPv4Addresses": addresses });
        if version >= 4 {
            network["AttachmentIndex"] = json!(index);
            network["MACAddress"] = json!(interface.mac_address);
            network["IPv4SubnetCIDRBlock"] = json!(subnet(&interface.subnet_gateway_ipv4_address));
            network["DomainNameServers"] = json!(interface.domain_name_servers);
            network["DomainNameSearchList"] = json!(interface.domain_name);
            network["PrivateDNSName"] = json!(interface.private_dns_name);
            network["SubnetGatewayIpv4Address"] = json!(interface.subnet_gateway_ipv4_address);
        }
        networks.push(network);
    }
    Value::Array(networks)
}

/// `10.0.1.1/24` → `10.0.1.0/24`.
fn subnet(gateway: &str) -> String {
    let parsed = gateway.split_once('/').and_then(|(address, length)| {
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Some(format!("{}/{length}", std::net::Ipv4Addr::from(u32::from(address) & mask)))
    });
    parsed.unwrap_or_default()
}

/// The document of the task.
pub fn task(context: &Context, record: &TaskRecord, version: u8) -> Value {
    let task = &record.task;
    let mut out = Map::new();
    let mut set = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    set("Cluster", json!(cluster(task)));
    set("TaskARN", json!(task.arn));
    set("Family", json!(task.family));
    set("Revision", json!(task.version));
    set("DesiredStatus", json!(desired(record)));
    let known = match record.status() {
        TaskStatus::None => "NONE",
        TaskStatus::Pending => "PULLED",
        TaskStatus::Running => "RUNNING",
        TaskStatus::Stopped => "STOPPED",
    };
    set("KnownStatus", json!(known));
    let mut limits = Map::new();
    if let Some(cpu) = task.cpu {
        limits.insert("CPU".to_owned(), json!(cpu));
    }
    if let Some(memory) = task.memory {
        limits.insert("Memory".to_owned(), json!(memory));
    }
    if !limits.is_empty() {
        set("Limits", Value::Object(limits));
    }
    let times = [
        ("PullStartedAt", record.pull_started_at),
        ("PullStoppedAt", record.pull_stopped_at),
        ("ExecutionStoppedAt", record.execution_stopped_at),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            set(name, json!(rfc3339(time)));
        }
    }
    set("AvailabilityZone", json!(context.availability_zone));
    if let Some(launch_type) = task.launch_type.as_ref().filter(|_| version >= 4) {
        set("LaunchType", json!(launch_type));
    }
    let containers: Vec<Value> =
        record.containers.iter().map(|one| self::container(record, one, version, context.kind)).collect();
    set("Containers", Value::Array(containers));
    if version >= 4 {
        if let Some(service) = &task.service_name {
            set("ServiceName", json!(service));
        }
        let fargate = context.kind == Kind::Fargate;
        if let Some((used, total)) = fargate.then(|| (context.storage)()).flatten() {
            set("EphemeralStorageMetrics", json!({ "Utilized": used >> 20, "Reserved": total >> 20 }));
        }
        if fargate && let Ok(accuracy) = runtime::clock_accuracy() {
            set("ClockDrift", clock_drift(accuracy, domain::Clock::system_now()));
        }
        set("FaultInjectionEnabled", json!(false));
    }
    Value::Object(out)
}

/// How far the host's clock may be from UTC, in milliseconds, and when that was so.
fn clock_drift(accuracy: runtime::ClockAccuracy, now: Timestamp) -> Value {
    json!({
        "ClockErrorBound": accuracy.error_bound.as_secs_f64() * 1000.0,
        "ReferenceTimestamp": rfc3339(Timestamp(now.millis() / 1000 * 1000)),
        "ClockSynchronizationStatus": if accuracy.synchronized { "SYNCHRONIZED" } else { "NOT_SYNCHRONIZED" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_told_in_milliseconds_and_whole_seconds() {
        let accuracy =
            runtime::ClockAccuracy { error_bound: std::time::Duration::from_micros(545), synchronized: true };
        let told = clock_drift(accuracy, Timestamp(1_631_033_864_123));
        assert_eq!(told["ClockErrorBound"], 0.545);
        assert_eq!(told["ReferenceTimestamp"], "2021-09-07T16:57:44Z");
        assert_eq!(told["ClockSynchronizationStatus"], "SYNCHRONIZED");
    }

    #[test]
    fn a_container_behind_the_bridge_shows_its_address_and_ports() {
        let definition = Container { name: "web".into(), ..Container::default() };
        let mut record = TaskRecord::new(Task { containers: vec![definition], ..Task::default() });
        let binding = crate::engine::record::NetworkBinding {
            bind_ip: "0.0.0.0".into(),
            container_port: 80,
            host_port: 49_153,
            range: None,
            protocol: "tcp".into(),
        };
        record.containers[0].network.address = Some(std::net::Ipv4Addr::new(172, 17, 0, 2));
        record.containers[0].network.bindings = vec![binding];
        let shown = container(&record, &record.containers[0], 4, Kind::External);
        let port = json!({ "ContainerPort": 80, "Protocol": "tcp", "HostPort": 49_153, "HostIp": "0.0.0.0" });
        assert_eq!(shown["Ports"], json!([port]));
        assert_eq!(shown["Networks"], json!([{ "NetworkMode": "bridge", "IPv4Addresses": ["172.17.0.2"] }]));
        assert!(shown.get("Snapshotter").is_none());
    }

    #[test]
    fn a_subnet_is_read_from_its_gateway() {
        assert_eq!(subnet("172.31.17.1/20"), "172.31.16.0/20");
        assert_eq!(subnet("10.0.0.1/0"), "0.0.0.0/0");
        assert_eq!(subnet("10.0.0.1"), "");
        assert_eq!(subnet("10.0.0.1/40"), "");
    }
}
