//! The variables of Amazon's agent that this one honours, from its environment and from `/etc/ecs/ecs.config`.
//!
//! The file has `KEY=VALUE` lines. At Amazon it is read by `ecs-init`, which hands each line to the agent as a variable;
//! here the agent reads it itself, and a variable of its own environment goes before a line of the file, as the
//! environment goes before every other source there. Flags of the command line go before both. A variable that is set
//! and not honoured is named by [`Config::ignored`]: it is warned about, never passed over silently.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where Amazon's file is.
pub const FILE: &str = "/etc/ecs/ecs.config";

/// What the variables say.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `ECS_CLUSTER`.
    pub cluster: Option<String>,
    /// `ECS_BACKEND_HOST`.
    pub endpoint: Option<String>,
    /// `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// `ECS_DATADIR`.
    pub data_dir: Option<PathBuf>,
    /// `ECS_RESERVED_PORTS`, TCP.
    pub reserved_ports: Vec<u16>,
    /// `ECS_RESERVED_PORTS_UDP`.
    pub reserved_ports_udp: Vec<u16>,
    /// `ECS_RESERVED_MEMORY`, in MiB.
    pub reserved_memory: u64,
    /// `ECS_INSTANCE_ATTRIBUTES`.
    pub attributes: BTreeMap<String, String>,
    /// `ECS_CONTAINER_STOP_TIMEOUT`.
    pub stop_timeout: Duration,
    /// `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`, for the docker runtime: our own keeps nothing of a task that ended.
    pub cleanup_wait: Option<Duration>,
    /// `ECS_DYNAMIC_HOST_PORT_RANGE`.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// What the `ECS_ENABLE_…` variables switch on; each on unless said otherwise, as `ecs-init` hands them to Amazon's agent.
    pub enabled: Enabled,
    /// `ECS_ENABLE_SPOT_INSTANCE_DRAINING`.
    pub spot_draining: bool,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`; all there are if nothing is said.
    pub log_drivers: Option<Vec<String>>,
    /// Variables that are set and that mean nothing to this agent.
    pub ignored: Vec<String>,
}

/// What an operator may switch off.
#[derive(Debug, Clone, PartialEq)]
pub struct Enabled {
    /// `ECS_ENABLE_TASK_IAM_ROLE`.
    pub task_roles: bool,
    /// `ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST`.
    pub task_roles_network_host: bool,
    /// `ECS_ENABLE_TASK_ENI`, where there are interfaces for tasks at all.
    pub task_interfaces: bool,
    /// `ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE`.
    pub awslogs_execution_role: bool,
}

impl Default for Enabled {
    fn default() -> Enabled {
        Enabled { task_roles: true, task_roles_network_host: true, task_interfaces: true, awslogs_execution_role: true }
    }
}

impl Config {
    /// Whether an instance with this configuration offers a capability that it could offer.
    pub fn offers(&self, capability: &str) -> bool {
        const DRIVER: &str = "com.amazonaws.ecs.capability.logging-driver.";
        match capability {
            "com.amazonaws.ecs.capability.task-iam-role" => self.enabled.task_roles,
            "com.amazonaws.ecs.capability.task-iam-role-network-host" => self.enabled.task_roles_network_host,
            "ecs.capability.task-eni" => self.enabled.task_interfaces,
            "ecs.capability.execution-role-awslogs" => self.enabled.awslogs_execution_role,
            other => match (other.strip_prefix(DRIVER), &self.log_drivers) {
                (Some(driver), Some(named)) => named.iter().any(|one| one == driver),
                _ => true,
            },
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster: None,
            endpoint: None,
            region: None,
            data_dir: None,
            reserved_ports: vec![22, 2375, 2376, 51_678, 51_679],
            reserved_ports_udp: Vec::new(),
            reserved_memory: 0,
            attributes: BTreeMap::new(),
            stop_timeout: Duration::from_secs(30),
            cleanup_wait: None,
            host_ports: None,
            enabled: Enabled::default(),
            spot_draining: false,
            log_drivers: None,
            ignored: Vec::new(),
        }
    }
}

/// Variables that are honoured by having this value; another one is not.
const FIXED: &[(&str, &str)] = &[
    ("ECS_CHECKPOINT", "true"),
    ("ECS_ENABLE_TASK_CPU_MEM_LIMIT", "true"),
    ("ECS_EXTERNAL", "true"),
    ("ECS_DISABLE_PRIVILEGED", "true"),
];
/// What an agent sets in its containers; an agent in a container finds them and need not read them.
const FROM_OUTSIDE: &[&str] =
    &["ECS_AGENT_URI", "ECS_CONTAINER_METADATA_FILE", "ECS_CONTAINER_METADATA_URI", "ECS_CONTAINER_METADATA_URI_V4"];

impl Config {
    /// From this process's environment and the file, which need not be there unless it was named. `defaults` is a file that
    /// comes before all, if there is one.
    pub fn load(defaults: Option<&Path>, named: Option<&Path>) -> Result<Config, String> {
        let mut variables = match defaults {
            Some(defaults) => read(defaults, false)?,
            None => BTreeMap::new(),
        };
        variables.extend(read(named.unwrap_or(Path::new(FILE)), named.is_some())?);
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        variables.extend(environment);
        Config::of(variables)
    }

    /// From variables by their names.
    fn of(variables: BTreeMap<String, String>) -> Result<Config, String> {
        let mut config = Config::default();
        for (name, value) in variables.iter().filter(|(_, value)| !value.trim().is_empty()) {
            config.take(name, value.trim()).map_err(|error| format!("{name}={value}: {error}"))?;
        }
        Ok(config)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "ECS_CLUSTER" => self.cluster = Some(value.to_owned()),
            "ECS_BACKEND_HOST" => self.endpoint = Some(url(value)),
            "AWS_DEFAULT_REGION" => self.region = Some(value.to_owned()),
            "ECS_DATADIR" => self.data_dir = Some(value.into()),
            "ECS_RESERVED_PORTS" => self.reserved_ports = json(value)?,
            "ECS_RESERVED_PORTS_UDP" => self.reserved_ports_udp = json(value)?,
            "ECS_RESERVED_MEMORY" => {
                self.reserved_memory = value.parse().map_err(|error| format!("not a number of MiB: {error}"))?;
            }
            "ECS_INSTANCE_ATTRIBUTES" => self.attributes = json(value)?,
            "ECS_CONTAINER_STOP_TIMEOUT" => {
                let timeout = duration(value).ok_or("not a duration such as 30s or 2m")?;
                // Amazon's least.
                self.stop_timeout = timeout.max(Duration::from_secs(1));
            }
            "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION" => {
                let wait = duration(value).ok_or("not a duration such as 10m or 3h")?;
                // Amazon passes over one that is less than a second.
                self.cleanup_wait = Some(wait).filter(|wait| *wait >= Duration::from_secs(1));
            }
            "ECS_DYNAMIC_HOST_PORT_RANGE" => self.host_ports = Some(ports(value).ok_or("not a range such as 100-200")?),
            "ECS_ENABLE_TASK_IAM_ROLE" => self.enabled.task_roles = boolean(value)?,
            "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST" => self.enabled.task_roles_network_host = boolean(value)?,
            "ECS_ENABLE_TASK_ENI" => self.enabled.task_interfaces = boolean(value)?,
            "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE" => self.enabled.awslogs_execution_role = boolean(value)?,
            "ECS_ENABLE_SPOT_INSTANCE_DRAINING" => self.spot_draining = boolean(value)?,
            "ECS_AVAILABLE_LOGGING_DRIVERS" => self.log_drivers = Some(json(value)?),
            other => {
                let fixed = FIXED.iter().any(|(name, only)| *name == other && value.eq_ignore_ascii_case(only));
                if other.starts_with("ECS_") && !fixed && !FROM_OUTSIDE.contains(&other) {
                    self.ignored.push(other.to_owned());
                }
            }
        }
        Ok(())
    }
}

/// What a file says; nothing if there is none and there need not be one.
fn read(path: &Path, required: bool) -> Result<BTreeMap<String, String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => lines(&text).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if !required && error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The lines of the file; a value may stand in quotes, as shells and systemd have it.
fn lines(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("line {} is not of the form KEY=VALUE", number + 1))?;
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|mark| value.strip_prefix(mark)?.strip_suffix(mark));
        variables.insert(name.trim().to_owned(), quoted.unwrap_or(value).to_owned());
    }
    Ok(variables)
}

/// `host[:port]` is https, as Amazon reads it.
fn url(value: &str) -> String {
    if value.contains("://") { value.to_owned() } else { format!("https://{value}") }
}

fn json<T: serde::de::DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| error.to_string())
}

/// As Go's `ParseBool` reads it.
fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// `100-200`, neither end 0.
fn ports(value: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = value.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

/// A duration as Go writes it: `1h30m`, `10s`, `1.5s`, `500ms`.
fn duration(value: &str) -> Option<Duration> {
    let mut rest = value;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let scale = match &rest[digits..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * scale;
        rest = &rest[unit..];
    }
    (!value.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Config, String> {
        Config::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn amazons_variables_are_read_as_amazon_writes_them() {
        let config = of(&[
            ("ECS_CLUSTER", "web"),
            ("ECS_BACKEND_HOST", "https://ecs.example"),
            ("AWS_DEFAULT_REGION", "eu-west-1"),
            ("ECS_RESERVED_PORTS", "[22, 80]"),
            ("ECS_RESERVED_PORTS_UDP", "[53]"),
            ("ECS_RESERVED_MEMORY", "256"),
            ("ECS_INSTANCE_ATTRIBUTES", "{\"stack\": \"prod\"}"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "1m30s"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "40000-40010"),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "10m"),
            ("ECS_DATADIR", ""),
        ])
        .expect("a configuration");
        assert_eq!((config.cluster.as_deref(), config.region.as_deref()), (Some("web"), Some("eu-west-1")));
        assert_eq!((config.reserved_ports, config.reserved_ports_udp), (vec![22, 80], vec![53]));
        assert_eq!((config.reserved_memory, config.stop_timeout), (256, Duration::from_secs(90)));
        assert_eq!(config.attributes.get("stack").map(String::as_str), Some("prod"));
        assert_eq!((config.host_ports, config.data_dir), (Some(40_000..=40_010), None));
        assert_eq!(config.cleanup_wait, Some(Duration::from_secs(600)));
    }

    #[test]
    fn what_is_not_honoured_is_named_and_what_is_wrong_is_refused() {
        let config = of(&[
            ("ECS_ENABLE_GPU_SUPPORT", "true"),
            ("ECS_EXTERNAL", "TRUE"),
            ("ECS_CHECKPOINT", "false"),
            ("ECS_AGENT_URI", "http://169.254.170.2/api/x"),
            ("HOME", "/root"),
        ]);
        assert_eq!(config.expect("a configuration").ignored, ["ECS_CHECKPOINT", "ECS_ENABLE_GPU_SUPPORT"]);
        for (name, value) in [
            ("ECS_RESERVED_MEMORY", "a lot"),
            ("ECS_RESERVED_PORTS", "22"),
            ("ECS_RESERVED_PORTS", "[70000]"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "200-100"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "0-100"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "30"),
            ("ECS_ENABLE_TASK_ENI", "yes"),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", "awslogs"),
            ("ECS_INSTANCE_ATTRIBUTES", "stack=prod"),
        ] {
            let refused = of(&[(name, value)]).expect_err(value);
            assert!(refused.starts_with(name), "{refused}");
        }
    }

    #[test]
    fn r04_what_is_switched_off_is_not_offered() {
        let all = [
            ("com.amazonaws.ecs.capability.task-iam-role", "ECS_ENABLE_TASK_IAM_ROLE", "false"),
            ("com.amazonaws.ecs.capability.task-iam-role-network-host", "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "0"),
            ("ecs.capability.task-eni", "ECS_ENABLE_TASK_ENI", "f"),
            ("ecs.capability.execution-role-awslogs", "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", "FALSE"),
            ("com.amazonaws.ecs.capability.logging-driver.awslogs", "ECS_AVAILABLE_LOGGING_DRIVERS", "[\"none\"]"),
        ];
        for (capability, variable, off) in all {
            assert!(Config::default().offers(capability), "{capability}");
            let config = of(&[(variable, off)]).expect("a configuration");
            assert!(config.ignored.is_empty());
            for (other, ..) in all {
                assert_eq!(config.offers(other), other != capability, "{variable} and {other}");
            }
        }
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let file = lines("# ours\nECS_CLUSTER=one\n\nECS_INSTANCE_ATTRIBUTES='{\"a\": \"b=c\"}'\nX=\"y\"\n");
        let file = file.expect("lines");
        assert_eq!((file["X"].as_str(), file["ECS_INSTANCE_ATTRIBUTES"].as_str()), ("y", "{\"a\": \"b=c\"}"));
        let environment = [("ECS_CLUSTER".to_owned(), "two".to_owned())];
        let config = Config::of(file.into_iter().chain(environment).collect()).expect("a configuration");
        assert_eq!(config.cluster.as_deref(), Some("two"));
        assert!(lines("ECS_CLUSTER").is_err());
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(Config::load(None, Some(Path::new("/nonexistent/ecs.config"))).is_err());
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "ECS_RESERVED_MEMORY=77\n").expect("written");
        let defaults = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(defaults.path(), "ECS_RESERVED_MEMORY=1\nECS_BACKEND_HOST=http://a:1\n").expect("written");
        let config = Config::load(Some(defaults.path()), Some(file.path())).expect("a configuration");
        assert_eq!((config.reserved_memory, config.endpoint.as_deref()), (77, Some("http://a:1")));
        assert!(Config::load(Some(Path::new("/nonexistent/defaults")), Some(file.path())).is_ok());
    }

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in
            [("10s", Some(10_000)), ("1h0m1s", Some(3_601_000)), ("1.5s", Some(1500)), ("", None), ("10", None)]
        {
            assert_eq!(duration(text).map(|found| found.as_millis()), milliseconds, "{text}");
        }
    }
}
