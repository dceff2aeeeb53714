//! Container definitions of a request: every member checked and kept, or refused by name.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>

use std::collections::BTreeSet;

use api::ecs as wire_shapes;
use domain::ecs::container_definition::parse_port_range;
use domain::ecs::{
    ContainerDefinition, Dependency, DependencyCondition, HealthCheck, NetworkMode, PortMapping, RestartPolicy,
    TransportProtocol, Ulimit, container_definition::check_dependencies, names,
};
use wire::ServiceError;

use super::{gpus, logs, size::Size};
use crate::ecs::common::{Given, client, refuse};

/// The limits that can be set.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The capabilities that a container has unless they are dropped, and those that nobody has but can name.
const CAPABILITIES: [&str; 38] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// Checks the containers of a task definition with this size and network mode.
pub(super) fn check(
    asked: Vec<wire_shapes::ContainerDefinition>,
    size: Size,
    mode: NetworkMode,
) -> Result<Vec<ContainerDefinition>, ServiceError> {
    let containers: Vec<ContainerDefinition> =
        asked.into_iter().map(|asked| one(asked, mode)).collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    let mut ports = BTreeSet::new();
    let mut port_names = BTreeSet::new();
    for container in &containers {
        if !seen.insert(&container.name) {
            return Err(client(format!("Duplicate container name: {}", container.name)));
        }
        for port in &container.port_mappings {
            if port.host_port != 0 && !ports.insert((port.host_port, port.protocol)) {
                return Err(client("Task definition has containers with conflicting host ports."));
            }
            if port.name.as_ref().is_some_and(|name| !port_names.insert(name)) {
                return Err(client("Port mapping names must be unique within a task definition."));
            }
        }
    }
    if !containers.iter().any(|container| container.essential) {
        return Err(client("A task definition must have at least one essential container."));
    }
    let wanted = containers.iter().map(|container| Wanted {
        name: &container.name,
        cpu: container.cpu,
        memory: container.memory,
        memory_reservation: container.memory_reservation,
    });
    check_fit(wanted, size).map_err(client)?;
    check_dependencies(&containers).map_err(|error| client(error.to_string()))?;
    check_conditions(&containers)?;
    check_links(&containers)?;
    Ok(containers)
}

/// What a container wants of its task, after overrides.
pub(in crate::ecs) struct Wanted<'a> {
    pub(in crate::ecs) name: &'a str,
    pub(in crate::ecs) cpu: u32,
    pub(in crate::ecs) memory: Option<u32>,
    pub(in crate::ecs) memory_reservation: Option<u32>,
}

/// Whether containers fit into a task of this size, each and together; if not, why. Where the task has no memory of its own,
/// each container must say what it needs.
pub(in crate::ecs) fn check_fit<'a>(containers: impl Iterator<Item = Wanted<'a>>, size: Size) -> Result<(), String> {
    let (mut cpu, mut memory) = (0u64, 0u64);
    for Wanted { name, cpu: own_cpu, memory: hard, memory_reservation: soft } in containers {
        if soft.zip(hard).is_some_and(|(soft, hard)| soft > hard) {
            return Err(format!(
                "Invalid setting for container '{name}'. 'memoryReservation' cannot be more than 'memory'."
            ));
        }
        let own = hard.or(soft);
        match size.memory {
            Some(most) if own.is_some_and(|own| own > most) => {
                return Err(format!("The 'memory' setting for container '{name}' is greater than for the task."));
            }
            None if own.is_none() => {
                return Err(format!(
                    "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
                ));
            }
            _ => {}
        }
        cpu += u64::from(own_cpu);
        memory += u64::from(soft.or(hard).unwrap_or_default());
    }
    if size.cpu.is_some_and(|most| cpu > u64::from(most)) {
        return Err("The total 'cpu' of all containers cannot be more than the 'cpu' of the task.".to_owned());
    }
    if size.memory.is_some_and(|most| memory > u64::from(most)) {
        return Err("The total memory of all containers cannot be more than the 'memory' of the task.".to_owned());
    }
    Ok(())
}

/// Links must lead to containers of the same task.
fn check_links(containers: &[ContainerDefinition]) -> Result<(), ServiceError> {
    for container in containers {
        for link in &container.links {
            let to = link.split(':').next().unwrap_or_default();
            if to == container.name || !containers.iter().any(|other| other.name == to) {
                return Err(client(format!(
                    "Container '{}' links to a container that there is not: {link}",
                    container.name
                )));
            }
        }
    }
    Ok(())
}

/// A condition must be able to come true.
fn check_conditions(containers: &[ContainerDefinition]) -> Result<(), ServiceError> {
    for container in containers {
        for dependency in &container.depends_on {
            let Some(other) = containers.iter().find(|other| other.name == dependency.container_name) else { continue };
            let name = &other.name;
            match dependency.condition {
                DependencyCondition::Healthy if other.health_check.is_none() => {
                    return Err(client(format!(
                        "Container '{name}' is expected to be HEALTHY but has no health check."
                    )));
                }
                DependencyCondition::Complete | DependencyCondition::Success if other.essential => {
                    return Err(client(
                        "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn one(asked: wire_shapes::ContainerDefinition, mode: NetworkMode) -> Result<ContainerDefinition, ServiceError> {
    // Without `..`: a member added to the API must be dealt with here.
    let wire_shapes::ContainerDefinition {
        name,
        image,
        repository_credentials,
        cpu,
        memory,
        memory_reservation,
        links,
        port_mappings,
        essential,
        restart_policy,
        entry_point,
        command,
        environment,
        environment_files,
        mount_points,
        volumes_from,
        linux_parameters,
        secrets,
        depends_on,
        start_timeout,
        stop_timeout,
        version_consistency,
        hostname,
        user,
        working_directory,
        disable_networking,
        privileged,
        readonly_root_filesystem,
        dns_servers,
        dns_search_domains,
        extra_hosts,
        docker_security_options,
        interactive,
        pseudo_terminal,
        docker_labels,
        ulimits,
        log_configuration,
        health_check,
        system_controls,
        resource_requirements,
        firelens_configuration,
        credential_specs,
    } = asked;
    let name = name.unwrap_or_default();
    if !names::is_valid(&name) {
        return Err(client("Container.name contains invalid characters."));
    }
    let Some(image) = image.filter(|image| !image.trim().is_empty()) else {
        return Err(client("Container.image should not be null or empty."));
    };
    refuse(&[
        ("containerDefinitions.repositoryCredentials", repository_credentials.is_some()),
        ("containerDefinitions.environmentFiles", environment_files.given()),
        ("containerDefinitions.mountPoints", mount_points.given()),
        ("containerDefinitions.volumesFrom", volumes_from.given()),
        ("containerDefinitions.secrets", secrets.given()),
        ("containerDefinitions.disableNetworking", disable_networking.given()),
        ("containerDefinitions.privileged", privileged.given()),
        ("containerDefinitions.dockerSecurityOptions", docker_security_options.given()),
        ("containerDefinitions.interactive", interactive.given()),
        ("containerDefinitions.pseudoTerminal", pseudo_terminal.given()),
        ("containerDefinitions.systemControls", system_controls.given()),
        ("containerDefinitions.firelensConfiguration", firelens_configuration.is_some()),
        ("containerDefinitions.credentialSpecs", credential_specs.given()),
    ])?;
    check_network_settings(
        mode,
        &[
            ("links", links.given()),
            ("hostname", hostname.given()),
            ("dnsServers", dns_servers.given()),
            ("dnsSearchDomains", dns_search_domains.given()),
            ("extraHosts", extra_hosts.given()),
        ],
    )?;
    let mut container = ContainerDefinition::new(&name, &image);
    container.cpu = units(cpu, "cpu", &name)?.unwrap_or_default();
    container.memory = memory_of(memory, "memory", &name)?;
    container.memory_reservation = memory_of(memory_reservation, "memoryReservation", &name)?;
    container.essential = essential.unwrap_or(true);
    container.port_mappings =
        port_mappings.unwrap_or_default().into_iter().map(|given| port(given, mode)).collect::<Result<_, _>>()?;
    container.entry_point = entry_point.unwrap_or_default();
    container.command = command.unwrap_or_default();
    container.environment = super::super::tasks::environment(environment)?;
    container.working_directory = working_directory.filter(|directory| !directory.is_empty());
    container.user = user.filter(|user| !user.is_empty());
    container.readonly_root_filesystem = readonly_root_filesystem;
    container.depends_on = depends_on.unwrap_or_default().into_iter().map(dependency).collect::<Result<_, _>>()?;
    container.start_timeout = timeout(start_timeout, "startTimeout", 2)?;
    container.stop_timeout = timeout(stop_timeout, "stopTimeout", 0)?;
    container.docker_labels = docker_labels.unwrap_or_default();
    container.ulimits = ulimits.unwrap_or_default().into_iter().map(ulimit).collect::<Result<_, _>>()?;
    container.log_configuration = log_configuration.map(logs::check).transpose()?;
    container.health_check = health_check.map(health).transpose()?;
    container.restart_policy = restart_policy.map(restart).transpose()?;
    container.links = links.unwrap_or_default();
    container.hostname = hostname.filter(|name| !name.is_empty());
    container.dns_servers = dns_servers.unwrap_or_default();
    container.dns_search_domains = dns_search_domains.unwrap_or_default();
    container.extra_hosts = extra_hosts.unwrap_or_default().into_iter().map(extra_host).collect::<Result<_, _>>()?;
    container.version_consistency = version_consistency.filter(|text| !text.is_empty()).map(|text| text == "enabled");
    container.gpus =
        gpus::read(resource_requirements, "containerDefinitions.resourceRequirements", &name)?.unwrap_or_default();
    if let Some(parameters) = linux_parameters {
        linux(parameters, &mut container)?;
    }
    Ok(container)
}

/// A task with a network interface has its names and resolvers from its VPC; links are Docker's way between the
/// containers of a bridge.
fn check_network_settings(mode: NetworkMode, given: &[(&str, bool)]) -> Result<(), ServiceError> {
    for (field, given) in given {
        let can = match (mode, *field) {
            (NetworkMode::Bridge, _) => true,
            (NetworkMode::Host | NetworkMode::None, field) => field != "links",
            (NetworkMode::Awsvpc, _) => false,
        };
        if *given && !can {
            return Err(client(format!("'{field}' is not supported when networkMode={}.", mode.as_str())));
        }
    }
    Ok(())
}

/// A line of `/etc/hosts`: name and address.
fn extra_host(asked: wire_shapes::HostEntry) -> Result<(String, String), ServiceError> {
    let (name, address) = (asked.hostname.unwrap_or_default(), asked.ip_address.unwrap_or_default());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.len() > 255 || !name.bytes().all(is_name) {
        return Err(client(format!("Invalid 'extraHosts' setting: {name} is not a host name.")));
    }
    if address.parse::<std::net::IpAddr>().is_err() {
        return Err(client(format!("Invalid 'extraHosts' setting: {address} is not an IP address.")));
    }
    Ok((name, address))
}

fn units(given: Option<i32>, field: &str, container: &str) -> Result<Option<u32>, ServiceError> {
    given
        .map(|value| {
            u32::try_from(value)
                .map_err(|_| client(format!("Invalid '{field}' setting for container '{container}': {value}")))
        })
        .transpose()
}

/// Docker's least memory is 6 MiB, and Amazon refuses less as well.
pub(in crate::ecs) fn memory_of(given: Option<i32>, field: &str, container: &str) -> Result<Option<u32>, ServiceError> {
    let value = units(given, field, container)?.filter(|value| *value != 0);
    match value {
        Some(value) if value < 6 => {
            Err(client(format!("Invalid '{field}' setting for container '{container}': at least 6 MiB are needed.")))
        }
        value => Ok(value),
    }
}

/// A range has this many ports at most: each is a rule on the instance, and Amazon counts 100 for each container.
const MOST_PORTS: u16 = 100;

fn port(asked: wire_shapes::PortMapping, mode: NetworkMode) -> Result<PortMapping, ServiceError> {
    let wire_shapes::PortMapping { container_port, host_port, protocol, name, app_protocol, container_port_range } =
        asked;
    refuse(&[("portMappings.appProtocol", app_protocol.given())])?;
    let valid = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let range = container_port_range.filter(|range| !range.is_empty());
    let range = range.map(|range| port_range(&range, container_port, host_port, mode)).transpose()?;
    let container_port = range
        .map(|(first, _)| first)
        .or_else(|| container_port.and_then(valid))
        .ok_or_else(|| client("Invalid 'containerPort' setting for container: it must be between 1 and 65535."))?;
    let host_port = match host_port.filter(|port| *port != 0) {
        None if mode == NetworkMode::Bridge => 0,
        None => container_port,
        Some(given) => {
            let port = valid(given)
                .ok_or_else(|| client("Invalid 'hostPort' setting for container: it must be between 0 and 65535."))?;
            if port != container_port && mode != NetworkMode::Bridge {
                return Err(client(format!(
                    "When networkMode={}, the host ports and container ports in port mappings must match.",
                    mode.as_str()
                )));
            }
            port
        }
    };
    let protocol = match protocol.as_deref() {
        None | Some("tcp") => TransportProtocol::Tcp,
        Some("udp") => TransportProtocol::Udp,
        Some(other) => return Err(client(format!("Invalid port mapping protocol: {other}"))),
    };
    let name = name.filter(|name| !name.is_empty());
    if let Some(name) = name.as_ref().filter(|name| name.len() > 64 || !names::is_valid(name)) {
        return Err(client(format!("Invalid port mapping name: {name}")));
    }
    Ok(PortMapping { container_port, range: range.map(|(_, count)| count), host_port, protocol, name })
}

/// Reads `containerPortRange`, which goes without a port and finds its host ports by itself.
fn port_range(
    text: &str,
    container_port: Option<i32>,
    host_port: Option<i32>,
    mode: NetworkMode,
) -> Result<(u16, u16), ServiceError> {
    let refused = |why: &str| client(format!("Invalid 'containerPortRange' setting for container: {why}"));
    if container_port.is_some() || host_port.is_some_and(|port| port != 0) {
        return Err(refused("it cannot be given together with containerPort or hostPort."));
    }
    if !matches!(mode, NetworkMode::Bridge | NetworkMode::Awsvpc) {
        return Err(refused("it is only supported in network modes bridge and awsvpc."));
    }
    let range =
        parse_port_range(text).ok_or_else(|| refused("it must be two ports such as 8000-8009, the lower first."))?;
    if range.1 > MOST_PORTS {
        return Err(refused(&format!("it cannot have more than {MOST_PORTS} ports.")));
    }
    Ok(range)
}

fn dependency(asked: wire_shapes::ContainerDependency) -> Result<Dependency, ServiceError> {
    let condition = asked.condition.unwrap_or_default();
    Ok(Dependency {
        container_name: asked.container_name.unwrap_or_default(),
        condition: DependencyCondition::parse(&condition)
            .ok_or_else(|| client(format!("Invalid dependsOn condition: {condition}")))?,
    })
}

fn timeout(given: Option<i32>, field: &str, least: u32) -> Result<Option<u32>, ServiceError> {
    given
        .map(|seconds| {
            u32::try_from(seconds)
                .ok()
                .filter(|seconds| *seconds >= least)
                .ok_or_else(|| client(format!("Invalid '{field}' setting: it must be at least {least}.")))
        })
        .transpose()
}

fn ulimit(asked: wire_shapes::Ulimit) -> Result<Ulimit, ServiceError> {
    let name = asked.name.unwrap_or_default();
    let (soft, hard) = (asked.soft_limit.unwrap_or_default(), asked.hard_limit.unwrap_or_default());
    if !ULIMITS.contains(&name.as_str()) {
        return Err(client(format!("Invalid ulimit name: {name}")));
    }
    let order = |limit: i32| if limit < 0 { i32::MAX } else { limit };
    if soft < -1 || hard < -1 || order(soft) > order(hard) {
        return Err(client(format!("Invalid ulimit {name}: the soft limit cannot be more than the hard limit.")));
    }
    Ok(Ulimit { name, soft_limit: soft.into(), hard_limit: hard.into() })
}

fn health(asked: wire_shapes::HealthCheck) -> Result<HealthCheck, ServiceError> {
    let wire_shapes::HealthCheck { command, interval, timeout, retries, start_period } = asked;
    let command = command.unwrap_or_default();
    let right = match command.first().map(String::as_str) {
        Some("NONE") => command.len() == 1,
        Some("CMD") => command.len() > 1,
        Some("CMD-SHELL") => command.len() == 2,
        _ => false,
    };
    if !right {
        return Err(client(
            "Invalid 'healthCheck' command: it must be [\"CMD\", …], [\"CMD-SHELL\", \"…\"] or [\"NONE\"].",
        ));
    }
    let within = |given: Option<i32>, default: u32, least: u32, most: u32, field: &str| {
        let value = given.map_or(Some(default), |value| u32::try_from(value).ok());
        value
            .filter(|value| (least..=most).contains(value))
            .ok_or_else(|| client(format!("Invalid 'healthCheck' {field}: it must be between {least} and {most}.")))
    };
    Ok(HealthCheck {
        command,
        interval: within(interval, 30, 5, 300, "interval")?,
        timeout: within(timeout, 5, 2, 60, "timeout")?,
        retries: within(retries, 3, 1, 10, "retries")?,
        start_period: start_period.map(|period| within(Some(period), 0, 0, 300, "startPeriod")).transpose()?,
    })
}

fn restart(asked: wire_shapes::ContainerRestartPolicy) -> Result<RestartPolicy, ServiceError> {
    let wire_shapes::ContainerRestartPolicy { enabled, ignored_exit_codes, restart_attempt_period } = asked;
    let ignored_exit_codes = ignored_exit_codes.unwrap_or_default();
    if ignored_exit_codes.len() > 50 {
        return Err(client("A restart policy can have at most 50 ignored exit codes."));
    }
    let period = restart_attempt_period.map(|period| {
        u32::try_from(period)
            .ok()
            .filter(|period| (60..=1800).contains(period))
            .ok_or_else(|| client("The restartAttemptPeriod must be between 60 and 1800 seconds."))
    });
    Ok(RestartPolicy {
        enabled: enabled.unwrap_or_default(),
        ignored_exit_codes,
        restart_attempt_period: period.transpose()?,
    })
}

fn linux(asked: wire_shapes::LinuxParameters, container: &mut ContainerDefinition) -> Result<(), ServiceError> {
    let wire_shapes::LinuxParameters {
        capabilities,
        devices,
        init_process_enabled,
        shared_memory_size,
        tmpfs,
        max_swap,
        swappiness,
    } = asked;
    refuse(&[
        ("linuxParameters.devices", devices.given()),
        ("linuxParameters.sharedMemorySize", shared_memory_size.is_some()),
        ("linuxParameters.tmpfs", tmpfs.given()),
        ("linuxParameters.maxSwap", max_swap.is_some()),
        ("linuxParameters.swappiness", swappiness.is_some()),
    ])?;
    let capabilities = capabilities.unwrap_or_default();
    let (add, drop) = (capabilities.add.unwrap_or_default(), capabilities.drop.unwrap_or_default());
    if let Some(other) = add.iter().chain(&drop).find(|name| !CAPABILITIES.contains(&name.as_str())) {
        return Err(client(format!("Invalid capability: {other}")));
    }
    container.has_linux_parameters = true;
    container.init_process_enabled = init_process_enabled;
    (container.add_capabilities, container.drop_capabilities) = (add, drop);
    Ok(())
}
