//! The nouns a simulated world is made of.

use domain::{
    IdSource, Scope, Tags, Timestamp,
    balancing::{HealthCheck, ProtocolVersion, TargetGroup, TargetGroupAttributes, TargetType},
    ecs::{
        Compute, ContainerDefinition, LaunchType, NetworkMode, Service, ServiceDeployment, ServiceRevision,
        TaskDefinition, TaskDefinitionStatus, TaskLoadBalancer, TaskNetwork, names,
    },
    network::Subnet,
};

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
