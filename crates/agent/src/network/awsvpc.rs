//! awsvpc mode: one network namespace for the whole task, with the task's interface, made by the network host.

use std::path::{Path, PathBuf};

use domain::agent_protocol::docker::HostConfig;
use domain::agent_protocol::payload::Task;

use super::Names;

/// Where the network namespaces of interfaces are, each by its interface's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interfaces {
    /// On the platform's own host, by the platform's digits.
    OfPlatform(String),
    /// In a directory of an EC2 instance, where the platform's host hands over what the instance's tasks have.
    HandedOver(PathBuf),
}

impl Interfaces {
    /// Where the task's network namespace is, or will be: the host process makes it for the task's interface.
    pub fn netns(&self, task: &Task) -> Option<PathBuf> {
        let interface = task.elastic_network_interfaces.first()?;
        Some(match self {
            Interfaces::OfPlatform(digits) => domain::network::names::netns_path(digits, &interface.ec2_id),
            // The id comes from outside: it must name something in this directory.
            Interfaces::HandedOver(directory) => directory.join(Path::new(&interface.ec2_id).file_name()?),
        })
    }
}

/// The task's private address.
pub fn address(task: &Task) -> Option<&str> {
    task.elastic_network_interfaces.first()?.primary_address()
}

/// `ip-10-0-0-9.ec2.internal`.
pub fn hostname(task: &Task) -> String {
    let interface = task.elastic_network_interfaces.first();
    interface.map(|interface| interface.private_dns_name.clone()).filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let address = address(task).unwrap_or("127.0.0.1").replace('.', "-");
        format!("ip-{address}")
    })
}

/// The task's resolvers.
pub fn resolvers(task: &Task) -> Vec<String> {
    task.elastic_network_interfaces.first().map(|one| one.domain_name_servers.clone()).unwrap_or_default()
}

/// By what its containers know names.
pub fn names(task: &Task, host: &HostConfig) -> Names {
    let hostname = hostname(task);
    let mut hosts = String::from("127.0.0.1 localhost\n");
    if let Some(address) = address(task) {
        hosts.push_str(&format!("{address} {hostname}\n"));
    }
    hosts.push_str(&super::names::extra_hosts(host));
    let interface = task.elastic_network_interfaces.first();
    let resolvers = if host.dns.is_empty() { resolvers(task) } else { host.dns.clone() };
    let own = || interface.map(|one| one.domain_name.clone()).unwrap_or_default();
    let search = if host.dns_search.is_empty() { own() } else { host.dns_search.clone() };
    Names { resolvers: super::names::resolv_conf(&search, &resolvers, &[]), hostname, hosts }
}
