//! What is read of Docker Engine's documents; members are Docker's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use domain::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::engine::record::{ContainerNetwork, NetworkBinding};

/// `null` is as good as absent: Go writes it for an empty list or map.
fn lenient<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A container, as it is listed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listed {
    /// Docker's identifier.
    pub id: String,
    /// `/name`, and `/other/alias` for each container that is linked to it.
    #[serde(deserialize_with = "lenient")]
    pub names: Vec<String>,
    /// `created`, `running`, `exited`, …
    pub state: String,
    /// Its labels.
    #[serde(deserialize_with = "lenient")]
    pub labels: BTreeMap<String, String>,
}

impl Listed {
    /// Its own name.
    pub fn name(&self) -> Option<&str> {
        let own = self.names.iter().filter_map(|name| name.strip_prefix('/'));
        own.into_iter().find(|name| !name.contains('/'))
    }
}

/// What was made.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Created {
    /// Docker's identifier.
    pub id: String,
}

/// A container, as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    /// Docker's identifier.
    pub id: String,
    /// `/name`.
    pub name: String,
    /// The image's identifier.
    pub image: String,
    /// What became of it.
    pub state: State,
    /// What it has of the network.
    pub network_settings: NetworkSettings,
}

/// What became of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Whether its process is there.
    pub running: bool,
    /// Whether the kernel killed something in it for want of memory.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Of its process.
    pub exit_code: i32,
    /// RFC 3339; year 1 if it never was.
    pub started_at: String,
    /// RFC 3339; year 1 if it never was.
    pub finished_at: String,
    /// The outcome of its health check, if it has one.
    #[serde(deserialize_with = "lenient")]
    pub health: Health,
}

impl State {
    /// When its process was executed, if it ever was.
    pub fn started(&self) -> Option<Timestamp> {
        time(&self.started_at)
    }

    /// When it ended, if it did.
    pub fn finished(&self) -> Option<Timestamp> {
        time(&self.finished_at)
    }
}

/// Outcomes of a health check, oldest first.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// The last five.
    #[serde(deserialize_with = "lenient")]
    pub log: Vec<Probe>,
}

/// One of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Probe {
    /// When it ended.
    pub end: String,
    /// Of the command; -1 if it took too long or could not run.
    pub exit_code: i32,
    /// What it printed, at most 4 KiB.
    pub output: String,
}

/// What a container has of the network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// `80/tcp` → where it is published.
    #[serde(deserialize_with = "lenient")]
    pub ports: BTreeMap<String, Option<Vec<Published>>>,
    /// By the network's name.
    #[serde(deserialize_with = "lenient")]
    pub networks: BTreeMap<String, Attached>,
}

/// Where a port is published.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Published {
    /// An address of the machine.
    pub host_ip: String,
    /// Its port.
    pub host_port: String,
}

/// A container in a network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Attached {
    /// Its address there.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
}

impl NetworkSettings {
    /// What the control plane and the container itself are told of it. Ports that are published at addresses of version 6
    /// too are told once.
    pub fn told(&self) -> ContainerNetwork {
        let mut bindings = Vec::new();
        for (port, published) in &self.ports {
            let Some((container, protocol)) = port.split_once('/') else { continue };
            for one in published.iter().flatten().filter(|one| one.host_ip.parse::<Ipv4Addr>().is_ok()) {
                let (Ok(container_port), Ok(host_port)) = (container.parse(), one.host_port.parse()) else { continue };
                bindings.push(NetworkBinding {
                    bind_ip: one.host_ip.clone(),
                    container_port,
                    host_port,
                    range: None,
                    protocol: protocol.to_owned(),
                });
            }
        }
        let address = self.networks.values().find_map(|network| network.ip_address.parse().ok());
        ContainerNetwork { address, bindings }
    }
}

/// An image, as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    /// Docker's identifier.
    pub id: String,
    /// `name@sha256:…` for each name it was pulled by.
    #[serde(deserialize_with = "lenient")]
    pub repo_digests: Vec<String>,
}

/// What is said during a pull.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// In words.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// A network.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// Settings of its driver.
    #[serde(deserialize_with = "lenient")]
    pub options: BTreeMap<String, String>,
}

/// A time that Docker tells; `None` for one that never was.
pub fn time(text: &str) -> Option<Timestamp> {
    if text.starts_with("0001-") {
        return None;
    }
    wire::Timestamp::parse(text).map(|time| Timestamp(time.millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_as_docker_has_given_them() {
        let text = r#"{"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49153"}],
            "53/udp": null}, "Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}"#;
        let told = serde_json::from_str::<NetworkSettings>(text).expect("readable").told();
        assert_eq!(told.address, Some(Ipv4Addr::new(172, 17, 0, 2)));
        let [binding] = told.bindings.as_slice() else { panic!("{:?}", told.bindings) };
        assert_eq!((binding.bind_ip.as_str(), binding.container_port, binding.host_port), ("0.0.0.0", 80, 49_153));
        let none =
            serde_json::from_str::<NetworkSettings>(r#"{"Ports": null, "Networks": {"host": {"IPAddress": ""}}}"#);
        assert_eq!(none.expect("readable").told(), ContainerNetwork::default());
    }

    #[test]
    fn a_container_that_never_ran_has_no_times() {
        let state: State = serde_json::from_str(
            r#"{"Status": "exited", "StartedAt": "2026-11-28T13:00:00.123456789Z", "FinishedAt": "0001-01-01T00:00:00Z"}"#,
        )
        .expect("readable");
        assert_eq!(state.started().map(Timestamp::millis).map(|millis| millis % 1000), Some(123));
        assert_eq!(state.finished(), None);
    }

    #[test]
    fn a_linked_container_has_a_name_of_its_own() {
        let listed = Listed { names: vec!["/other/db".into(), "/ecs-web-1-db-0a".into()], ..Listed::default() };
        assert_eq!(listed.name(), Some("ecs-web-1-db-0a"));
    }
}
