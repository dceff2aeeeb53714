//! Whether a task of a payload can be run here at all. The control plane refuses earlier; this is for the one that
//! does not, so that nothing is accepted and ignored.

use domain::agent_protocol::payload::{Container, PortMapping, Task};
use domain::ecs::container_definition::parse_port_range;

use super::dependency;
use crate::network::Mode;
use crate::network::bridge::Protocol;

/// Why a task cannot be run, in the words of Amazon's agent (its spelling included).
pub fn check(task: &Task) -> Result<(), String> {
    let refuse = |what: String| Err(format!("UnrecogniedTaskError: Error loading task - {what}"));
    if !task.arn.starts_with("arn:") || task.containers.is_empty() {
        return refuse("it has no ARN or no container".to_owned());
    }
    if !has_id(task) {
        return refuse("its id is malformed".to_owned());
    }
    if dependency::start_order(task).is_none() {
        return Err(format!("TaskDependencyError: Task dependencies cannot be resolved, taskArn: {}", task.arn));
    }
    for (given, name) in [
        (!task.volumes.is_empty(), "volumes"),
        (task.pid_mode.is_some(), "pidMode"),
        (task.ipc_mode.is_some(), "ipcMode"),
    ] {
        if given {
            return refuse(format!("{name} is not supported by Longshore"));
        }
    }
    let mode = match Mode::of(task) {
        Ok(mode) => mode,
        Err(other) => return refuse(format!("networkMode {other} is not supported by Longshore")),
    };
    for container in &task.containers {
        if let Err(what) = check_container(container).and_then(|()| check_network(container, mode)) {
            return refuse(format!("container {}: {what}", container.name));
        }
    }
    Ok(())
}

/// Whether the task has an id that can name files and cgroups.
pub fn has_id(task: &Task) -> bool {
    let id = super::record::task_id(&task.arn);
    !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn check_container(container: &Container) -> Result<(), String> {
    let name_fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if container.name.is_empty() || container.name.len() > 255 || !container.name.bytes().all(name_fits) {
        return Err("its name is malformed".to_owned());
    }
    for (given, name) in [
        (!container.mount_points.is_empty(), "mountPoints"),
        (!container.volumes_from.is_empty(), "volumesFrom"),
        (!container.secrets.is_empty(), "secrets"),
    ] {
        if given {
            return Err(format!("{name} is not supported by Longshore"));
        }
    }
    if let Some(docker) = &container.docker_config {
        docker.config().map_err(|error| format!("dockerConfig.config: {error}"))?;
        let host = docker.host_config().map_err(|error| format!("dockerConfig.hostConfig: {error}"))?;
        if host.privileged {
            return Err("privileged is not supported by Longshore".to_owned());
        }
        if let Some(log) = &host.log_config {
            crate::logs::LogDriver::new(log).map_err(|error| error.to_string())?;
        }
    }
    let overrides = container.overrides.trim();
    if !overrides.is_empty() {
        let value: serde_json::Value =
            serde_json::from_str(overrides).map_err(|error| format!("overrides: {error}"))?;
        let known = value.as_object().is_some_and(|members| members.keys().all(|key| key == "command"));
        if !known {
            return Err("overrides: only command is allowed".to_owned());
        }
    }
    Ok(())
}

/// What a container may ask of its network, which is not the same in each mode.
fn check_network(container: &Container, mode: Mode) -> Result<(), String> {
    let in_mode = |what: &str| Err(format!("{what} is not supported in networkMode {}", mode.as_str()));
    if !container.port_mappings.is_empty() && matches!(mode, Mode::Awsvpc | Mode::None) {
        return in_mode("portMappings");
    }
    if !container.links.is_empty() && mode != Mode::Bridge {
        return in_mode("links");
    }
    let docker = super::record::docker_config(container);
    if mode == Mode::Host && !docker.hostname.is_empty() {
        return in_mode("hostname");
    }
    // They would be the machine's.
    let host = super::record::docker_host_config(container);
    if mode == Mode::Host && host.sysctls.keys().any(|name| name.starts_with("net.")) {
        return in_mode("systemControls of net");
    }
    container.port_mappings.iter().try_for_each(|mapping| check_mapping(mapping, mode))
}

/// Each port of a range is a rule and a socket of the instance.
const MOST_PORTS: u16 = 100;

fn check_mapping(mapping: &PortMapping, mode: Mode) -> Result<(), String> {
    if Protocol::of(mapping).is_none() {
        return Err(format!("portMappings: protocol {} is not supported", mapping.protocol));
    }
    if !mapping.container_port_range.is_empty() {
        let range = &mapping.container_port_range;
        return match (mode, parse_port_range(range)) {
            (Mode::Host | Mode::None, _) => {
                Err(format!("portMappings: containerPortRange {range} needs a network of the task's own"))
            }
            (_, Some((_, 1..=MOST_PORTS))) => Ok(()),
            (_, _) => Err(format!("portMappings: containerPortRange {range} is no range of up to {MOST_PORTS} ports")),
        };
    }
    if !(1..=65_535).contains(&mapping.container_port) {
        return Err(format!("portMappings: containerPort {} is no port", mapping.container_port));
    }
    if !(0..=65_535).contains(&mapping.host_port) {
        return Err(format!("portMappings: hostPort {} is no port", mapping.host_port));
    }
    if mode == Mode::Host && ![0, mapping.container_port].contains(&mapping.host_port) {
        return Err("portMappings: hostPort must be the containerPort in networkMode host".to_owned());
    }
    Ok(())
}

/// The command of a container, its override included.
pub fn command(container: &Container) -> Option<Vec<String>> {
    let overridden = serde_json::from_str::<serde_json::Value>(&container.overrides)
        .ok()
        .and_then(|value| value.get("command").cloned())
        .and_then(|command| serde_json::from_value(command).ok());
    overridden.or_else(|| container.command.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(mode: &str, change: impl FnOnce(&mut Container)) -> Task {
        let mut container = Container { name: "web".into(), image: "i".into(), ..Container::default() };
        change(&mut container);
        let arn = "arn:aws:ecs:us-east-1:123456789012:task/c/0a".into();
        Task { arn, network_mode: mode.into(), containers: vec![container], ..Task::default() }
    }

    #[track_caller]
    fn refused(task: &Task, what: &str) {
        let refused = check(task).expect_err("refused");
        assert!(refused.contains(what), "{refused}");
    }

    fn mapping(container: i64, host: i64, protocol: &str) -> PortMapping {
        PortMapping { container_port: container, host_port: host, protocol: protocol.into(), ..PortMapping::default() }
    }

    #[test]
    fn ports_and_links_go_with_the_network_mode() {
        for mode in ["", "bridge", "host"] {
            assert_eq!(check(&task(mode, |one| one.port_mappings = vec![mapping(80, 0, "tcp")])), Ok(()), "{mode}");
        }
        for mode in ["none", "awsvpc"] {
            refused(&task(mode, |one| one.port_mappings = vec![mapping(80, 0, "tcp")]), "portMappings is not");
        }
        refused(&task("host", |one| one.links = vec!["web:x".into()]), "links is not supported in networkMode host");
        refused(&task("overlay", |_| {}), "networkMode overlay");
        refused(&task("bridge", |one| one.port_mappings = vec![mapping(80, 0, "sctp")]), "protocol sctp");
        refused(&task("bridge", |one| one.port_mappings = vec![mapping(0, 0, "tcp")]), "containerPort 0");
        refused(&task("bridge", |one| one.port_mappings = vec![mapping(80, 70_000, "tcp")]), "hostPort 70000");
        refused(&task("host", |one| one.port_mappings = vec![mapping(80, 81, "tcp")]), "hostPort must be");
    }
}
