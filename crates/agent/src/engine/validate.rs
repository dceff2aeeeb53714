//! Whether a task of a payload can be run here at all. The control plane refuses earlier; this is for the one that
//! does not, so that nothing is accepted and ignored.

use domain::agent_protocol::payload::{Container, Task};

use super::dependency;

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
    for container in &task.containers {
        if let Err(what) = check_container(container) {
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
        (!container.links.is_empty(), "links"),
        (!container.secrets.is_empty(), "secrets"),
        (!container.port_mappings.is_empty(), "portMappings (of an awsvpc task)"),
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

/// The command of a container, its override included.
pub fn command(container: &Container) -> Option<Vec<String>> {
    let overridden = serde_json::from_str::<serde_json::Value>(&container.overrides)
        .ok()
        .and_then(|value| value.get("command").cloned())
        .and_then(|command| serde_json::from_value(command).ok());
    overridden.or_else(|| container.command.clone())
}
