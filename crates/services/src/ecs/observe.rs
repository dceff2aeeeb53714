//! What hosts and agents report, taken into the store. The rules are the task's own
//! ([`domain::ecs::Task::observe`]); a report that says nothing new writes nothing.

use domain::{
    Arn, Timestamp,
    ecs::{HealthStatus, StopCode, Task, TaskReport, TaskStatus},
};
use store::Transaction;
use wire::ServiceError;

use super::common::invalid;

/// Takes in an agent's report about a task. `from` is the container instance that reports: another one's task, or one
/// that there is not, is refused with InvalidParameterException, which makes agents drop the report.
pub fn task(
    tx: &mut Transaction,
    task_arn: &str,
    from: Option<&Arn>,
    report: &TaskReport,
    now: Timestamp,
) -> Result<(), ServiceError> {
    let mut task = own_task(tx, task_arn, from)?;
    if task.observe(report, now) {
        tx.put(task);
    }
    Ok(())
}

/// Takes in what a container's health check says.
pub fn container_health(
    tx: &mut Transaction,
    task_arn: &str,
    from: Option<&Arn>,
    container: &str,
    health: HealthStatus,
) -> Result<(), ServiceError> {
    let mut task = own_task(tx, task_arn, from)?;
    if task.observe_health(container, health) {
        tx.put(task);
    }
    Ok(())
}

/// Takes in that a network interface is attached.
pub fn interface_attached(tx: &mut Transaction, interface_id: &str, now: Timestamp) {
    let report = TaskReport { attached: true, ..TaskReport::default() };
    if let Some(mut task) = of_interface(tx, interface_id)
        && task.observe(&report, now)
    {
        tx.put(task);
    }
}

/// Takes in that a network interface could not be attached: its task fails to start.
pub fn interface_failed(tx: &mut Transaction, interface_id: &str, reason: &str, now: Timestamp) {
    if let Some(mut task) = of_interface(tx, interface_id).filter(|task| task.last_status < TaskStatus::Activating) {
        let reason = format!("ResourceInitializationError: failed to attach the network interface: {reason}");
        if task.request_stop(StopCode::TaskFailedToStart, &reason, now) {
            tx.put(task);
        }
    }
}

fn of_interface(tx: &Transaction, interface_id: &str) -> Option<Task> {
    tx.find::<Task>(Task::BY_INTERFACE, interface_id).next().map(|task| Task::clone(&task))
}

fn own_task(tx: &Transaction, task_arn: &str, from: Option<&Arn>) -> Result<Task, ServiceError> {
    tx.get::<Task>(task_arn)
        .filter(|task| from.is_none_or(|from| task.container_instance_arn.as_ref() == Some(from)))
        .map(|task| Task::clone(&task))
        .ok_or_else(|| invalid("The specified task does not exist on this container instance."))
}
