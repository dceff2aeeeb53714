//! Which Fargate host takes a task. There is one filter that counts, memory: it is never promised beyond the host,
//! while CPU may be, since running slower is better than not running and dying is not. Among the hosts with room the
//! one with the most free memory is chosen. Strategies and constraints say nothing about Fargate.

use domain::{
    Arn,
    ecs::{AgentConnection, ContainerInstance, Task},
};
use store::Snapshot;

/// A host with what is free on it: what is registered minus what tasks hold that are not STOPPED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The container instance's ARN.
    pub arn: Arn,
    /// Whether its agent is connected.
    pub connected: bool,
    /// MiB that no task holds.
    pub free_memory: u32,
}

/// The Fargate hosts as they are now.
pub fn fargate_hosts(view: &Snapshot) -> Vec<Host> {
    view.find::<ContainerInstance>(ContainerInstance::FARGATE, "yes")
        .map(|instance| {
            let arn = instance.arn.as_str();
            let held: u32 = view.find::<Task>(Task::ON_INSTANCE, arn).map(|task| task.memory).sum();
            Host {
                arn: instance.arn.clone(),
                connected: view.contains::<AgentConnection>(arn),
                free_memory: instance.memory.saturating_sub(held),
            }
        })
        .collect()
}

/// Why no host takes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FargateRefusal {
    /// There is no host.
    #[error("there is no host")]
    NoHost,
    /// No host has that much memory free.
    #[error("no host has enough free memory")]
    Memory,
}

/// Chooses a Fargate host for a task that needs `memory` MiB. Equal hosts are chosen in the order of their ARNs. Where
/// no host is connected, they or the control plane were restarted a moment ago: the task waits for its host to be back.
pub fn place_on_fargate(hosts: &[Host], memory: u32) -> Result<&Host, FargateRefusal> {
    if hosts.is_empty() {
        return Err(FargateRefusal::NoHost);
    }
    let none_connected = hosts.iter().all(|host| !host.connected);
    hosts
        .iter()
        .filter(|host| (host.connected || none_connected) && host.free_memory >= memory)
        .max_by(|a, b| a.free_memory.cmp(&b.free_memory).then_with(|| b.arn.cmp(&a.arn)))
        .ok_or(FargateRefusal::Memory)
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
        let check = |memory: u32, expect: Result<&str, FargateRefusal>| {
            let placed = place_on_fargate(&hosts, memory).map(|host| host.arn.resource_name());
            assert_eq!(placed, expect, "{memory}");
        };
        check(512, Ok("b"));
        check(4096, Ok("b"));
        check(4097, Err(FargateRefusal::Memory));
    }

    #[test]
    fn where_no_host_is_connected_a_task_waits_for_one() {
        assert_eq!(place_on_fargate(&[host("d", false, 9000)], 9000).map(|host| host.free_memory), Ok(9000));
        assert_eq!(place_on_fargate(&[host("d", false, 9000)], 9001), Err(FargateRefusal::Memory));
        assert_eq!(place_on_fargate(&[], 1), Err(FargateRefusal::NoHost));
    }
}
