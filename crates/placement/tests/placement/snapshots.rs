//! Instances as a snapshot shows them, and demands as tasks' definitions have them.

use std::{sync::Arc, time::Duration};

use domain::{
    Timestamp,
    ecs::{
        AgentConnection, ContainerDefinition, ContainerInstance, ContainerInstanceStatus, ContainerOverride,
        DesiredStatus, HostPort, NetworkBinding, NetworkMode, NewTask, PlacementConstraint, PortMapping, Task,
        TaskInterface, TaskStatus, TransportProtocol,
    },
};
use placement::{Demand, Fleets, Instance};
use store::{Kinds, Snapshot, Store, Transaction, memory::Memory};

use crate::support::*;

/// What placement reads.
pub fn kinds() -> Kinds {
    Kinds::new().durable::<ContainerInstance>().durable::<Task>().volatile::<AgentConnection>()
}

fn view(write: impl FnOnce(&mut Transaction) + Send + 'static) -> Snapshot {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(Memory::default(), kinds()).unwrap();
        let done = store.transact(move |tx| {
            write(tx);
            Ok::<_, String>(())
        });
        assert!(done.await.is_ok());
        store.snapshot()
    })
}

fn mapping(host_port: u16, protocol: TransportProtocol) -> PortMapping {
    PortMapping { container_port: 80, range: None, host_port, protocol, name: None }
}

#[test]
fn what_is_free_is_what_no_task_holds_until_it_is_stopped() {
    let mut registered = stored("a", 1024, 2048, &[("stack", "prod"), ("ecs.instance-type", "t3.micro")]);
    registered.gpus = ["x", "y", "z"].map(str::to_owned).to_vec();
    registered.reserved_udp_ports = vec![53];
    let mut draining = stored("b", 1024, 2048, &[]);
    draining.status = ContainerInstanceStatus::Draining;
    let mut gone = stored("c", 1024, 2048, &[]);
    gone.status = ContainerInstanceStatus::Inactive;
    let arn = registered.arn.clone();
    let mut parts = parts();
    parts.definition.container_definitions[0].port_mappings = vec![mapping(8080, TransportProtocol::Tcp)];
    let mut ids = seed(1);
    parts.definition.container_definitions[0].gpus = 1;
    let mut make = |group: &str, gpu: &str| {
        let new = NewTask { gpu_ids: vec![gpu.to_owned()], ..parts.new_task(group, Some(&arn)) };
        Task::new(new, &mut ids, Timestamp(0))
    };
    let mut running = make("service:web", "y");
    running.interface = Some(TaskInterface {
        attachment_id: String::new(),
        network_interface_id: "eni-1".into(),
        subnet_id: String::new(),
        availability_zone: String::new(),
        mac_address: String::new(),
        private_address: std::net::Ipv4Addr::LOCALHOST,
        private_dns_name: String::new(),
        attached: true,
    });
    running.last_status = TaskStatus::Running;
    running.containers[0].network_bindings = vec![NetworkBinding {
        bind_ip: "0.0.0.0".into(),
        container_port: 81,
        host_port: 32768,
        range: None,
        protocol: "udp".into(),
    }];
    let mut stopping = make("service:web", "x");
    stopping.last_status = TaskStatus::Running;
    stopping.desired_status = DesiredStatus::Stopped;
    let mut last = make("service:old", "gone since the instance registered again");
    last.desired_status = DesiredStatus::Stopped;
    let mut stopped = make("family:f", "z");
    stopped.desired_status = DesiredStatus::Stopped;
    stopped.last_status = TaskStatus::Stopped;
    let view = view({
        let arn = arn.clone();
        move |tx| {
            [registered, draining, gone].into_iter().for_each(|instance| tx.put(instance));
            [running, stopping, last, stopped].into_iter().for_each(|task| tx.put(task));
            tx.put(AgentConnection {
                container_instance_arn: arn,
                connected_at: Timestamp(0),
                connection_id: "1".into(),
                patience: Duration::ZERO,
            });
        }
    });

    Fleets::new().ask(&view, &cluster().arn, |fleet| {
        let connected = |name: &str| Some(fleet.get(&stored(name, 0, 0, &[]).arn)?.connected);
        let found = ["a", "b", "c"].map(connected);
        assert_eq!((found, fleet.len()), ([Some(true), Some(false), None], 2), "INACTIVE instances are none");
    });
    let instance = placement::instance(&view, view.get::<ContainerInstance>(arn.as_str()).unwrap());
    assert_eq!((instance.free_cpu, instance.free_memory), (1024 - 3 * 128, 2048 - 3 * 256));
    let udp = |port| HostPort { protocol: TransportProtocol::Udp, port };
    assert_eq!(instance.held_ports().collect::<Vec<_>>(), [tcp(22), tcp(8080), udp(53), udp(32768)]);
    assert_eq!(instance.running_tasks, 2);
    assert_eq!(instance.free_gpus().collect::<Vec<_>>(), ["z"], "a STOPPED task has given it back");
    assert!(!instance.has_free_interface());
    let tasks: Vec<_> = ["service:web", "service:old", "family:f"].map(|group| instance.tasks_of(group)).into();
    assert_eq!(tasks, [1, 0, 0], "only tasks that are wanted count for spreading");
    for (expression, expected) in [
        ("task:group == service:old", true),
        ("task:group == family:f", false),
        ("runningTasksCount == 2", true),
        ("agentConnected == true", true),
        ("attribute:stack == prod", true),
        ("ec2InstanceId == i-a", true),
        ("agentVersion >= 1.92", true),
    ] {
        assert_eq!(instance.selected_by(&query(expression)), expected, "{expression}");
    }
}

#[test]
fn more_than_there_is_leaves_nothing_free() {
    let parts = parts();
    let registered = Arc::new(stored("a", 100, 100, &[]));
    let mut instance = Instance::empty(registered, true);
    instance.hold(&Task::new(parts.new_task("", None), &mut seed(1), Timestamp(0)));
    instance.take(&demand(u32::MAX, u32::MAX));
    assert_eq!((instance.free_cpu, instance.free_memory), (0, 0));
}

#[test]
fn a_task_needs_what_its_definition_and_its_placement_say() {
    let mut parts = parts();
    parts.definition.requires_attributes = vec!["x".into()];
    parts.definition.container_definitions[0].port_mappings =
        vec![mapping(8080, TransportProtocol::Tcp), mapping(0, TransportProtocol::Tcp)];
    parts.definition.placement_constraints = vec![PlacementConstraint::MemberOf("attribute:x exists".into())];
    parts.placement.constraints =
        vec![PlacementConstraint::DistinctInstance, PlacementConstraint::MemberOf("attribute:y exists".into())];
    let demand = Demand::of(&parts.new_task("", None), no_time).unwrap();
    assert_eq!((demand.cpu, demand.memory, demand.group.as_str()), (128, 256, "family:f"));
    assert_eq!((demand.host_ports, demand.required_attributes), (vec![tcp(8080)], vec!["x".to_owned()]));
    assert_eq!((demand.distinct_instance, demand.member_of.len(), demand.network_interface), (true, 2, false));
    assert_eq!(demand.gpus, 0);

    parts.definition.container_definitions.push(ContainerDefinition::new("aside", "i"));
    parts.definition.container_definitions[1].gpus = 3;
    let mut new = parts.new_task("", None);
    assert_eq!(Demand::of(&new, no_time).unwrap().gpus, 3);
    new.overrides.containers = [("app", 2), ("aside", 1)]
        .map(|(name, gpus)| ContainerOverride { name: name.into(), gpus: Some(gpus), ..ContainerOverride::default() })
        .to_vec();
    assert_eq!(Demand::of(&new, no_time).unwrap().gpus, 3);
    new.gpu_ids = ["x", "y", "z"].map(str::to_owned).to_vec();
    let task = Task::new(new, &mut seed(1), Timestamp(0));
    assert_eq!(task.containers.iter().map(|one| one.gpu_ids.len()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(task.held_gpus().collect::<Vec<_>>(), ["x", "y", "z"]);

    parts.definition.network_mode = NetworkMode::Awsvpc;
    let demand = Demand::of(&parts.new_task("batch", None), no_time).unwrap();
    assert_eq!((demand.host_ports.len(), demand.network_interface, demand.group.as_str()), (0, true, "batch"));

    parts.definition.placement_constraints = vec![PlacementConstraint::MemberOf("attribute:x ==".into())];
    let error = Demand::of(&parts.new_task("", None), no_time).unwrap_err();
    assert_eq!(error.to_string(), "a value is missing at the end (at character 15)");
}
