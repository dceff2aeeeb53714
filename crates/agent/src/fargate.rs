//! What is particular to a Fargate host: what it advertises, where a task's network is, what its environment says.
//! An agent on an EC2 or external instance has another module like this one, and shares the rest.

use std::path::{Path, PathBuf};

use domain::agent_protocol::payload::Task;
use domain::ecs::container_instance::HOST_ATTRIBUTE;
use nix::sys::statfs::{FsType, statfs};

use crate::identity::Offer;
use crate::logs;

/// `AWS_EXECUTION_ENV` in a task.
pub const EXECUTION_ENVIRONMENT: &str = "AWS_ECS_FARGATE";

/// The file system that network namespaces are bind-mounted from (`linux/magic.h`).
const NSFS: FsType = FsType(0x6e73_6673);
/// Kept for the platform itself, in MiB.
const RESERVED_MEMORY: u64 = 256;

/// Capabilities of the runtime, as Amazon names them; those of the log drivers are theirs.
const CAPABILITIES: &[&str] = &[
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    "com.amazonaws.ecs.capability.docker-remote-api.1.23",
    "com.amazonaws.ecs.capability.docker-remote-api.1.24",
    "com.amazonaws.ecs.capability.docker-remote-api.1.25",
    "com.amazonaws.ecs.capability.docker-remote-api.1.29",
    "com.amazonaws.ecs.capability.docker-remote-api.1.32",
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.task-iam-role",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.ecr-endpoint",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.full-sync",
    "ecs.capability.task-cpu-mem-limit",
    "ecs.capability.task-eni",
];

/// What this host offers; numbers the operator gave go before the kernel's.
pub fn offer(
    cpu: Option<i32>,
    memory: Option<i32>,
    availability_zone: &str,
    directory: &Path,
) -> std::io::Result<Offer> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = match memory {
        Some(memory) => memory,
        None => i32::try_from(total_memory()?.saturating_sub(RESERVED_MEMORY)).unwrap_or(i32::MAX),
    };
    let mut attributes: Vec<(String, String)> =
        CAPABILITIES.iter().chain(logs::CAPABILITIES).map(|name| ((*name).to_owned(), String::new())).collect();
    // The place, not what is in it: this stays the same when the agent has forgotten everything.
    let machine = format!("{}:{}", machine_id(), directory.display());
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    for (name, value) in [
        ("ecs.os-type", "linux"),
        ("ecs.os-family", "LINUX"),
        ("ecs.cpu-architecture", architecture),
        ("ecs.availability-zone", availability_zone),
        (HOST_ATTRIBUTE, &machine),
    ] {
        attributes.push((name.to_owned(), value.to_owned()));
    }
    Ok(Offer {
        cpu: cpu.unwrap_or_else(|| i32::try_from(cores * 1024).unwrap_or(i32::MAX)),
        memory,
        ports: Vec::new(),
        attributes,
    })
}

fn machine_id() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    if !id.is_empty() {
        return id;
    }
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The host's memory in MiB.
fn total_memory() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes: Option<u64> = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.map(|kibibytes| kibibytes / 1024).ok_or_else(|| std::io::Error::other("/proc/meminfo has no MemTotal"))
}

/// Where the task's network namespace is, or will be: the host process makes it for the task's interface.
pub fn netns(platform: &str, task: &Task) -> Option<PathBuf> {
    let interface = task.elastic_network_interfaces.first()?;
    Some(domain::network::names::netns_path(platform, &interface.ec2_id))
}

/// Whether the name is a network namespace by now; a plain file is one in the making.
pub fn is_netns(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS)
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

/// The task's search domains.
pub fn search_domains(task: &Task) -> Vec<String> {
    task.elastic_network_interfaces.first().map(|one| one.domain_name.clone()).unwrap_or_default()
}

/// The region of an ARN.
pub fn region(arn: &str) -> &str {
    arn.split(':').nth(3).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_promises_no_memory_it_does_not_have() {
        let offer = offer(None, None, "us-east-1a", Path::new("/data")).expect("an offer");
        let total = i32::try_from(total_memory().expect("readable")).expect("fits");
        assert!(offer.memory > 0 && offer.memory < total);
        assert!(offer.attributes.contains(&("ecs.availability-zone".into(), "us-east-1a".into())));
    }

    #[test]
    fn only_a_mounted_namespace_counts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(!is_netns(file.path()));
        assert!(is_netns(Path::new("/proc/self/ns/net")));
        assert!(!is_netns(Path::new("/nonexistent")));
    }
}
