//! The rolling update. Our own stops never take the number of healthy tasks below the minimum, and tasks that run or
//! start are never more than the maximum. Protected tasks are only waited for.

use std::time::Duration;

use domain::{
    Timestamp,
    ecs::{RolloutState, Service, TaskStatus},
};
use store::Snapshot;

use super::{Census, Member, ServicePlan, Stop, rebalance, scale_in, scaling};

/// How many tasks one plan starts at most; the next plan goes on.
pub(super) const MOST_STARTS: usize = 20;

/// How long to wait before asking again for a place, if no host changes before.
pub(crate) const CAPACITY_PAUSE: Duration = Duration::from_secs(15);

/// Fills in what to start and stop. Returns when to look again.
///
/// With `first_only` the newest deployment is to have one task until that has shown which images its tags mean.
pub(super) fn step(
    view: &Snapshot,
    service: &Service,
    census: &Census,
    first_only: bool,
    now: Timestamp,
    plan: &mut ServicePlan,
) -> Option<Timestamp> {
    let primary = service.primary()?;
    let desired = service.desired_count as usize;
    let (minimum, maximum) = (service.minimum_healthy() as usize, service.maximum() as usize);

    // What failed its checks is replaced, and no longer counts.
    plan.stop.extend(census.alive().filter_map(|member| member.failed.clone()));
    let mut alive: Vec<&Member> = census.alive().filter(|member| member.failed.is_none()).collect();
    // The first are the first to go: those that do not run yet, those that are not healthy, then the oldest.
    alive.sort_by_key(|member| (member.status >= TaskStatus::Running, member.healthy, member.created_at));
    if primary.rollout_state == RolloutState::Failed {
        // Nothing is started any more; of what is there no more stays than is wanted.
        let surplus = alive.len().saturating_sub(desired);
        let may_go = alive.iter().copied().filter(|member| !member.protected);
        let going = may_go.take(surplus).filter(above(&alive, minimum));
        plan.stop.extend(going.map(|member| scaling(service, member)));
        return None;
    }
    let (new, old): (Vec<&Member>, Vec<&Member>) =
        alive.iter().copied().partition(|member| member.deployment == primary.id && !member.leaving);

    // Scale-in, or the second half of a move between zones.
    let surplus = new.len().saturating_sub(desired);
    let mut going: Vec<(usize, Option<String>)> = if rebalance::goes_on(service) {
        let going = rebalance::first_to_stop(view, &new, surplus, desired);
        going.into_iter().map(|(at, zone)| (at, Some(zone))).collect()
    } else {
        scale_in::first_to_stop(view, service, &new, surplus, now).into_iter().map(|at| (at, None)).collect()
    };
    let mut above = above(&alive, minimum);
    going.retain(|(at, _)| new.get(*at).is_some_and(&mut above));
    for (at, zone) in &going {
        let stop = new.get(*at).map(|member| scaling(service, member));
        plan.stop.extend(stop.map(|stop| Stop { rebalanced: zone.clone(), ..stop }));
    }
    let stays = |at: usize| going.iter().all(|(gone, _)| *gone != at);
    let kept: Vec<&Member> = new.iter().enumerate().filter(|(at, _)| stays(*at)).map(|(_, member)| *member).collect();

    // Out with the old, as far as the healthy ones allow.
    let missing = desired.saturating_sub(kept.len());
    let room = maximum.saturating_sub(kept.len() + old.len());
    let cramped = missing > 0 && (room == 0 || primary.unplaced);
    // As long as new tasks can come first, they do: the old ones keep the desired count up.
    let floor = if cramped || maximum <= desired { minimum } else { desired.max(minimum) };
    let healthy = kept.iter().chain(&old).filter(|member| member.healthy).count();
    let mut spare = healthy.saturating_sub(floor);
    for member in old.iter().filter(|member| !member.protected) {
        let stop = if member.healthy {
            let stop = spare > 0;
            spare = spare.saturating_sub(1);
            stop
        } else {
            // One that does not run yet serves nobody. One that only lacks a verdict may serve: it goes once there are
            // enough others of which that is known.
            member.status < TaskStatus::Running || healthy >= floor
        };
        if stop {
            plan.stop.push(scaling(service, member));
        }
    }

    // Protected tasks that take all the room block it as well, until the protection ends.
    let taken = room == 0 && old.iter().all(|member| member.protected);
    let blocked = missing > 0 && !old.is_empty() && (minimum >= maximum || taken);
    plan.blocked = (blocked != primary.blocked).then_some(blocked);

    // In with the new.
    let at_once = if first_only { usize::from(new.is_empty()) } else { MOST_STARTS };
    let wanted = missing.min(room).min(at_once);
    plan.proved = primary.failed_tasks > 0
        && service.circuit_breaker.reset_on_healthy_task
        && new.iter().any(|member| member.healthy);
    plan.recovered = primary.start_failures > 0 && new.iter().any(|member| member.started_well);
    let retry_at = primary.retry_at.filter(|at| *at > now && !plan.recovered);
    if wanted > 0 && retry_at.is_none() {
        plan.start = u32::try_from(wanted).unwrap_or(0);
    }
    retry_at.filter(|_| wanted > 0)
}

/// Lets healthy tasks go only as long as the minimum stays. Where the unhealthy ones are protected, healthy ones would go
/// in their place.
fn above(all: &[&Member], minimum: usize) -> impl FnMut(&&Member) -> bool + use<> {
    let mut spare = all.iter().filter(|member| member.healthy).count().saturating_sub(minimum);
    move |member| {
        let goes = !member.healthy || spare > 0;
        spare = spare.saturating_sub(usize::from(member.healthy));
        goes
    }
}
