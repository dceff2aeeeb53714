//! What is particular to an external instance: a machine of the user's in a cluster of the user's (launch type
//! EXTERNAL). Its tasks share the machine's network, or sit behind its address on a bridge.

use std::path::Path;

use super::machine;
use crate::config::Config;
use crate::identity::Offer;

/// `AWS_EXECUTION_ENV` in a task. Amazon documents this and Fargate's only, and none for machines of the user's.
pub const EXECUTION_ENVIRONMENT: &str = "AWS_ECS_EC2";

/// What Amazon asks of a machine that is none of its own.
const CAPABILITIES: &[&str] = &["ecs.capability.external"];

/// What this machine offers; numbers the operator gave go before the kernel's.
pub fn offer(
    cpu: Option<i32>,
    memory: Option<i32>,
    zone: &str,
    directory: &Path,
    config: &Config,
) -> std::io::Result<Offer> {
    machine::offer(CAPABILITIES, cpu, memory, zone, &machine::place(directory), config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_is_the_machine_less_what_the_operator_keeps() {
        let config = Config {
            reserved_memory: 64,
            attributes: [("stack".to_owned(), "prod".to_owned())].into(),
            ..Config::default()
        };
        let offer = offer(None, None, "us-east-1a", Path::new("/data"), &config).expect("an offer");
        let usable = i32::try_from(machine::usable_memory().expect("readable")).expect("fits");
        assert_eq!(offer.memory, usable - 64);
        assert_eq!(offer.ports, ["22", "2375", "2376", "51678", "51679"]);
        for name in [
            "ecs.capability.external",
            "com.amazonaws.ecs.capability.task-iam-role-network-host",
            "stack",
            "ecs.os-type",
            "longshore.host",
        ] {
            assert!(offer.attributes.iter().any(|(found, _)| found == name), "{name}");
        }
        assert!(!offer.attributes.iter().any(|(found, _)| found == "ecs.capability.task-eni"));
        let greedy = Config { reserved_memory: 1 << 40, ..Config::default() };
        assert!(super::offer(None, None, "z", Path::new("/data"), &greedy).is_err());
    }
}
