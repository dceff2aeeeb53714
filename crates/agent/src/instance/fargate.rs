//! What is particular to a Fargate host. Its tasks have network interfaces of their own, which the network host makes.

use std::path::Path;

use super::machine;
use crate::identity::Offer;

/// `AWS_EXECUTION_ENV` in a task.
pub const EXECUTION_ENVIRONMENT: &str = "AWS_ECS_FARGATE";

/// Kept for the platform itself, in MiB.
const RESERVED_MEMORY: u64 = 256;
/// What only a Fargate host can do.
const CAPABILITIES: &[&str] = &["ecs.capability.task-eni"];

/// What this host offers; numbers the operator gave go before the kernel's.
pub fn offer(cpu: Option<i32>, memory: Option<i32>, zone: &str, directory: &Path) -> std::io::Result<Offer> {
    let memory = match memory {
        Some(memory) => memory,
        None => i32::try_from(machine::total_memory()?.saturating_sub(RESERVED_MEMORY)).unwrap_or(i32::MAX),
    };
    let offer = super::offer(CAPABILITIES, zone, &machine::place(directory));
    Ok(Offer { cpu: cpu.unwrap_or_else(machine::cpu_units), memory, ..offer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_promises_no_memory_it_does_not_have() {
        let offer = offer(None, None, "us-east-1a", Path::new("/data")).expect("an offer");
        let total = i32::try_from(machine::total_memory().expect("readable")).expect("fits");
        assert!(offer.memory > 0 && offer.memory < total);
        assert!(offer.attributes.contains(&("ecs.availability-zone".into(), "us-east-1a".into())));
        assert!(offer.attributes.contains(&("ecs.capability.task-eni".into(), String::new())));
    }
}
