//! The reconcilers: what is done about a difference between what is wanted and what is.
//!
//! Each reconciler is a pure function from a snapshot, a key and the time to a [`Plan`]. It keeps nothing in mind
//! between two runs, so a restart and a steady state are the same path. The [`driver`] learns from the store which keys
//! changed, runs the reconcilers on them, and has the [`commit`] module apply the plans in one transaction, each after
//! its preconditions were checked again; a plan whose preconditions no longer hold is dropped and its key tried again.
//!
//! - [`service`]: the desired count, rolling updates, replacing what failed, events;
//! - [`task`]: targets and network interfaces on a task's way in and out, lost hosts, forgetting old tasks;
//! - [`targets`]: what tasks are to load balancers; removing targets that have drained, with a loop of its own;
//! - [`instances`]: forgetting terminated EC2 instances, with a loop of its own.
//!
//! Leaves making tasks to the [`Launcher`], containers to the agents, requests to `services`. Mirrors
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-concepts.html>.

pub mod commit;
pub mod driver;
mod events;
pub mod expiry;
pub mod instances;
pub mod queue;
pub mod service;
pub mod targets;
pub mod task;
pub mod watching;

pub use commit::{Launcher, Refusal, commit};
pub use driver::{Handle, Status, start};
pub use queue::Key;
pub use service::ServicePlan;
pub use task::TaskStep;

use domain::Timestamp;
use store::Snapshot;

/// What a reconciler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something about one task.
    Task {
        /// The task's ARN.
        arn: String,
        /// What.
        step: TaskStep,
    },
    /// Something about one service and its tasks.
    Service(Box<ServicePlan>),
}

/// The outcome of one reconciliation: at most one step, and when to look again if nothing changes before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do now.
    pub step: Option<Step>,
    /// When to look again.
    pub again_at: Option<Timestamp>,
}

/// Runs the reconciler that the key belongs to.
pub fn reconcile(view: &Snapshot, key: &Key, now: Timestamp) -> Plan {
    match key {
        Key::Task(arn) => task::reconcile(view, arn, now),
        Key::Service(arn) => service::reconcile(view, arn, now),
    }
}
