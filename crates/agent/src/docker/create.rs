//! From a payload's container to what Docker Engine is asked to create.
//!
//! The payload's own `config` and `hostConfig` are the beginning: they are Docker's already, and a member that this agent
//! does not know is Docker's to take or to refuse. Over them goes what stands elsewhere in the payload, and what only the
//! instance knows.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use domain::agent_protocol::payload::{Container, PortMapping, Task};
use serde_json::{Map, Value, json};

use super::logs;
use crate::engine::machine::Failure;
use crate::engine::validate;
use crate::host::Settings;
use crate::host::spec;
use crate::logs::LogDriver;
use crate::metadata::documents;
use crate::network::Mode;
use crate::network::bridge::Protocol;

/// Marks the containers of one agent, of which there may be more on an engine.
pub const AGENT_LABEL: &str = "longshore.agent";
/// As Amazon's agent has it.
pub const TASK_LABEL: &str = "com.amazonaws.ecs.task-arn";
/// As Amazon's agent has it.
pub const CONTAINER_LABEL: &str = "com.amazonaws.ecs.container-name";
/// The least memory that Docker takes, in MiB.
const LEAST_MEMORY: i64 = 6;

/// What is known of a container beyond its payload.
pub struct Surroundings<'a> {
    /// Of the agent.
    pub settings: &'a Settings,
    /// The image, as the engine knows it.
    pub image: &'a str,
    /// What its metadata is found by.
    pub id: &'a str,
    /// The names in the engine of the task's other containers.
    pub names: &'a BTreeMap<String, String>,
    /// The cgroup of the task, if it has one.
    pub group: Option<&'a str>,
    /// Where ports that the definition leaves open come from; else Docker chooses.
    pub host_ports: Option<&'a RangeInclusive<u16>>,
}

/// What to post.
pub fn body(task: &Task, container: &Container, around: &Surroundings<'_>) -> Result<Value, Failure> {
    let refused = |why: &str| Failure(format!("CannotCreateContainerError: {why}"));
    let docker = container.docker_config.clone().unwrap_or_default();
    let (mut config, mut host) = (object(docker.config.as_deref()), object(docker.host_config.as_deref()));
    if config.get("Tty").is_some_and(|tty| tty == true) {
        return Err(refused("a terminal is not supported with the docker runtime"));
    }
    config.insert("Image".into(), json!(around.image));
    config.insert("Labels".into(), labels(task, container, &around.settings.platform, &config));
    let environment = spec::added(around.settings, task, container, around.id);
    let environment: Vec<String> = environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    config.insert("Env".into(), json!(environment));
    if let Some(command) = validate::command(container).filter(|command| !command.is_empty()) {
        config.insert("Cmd".into(), json!(command));
    }
    if let Some(entry) = container.entry_point.as_ref().filter(|entry| !entry.is_empty()) {
        config.insert("Entrypoint".into(), json!(entry));
    }
    if container.health_check_type.as_deref() != Some("docker") {
        // Amazon does not heed the image's own.
        config.insert("Healthcheck".into(), json!({ "Test": ["NONE"] }));
    }
    let mode = Mode::of(task).map_err(|other| refused(&format!("networkMode {other} is unknown")))?;
    host.insert("NetworkMode".into(), json!(mode.as_str()));
    if mode == Mode::Bridge {
        publish(&container.port_mappings, around.host_ports, &mut config, &mut host);
        host.insert("Links".into(), links(container, around.names)?);
    }
    resources(task, container, around, &mut host);
    let parameters = container.linux_parameters.clone().unwrap_or_default();
    let capabilities = parameters.capabilities.unwrap_or_default();
    merge(&mut host, "CapAdd", capabilities.add);
    merge(&mut host, "CapDrop", capabilities.drop);
    if let Some(init) = parameters.init_process_enabled {
        host.entry("Init").or_insert(json!(init));
    }
    if let Some(mebibytes) = parameters.shared_memory_size {
        host.insert("ShmSize".into(), json!(mebibytes.saturating_mul(1 << 20)));
    }
    // The driver was checked when the task was received.
    host.insert("LogConfig".into(), logs::config(&LogDriver::of(container).unwrap_or(LogDriver::None)));
    config.insert("HostConfig".into(), Value::Object(host));
    Ok(Value::Object(config))
}

/// A name that says to whoever lists an engine's containers what it is, as Amazon's agent makes it.
pub fn name(task: &Task, container: &Container, hex: &str) -> String {
    let name = format!("ecs-{}-{}-{}-{hex}", task.family, task.version, container.name);
    name.chars().filter(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(*letter)).collect()
}

/// The payload was checked when it was received.
fn object(text: Option<&str>) -> Map<String, Value> {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn labels(task: &Task, container: &Container, platform: &str, config: &Map<String, Value>) -> Value {
    let mut labels = config.get("Labels").and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, value) in documents::own_labels(task, &container.name) {
        labels.insert(name.to_owned(), json!(value));
    }
    labels.insert(AGENT_LABEL.to_owned(), json!(platform));
    Value::Object(labels)
}

fn publish(
    mappings: &[PortMapping],
    range: Option<&RangeInclusive<u16>>,
    config: &mut Map<String, Value>,
    host: &mut Map<String, Value>,
) {
    let (mut exposed, mut bindings) = (Map::new(), Map::<String, Value>::new());
    for mapping in mappings {
        let protocol = Protocol::of(mapping).map_or("tcp", Protocol::as_str);
        let port = format!("{}/{protocol}", mapping.container_port);
        let on_host = match (mapping.host_port, range) {
            (0, None) => String::new(),
            // Docker takes the first of a range that nobody has.
            (0, Some(range)) => format!("{}-{}", range.start(), range.end()),
            (port, _) => port.to_string(),
        };
        exposed.insert(port.clone(), json!({}));
        let all = bindings.entry(port).or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(json!({ "HostPort": on_host }));
        }
    }
    config.insert("ExposedPorts".into(), Value::Object(exposed));
    host.insert("PortBindings".into(), Value::Object(bindings));
}

fn links(container: &Container, names: &BTreeMap<String, String>) -> Result<Value, Failure> {
    let link = |link: &String| {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let known = names.get(name).map(|known| format!("{known}:{alias}"));
        known.ok_or_else(|| Failure(format!("CannotCreateContainerError: Link target is not available: {name}")))
    };
    Ok(json!(container.links.iter().map(link).collect::<Result<Vec<_>, _>>()?))
}

/// Shares and limits. Without a cgroup of the task's own, a task of one container is limited by the container's.
fn resources(task: &Task, container: &Container, around: &Surroundings<'_>, host: &mut Map<String, Value>) {
    let mut mebibytes = container.memory;
    match around.group {
        Some(group) => drop(host.insert("CgroupParent".into(), json!(group))),
        None => {
            if let Some(all) = task.memory.filter(|all| *all > 0) {
                mebibytes = if mebibytes > 0 { mebibytes.min(all) } else { all };
            }
            if let Some(cpu) = task.cpu.filter(|cpu| *cpu > 0.0) {
                host.insert("NanoCpus".into(), json!((cpu * 1e9) as i64));
            }
        }
    }
    if mebibytes > 0 {
        host.insert("Memory".into(), json!(mebibytes.max(LEAST_MEMORY).saturating_mul(1 << 20)));
    }
    // The kernel's least is 2, which is also what Amazon's agent gives a container without a share.
    host.insert("CpuShares".into(), json!(container.cpu.max(2)));
}

/// The control plane says these in both places.
fn merge(host: &mut Map<String, Value>, name: &str, more: Vec<String>) {
    let mut all: Vec<String> =
        host.get(name).and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default();
    all.extend(more);
    all.sort_unstable();
    all.dedup();
    host.insert(name.to_owned(), json!(all));
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::docker::{Config, DockerConfig, HostConfig, LogConfig};
    use domain::agent_protocol::payload::LinuxParameters;

    use super::*;
    use crate::host::spec::tests::settings;

    fn task(mode: &str, change: impl FnOnce(&mut Container)) -> Task {
        let mut container = Container { name: "web".into(), cpu: 64, memory: 128, ..Container::default() };
        change(&mut container);
        let arn = "arn:aws:ecs:eu-west-1:123456789012:task/c/0a".into();
        Task {
            arn,
            family: "shop".into(),
            version: "3".into(),
            network_mode: mode.into(),
            containers: vec![container],
            ..Task::default()
        }
    }

    fn made(task: &Task, range: Option<&RangeInclusive<u16>>) -> Result<Value, Failure> {
        let settings = settings();
        let names = [("db".to_owned(), "ecs-shop-3-db-0b".to_owned())].into();
        let around =
            Surroundings { settings: &settings, image: "i", id: "0a-1", names: &names, group: None, host_ports: range };
        body(task, &task.containers[0], &around)
    }

    #[test]
    fn the_payloads_own_words_reach_docker_and_more_is_added() {
        let task = task("bridge", |one| {
            let config = Config { user: "app".into(), labels: [("a".into(), "b".into())].into(), ..Config::default() };
            let log = LogConfig { kind: "awslogs".into(), config: [("awslogs-group".into(), "g".into())].into() };
            let host = HostConfig {
                dns: vec!["10.0.0.2".into()],
                cap_add: vec!["NET_ADMIN".into()],
                log_config: Some(log),
                ..HostConfig::default()
            };
            one.docker_config = Some(DockerConfig::new(&config, &host));
            one.command = Some(vec!["run".into()]);
            one.links = vec!["db:store".into()];
            one.linux_parameters =
                Some(LinuxParameters { init_process_enabled: Some(true), ..LinuxParameters::default() });
            one.environment.insert("AWS_REGION".into(), "mine".into());
        });
        let body = made(&task, None).expect("a body");
        assert_eq!((body["Image"].as_str(), body["User"].as_str()), (Some("i"), Some("app")));
        assert_eq!((&body["Cmd"], body.get("Entrypoint")), (&json!(["run"]), None));
        assert_eq!((&body["Labels"]["a"], &body["Labels"][CONTAINER_LABEL]), (&json!("b"), &json!("web")));
        assert_eq!(body["Labels"][TASK_LABEL], json!(task.arn));
        assert_eq!(body["Healthcheck"], json!({ "Test": ["NONE"] }));
        let environment: Vec<String> = serde_json::from_value(body["Env"].clone()).expect("texts");
        assert!(environment.contains(&"AWS_REGION=mine".to_owned()), "{environment:?}");
        assert!(environment.contains(&"ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/0a-1".to_owned()));
        let host = &body["HostConfig"];
        assert_eq!((&host["Dns"], &host["CapAdd"]), (&json!(["10.0.0.2"]), &json!(["NET_ADMIN"])));
        assert_eq!((&host["Memory"], &host["CpuShares"]), (&json!(128 << 20), &json!(64)));
        assert_eq!((&host["Links"], &host["Init"]), (&json!(["ecs-shop-3-db-0b:store"]), &json!(true)));
        // Followed by the agent, so that its lines go where the definition says with the task's own role.
        assert_eq!(host["LogConfig"]["Type"], "json-file");
    }

    #[test]
    fn ports_that_are_left_open_are_dockers_to_choose_or_of_the_operators_range() {
        let mapping =
            |host_port| PortMapping { container_port: 80, host_port, protocol: "tcp".into(), ..PortMapping::default() };
        let one = |host_port| task("bridge", |one| one.port_mappings = vec![mapping(host_port)]);
        let bound = |task: &Task, range: Option<&RangeInclusive<u16>>| {
            made(task, range).expect("a body")["HostConfig"]["PortBindings"]["80/tcp"].clone()
        };
        assert_eq!(bound(&one(0), None), json!([{ "HostPort": "" }]));
        assert_eq!(bound(&one(0), Some(&(40_000..=40_009))), json!([{ "HostPort": "40000-40009" }]));
        assert_eq!(bound(&one(8080), Some(&(40_000..=40_009))), json!([{ "HostPort": "8080" }]));
        let own = made(&task("host", |one| one.port_mappings = vec![mapping(80)]), None).expect("a body");
        assert_eq!((&own["HostConfig"]["NetworkMode"], own["HostConfig"].get("PortBindings")), (&json!("host"), None));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let linked = task("bridge", |one| one.links = vec!["cache".into()]);
        assert!(made(&linked, None).expect_err("refused").0.ends_with("Link target is not available: cache"));
        let terminal = task("bridge", |one| {
            let config = Config { tty: true, ..Config::default() };
            one.docker_config = Some(DockerConfig::new(&config, &HostConfig::default()));
        });
        assert!(made(&terminal, None).expect_err("refused").0.contains("terminal"));
    }

    #[test]
    fn a_task_of_one_container_is_limited_by_it() {
        let small = Task { memory: Some(64), cpu: Some(0.5), ..task("host", |_| {}) };
        let body = made(&small, None).expect("a body");
        assert_eq!(body["HostConfig"]["Memory"], json!(64 << 20));
        assert_eq!(body["HostConfig"]["NanoCpus"], json!(500_000_000));
    }

    #[test]
    fn names_are_amazons() {
        let task = task("host", |_| {});
        assert_eq!(name(&task, &task.containers[0], "0f"), "ecs-shop-3-web-0f");
    }
}
