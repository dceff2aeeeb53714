//! Why no container instance takes a task: the reason of each, for RunTask's `failures`, and the closest one, for a
//! service's event.

use std::{fmt, sync::Arc};

use domain::{Arn, ecs::ContainerInstance};

use crate::{Instance, Reason};

/// An instance that cannot have the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The container instance. Thousands of them are told of at once, whoever asks: so it is shared, not copied.
    pub stored: Arc<ContainerInstance>,
    /// The first thing that is against it.
    pub reason: Reason,
}

impl LeftOut {
    /// The container instance's ARN.
    pub fn arn(&self) -> &Arn {
        &self.stored.arn
    }
}

/// Why no instance takes a task. As text it is the end of a service's event, as Amazon words it: `was unable to place a
/// task because …`, with the sentence on troubleshooting left to whoever writes the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Every instance that was looked at, in the order of their ARNs. Those that are not ACTIVE are not: they have been
    /// taken out on purpose, and explain nothing.
    pub left_out: Vec<LeftOut>,
    closest: Option<usize>,
}

impl Refusal {
    /// From each instance with the first thing that is against it.
    pub(crate) fn new<'a>(instances: impl Iterator<Item = (&'a Instance, Reason)>) -> Self {
        let mut refusal = Self { left_out: Vec::new(), closest: None };
        let mut best = None;
        for (instance, reason) in instances.filter(|(_, reason)| *reason != Reason::Inactive) {
            let closeness = (reason, what_is_free(instance, reason));
            if best.is_none_or(|best| closeness > best) {
                best = Some(closeness);
                refusal.closest = Some(refusal.left_out.len());
            }
            refusal.left_out.push(LeftOut { stored: instance.stored.clone(), reason });
        }
        refusal
    }

    /// The one that passed the most filters; of several the one with the most free CPU where that is the reason, else
    /// with the most free memory; of equal ones the first. None if there was no instance to look at.
    pub fn closest(&self) -> Option<&LeftOut> {
        self.left_out.get(self.closest?)
    }
}

fn what_is_free(instance: &Instance, reason: Reason) -> (u32, u32) {
    match reason {
        Reason::Cpu => (instance.free_cpu, instance.free_memory),
        _ => (instance.free_memory, instance.free_cpu),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("was unable to place a task because no container instance met all of its requirements. ")?;
        match self.closest() {
            Some(closest) => {
                let (name, phrase) = (closest.arn().resource_name(), closest.reason.phrase());
                write!(formatter, "The closest matching (container-instance {name}) {phrase}.")
            }
            None => formatter.write_str("Reason: No Container Instances were found in your cluster."),
        }
    }
}
