//! A container's network, by its task's network mode: [`awsvpc`], [`bridge`], [`host`] or [`none`].
//!
//! In awsvpc mode the network host makes one namespace for the whole task. In the other modes the network is the
//! agent's own business: with `host` the container joins the machine's, with `none` it has a namespace with nothing but
//! a loopback, and with `bridge` one of its own behind the machine's address, as Docker has it.

pub mod awsvpc;
pub mod bridge;
pub mod host;
#[cfg(test)]
mod kernel_tests;
mod names;
pub mod none;

use std::path::PathBuf;

use domain::agent_protocol::payload::Task;

use crate::engine::record::{ContainerNetwork, docker_host_config};

pub use plumbing::netns::is_ready as is_namespace;

/// A task's network mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A network interface of a subnet.
    Awsvpc,
    /// An address of the machine's own bridge for each container.
    Bridge,
    /// The machine's network.
    Host,
    /// No network.
    None,
}

impl Mode {
    /// The mode of a task of a payload; the name, if there is no such mode.
    pub fn of(task: &Task) -> Result<Mode, String> {
        if !task.elastic_network_interfaces.is_empty() {
            return Ok(Mode::Awsvpc);
        }
        // Older task definitions say it in Docker's words only.
        let docker = || task.containers.first().map(|container| docker_host_config(container).network_mode);
        let mode = Some(task.network_mode.clone()).filter(|mode| !mode.is_empty()).or_else(docker).unwrap_or_default();
        match mode.as_str() {
            "awsvpc" => Ok(Mode::Awsvpc),
            "" | "default" | "bridge" => Ok(Mode::Bridge),
            "host" => Ok(Mode::Host),
            "none" => Ok(Mode::None),
            other => Err(other.to_owned()),
        }
    }

    /// Amazon's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Awsvpc => "awsvpc",
            Mode::Bridge => "bridge",
            Mode::Host => "host",
            Mode::None => "none",
        }
    }
}

/// By what a container knows names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Its own.
    pub hostname: String,
    /// `/etc/hosts`.
    pub hosts: String,
    /// `/etc/resolv.conf`.
    pub resolvers: String,
}

/// What a container is given of its network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// The network namespace it enters.
    pub namespace: PathBuf,
    /// By what it knows names.
    pub names: Names,
    /// What the control plane and the container itself are told.
    pub network: ContainerNetwork,
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::payload::ElasticNetworkInterface;

    use super::*;

    #[test]
    fn a_task_without_a_mode_has_a_bridge_unless_it_has_an_interface() {
        let of = |mode: &str| Mode::of(&Task { network_mode: mode.into(), ..Task::default() });
        assert_eq!((of(""), of("bridge"), of("host")), (Ok(Mode::Bridge), Ok(Mode::Bridge), Ok(Mode::Host)));
        assert_eq!((of("none"), of("overlay")), (Ok(Mode::None), Err("overlay".to_owned())));
        let interfaces = vec![ElasticNetworkInterface::default()];
        let task = Task { elastic_network_interfaces: interfaces, ..Task::default() };
        assert_eq!(Mode::of(&task), Ok(Mode::Awsvpc));
    }
}
