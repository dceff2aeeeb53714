//! Clients with and without cookies, over days that pass in no time.

use std::{net::IpAddr, time::Instant};

use domain::balancing::{
    HealthCheck, HealthState, ProtocolVersion, TargetChoice,
    slice::{TargetGroupItem, TargetItem},
};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::cookie::SECRET;

const NOW: u32 = 1_000_000;
const HEALTHY: (HealthState, bool) = (HealthState::Healthy, false);
const UNHEALTHY: (HealthState, bool) = (HealthState::Unhealthy, false);
const DRAINING: (HealthState, bool) = (HealthState::Healthy, true);

fn lb_cookie(lb_cookie_seconds: u32) -> Stickiness {
    Stickiness { enabled: true, lb_cookie_seconds, ..Stickiness::default() }
}

fn app_cookie(name: &str) -> Stickiness {
    let kind = StickinessType::AppCookie;
    Stickiness { enabled: true, kind, app_cookie_name: name.into(), app_cookie_seconds: 60, ..Stickiness::default() }
}

/// A client that keeps cookies, before groups of targets.
struct World {
    groups: Vec<Group>,
    forward: Forward,
    key: Key,
    cookies: Vec<(String, String)>,
    now: u32,
}

impl World {
    fn new(groups: &[(&str, u16, Stickiness)], duration: Option<u32>) -> Self {
        let key = Key::new(&[1; SECRET]);
        let weights = groups.iter().enumerate().map(|(index, (_, weight, _))| (index, *weight));
        let forward = Forward::new(weights, Step::default(), duration);
        let groups = groups.iter().map(|(name, _, sticky)| group(name, sticky, &[HEALTHY; 4], &key)).collect();
        Self { groups, forward, key, cookies: Vec::new(), now: NOW }
    }

    fn states(&mut self, index: usize, states: &[(HealthState, bool)]) {
        let old = &self.groups[index];
        self.groups[index] = group(&old.arn, &old.stickiness.clone().unwrap(), states, &self.key);
    }

    /// A request with all cookies; the response may set one more. Gives group and target.
    fn ask(&mut self, sets: Option<&str>) -> (usize, usize) {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.cookies {
            headers.append(header::COOKIE, HeaderValue::try_from(format!("{name}={value}")).unwrap());
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0 Chrome/120.0.0.0 Safari/537.36"));
        let chosen = self.forward.choose(&self.groups, &headers, &self.key, || self.now).unwrap();
        let mut response = HeaderMap::new();
        if let Some(name) = sets {
            response.append(header::SET_COOKIE, HeaderValue::try_from(format!("{name}=1; Path=/")).unwrap());
        }
        if chosen.is_sticky() {
            chosen.set_cookies(&mut response, &self.groups, &self.key, self.now);
        }
        for field in response.get_all(header::SET_COOKIE) {
            let (name, rest) = field.to_str().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.into(), rest.split(';').next().unwrap().into()));
        }
        (chosen.group, chosen.target)
    }

    fn names(&self) -> Vec<&str> {
        self.cookies.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn group(name: &str, stickiness: &Stickiness, states: &[(HealthState, bool)], key: &Key) -> Group {
    let target = |(index, (_, draining)): (usize, &(HealthState, bool))| TargetItem {
        address: IpAddr::from([10, 0, 0, 1]),
        port: u16::try_from(index).unwrap(),
        draining: *draining,
    };
    let item = TargetGroupItem {
        fail_closed: false,
        arn: name.into(),
        tcp: None,
        protocol_version: ProtocolVersion::Http1,
        secure: false,
        health_check: HealthCheck::default(),
        choice: TargetChoice { stickiness: stickiness.clone(), ..TargetChoice::default() },
        targets: states.iter().enumerate().map(target).collect(),
    };
    Group::compile(&item, &|_, _, port| states[usize::from(port)].0, None, key, Instant::now())
}

#[test]
fn without_stickiness_there_are_no_cookies() {
    let mut world = World::new(&[("one", 1, Stickiness::default())], None);
    let targets: Vec<usize> = (0..4).map(|_| world.ask(None).1).collect();
    assert_eq!(targets, [0, 1, 2, 3]);
    assert!(world.cookies.is_empty());
}

#[test]
fn a_client_stays_with_its_target_until_the_duration_has_passed_without_a_request() {
    let mut world = World::new(&[("one", 1, lb_cookie(60))], None);
    let first = world.ask(None);
    assert_eq!(world.names(), ["AWSALB", "AWSALBCORS"]);
    for _ in 0..10 {
        world.now += 59;
        assert_eq!(world.ask(None), first);
    }
    // The copy is enough.
    world.cookies.remove(0);
    assert_eq!(world.ask(None), first);
    world.now += 60;
    assert_ne!(world.ask(None), first);
}

#[test]
fn a_client_moves_when_its_target_goes_and_stays_where_it_went() {
    for gone in [UNHEALTHY, DRAINING] {
        let mut world = World::new(&[("one", 1, lb_cookie(60))], None);
        let (_, first) = world.ask(None);
        let mut states = [HEALTHY; 4];
        states[first] = gone;
        world.states(0, &states);
        let second = world.ask(None);
        assert_ne!(second.1, first);
        world.states(0, &[HEALTHY; 4]);
        assert!((0..4).all(|_| world.ask(None) == second));
    }
}

#[test]
fn cookies_of_other_groups_kinds_and_keys_are_as_good_as_none() {
    let mut world = World::new(&[("one", 1, lb_cookie(60))], None);
    world.ask(None);
    let cookies = world.cookies.clone();
    let moves = |world: &mut World| {
        let targets: Vec<usize> = (0..4)
            .map(|_| {
                world.cookies.clone_from(&cookies);
                world.ask(None).1
            })
            .collect();
        targets.iter().any(|target| *target != targets[0])
    };
    assert!(!moves(&mut world));
    assert!(moves(&mut World::new(&[("two", 1, lb_cookie(60))], None)));
    world.key = Key::new(&[2; SECRET]);
    assert!(moves(&mut world));
}

#[test]
fn an_application_begins_a_session_with_its_own_cookie() {
    let mut world = World::new(&[("one", 1, app_cookie("SID"))], None);
    assert_ne!(world.ask(None), world.ask(None));
    assert!(world.cookies.is_empty());
    let session = world.ask(Some("SID"));
    assert_eq!(world.names(), ["SID", "AWSALBAPP"]);
    for _ in 0..4 {
        world.now += 59;
        assert_eq!(world.ask(None), session);
    }
    // Where it goes when the target goes, it stays.
    let mut states = [HEALTHY; 4];
    states[session.1] = UNHEALTHY;
    world.states(0, &states);
    let moved = world.ask(None);
    world.states(0, &[HEALTHY; 4]);
    assert!(moved != session && (0..4).all(|_| world.ask(None) == moved));
    // Without the application's cookie there is no session.
    world.cookies.retain(|(name, _)| name != "SID");
    assert_ne!(world.ask(None), world.ask(None));
}

#[test]
fn one_cookie_keeps_the_sessions_of_several_applications() {
    let mut world = World::new(&[("one", 1, app_cookie("A")), ("two", 1, app_cookie("B"))], None);
    let sessions = |world: &mut World| {
        let mut seen = [None; 2];
        for _ in 0..8 {
            let (group, target) = world.ask(Some("A"));
            let (other, at) = world.ask(Some("B"));
            for (group, target) in [(group, target), (other, at)] {
                seen[group].get_or_insert(target);
            }
        }
        seen
    };
    sessions(&mut world);
    assert_eq!(world.names().iter().filter(|name| **name == "AWSALBAPP").count(), 1);
    let seen = sessions(&mut world);
    assert!(seen.iter().all(Option::is_some) && sessions(&mut world) == seen, "{seen:?}");
}

#[test]
fn a_client_stays_with_its_group_unless_that_gets_nothing_any_more() {
    let groups = |first: u16| [("one", first, Stickiness::default()), ("two", 1, Stickiness::default())];
    let mut world = World::new(&groups(1), Some(30));
    while world.ask(None).0 == 1 {
        world.cookies.clear();
    }
    assert_eq!(world.names(), ["AWSALBTG", "AWSALBTGCORS"]);
    assert!((0..10).all(|_| world.ask(None).0 == 0));
    world.forward = World::new(&groups(0), Some(30)).forward;
    assert!((0..4).all(|_| world.ask(None).0 == 1));
    // The new choice stays, too.
    world.forward = World::new(&groups(999), Some(30)).forward;
    assert!((0..10).all(|_| world.ask(None).0 == 1));
    world.now += 30;
    assert_eq!(world.ask(None).0, 0);
}

#[test]
fn group_and_target_are_kept_at_once() {
    let mut world = World::new(&[("one", 1, lb_cookie(60)), ("two", 1, lb_cookie(60))], Some(60));
    let first = world.ask(None);
    assert_eq!(world.names(), ["AWSALBTG", "AWSALBTGCORS", "AWSALB", "AWSALBCORS"]);
    assert!((0..10).all(|_| world.ask(None) == first));
}

#[test]
fn chromium_from_version_80_on_is_told_of_other_sites() {
    let version =
        |agent: &'static str| chromium(&HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(agent))]));
    assert_eq!(version("Mozilla/5.0 (X11; Linux x86_64) Chrome/79.0.3945.88 Safari/537.36"), Some(79));
    assert_eq!(version("Chromium/80.0"), Some(80));
    assert_eq!(version("curl/8.0 Chromes/1"), None);
}

proptest! {
    #[test]
    fn whatever_the_cookies_say_a_request_goes_to_a_target_that_gets_some(
        unhealthy in prop::collection::vec(any::<bool>(), 4),
        ages in prop::collection::vec(0u32..120, 1..20),
    ) {
        let mut world = World::new(&[("one", 1, lb_cookie(60))], None);
        for age in ages {
            let before = world.ask(None).1;
            let states: Vec<_> = unhealthy.iter().map(|bad| if *bad { UNHEALTHY } else { HEALTHY }).collect();
            world.states(0, &states);
            world.now += age;
            let (_, after) = world.ask(None);
            let all_bad = unhealthy.iter().all(|bad| *bad);
            prop_assert!(all_bad || !unhealthy[after]);
            // It moves only if it must.
            prop_assert!(after == before || age >= 60 || (unhealthy[before] && !all_bad));
            world.states(0, &[HEALTHY; 4]);
        }
    }
}
