//! The nouns a simulated world is made of.

use std::net::Ipv4Addr;

use domain::{
    Arn, IdSource, Scope, Tags, Timestamp,
    balancing::{
        HealthCheck, Listener, ObservedHealth, ProtocolVersion, TargetGroup, TargetGroupAttributes, TargetRegistration,
        TargetType,
    },
    ecs::{
        AgentAbsence, AgentConnection, Attribute, CircuitBreaker, Cluster, Compute, ContainerDefinition,
        ContainerInstance, ContainerInstanceStatus, LaunchType, NetworkMode, Placement, SchedulingStrategy, Service,
        ServiceDeployment, ServiceEvent, ServiceRevision, ServiceStatus, Task, TaskDefinition, TaskDefinitionStatus,
        TaskLoadBalancer, TaskNetwork, container_instance, names,
    },
    instances::{Instance, Machine, MetadataOptions, Observed, Power, ShutdownBehavior},
    network::{NetworkInterface, NetworkInterfaceOwner, Subnet},
};
use store::Kinds;

/// All that a world's store keeps.
pub fn kinds() -> Kinds {
    Kinds::new()
        .durable::<Cluster>()
        .durable::<TaskDefinition>()
        .durable::<Task>()
        .durable::<Service>()
        .durable::<ServiceEvent>()
        .durable::<ServiceRevision>()
        .durable::<ServiceDeployment>()
        .durable::<ContainerInstance>()
        .durable::<Instance>()
        .durable::<NetworkInterface>()
        .durable::<Subnet>()
        .durable::<TargetGroup>()
        .durable::<TargetRegistration>()
        .durable::<Listener>()
        .volatile::<ObservedHealth>()
        .volatile::<AgentConnection>()
        .volatile::<AgentAbsence>()
}

/// Where tasks can be.
pub const ZONES: [&str; 2] = ["us-east-1a", "us-east-1b"];

pub fn subnet(scope: &Scope, zone: &str) -> Subnet {
    Subnet {
        scope: scope.clone(),
        subnet_id: format!("subnet-{zone}"),
        vpc_id: "vpc-1".into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        availability_zone: zone.to_owned(),
        default_for_az: true,
        map_public_ip_on_launch: false,
        tags: Tags::default(),
    }
}

pub fn deploy(
    service: &mut Service,
    revision: u32,
    load_balancers: Vec<TaskLoadBalancer>,
    ids: &mut IdSource,
    now: Timestamp,
) -> (ServiceRevision, ServiceDeployment) {
    let made = ServiceRevision {
        arn: ServiceRevision::new_arn(service, ids),
        service_arn: service.arn.clone(),
        cluster_arn: service.cluster_arn.clone(),
        task_definition_arn: names::task_definition(&service.scope, "f", revision),
        network: Some(TaskNetwork {
            subnets: ZONES.iter().map(|zone| subnet(&service.scope, zone).subnet_id).collect(),
            ..TaskNetwork::default()
        }),
        load_balancers,
        compute: Compute::by_launch_type(LaunchType::Fargate),
        image_digests: Default::default(),
        created_at: now,
    };
    let begun = service.begin(&made, ids, now);
    (made, begun)
}

pub fn definition(scope: &Scope, revision: u32) -> TaskDefinition {
    TaskDefinition {
        arn: names::task_definition(scope, "f", revision),
        scope: scope.clone(),
        family: "f".into(),
        revision,
        status: TaskDefinitionStatus::Active,
        task_role_arn: None,
        execution_role_arn: None,
        network_mode: NetworkMode::Awsvpc,
        has_network_mode: true,
        cpu: Some(256),
        memory: Some(512),
        requires_compatibilities: Vec::new(),
        compatibilities: Vec::new(),
        requires_attributes: Vec::new(),
        cpu_architecture: None,
        operating_system_family: None,
        ephemeral_storage: None,
        placement_constraints: Vec::new(),
        container_definitions: vec![ContainerDefinition::new("app", "i")],
        tags: Tags::default(),
        registered_at: Timestamp(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
    }
}

pub fn group(scope: &Scope) -> TargetGroup {
    TargetGroup {
        arn: scope.arn("elasticloadbalancing", "targetgroup/web/0123456789abcdef"),
        scope: scope.clone(),
        name: "web".into(),
        target_type: TargetType::Ip,
        protocol_version: ProtocolVersion::Http1,
        secure: false,
        port: 80,
        vpc_id: "vpc-1".into(),
        health_check: HealthCheck::default(),
        attributes: TargetGroupAttributes { deregistration_delay_seconds: 5, ..TargetGroupAttributes::default() },
        tcp: None,
        tags: Tags::default(),
        created_at: Timestamp(0),
    }
}

/// What becomes of the tasks of a task definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Works {
    Well,
    NeverStarts,
    /// Its health check fails.
    Unhealthy,
    /// It ends as soon as it runs.
    Exits,
}

/// The revisions of each family, by number from 1 on.
pub const REVISIONS: [Works; 5] = [Works::Well, Works::Well, Works::NeverStarts, Works::Unhealthy, Works::Exits];

/// What becomes of the tasks of this one.
pub fn works(definition: &Arn) -> Works {
    let revision = definition.resource_name().rsplit(':').next().and_then(|number| number.parse::<usize>().ok());
    revision.and_then(|number| REVISIONS.get(number.checked_sub(1)?).copied()).unwrap_or(Works::Well)
}

/// A service without a deployment.
pub fn service(scope: &Scope, name: &str, strategy: SchedulingStrategy, now: Timestamp) -> Service {
    Service {
        arn: names::service(scope, "default", name),
        scope: scope.clone(),
        cluster_arn: names::cluster(scope, "default"),
        name: name.into(),
        status: ServiceStatus::Active,
        scheduling_strategy: strategy,
        desired_count: 0,
        platform_version: String::new(),
        placement: Placement::default(),
        zone_rebalancing: false,
        rebalancing: None,
        minimum_healthy_percent: 100,
        maximum_percent: 200,
        health_check_grace_period_seconds: None,
        enable_ecs_managed_tags: false,
        propagate_tags: None,
        tags: Tags::default(),
        created_at: now,
        created_by: String::new(),
        client_token: None,
        circuit_breaker: CircuitBreaker::default(),
        deployments: Vec::new(),
        last_completed: None,
        steady: false,
        events: 0,
    }
}

/// A container instance of a cluster, with the attributes that placement asks for.
pub fn container_instance(scope: &Scope, cluster: &str, ids: &mut IdSource, now: Timestamp) -> ContainerInstance {
    ContainerInstance {
        arn: names::new_container_instance(scope, cluster, ids),
        scope: scope.clone(),
        cluster_arn: names::cluster(scope, cluster),
        ec2_instance_id: None,
        status: ContainerInstanceStatus::Active,
        cpu: 1024,
        memory: 2048,
        reserved_ports: Vec::new(),
        reserved_udp_ports: Vec::new(),
        gpus: Vec::new(),
        attributes: Vec::new(),
        tags: Tags::default(),
        registered_at: now,
        agent_version: String::new(),
        runtime_version: String::new(),
        agent_hash: String::new(),
        client_token: None,
    }
}

/// The zone and the class of a container instance.
pub fn attributes(zone: &str, class: &str) -> Vec<Attribute> {
    let attribute = |name: &str, value: &str| Attribute { name: name.into(), value: Some(value.into()) };
    vec![attribute("class", class), attribute(container_instance::ZONE_ATTRIBUTE, zone)]
}

/// The EC2 instance below a container instance, running, with its interface.
pub fn machine(scope: &Scope, zone: &str, number: u16, now: Timestamp) -> (Instance, NetworkInterface) {
    let (instance_id, interface_id) = (format!("i-{number:017x}"), format!("eni-{number:017x}"));
    let [high, low] = number.to_be_bytes();
    let interface = NetworkInterface {
        scope: scope.clone(),
        network_interface_id: interface_id.clone(),
        vpc_id: "vpc-1".into(),
        subnet_id: "subnet-1".into(),
        availability_zone: zone.into(),
        mac_address: "0a:00:00:00:00:00".into(),
        private_address: Ipv4Addr::new(10, 1, high, low),
        security_groups: Vec::new(),
        public_address: None,
        description: String::new(),
        owner: NetworkInterfaceOwner::Instance {
            id: instance_id.clone(),
            device_index: 0,
            delete_on_termination: true,
        },
        requester_managed: false,
        attachment_id: None,
        source_dest_check: true,
        created_at: now,
        client_token: None,
        tags: Tags::default(),
    };
    let instance = Instance {
        scope: scope.clone(),
        instance_id,
        reservation_id: "r-1".into(),
        launch_index: 0,
        image_id: "ami-1".into(),
        instance_type: "t3.micro".into(),
        client_token: None,
        request_digest: None,
        vpc_id: "vpc-1".into(),
        subnet_id: "subnet-1".into(),
        availability_zone: zone.into(),
        interface_id,
        public_address: false,
        key_name: None,
        profile: None,
        user_data: None,
        metadata_options: MetadataOptions::default(),
        shutdown_behavior: ShutdownBehavior::Terminate,
        disable_api_termination: false,
        disable_api_stop: false,
        ebs_optimized: false,
        root_device_name: "/dev/xvda".into(),
        block_devices: Vec::new(),
        launched_at: now,
        power: Power::On,
        boot: 1,
        state_reason: None,
        ended_at: None,
        observed: Some(Observed { boot: 1, machine: Machine::Running, reason: None, at: now }),
        spot: None,
        tags: Tags::default(),
    };
    (instance, interface)
}
