//! Why no container instance takes a task: the reason of each, for RunTask's `failures`, and the closest one, for a
//! service's event.

use std::fmt;

use domain::Arn;

use crate::{Demand, Instance, Reason, filter};

/// An instance that cannot have the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The container instance's ARN.
    pub arn: Arn,
    /// The first thing that is against it.
    pub reason: Reason,
}

/// Why no instance takes a task. As text it is the end of a service's event, as Amazon words it: `was unable to place a
/// task because …`, with the sentence on troubleshooting left to whoever writes the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Every instance that was looked at, in the order of `instances`. Those that are not ACTIVE are not: they have been
    /// taken out on purpose, and explain nothing.
    pub left_out: Vec<LeftOut>,
    closest: Option<usize>,
}

impl Refusal {
    /// Asks every instance again: that is only done where there is nothing else to do.
    pub(crate) fn explain(instances: &[Instance], demand: &Demand) -> Self {
        let mut refusal = Self { left_out: Vec::new(), closest: None };
        let mut best = None;
        for instance in instances {
            let Err(reason) = filter::check(instance, demand) else { continue };
            if reason == Reason::Inactive {
                continue;
            }
            let closeness = (reason, what_is_free(instance, reason));
            if best.is_none_or(|best| closeness > best) {
                best = Some(closeness);
                refusal.closest = Some(refusal.left_out.len());
            }
            refusal.left_out.push(LeftOut { arn: instance.arn().clone(), reason });
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
            Some(LeftOut { arn, reason }) => {
                write!(
                    formatter,
                    "The closest matching (container-instance {}) {}.",
                    arn.resource_name(),
                    reason.phrase()
                )
            }
            None => formatter.write_str("Reason: No Container Instances were found in your cluster."),
        }
    }
}
