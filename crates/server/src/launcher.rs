//! Joins what may not know each other: the reconcilers ask for tasks, ECS's face knows how tasks are made.

use std::sync::Arc;

use control::Refusal;
use domain::{
    IdSource, Timestamp,
    ecs::{NewTask, Task, TaskNetwork},
};
use placement::Fleets;
use services::ecs::launch::LaunchError;
use store::Transaction;

/// Makes tasks for the reconcilers just as RunTask makes them.
pub struct Launcher(pub Arc<Fleets>);

impl control::Launcher for Launcher {
    fn launch(
        &self,
        tx: &mut Transaction,
        new: NewTask<'_>,
        network: Option<&TaskNetwork>,
        ids: &mut IdSource,
        now: Timestamp,
    ) -> Result<Task, Refusal> {
        services::ecs::launch::launch(tx, &self.0, new, network, ids, now).map_err(|error| match error {
            LaunchError::NotPlaced(refusal) => Refusal::NoInstance(refusal.to_string()),
            LaunchError::Role(_) | LaunchError::Constraint(_) => Refusal::NotLaunched(error.to_string()),
            LaunchError::Capacity | LaunchError::Network(_) => Refusal::NotPlaced(error.to_string()),
        })
    }

    fn release(&self, tx: &mut Transaction, task: &Task) {
        services::ecs::launch::release(tx, task);
    }
}
