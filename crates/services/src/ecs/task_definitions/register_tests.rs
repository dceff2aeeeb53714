use super::*;

fn scope() -> Scope {
    Scope { account: options().account, region: options().region }
}

fn options() -> Options {
    Options {
        account: "123456789012".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        listen: "127.0.0.1:4580".parse().unwrap(),
        instance_id: "a1b2c3".into(),
        allow_load_balancer_updates: false,
        lost_instance_after: None,
    }
}

fn request() -> RegisterTaskDefinitionRequest {
    RegisterTaskDefinitionRequest {
        family: Some("web".into()),
        network_mode: Some("awsvpc".into()),
        requires_compatibilities: Some(vec!["FARGATE".into()]),
        cpu: Some("256".into()),
        memory: Some("512".into()),
        container_definitions: Some(vec![container("app")]),
        ..RegisterTaskDefinitionRequest::default()
    }
}

fn container(name: &str) -> ContainerDefinition {
    ContainerDefinition { name: Some(name.into()), image: Some("nginx".into()), ..ContainerDefinition::default() }
}

fn refusal(change: impl FnOnce(&mut RegisterTaskDefinitionRequest)) -> String {
    let mut request = request();
    change(&mut request);
    let error = definition(request, &scope(), &options()).unwrap_err();
    format!("{}: {}", error.code(), error.message())
}

fn in_container(change: impl FnOnce(&mut ContainerDefinition)) -> String {
    refusal(|request| {
        let mut changed = container("app");
        change(&mut changed);
        request.container_definitions = Some(vec![changed]);
    })
}

#[test]
fn the_least_is_enough_and_normalised() {
    let stored = definition(request(), &scope(), &options()).unwrap();
    let shape = shapes::task_definition(&stored);
    let container = &shape.container_definitions.unwrap()[0];
    assert_eq!((container.essential, container.cpu), (Some(true), Some(0)));
    assert!(container.port_mappings.as_ref().unwrap().is_empty());
    assert_eq!(shape.compatibilities.unwrap(), ["EC2", "FARGATE"]);
    assert_eq!(shape.cpu.as_deref(), Some("256"));
}

#[test]
fn ports_get_their_protocol_and_host_port() {
    let mut with_port = container("app");
    with_port.port_mappings = Some(vec![PortMapping { container_port: Some(80), ..PortMapping::default() }]);
    let request = RegisterTaskDefinitionRequest { container_definitions: Some(vec![with_port]), ..request() };
    let shape = shapes::task_definition(&definition(request, &scope(), &options()).unwrap());
    let containers = shape.container_definitions.unwrap();
    let port = &containers[0].port_mappings.as_ref().unwrap()[0];
    assert_eq!((port.host_port, port.protocol.as_deref()), (Some(80), Some("tcp")));
}

#[test]
fn sizes_are_those_of_the_table() {
    let message = refusal(|request| request.memory = Some("4096".into()));
    assert!(message.starts_with("ClientException: No Fargate configuration exists for given values"), "{message}");
    assert_eq!(
        refusal(|request| request.cpu = None),
        "ClientException: Fargate requires that 'cpu' be defined at the task level."
    );
    assert!(refusal(|request| request.cpu = Some("x".into())).contains("Invalid 'cpu'"));
}

#[test]
fn an_execution_role_is_needed_for_our_registry_and_for_logs() {
    assert_eq!(
        in_container(|c| c.image = Some("123456789012.dkr.ecr.us-east-1.amazonaws.com/web".into())),
        "ClientException: Fargate requires task definition to have execution role ARN to support ECR images."
    );
    let logs = LogConfiguration {
        log_driver: Some("awslogs".into()),
        options: Some(
            [("awslogs-group", "g"), ("awslogs-region", "us-east-1"), ("awslogs-stream-prefix", "p")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        ),
        secret_options: None,
    };
    assert_eq!(
        in_container(|c| c.log_configuration = Some(logs.clone())),
        "ClientException: Fargate requires task definition to have execution role ARN to support log driver awslogs."
    );
    let mut with_role = request();
    with_role.execution_role_arn = Some("arn:aws:iam::123456789012:role/r".into());
    with_role.container_definitions =
        Some(vec![ContainerDefinition { log_configuration: Some(logs), ..container("app") }]);
    let stored = definition(with_role, &scope(), &options()).unwrap();
    assert!(stored.requires_attributes.contains(&"ecs.capability.execution-role-awslogs".to_owned()));
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let check = |message: String, name: &str| assert!(message.ends_with(name), "{message} / {name}");
    check(refusal(|r| r.pid_mode = Some("task".into())), "pidMode");
    check(refusal(|r| r.volumes = Some(vec![Volume::default()])), "volumes");
    let with_secrets = |role: Option<&str>| {
        refusal(|r| {
            r.execution_role_arn = role.map(str::to_owned);
            let secrets = Some(vec![Secret::default()]);
            r.container_definitions = Some(vec![ContainerDefinition { secrets, ..container("app") }]);
        })
    };
    check(with_secrets(Some("arn:aws:iam::123456789012:role/r")), "containerDefinitions.secrets");
    check(with_secrets(None), "you must also specify a value for 'executionRoleArn'.");
    check(in_container(|c| c.privileged = Some(true)), "containerDefinitions.privileged");
    check(in_container(|c| c.mount_points = Some(vec![MountPoint::default()])), "containerDefinitions.mountPoints");
    check(in_container(|c| c.pseudo_terminal = Some(true)), "containerDefinitions.pseudoTerminal");
    // What says nothing is no setting.
    let quiet = ContainerDefinition {
        privileged: Some(false),
        mount_points: Some(Vec::new()),
        volumes_from: Some(Vec::new()),
        ..container("app")
    };
    assert!(
        definition(
            RegisterTaskDefinitionRequest { container_definitions: Some(vec![quiet]), ..request() },
            &scope(),
            &options()
        )
        .is_ok()
    );
}

#[test]
fn mistakes_are_refused() {
    let two = |change: fn(&mut ContainerDefinition)| {
        refusal(move |request| {
            let mut first = container("app");
            change(&mut first);
            request.container_definitions = Some(vec![first, container("b")]);
        })
    };
    let waits = |on: &str, condition: &str| {
        Some(vec![ContainerDependency { container_name: Some(on.into()), condition: Some(condition.into()) }])
    };
    assert!(refusal(|r| r.network_mode = Some("host".into())).contains("\u{2018}awsvpc\u{2019}"));
    assert!(refusal(|r| r.container_definitions = None).contains("Container list cannot be empty."));
    assert!(two(|c| c.name = Some("b".into())).contains("Duplicate container name"));
    assert!(in_container(|c| c.essential = Some(false)).contains("at least one essential container"));
    assert!(in_container(|c| c.cpu = Some(512)).contains("total 'cpu'"));
    assert!(in_container(|c| c.memory = Some(1024)).contains("'memory' setting for container 'app' is greater than"));
    assert!(in_container(|c| c.depends_on = waits("app", "START")).contains("cycle"));
    assert!(in_container(|c| c.depends_on = waits("x", "START")).contains("not part of the task definition"));
    assert!(in_container(|c| c.stop_timeout = Some(121)).contains("stopTimeout"));
    assert!(in_container(|c| c.image = None).contains("Container.image"));
    let odd = PortMapping { container_port: Some(80), host_port: Some(8080), ..PortMapping::default() };
    assert!(in_container(|c| c.port_mappings = Some(vec![odd])).contains("must match"));
}

/// A task definition for container instances: no size, no network mode.
fn for_instances() -> RegisterTaskDefinitionRequest {
    let sized = ContainerDefinition { memory: Some(128), cpu: Some(64), ..container("app") };
    RegisterTaskDefinitionRequest {
        family: Some("web".into()),
        container_definitions: Some(vec![sized]),
        ..RegisterTaskDefinitionRequest::default()
    }
}

fn on_instances(change: impl FnOnce(&mut RegisterTaskDefinitionRequest)) -> Result<Stored, String> {
    let mut request = for_instances();
    change(&mut request);
    definition(request, &scope(), &options()).map_err(|error| error.message().to_owned())
}

#[test]
fn without_a_network_mode_it_is_bridge_and_not_for_fargate() {
    let stored = on_instances(|_| {}).unwrap();
    assert_eq!(stored.compatibilities, ["EXTERNAL", "EC2"]);
    assert_eq!(stored.size_with(&Default::default()), (64, 128));
    let shape = shapes::task_definition(&stored);
    assert_eq!((shape.network_mode, shape.cpu, shape.memory), (None, None, None));
    assert!(!stored.requires_attributes.contains(&"ecs.capability.task-eni".to_owned()));
}

#[test]
fn compatibilities_follow_from_mode_and_size() {
    let check = |mode: &str, cpu: Option<&str>, memory: Option<&str>, expect: &[&str]| {
        let stored = on_instances(|r| {
            r.network_mode = Some(mode.into());
            (r.cpu, r.memory) = (cpu.map(str::to_owned), memory.map(str::to_owned));
        });
        assert_eq!(stored.unwrap().compatibilities, expect, "{mode} {cpu:?} {memory:?}");
    };
    check("awsvpc", Some("256"), Some("512"), &["EC2", "FARGATE"]);
    check("awsvpc", None, None, &["EC2"]);
    check("awsvpc", Some("200"), Some("512"), &["EC2"]);
    check("host", Some("256"), Some("512"), &["EXTERNAL", "EC2"]);
    check("none", None, None, &["EXTERNAL", "EC2"]);
}

#[test]
fn host_ports_are_as_the_network_mode_has_them() {
    let mapped = |mode: &str, host: Option<i32>| {
        on_instances(|r| {
            r.network_mode = Some(mode.into());
            let mapping = PortMapping { container_port: Some(80), host_port: host, ..PortMapping::default() };
            r.container_definitions.as_mut().unwrap()[0].port_mappings = Some(vec![mapping]);
        })
        .map(|stored| (stored.container_definitions[0].port_mappings[0].host_port, stored.host_ports().len()))
    };
    assert_eq!(mapped("bridge", None), Ok((0, 0)));
    assert_eq!(mapped("bridge", Some(0)), Ok((0, 0)));
    assert_eq!(mapped("bridge", Some(8080)), Ok((8080, 1)));
    assert_eq!(mapped("host", None), Ok((80, 1)));
    assert!(mapped("host", Some(8080)).unwrap_err().contains("must match"));
    assert_eq!(mapped("awsvpc", None), Ok((80, 0)));
    assert!(mapped("bridge", Some(70_000)).is_err());
}

#[test]
fn names_and_resolvers_are_dockers_on_a_bridge_and_the_vpcs_with_an_interface() {
    let with = |mode: &str, change: fn(&mut ContainerDefinition)| {
        on_instances(|r| {
            r.network_mode = Some(mode.into());
            change(&mut r.container_definitions.as_mut().unwrap()[0]);
        })
        .map(drop)
    };
    assert_eq!(with("bridge", |c| c.hostname = Some("me".into())), Ok(()));
    assert!(with("awsvpc", |c| c.hostname = Some("me".into())).unwrap_err().contains("networkMode=awsvpc"));
    assert_eq!(with("host", |c| c.dns_servers = Some(vec!["10.0.0.2".into()])), Ok(()));
    assert!(with("host", |c| c.links = Some(vec!["b".into()])).unwrap_err().contains("links"));
    assert!(with("bridge", |c| c.links = Some(vec!["b".into()])).unwrap_err().contains("that there is not"));
    let bad = HostEntry { hostname: Some("a".into()), ip_address: Some("x".into()) };
    assert!(on_instances(|r| r.container_definitions.as_mut().unwrap()[0].extra_hosts = Some(vec![bad])).is_err());
}

#[test]
fn what_an_instance_needs_is_said_by_its_containers_or_by_the_task() {
    let bare = |r: &mut RegisterTaskDefinitionRequest| r.container_definitions.as_mut().unwrap()[0].memory = None;
    assert!(on_instances(bare).unwrap_err().contains("At least one of 'memory' or 'memoryReservation'"));
    let with_task_memory = on_instances(|r| {
        bare(r);
        r.memory = Some("300".into());
    });
    assert_eq!(with_task_memory.unwrap().size_with(&Default::default()), (64, 300));
    assert!(on_instances(|r| r.cpu = Some("64".into())).unwrap_err().contains("'cpu'"));
}

#[test]
fn constraints_of_a_task_definition_select_instances() {
    let constrained = |kind: &str, expression: Option<&str>| {
        on_instances(|r| {
            let constraint = TaskDefinitionPlacementConstraint {
                r#type: Some(kind.into()),
                expression: expression.map(str::to_owned),
            };
            r.placement_constraints = Some(vec![constraint]);
        })
        .map(|stored| stored.placement_constraints.len())
    };
    assert_eq!(constrained("memberOf", Some("attribute:color == red")), Ok(1));
    assert!(constrained("memberOf", Some("attribute:color == ")).is_err());
    assert!(constrained("distinctInstance", None).is_err());
}
