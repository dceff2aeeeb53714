//! Availability-zone rebalancing: a service in its steady state whose tasks are off balance by more than one between zones gets
//! tasks in the emptier zones first, and loses as many in the fuller ones once those are healthy. So it has never fewer
//! healthy tasks than desired, nor more than the maximum.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>
//!
//! Which instance of a zone a task gets is placement's to say; a zone where none takes it is left out for a while.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use domain::{
    Timestamp,
    ecs::{ContainerInstance, RolloutState, Service, Task},
    network::Subnet,
};
use store::Snapshot;

use super::{Census, Member, ServicePlan, rolling::MOST_STARTS};

/// What a plan does about zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Tasks are to be started in these zones, one each time that a zone is named.
    Start {
        /// Zones that were full: where there is room now, that comes first and alone.
        again: Vec<String>,
        /// The zones to start in.
        zones: Vec<String>,
        /// How many tasks each zone has.
        counts: Vec<(String, usize)>,
    },
    /// It is over; how many tasks each zone has.
    Balanced(Vec<(String, usize)>),
    /// It is no longer wanted.
    GiveUp,
}

/// What a zone is to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Zone {
    /// Tasks in it.
    tasks: usize,
    /// Those of them that may be stopped.
    movable: usize,
    /// Whether tasks may be started in it.
    open: bool,
}

/// Whether tasks beyond the desired count are there so that others can go.
pub(super) fn goes_on(service: &Service) -> bool {
    let same = |known: &domain::ecs::Rebalancing| known.desired_count == service.desired_count;
    service.zone_rebalancing && service.rebalancing.as_ref().is_some_and(same) && is_settled(service)
}

/// Nothing is being deployed.
fn is_settled(service: &Service) -> bool {
    let completed = service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Completed);
    completed && service.deployments.len() == 1
}

/// Fills in what to do about the zones of a service that is as it should be otherwise. Returns when to look again.
pub(super) fn step(
    view: &Snapshot,
    service: &Service,
    census: &Census,
    now: Timestamp,
    plan: &mut ServicePlan,
) -> Option<Timestamp> {
    let before = service.rebalancing.as_ref();
    if !service.zone_rebalancing {
        plan.rebalance = before.map(|_| Rebalance::GiveUp);
        return None;
    }
    let desired = service.desired_count as usize;
    let quiet = plan.start == 0 && plan.stop.is_empty() && plan.retire.is_empty();
    let whole = census.members.len() == desired
        && census.healthy() == desired
        && census.alive().all(|member| !member.leaving && member.failed.is_none());
    if !(service.steady && quiet && whole && is_settled(service)) {
        return None;
    }
    let mut zones = zones(view, service, census);
    if is_balanced(&zones) {
        plan.rebalance = before.map(|_| Rebalance::Balanced(counts(&zones)));
        return None;
    }
    let counts = counts(&zones);
    let room = (service.maximum() as usize).saturating_sub(desired).min(MOST_STARTS);
    // A zone that is full must not keep the others from being balanced.
    let full: BTreeSet<&String> = before.iter().flat_map(|before| &before.full).collect();
    let wanted: BTreeSet<String> = moves(zones.clone(), room).into_iter().collect();
    let again: Vec<String> = wanted.into_iter().filter(|zone| full.contains(zone)).collect();
    zones.iter_mut().filter(|(name, _)| full.contains(name)).for_each(|(_, zone)| zone.open = false);
    let starts = moves(zones, room);
    if starts.is_empty() && again.is_empty() {
        return None;
    }
    // Tasks that do not start well wait here as they do everywhere.
    let failing = service.primary().and_then(|primary| primary.retry_at).filter(|at| *at > now);
    if failing.is_none() {
        plan.rebalance = Some(Rebalance::Start { again, zones: starts, counts });
    }
    failing
}

/// Which of the members go, at most `surplus` of them, each with its zone. `members` are in the order in which they would go
/// if all zones were alike. Only as many as are healthy beyond the desired count, so one that is still starting holds up
/// the one that it replaces.
pub(super) fn first_to_stop(
    view: &Snapshot,
    members: &[&Member],
    surplus: usize,
    desired: usize,
) -> Vec<(usize, String)> {
    if surplus == 0 {
        return Vec::new();
    }
    let places: Vec<Place> = members
        .iter()
        .map(|member| Place {
            zone: zone_of(view, member).unwrap_or_default(),
            healthy: member.healthy,
            protected: member.protected,
        })
        .collect();
    choose(&places, surplus, desired)
}

/// Where a task is, and whether it may go.
struct Place {
    zone: String,
    healthy: bool,
    protected: bool,
}

fn choose(places: &[Place], surplus: usize, desired: usize) -> Vec<(usize, String)> {
    let healthy = places.iter().filter(|place| place.healthy).count();
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    places.iter().for_each(|place| *left.entry(&place.zone).or_default() += 1);
    let mut going: Vec<(usize, String)> = Vec::new();
    for _ in 0..surplus.min(healthy.saturating_sub(desired)) {
        let least = left.values().copied().min().unwrap_or(0);
        let most = left.values().copied().max().unwrap_or(0);
        let candidate = |(at, place): &(usize, &Place)| {
            let tasks = left.get(place.zone.as_str()).copied().unwrap_or(0);
            // What was started in the emptiest zone is not what goes because the tasks of the others are protected.
            let fuller = tasks > least || least == most;
            place.healthy && !place.protected && fuller && going.iter().all(|(gone, _)| gone != at)
        };
        let fullest = |(at, place): &(usize, &Place)| (Reverse(left.get(place.zone.as_str()).copied()), *at);
        let Some((at, place)) = places.iter().enumerate().filter(candidate).min_by_key(fullest) else { break };
        left.entry(&place.zone).and_modify(|tasks| *tasks = tasks.saturating_sub(1));
        going.push((at, place.zone.clone()));
    }
    going
}

/// The zones that have tasks of the service or could have some.
fn zones(view: &Snapshot, service: &Service, census: &Census) -> BTreeMap<String, Zone> {
    let mut zones: BTreeMap<String, Zone> = BTreeMap::new();
    for zone in open_zones(view, service) {
        zones.entry(zone).or_default().open = true;
    }
    for member in census.alive() {
        let Some(zone) = zone_of(view, member) else { continue };
        let zone = zones.entry(zone).or_default();
        zone.tasks += 1;
        zone.movable += usize::from(!member.protected);
    }
    zones
}

/// The zones of the service's subnets, on EC2 those that have container instances.
fn open_zones(view: &Snapshot, service: &Service) -> BTreeSet<String> {
    let Some(primary) = service.primary() else { return BTreeSet::new() };
    let of_subnet = |id: &String| Some(view.get::<Subnet>(&service.scope.key(id))?.availability_zone.clone());
    let of_subnets: Option<BTreeSet<String>> =
        primary.network.as_ref().map(|network| network.subnets.iter().filter_map(of_subnet).collect());
    if primary.compute.is_fargate() {
        return of_subnets.unwrap_or_default();
    }
    let has_instances = |zone: &String| {
        let place = ContainerInstance::in_zone(&service.cluster_arn, zone);
        view.count::<ContainerInstance>(ContainerInstance::IN_ZONE, &place) > 0
    };
    let zones = service.scope.availability_zones().into_iter().filter(has_instances);
    zones.filter(|zone| of_subnets.as_ref().is_none_or(|of_subnets| of_subnets.contains(zone))).collect()
}

/// Where a task is.
pub(super) fn zone_of(view: &Snapshot, member: &Member) -> Option<String> {
    let task = view.get::<Task>(&member.task)?;
    if let Some(interface) = &task.interface {
        return Some(interface.availability_zone.clone());
    }
    let instance = member.instance.as_ref()?;
    view.get::<ContainerInstance>(instance.as_str())?.zone().map(str::to_owned)
}

fn counts(zones: &BTreeMap<String, Zone>) -> Vec<(String, usize)> {
    zones.iter().map(|(name, zone)| (name.clone(), zone.tasks)).collect()
}

/// No zone has two more than another one that could have some of them.
fn is_balanced(zones: &BTreeMap<String, Zone>) -> bool {
    let most = zones.values().map(|zone| zone.tasks).max().unwrap_or(0);
    let least = zones.values().filter(|zone| zone.open).map(|zone| zone.tasks).min().unwrap_or(most);
    most <= least + 1
}

/// Where to start tasks, at most `room` of them, so that as many others can go.
fn moves(mut zones: BTreeMap<String, Zone>, room: usize) -> Vec<String> {
    let mut starts = Vec::new();
    while starts.len() < room {
        let from = zones.iter().filter(|(_, zone)| zone.movable > 0).max_by_key(|(_, zone)| zone.tasks);
        let to = zones.iter().filter(|(_, zone)| zone.open).min_by_key(|(_, zone)| zone.tasks);
        let (Some((from, fullest)), Some((to, emptiest))) = (from, to) else { break };
        if fullest.tasks <= emptiest.tasks + 1 {
            break;
        }
        let (from, to) = (from.clone(), to.clone());
        zones.entry(from).and_modify(|zone| {
            zone.tasks -= 1;
            zone.movable -= 1;
        });
        zones.entry(to.clone()).and_modify(|zone| zone.tasks += 1);
        starts.push(to);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a4-` is a zone with four tasks that takes no more, `b3p` one whose three tasks are protected.
    fn zones(text: &str) -> BTreeMap<String, Zone> {
        text.split_whitespace()
            .map(|word| {
                let tasks = word[1..2].parse().unwrap();
                let movable = if word.ends_with('p') { 0 } else { tasks };
                (word[..1].to_owned(), Zone { tasks, movable, open: !word.ends_with('-') })
            })
            .collect()
    }

    #[test]
    fn tasks_come_to_the_emptiest_zones_that_have_room() {
        let check = |text: &str, room: usize, expect: &str| {
            assert_eq!(moves(zones(text), room).concat(), expect, "{text} {room}");
        };
        check("a4 b0", 4, "bb");
        check("a4 b0", 1, "b");
        check("a4 b0", 0, "");
        check("a4 b0 c0", 4, "bc");
        check("a2 b1 c1", 4, "");
        check("a1 b0", 4, "");
        check("a4 b0-", 4, "");
        check("a4 b0- c1", 4, "c");
        check("a5- b0", 4, "bb");
        check("a4p b0", 4, "");
        check("a4p b3 c1", 4, "c");
        check("", 4, "");
    }

    #[test]
    fn one_more_than_another_zone_is_balanced() {
        let check = |text: &str, expect: bool| assert_eq!(is_balanced(&zones(text)), expect, "{text}");
        check("a2 b1", true);
        check("a2 b0", false);
        check("a2 b0-", true);
        check("a1", true);
        check("a2- b0", false);
        check("", true);
    }

    /// A letter is a task in that zone: healthy, in capitals one that is not, with `!` after it protected.
    fn places(text: &str) -> Vec<Place> {
        let letters = text.char_indices().filter(|(_, letter)| *letter != '!');
        letters
            .map(|(at, letter)| Place {
                zone: letter.to_lowercase().to_string(),
                healthy: letter.is_lowercase(),
                protected: text[at + 1..].starts_with('!'),
            })
            .collect()
    }

    #[test]
    fn a_task_goes_only_when_another_is_healthy_in_its_place() {
        let check = |text: &str, desired: usize, expect: &[(usize, &str)]| {
            let places = places(text);
            let surplus = places.len() - desired;
            let going = choose(&places, surplus, desired);
            let going: Vec<(usize, &str)> = going.iter().map(|(at, zone)| (*at, zone.as_str())).collect();
            assert_eq!(going, expect, "{text} {desired}");
        };
        check("aaB", 2, &[]);
        check("aab", 2, &[(0, "a")]);
        check("baa", 2, &[(1, "a")]);
        check("aaaabb", 4, &[(0, "a"), (1, "a")]);
        check("aaaabB", 4, &[(0, "a")]);
        check("a!ab", 2, &[(1, "a")]);
        check("a!a!b", 2, &[]);
        check("aabb", 3, &[(0, "a")]);
        check("aa", 2, &[]);
    }
}
