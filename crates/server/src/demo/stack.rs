//! What the demo makes and removes through the API: a cluster, a load balancer, a task definition, a service.

use std::time::{Duration, Instant};

use api::{ec2, ecs, elbv2, iam, logs};

use crate::{
    aws::{Client, ClientError},
    supervisor::Error,
};

/// The cluster.
pub const CLUSTER: &str = "demo";
/// The service, and the family of its task definition.
pub const SERVICE: &str = "whoami";
/// How many tasks the service runs.
pub const TASKS: i32 = 2;
/// Where the tasks' lines go.
pub const LOG_GROUP: &str = "/demo/whoami";
const LOAD_BALANCER: &str = "demo";
const SECURITY_GROUP: &str = "longshore-demo";
const PORT: u16 = 80;
/// The listener's port. Beyond the usual ones, so that nothing else on the host is in its way.
const LISTENER_PORT: u16 = 8080;
const TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// The load balancer.
pub struct Balancer {
    /// Its DNS name.
    pub host: String,
    /// Its listener's port.
    pub port: u16,
    /// Both as a URL.
    pub url: String,
    /// Its target group's ARN.
    pub target_group: String,
}

/// A running task.
pub struct Task {
    /// 32 hexadecimal digits.
    pub id: String,
    /// E.g. `RUNNING`.
    pub status: String,
    /// Its availability zone.
    pub zone: String,
    /// Its private address.
    pub address: String,
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn missing(what: &str) -> Error {
    format!("the answer has no {what}").into()
}

/// An error that means that there is nothing to remove.
fn ignore(result: Result<(), ClientError>, codes: &[&str]) -> Result<(), Error> {
    match result {
        Err(error) if !codes.contains(&error.code()) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The default VPC's subnets, one in each zone, and the demo's security group, which lets HTTP in.
async fn network(client: &Client) -> Result<(Vec<String>, String), Error> {
    let filter = |name: &str, value: &str| ec2::Filter { name: text(name), values: Some(vec![value.to_owned()]) };
    let input =
        ec2::DescribeSubnetsRequest { filters: Some(vec![filter("default-for-az", "true")]), ..Default::default() };
    let subnets: ec2::DescribeSubnetsResult = client.call(&ec2::operation::DESCRIBE_SUBNETS, &input).await?;
    let subnets = subnets.subnets.unwrap_or_default();
    let vpc = subnets.first().and_then(|subnet| subnet.vpc_id.clone()).ok_or_else(|| missing("default subnet"))?;
    let subnets = subnets.into_iter().filter_map(|subnet| subnet.subnet_id).collect();
    let input = ec2::CreateSecurityGroupRequest {
        group_name: text(SECURITY_GROUP),
        description: text("HTTP to the demo"),
        vpc_id: Some(vpc.clone()),
        ..Default::default()
    };
    let created: Result<ec2::CreateSecurityGroupResult, _> =
        client.call(&ec2::operation::CREATE_SECURITY_GROUP, &input).await;
    let group = match created {
        Ok(group) => group.group_id.ok_or_else(|| missing("security group"))?,
        Err(error) if error.code() == "InvalidGroup.Duplicate" => {
            let filters = vec![filter("group-name", SECURITY_GROUP), filter("vpc-id", &vpc)];
            let input = ec2::DescribeSecurityGroupsRequest { filters: Some(filters), ..Default::default() };
            let groups: ec2::DescribeSecurityGroupsResult =
                client.call(&ec2::operation::DESCRIBE_SECURITY_GROUPS, &input).await?;
            let group = groups.security_groups.and_then(|groups| groups.into_iter().next()?.group_id);
            return Ok((subnets, group.ok_or_else(|| missing("security group"))?));
        }
        Err(error) => return Err(error.into()),
    };
    let permission = ec2::IpPermission {
        ip_protocol: text("tcp"),
        from_port: Some(i32::from(PORT)),
        to_port: Some(i32::from(LISTENER_PORT)),
        ip_ranges: Some(vec![ec2::IpRange { cidr_ip: text("0.0.0.0/0"), ..Default::default() }]),
        ..Default::default()
    };
    let input = ec2::AuthorizeSecurityGroupIngressRequest {
        group_id: Some(group.clone()),
        ip_permissions: Some(vec![permission]),
        ..Default::default()
    };
    let _: ec2::AuthorizeSecurityGroupIngressResult =
        client.call(&ec2::operation::AUTHORIZE_SECURITY_GROUP_INGRESS, &input).await?;
    Ok((subnets, group))
}

/// Makes the load balancer with its target group and listener.
pub async fn load_balancer(client: &Client) -> Result<Balancer, Error> {
    let (subnets, group) = network(client).await?;
    let vpc = default_vpc(client).await?;
    let input = elbv2::CreateLoadBalancerInput {
        name: text(LOAD_BALANCER),
        subnets: Some(subnets),
        security_groups: Some(vec![group]),
        ..Default::default()
    };
    let created: elbv2::CreateLoadBalancerOutput = client.call(&elbv2::operation::CREATE_LOAD_BALANCER, &input).await?;
    let balancer = created.load_balancers.and_then(|list| list.into_iter().next());
    let balancer = balancer.ok_or_else(|| missing("load balancer"))?;
    let input = elbv2::CreateTargetGroupInput {
        name: text(LOAD_BALANCER),
        protocol: text("HTTP"),
        port: Some(i32::from(PORT)),
        vpc_id: Some(vpc),
        target_type: text("ip"),
        health_check_interval_seconds: Some(5),
        health_check_timeout_seconds: Some(2),
        healthy_threshold_count: Some(2),
        ..Default::default()
    };
    let created: elbv2::CreateTargetGroupOutput = client.call(&elbv2::operation::CREATE_TARGET_GROUP, &input).await?;
    let target_group = created.target_groups.and_then(|list| list.into_iter().next()?.target_group_arn);
    let target_group = target_group.ok_or_else(|| missing("target group"))?;
    // The demo's tasks have nothing to finish: no need to wait five minutes for them.
    let input = elbv2::ModifyTargetGroupAttributesInput {
        target_group_arn: Some(target_group.clone()),
        attributes: Some(vec![elbv2::TargetGroupAttribute {
            key: text("deregistration_delay.timeout_seconds"),
            value: text("0"),
        }]),
    };
    let _: elbv2::ModifyTargetGroupAttributesOutput =
        client.call(&elbv2::operation::MODIFY_TARGET_GROUP_ATTRIBUTES, &input).await?;
    let input = elbv2::CreateListenerInput {
        load_balancer_arn: balancer.load_balancer_arn.clone(),
        protocol: text("HTTP"),
        port: Some(i32::from(LISTENER_PORT)),
        default_actions: Some(vec![elbv2::Action {
            r#type: text("forward"),
            target_group_arn: Some(target_group.clone()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let _: elbv2::CreateListenerOutput = client.call(&elbv2::operation::CREATE_LISTENER, &input).await?;
    let host = balancer.dns_name.ok_or_else(|| missing("DNS name"))?;
    let url = format!("http://{host}:{LISTENER_PORT}/");
    Ok(Balancer { host, port: LISTENER_PORT, url, target_group })
}

async fn default_vpc(client: &Client) -> Result<String, Error> {
    let filter = ec2::Filter { name: text("is-default"), values: Some(vec!["true".to_owned()]) };
    let input = ec2::DescribeVpcsRequest { filters: Some(vec![filter]), ..Default::default() };
    let vpcs: ec2::DescribeVpcsResult = client.call(&ec2::operation::DESCRIBE_VPCS, &input).await?;
    vpcs.vpcs.and_then(|list| list.into_iter().next()?.vpc_id).ok_or_else(|| missing("default VPC"))
}

/// Registers the task definition and makes the service. Gives the task definition's `family:revision`.
pub async fn service(client: &Client, image: &str, target_group: &str) -> Result<String, Error> {
    let input = ecs::CreateClusterRequest { cluster_name: text(CLUSTER), ..Default::default() };
    let _: ecs::CreateClusterResponse = client.call(&ecs::operation::CREATE_CLUSTER, &input).await?;
    let input = logs::CreateLogGroupRequest { log_group_name: text(LOG_GROUP), ..Default::default() };
    ignore(client.call(&logs::operation::CREATE_LOG_GROUP, &input).await, &["ResourceAlreadyExistsException"])?;
    let input = iam::GetRoleRequest { role_name: text("ecsTaskExecutionRole") };
    let role: iam::GetRoleResponse = client.call(&iam::operation::GET_ROLE, &input).await?;
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: text(SERVICE),
        execution_role_arn: role.role.and_then(|role| role.arn),
        network_mode: text("awsvpc"),
        requires_compatibilities: Some(vec!["FARGATE".to_owned()]),
        cpu: text("256"),
        memory: text("512"),
        container_definitions: Some(vec![ecs::ContainerDefinition {
            name: text("web"),
            image: text(image),
            port_mappings: Some(vec![ecs::PortMapping { container_port: Some(i32::from(PORT)), ..Default::default() }]),
            // As process 1 the program would not hear SIGTERM, and each end of a task would take its whole stop timeout.
            linux_parameters: Some(ecs::LinuxParameters { init_process_enabled: Some(true), ..Default::default() }),
            log_configuration: Some(ecs::LogConfiguration {
                log_driver: text("awslogs"),
                options: Some(
                    [
                        ("awslogs-group", LOG_GROUP),
                        ("awslogs-region", client.region()),
                        ("awslogs-stream-prefix", "demo"),
                    ]
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                ),
                ..Default::default()
            }),
            ..Default::default()
        }]),
        ..Default::default()
    };
    let registered: ecs::RegisterTaskDefinitionResponse =
        client.call(&ecs::operation::REGISTER_TASK_DEFINITION, &definition).await?;
    let arn = registered.task_definition.and_then(|definition| definition.task_definition_arn);
    let arn = arn.ok_or_else(|| missing("task definition"))?;
    let (subnets, group) = network(client).await?;
    let service = ecs::CreateServiceRequest {
        cluster: text(CLUSTER),
        service_name: text(SERVICE),
        task_definition: Some(arn.clone()),
        desired_count: Some(TASKS),
        launch_type: text("FARGATE"),
        load_balancers: Some(vec![ecs::LoadBalancer {
            target_group_arn: text(target_group),
            container_name: text("web"),
            container_port: Some(i32::from(PORT)),
            ..Default::default()
        }]),
        network_configuration: Some(ecs::NetworkConfiguration {
            awsvpc_configuration: Some(ecs::AwsVpcConfiguration {
                subnets: Some(subnets),
                security_groups: Some(vec![group]),
                assign_public_ip: text("DISABLED"),
            }),
        }),
        ..Default::default()
    };
    let _: ecs::CreateServiceResponse = client.call(&ecs::operation::CREATE_SERVICE, &service).await?;
    Ok(arn.rsplit('/').next().unwrap_or_default().to_owned())
}

/// Waits until the service's tasks run.
pub async fn wait_for_tasks(client: &Client, progress: impl Fn(&str)) -> Result<Vec<Task>, Error> {
    let started = Instant::now();
    loop {
        let tasks = tasks(client, "RUNNING").await?;
        let running = tasks.iter().filter(|task| task.status == "RUNNING").count();
        if running == usize::try_from(TASKS)? {
            return Ok(tasks.into_iter().filter(|task| task.status == "RUNNING").collect());
        }
        if started.elapsed() > TIMEOUT {
            return Err(
                format!("only {running} of {TASKS} tasks run: {}", why(client).await.unwrap_or_default()).into()
            );
        }
        let states: Vec<_> = tasks.iter().map(|task| task.status.as_str()).collect();
        progress(&states.join(", "));
        tokio::time::sleep(POLL).await;
    }
}

async fn tasks(client: &Client, desired: &str) -> Result<Vec<Task>, Error> {
    let described = describe(client, desired).await?;
    Ok(described
        .into_iter()
        .map(|task| {
            let details =
                task.attachments.into_iter().flatten().flat_map(|attachment| attachment.details.unwrap_or_default());
            let address = details.into_iter().find(|detail| detail.name.as_deref() == Some("privateIPv4Address"));
            Task {
                id: task.task_arn.unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned(),
                status: task.last_status.unwrap_or_default(),
                zone: task.availability_zone.unwrap_or_default(),
                address: address.and_then(|detail| detail.value).unwrap_or_default(),
            }
        })
        .collect())
}

async fn describe(client: &Client, desired: &str) -> Result<Vec<ecs::Task>, Error> {
    let input = ecs::ListTasksRequest {
        cluster: text(CLUSTER),
        service_name: text(SERVICE),
        desired_status: text(desired),
        ..Default::default()
    };
    let listed: ecs::ListTasksResponse = client.call(&ecs::operation::LIST_TASKS, &input).await?;
    let arns = listed.task_arns.unwrap_or_default();
    if arns.is_empty() {
        return Ok(Vec::new());
    }
    let input = ecs::DescribeTasksRequest { cluster: text(CLUSTER), tasks: Some(arns), ..Default::default() };
    let described: ecs::DescribeTasksResponse = client.call(&ecs::operation::DESCRIBE_TASKS, &input).await?;
    Ok(described.tasks.unwrap_or_default())
}

/// Why tasks stopped, for whoever wonders.
async fn why(client: &Client) -> Result<String, Error> {
    let reasons = describe(client, "STOPPED").await?.into_iter().filter_map(|task| {
        let containers = task.containers.unwrap_or_default().into_iter().filter_map(|container| container.reason);
        let parts: Vec<String> = task.stopped_reason.into_iter().chain(containers).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    });
    Ok(reasons.take(3).collect::<Vec<_>>().join(" | "))
}

/// How the targets are, in one line.
pub async fn target_health(client: &Client, target_group: &str) -> Result<String, Error> {
    let input = elbv2::DescribeTargetHealthInput { target_group_arn: text(target_group), ..Default::default() };
    let health: elbv2::DescribeTargetHealthOutput =
        client.call(&elbv2::operation::DESCRIBE_TARGET_HEALTH, &input).await?;
    let lines = health.target_health_descriptions.unwrap_or_default().into_iter().map(|description| {
        let target = description.target.and_then(|target| target.id).unwrap_or_default();
        let health = description.target_health.unwrap_or_default();
        format!("{target} {} {}", health.state.unwrap_or_default(), health.reason.unwrap_or_default())
    });
    Ok(lines.collect::<Vec<_>>().join(", "))
}

/// How many lines the tasks' log streams hold, once each holds some.
pub async fn log_lines(client: &Client, tasks: &[Task]) -> Result<usize, Error> {
    let started = Instant::now();
    let mut lines = 0;
    for task in tasks {
        loop {
            let input = logs::GetLogEventsRequest {
                log_group_name: text(LOG_GROUP),
                log_stream_name: Some(format!("demo/web/{}", task.id)),
                start_from_head: Some(true),
                ..Default::default()
            };
            let answer: Result<logs::GetLogEventsResponse, _> =
                client.call(&logs::operation::GET_LOG_EVENTS, &input).await;
            let found = answer.ok().and_then(|page| page.events).map_or(0, |events| events.len());
            if found > 0 {
                lines += found;
                break;
            }
            if started.elapsed() > TIMEOUT {
                return Err(format!("no line of task {} has reached {LOG_GROUP}", task.id).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(lines)
}

/// Removes what an earlier or this demo made. Removing what is not there is no failure.
pub async fn delete(client: &Client) -> Result<(), Error> {
    let input = ecs::DeleteServiceRequest { cluster: text(CLUSTER), service: text(SERVICE), force: Some(true) };
    let deleted: Result<ecs::DeleteServiceResponse, _> = client.call(&ecs::operation::DELETE_SERVICE, &input).await;
    let gone = ["ServiceNotFoundException", "ClusterNotFoundException", "ServiceNotActiveException"];
    ignore(deleted.map(drop), &gone)?;
    let input = elbv2::DescribeLoadBalancersInput { names: Some(vec![LOAD_BALANCER.to_owned()]), ..Default::default() };
    let found: Result<elbv2::DescribeLoadBalancersOutput, _> =
        client.call(&elbv2::operation::DESCRIBE_LOAD_BALANCERS, &input).await;
    for balancer in found.ok().and_then(|found| found.load_balancers).unwrap_or_default() {
        let input = elbv2::DeleteLoadBalancerInput { load_balancer_arn: balancer.load_balancer_arn };
        let _: elbv2::DeleteLoadBalancerOutput = client.call(&elbv2::operation::DELETE_LOAD_BALANCER, &input).await?;
    }
    let input = elbv2::DescribeTargetGroupsInput { names: Some(vec![LOAD_BALANCER.to_owned()]), ..Default::default() };
    let found: Result<elbv2::DescribeTargetGroupsOutput, _> =
        client.call(&elbv2::operation::DESCRIBE_TARGET_GROUPS, &input).await;
    for group in found.ok().and_then(|found| found.target_groups).unwrap_or_default() {
        let input = elbv2::DeleteTargetGroupInput { target_group_arn: group.target_group_arn };
        let deleted: Result<elbv2::DeleteTargetGroupOutput, _> =
            client.call(&elbv2::operation::DELETE_TARGET_GROUP, &input).await;
        deleted?;
    }
    // The service's name is free again once its tasks have stopped.
    let started = Instant::now();
    while is_draining(client).await? {
        if started.elapsed() > TIMEOUT {
            return Err("the tasks of an earlier demo do not stop".into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn is_draining(client: &Client) -> Result<bool, Error> {
    let input = ecs::DescribeServicesRequest {
        cluster: text(CLUSTER),
        services: Some(vec![SERVICE.to_owned()]),
        ..Default::default()
    };
    let described: Result<ecs::DescribeServicesResponse, ClientError> =
        client.call(&ecs::operation::DESCRIBE_SERVICES, &input).await;
    match described {
        Ok(described) => {
            let services = described.services.unwrap_or_default();
            Ok(services.iter().any(|service| service.status.as_deref() == Some("DRAINING")))
        }
        Err(error) if error.code() == "ClusterNotFoundException" => Ok(false),
        Err(error) => Err(error.into()),
    }
}
