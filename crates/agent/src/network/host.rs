//! host mode: the container is in the machine's own network, and its ports are the machine's.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use domain::agent_protocol::docker::HostConfig;
use domain::agent_protocol::payload::Container;

use super::{Joined, Names, names};
use crate::engine::record::{ContainerNetwork, NetworkBinding};

/// The namespace of whoever opens it: the agent's own, which its shims have too.
const OWN: &str = "/proc/self/ns/net";

/// The machine's network, with the machine's names unless the definition has others.
pub fn join(definition: &Container, host: &HostConfig) -> Joined {
    let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".to_owned());
    if !hosts.ends_with('\n') {
        hosts.push('\n');
    }
    hosts.push_str(&names::extra_hosts(host));
    // The machine's own resolver on the loopback is within reach here, so the file is taken as it is.
    let resolvers = names::read_resolvers().resolv_conf(host);
    Joined {
        namespace: PathBuf::from(OWN),
        names: Names { hostname, hosts, resolvers },
        network: ContainerNetwork { address: None, bindings: bindings(definition) },
    }
}

/// Every port is what it is: the machine's number is the container's.
fn bindings(definition: &Container) -> Vec<NetworkBinding> {
    let mappings = definition.port_mappings.iter();
    let binding = |mapping: &domain::agent_protocol::payload::PortMapping| {
        let port = u16::try_from(mapping.container_port).ok()?;
        Some(NetworkBinding {
            bind_ip: Ipv4Addr::UNSPECIFIED.to_string(),
            container_port: port,
            host_port: port,
            range: None,
            protocol: super::bridge::Protocol::of(mapping)?.as_str().to_owned(),
        })
    };
    mappings.filter_map(binding).collect()
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::payload::PortMapping;

    use super::*;

    #[test]
    fn ports_are_the_machines() {
        let mapping = PortMapping { container_port: 80, protocol: "udp".into(), ..PortMapping::default() };
        let container = Container { port_mappings: vec![mapping], ..Container::default() };
        let host = HostConfig { extra_hosts: vec!["db:10.0.0.1".into()], ..HostConfig::default() };
        let joined = join(&container, &host);
        let binding = &joined.network.bindings[0];
        assert_eq!((binding.bind_ip.as_str(), binding.container_port, binding.host_port), ("0.0.0.0", 80, 80));
        assert_eq!(binding.protocol, "udp");
        assert!(joined.names.hosts.ends_with("10.0.0.1 db\n"));
    }
}
