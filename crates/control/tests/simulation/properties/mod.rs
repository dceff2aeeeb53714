//! What must hold, said without the code that it is about: roundings, capacity, health and placement are counted here anew.
//!
//! [`always`] is asked after every write of anybody, [`of_step`] after each step of the committer. What must hold once
//! everything is quiet is in `world::settle`.

pub mod places;
mod plans;
mod tasks;

use control::{Step, TaskStep};
use domain::{
    Timestamp,
    ecs::{RolloutState, Service, ServiceDeployment, Task},
};
use store::Snapshot;

/// What went wrong, in words.
pub type Checked<T = ()> = Result<T, String>;

pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

/// What no write of anybody may do.
pub fn always(before: &Snapshot, after: &Snapshot, now: Timestamp) -> Checked {
    for (old, new) in after.changes_since::<Task>(before) {
        match (old, new) {
            (Some(old), Some(new)) => {
                tasks::moved_forward(&old, &new)?;
                tasks::kept_its_targets(before, &old, &new, now)?;
                tasks::was_lost_with_its_host(before, &old, &new, now)?;
            }
            (None, Some(new)) => places::new_task(before, after, &new)?,
            (Some(old), None) => tasks::was_remembered(&old, now)?,
            (None, None) => {}
        }
    }
    for (old, new) in after.changes_since::<Service>(before) {
        let (Some(old), Some(new)) = (old, new) else { continue };
        failures_count_once(before, after, &old, &new)?;
        let primaries = new.deployments.iter().filter(|one| one.status == domain::ecs::DeploymentStatus::Primary);
        ensure(primaries.count() == 1, || format!("{}: not one PRIMARY deployment", new.name))?;
        for known in &old.deployments {
            let Some(now) = new.deployments.iter().find(|one| one.id == known.id) else { continue };
            let back = now.rollout_state == known.rollout_state || known.rollout_state != RolloutState::Failed;
            let again = new.last_completed.is_some() && now.revision_arn == new.last_completed;
            ensure(back || again, || format!("{}: {} has failed and goes on", new.name, now.id))?;
        }
    }
    for (old, new) in after.changes_since::<ServiceDeployment>(before) {
        let (Some(old), Some(new)) = (old, new) else { continue };
        ensure(old.status.is_open() || old.status == new.status, || format!("{} was over and goes on", new.arn))?;
    }
    Ok(())
}

/// A task that fails is one failure, however often it is told.
fn failures_count_once(before: &Snapshot, after: &Snapshot, old: &Service, new: &Service) -> Checked {
    for deployment in &new.deployments {
        let known = old.deployments.iter().find(|one| one.id == deployment.id);
        let (failed, starts) = known.map_or((0, 0), |one| (one.failed_tasks, one.start_failures));
        let more = deployment.failed_tasks.saturating_sub(failed).max(deployment.start_failures.saturating_sub(starts));
        if more == 0 {
            continue;
        }
        let ended = after.changes_since::<Task>(before).filter(|(was, is)| {
            let (Some(was), Some(is)) = (was, is) else { return false };
            let own = is.deployment_id.as_ref() == Some(&deployment.id);
            own && (was.desired_status != is.desired_status || was.last_status != is.last_status)
        });
        let ended = ended.count();
        ensure(more as usize <= ended, || format!("{}: {more} failures of {ended} tasks", new.name))?;
    }
    Ok(())
}

/// What one step of the committer may not do.
pub fn of_step(before: &Snapshot, after: &Snapshot, step: &Step, now: Timestamp) -> Checked {
    match step {
        Step::Service(plan) => plans::kept_the_promise(before, after, &plan.service, now),
        Step::Task { arn, step } => {
            // A step about one task changes no other.
            let others = after.changes_since::<Task>(before).filter_map(|(old, new)| old.or(new));
            for other in others {
                ensure(other.arn.as_str() == arn, || format!("{step:?} of {arn} changed {}", other.arn))?;
            }
            match step {
                TaskStep::GiveUp => tasks::had_not_begun(before, after, arn, now),
                TaskStep::Deprovision => tasks::left_nothing(after, arn),
                _ => Ok(()),
            }
        }
    }
}
