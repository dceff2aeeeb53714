//! Which host takes a task: filters that can explain their refusal, then a choice. Pure.
//!
//! For Fargate there is one filter that counts, memory: it is never promised beyond the host, while CPU may be, since
//! running slower is better than not running and dying is not. Among the hosts with room the one with the most free
//! memory is chosen. Strategies, constraints and the cluster query language of EC2 tasks come with their own issue.

use domain::{Arn, ecs::ContainerInstance};

/// A host with what is free on it. The caller counts: what is registered minus what tasks hold that are not STOPPED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The container instance's ARN.
    pub arn: Arn,
    /// Whether its agent is connected.
    pub connected: bool,
    /// MiB that no task holds.
    pub free_memory: u32,
}

impl Host {
    /// A container instance as a host, given the MiB that its tasks hold.
    pub fn new(instance: &ContainerInstance, connected: bool, held: u32) -> Self {
        Self { arn: instance.arn.clone(), connected, free_memory: instance.memory.saturating_sub(held) }
    }
}

/// Why no host takes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no host, or none is connected.
    #[error("no host is connected")]
    NoHost,
    /// No connected host has that much memory free.
    #[error("no host has enough free memory")]
    Memory,
}

/// Chooses a Fargate host for a task that needs `memory` MiB. Equal hosts are chosen in the order of their ARNs.
pub fn place_on_fargate(hosts: &[Host], memory: u32) -> Result<&Host, Refusal> {
    let mut connected = hosts.iter().filter(|host| host.connected).peekable();
    if connected.peek().is_none() {
        return Err(Refusal::NoHost);
    }
    connected
        .filter(|host| host.free_memory >= memory)
        .max_by(|a, b| a.free_memory.cmp(&b.free_memory).then_with(|| b.arn.cmp(&a.arn)))
        .ok_or(Refusal::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, connected: bool, free_memory: u32) -> Host {
        let arn = format!("arn:aws:ecs:us-east-1:123456789012:container-instance/f/{name}").parse().unwrap();
        Host { arn, connected, free_memory }
    }

    #[test]
    fn a_task_goes_where_most_memory_is_free_and_never_beyond_it() {
        let hosts = [host("a", true, 1024), host("b", true, 4096), host("c", true, 4096), host("d", false, 9000)];
        let check = |memory: u32, expect: Result<&str, Refusal>| {
            let placed = place_on_fargate(&hosts, memory).map(|host| host.arn.resource_name());
            assert_eq!(placed, expect, "{memory}");
        };
        check(512, Ok("b"));
        check(4096, Ok("b"));
        check(4097, Err(Refusal::Memory));
    }

    #[test]
    fn without_a_connected_host_the_reason_is_that() {
        assert_eq!(place_on_fargate(&[host("d", false, 9000)], 1), Err(Refusal::NoHost));
        assert_eq!(place_on_fargate(&[], 1), Err(Refusal::NoHost));
    }
}
