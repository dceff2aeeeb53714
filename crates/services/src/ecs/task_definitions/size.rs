//! CPU and memory of a task as a whole: Fargate has certain sizes only, elsewhere a task need not have any.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html#task_size>

use domain::ecs::fargate;
use wire::ServiceError;

use crate::ecs::common::client;

/// The fewest and the most CPU units of a task outside Fargate.
const CPU: std::ops::RangeInclusive<u32> = 128..=196_608;

/// What a task has at most; `None` where its containers alone say what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ecs) struct Size {
    /// CPU units.
    pub(in crate::ecs) cpu: Option<u32>,
    /// MiB.
    pub(in crate::ecs) memory: Option<u32>,
}

/// Reads `cpu` and `memory` of a task definition.
pub(super) fn read(cpu: Option<&str>, memory: Option<&str>, for_fargate: bool) -> Result<Size, ServiceError> {
    let given = |text: Option<&str>, field: &str, parse: fn(&str) -> Option<u32>| match text.filter(|t| !t.is_empty()) {
        None if for_fargate => Err(client(format!("Fargate requires that '{field}' be defined at the task level."))),
        None => Ok(None),
        Some(text) => {
            parse(text).map(Some).ok_or_else(|| client(format!("Invalid '{field}' setting for task: {text}")))
        }
    };
    let size =
        Size { cpu: given(cpu, "cpu", fargate::parse_cpu)?, memory: given(memory, "memory", fargate::parse_memory)? };
    check(size, for_fargate)?;
    Ok(size)
}

/// Whether a task can have this size.
pub(in crate::ecs) fn check(size: Size, for_fargate: bool) -> Result<(), ServiceError> {
    let Size { cpu, memory } = size;
    if for_fargate {
        let (cpu, memory) = (cpu.unwrap_or_default(), memory.unwrap_or_default());
        return if fargate::is_size(cpu, memory) {
            Ok(())
        } else {
            Err(client(format!(
                "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon ECS documentation for the valid values."
            )))
        };
    }
    if cpu.is_some_and(|cpu| !CPU.contains(&cpu)) {
        return Err(client(format!(
            "Invalid 'cpu' setting for task: it must be between {} and {}.",
            CPU.start(),
            CPU.end()
        )));
    }
    if memory.is_some_and(|memory| memory < 6) {
        return Err(client("Invalid 'memory' setting for task: at least 6 MiB are needed."));
    }
    Ok(())
}
