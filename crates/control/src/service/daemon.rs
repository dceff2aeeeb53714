//! Daemon services: one task on each ACTIVE container instance of the cluster that the constraints select and that has
//! room. An update stops old tasks first, as far as the minimum of healthy ones allows, since no instance ever has two.
//! On a DRAINING instance the daemon is the last to go.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service_scheduler_daemon.html>

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Arn, Timestamp,
    ecs::{
        Cluster, ContainerInstance, ContainerInstanceStatus, RolloutState, SchedulingStrategy, Service, Task,
        TaskDefinition, TaskStatus,
    },
    network::Subnet,
};
use placement::{Demand, Fleet, Reason};
use store::Snapshot;

use super::{CAPACITY_PAUSE, Census, Member, ServicePlan, iso_time, new_task, scaling};

/// What an instance is to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// A task can be started on it.
    Room,
    /// It is selected, but full.
    Full,
    /// Its agent is away: what it has stays, nothing comes.
    Away,
    /// It is not selected, or not ACTIVE.
    Unfit,
}

/// Fills in what to start and stop, and on how many instances there shall be a task. Returns when to look again.
pub(super) fn step(
    view: &Snapshot,
    service: &Service,
    census: &Census,
    first_only: bool,
    now: Timestamp,
    plan: &mut ServicePlan,
) -> Option<Timestamp> {
    let primary = service.primary()?;
    let fits = fits(view, service)?;
    let with_task: BTreeSet<&Arn> = census.members.iter().filter_map(|member| member.instance.as_ref()).collect();
    let wanted: BTreeSet<&Arn> = fits
        .iter()
        .filter(|(arn, fit)| match fit {
            Fit::Room => true,
            Fit::Full | Fit::Away => with_task.contains(arn),
            Fit::Unfit => false,
        })
        .map(|(arn, _)| arn)
        .collect();
    let desired = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    plan.desired = (desired != service.desired_count).then_some(desired);
    let minimum = Service { desired_count: desired, ..service.clone() }.minimum_healthy() as usize;

    // What failed its checks is replaced, and no longer counts.
    plan.stop.extend(census.alive().filter_map(|member| member.failed.clone()));
    let alive: Vec<&Member> = census.alive().filter(|member| member.failed.is_none()).collect();
    let mut kept: BTreeMap<&Arn, &Member> = BTreeMap::new();
    let mut going: Vec<&Member> = Vec::new();
    for member in &alive {
        let Some(instance) = member.instance.as_ref() else { continue };
        if member.leaving {
            if is_last(view, instance) {
                going.push(member);
            }
        } else if !wanted.contains(instance) {
            going.push(member);
        } else if let Some(other) = kept.insert(instance, member) {
            // Two on one instance: the older deployment's, or the younger of two alike, goes.
            let rank = |one: &Member| (one.deployment != primary.id, one.created_at);
            let (stays, goes) = if rank(other) <= rank(member) { (other, *member) } else { (*member, other) };
            kept.insert(instance, stays);
            going.push(goes);
        }
    }
    let failed = primary.rollout_state == RolloutState::Failed;
    // Out with the old, as far as the healthy ones allow.
    let healthy = kept.values().filter(|member| member.healthy).count();
    let mut spare = healthy.saturating_sub(minimum);
    let old = kept.values().filter(|member| !failed && member.deployment != primary.id);
    for member in old.filter(|member| !member.protected) {
        let stop = if member.healthy {
            let stop = spare > 0;
            spare = spare.saturating_sub(1);
            stop
        } else {
            member.status < TaskStatus::Running || healthy >= minimum
        };
        if stop {
            going.push(member);
        }
    }
    plan.stop.extend(going.iter().filter(|member| !member.protected).map(|member| scaling(service, member)));
    // Nothing but what is protected is left to replace, or the minimum leaves no step.
    let mut old = kept.values().filter(|member| !failed && member.deployment != primary.id).peekable();
    let blocked = old.peek().is_some() && (minimum >= wanted.len() || old.all(|member| member.protected));
    plan.blocked = (blocked != primary.blocked).then_some(blocked);

    // In with the new.
    let new = || alive.iter().filter(|member| member.deployment == primary.id);
    plan.proved =
        primary.failed_tasks > 0 && service.circuit_breaker.reset_on_healthy_task && new().any(|member| member.healthy);
    plan.recovered = primary.start_failures > 0 && new().any(|member| member.started_well);
    let retry_at = primary.retry_at.filter(|at| *at > now && !plan.recovered);
    let free = fits.iter().filter(|(arn, fit)| **fit == Fit::Room && !with_task.contains(arn));
    let at_once = if first_only { usize::from(new().next().is_none()) } else { usize::MAX };
    let places: Vec<Arn> = free.map(|(arn, _)| arn.clone()).filter(|_| !failed).take(at_once).collect();
    let full = fits.iter().any(|(arn, fit)| *fit == Fit::Full && !with_task.contains(arn));
    let again = full.then(|| now + CAPACITY_PAUSE);
    if places.is_empty() {
        return again;
    }
    if retry_at.is_none() {
        plan.start = u32::try_from(places.len()).unwrap_or(u32::MAX);
        plan.start_on = places;
    }
    retry_at.into_iter().chain(again).min()
}

/// Whether nothing but daemons is left on an instance.
fn is_last(view: &Snapshot, instance: &Arn) -> bool {
    let is_daemon = |task: &Task| {
        let service = task.service_arn.as_ref().and_then(|arn| view.get::<Service>(arn.as_str()));
        service.is_some_and(|service| service.scheduling_strategy == SchedulingStrategy::Daemon)
    };
    view.find::<Task>(Task::ON_INSTANCE, instance.as_str()).all(|task| is_daemon(&task))
}

/// What each instance of the cluster is to the service.
fn fits(view: &Snapshot, service: &Service) -> Option<BTreeMap<Arn, Fit>> {
    let demand = demand(view, service)?;
    let mut fleet = Fleet::default();
    let stored: Vec<_> =
        view.find::<ContainerInstance>(ContainerInstance::BY_CLUSTER, service.cluster_arn.as_str()).collect();
    stored.iter().for_each(|one| fleet.put(placement::instance(view, one.clone())));
    // Its own task must not be what an instance is too full for.
    let mut selected = demand.clone();
    (selected.cpu, selected.memory, selected.gpus, selected.distinct_instance) = (0, 0, 0, false);
    selected.host_ports.clear();
    let fit = |one: &ContainerInstance| {
        if one.status != ContainerInstanceStatus::Active {
            return Fit::Unfit;
        }
        let reason = |demand: &Demand| {
            fleet.place_on(&one.arn, demand).err().and_then(|refusal| Some(refusal.left_out.first()?.reason))
        };
        match reason(&selected) {
            Some(Reason::Agent) => Fit::Away,
            None | Some(Reason::NetworkInterface) if reason(&demand).is_some() => Fit::Full,
            None => Fit::Room,
            Some(_) => Fit::Unfit,
        }
    };
    Some(stored.iter().map(|one| (one.arn.clone(), fit(one))).collect())
}

/// What a task of the newest deployment needs. None when nothing can be said of it.
fn demand(view: &Snapshot, service: &Service) -> Option<Demand> {
    let primary = service.primary()?;
    let cluster = view.get::<Cluster>(service.cluster_arn.as_str())?;
    let definition = view.get::<TaskDefinition>(primary.task_definition_arn.as_str())?;
    let new = new_task(service, primary, &cluster, &definition, None, None);
    let mut demand = Demand::of(&new, iso_time::read).ok()?;
    let subnets = primary.network.iter().flat_map(|network| &network.subnets);
    let zone = |id: &String| Some(view.get::<Subnet>(&service.scope.key(id))?.availability_zone.clone());
    demand.zones = subnets.filter_map(zone).collect();
    Some(demand)
}
