//! Which target gets a request, over real sockets: sticky sessions, what is in flight, slow start, and changes of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{Read, Write},
    sync::mpsc,
    time::Duration,
};

use domain::balancing::{
    Action, Algorithm, GroupStickiness, Stickiness, StickinessType, TargetChoice, WeightedTargetGroup,
};
use support::{Plane, Setup, echo, eventually, group, read_all, read_until, scripted, status, target};

/// The values of `Set-Cookie`.
fn set_cookies(response: &str) -> Vec<String> {
    let head = response.split("\r\n\r\n").next().unwrap();
    head.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).map(str::to_owned).collect()
}

/// The header that sends them back.
fn cookies(response: &str) -> String {
    let pairs: Vec<String> =
        set_cookies(response).iter().map(|cookie| cookie.split(';').next().unwrap().to_owned()).collect();
    format!("Cookie: {}\r\n", pairs.join("; "))
}

fn ask(plane: &Plane, headers: &str) -> String {
    plane.exchange(&format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n"))
}

fn server(response: &str) -> String {
    response.lines().find_map(|line| line.strip_prefix("server: ")).unwrap_or_default().to_owned()
}

fn sticky(kind: StickinessType) -> TargetChoice {
    let stickiness = Stickiness { enabled: true, kind, app_cookie_name: "SID".into(), ..Stickiness::default() };
    TargetChoice { stickiness, ..TargetChoice::default() }
}

#[test]
fn a_client_that_sends_its_cookie_back_stays_with_its_target() {
    let mut setup = Setup::forwarding_to(&[echo("a"), echo("b"), echo("c")]);
    setup.groups[0].choice = sticky(StickinessType::LbCookie);
    let plane = Plane::start(&setup);
    plane.until_healthy();
    let first = ask(&plane, "");
    let shown = set_cookies(&first);
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert!(shown[0].starts_with("AWSALB=") && shown[0].ends_with(" GMT; Path=/"), "{shown:?}");
    assert!(shown[1].starts_with("AWSALBCORS=") && shown[1].ends_with("; Path=/; SameSite=None; Secure"), "{shown:?}");
    let cookie = cookies(&first);
    assert!((0..6).all(|_| server(&ask(&plane, &cookie)) == server(&first)));
    // Those without it take turns.
    let others: Vec<String> = (0..6).map(|_| server(&ask(&plane, "Cookie: AWSALB=forged\r\n"))).collect();
    assert!(["a", "b", "c"].iter().all(|name| others.iter().filter(|other| other == name).count() == 2), "{others:?}");
    // Once the target drains, the client goes elsewhere and is told so.
    let index = ["a", "b", "c"].iter().position(|name| *name == server(&first)).unwrap();
    setup.groups[0].targets[index].draining = true;
    plane.change(&setup);
    eventually(|| server(&ask(&plane, &cookie)) != server(&first));
    let moved = ask(&plane, &cookie);
    assert!((0..6).all(|_| server(&ask(&plane, &cookies(&moved))) == server(&moved)));
    // Switched off, it ends for those who have cookies, too, and nobody's connection is cut.
    setup.groups[0].choice = TargetChoice::default();
    let mut kept = plane.connect();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let head = read_until(&mut kept, "\r\n\r\n");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    kept.read_exact(&mut vec![0; length]).unwrap();
    plane.change(&setup);
    eventually(|| set_cookies(&ask(&plane, &cookie)).is_empty());
    kept.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(&mut kept)), 200);
}

/// A target that sets a cookie of its own.
fn application(name: &'static str) -> std::net::SocketAddr {
    target(move |mut stream, _| {
        let head = format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nSet-Cookie: SID={name}; Path=/\r\n");
        let _ = stream.write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
    })
}

#[test]
fn an_applications_cookie_begins_a_session() {
    let mut setup = Setup::forwarding_to(&[application("a"), application("b")]);
    setup.groups[0].choice = sticky(StickinessType::AppCookie);
    let plane = Plane::start(&setup);
    plane.until_healthy();
    let first = ask(&plane, "User-Agent: Chrome/120.0\r\n");
    let shown = set_cookies(&first);
    assert!(shown[0].starts_with("SID=") && shown[1].starts_with("AWSALBAPP="), "{shown:?}");
    assert!(shown[1].ends_with("; SameSite=None; Secure"), "{shown:?}");
    assert!((0..6).all(|_| server(&ask(&plane, &cookies(&first))) == server(&first)));
    let alone = cookies(&first).replace("SID=", "X=");
    assert_ne!(server(&ask(&plane, &alone)), server(&ask(&plane, &alone)));
}

#[test]
fn a_client_stays_with_its_group() {
    let mut setup = Setup::forwarding_to(&[]);
    setup.groups = vec![group("one", &[echo("a")]), group("two", &[echo("b")])];
    let weighted = |name: &str, weight| WeightedTargetGroup { target_group: name.into(), weight };
    let to = |weight| Action::Forward {
        groups: vec![weighted("one", weight), weighted("two", 1)],
        stickiness: GroupStickiness { enabled: true, duration_seconds: Some(60) },
    };
    setup.default_action = to(1);
    let plane = Plane::start(&setup);
    plane.until_healthy();
    let mut first = ask(&plane, "");
    while server(&first) != "a" {
        first = ask(&plane, "");
    }
    let shown = set_cookies(&first);
    assert!(shown[0].starts_with("AWSALBTG=") && shown[1].starts_with("AWSALBTGCORS="), "{shown:?}");
    assert!((0..10).all(|_| server(&ask(&plane, &cookies(&first))) == "a"));
    setup.default_action = to(0);
    plane.change(&setup);
    eventually(|| server(&ask(&plane, &cookies(&first))) == "b");
}

#[test]
fn the_target_with_the_fewest_requests_in_flight_is_next() {
    let (slow, requests) = scripted();
    let mut setup = Setup::forwarding_to(&[slow, echo("quick")]);
    setup.attributes.idle_timeout_seconds = 60;
    setup.groups[0].choice.algorithm = Algorithm::LeastOutstandingRequests;
    let plane = Plane::start(&setup);
    plane.until_healthy();
    // One request hangs in the slow target. From then on all others go to the quick one.
    let mut hanging = Vec::new();
    let (mut far, _) = loop {
        let mut stream = plane.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        hanging.push(stream);
        match requests.recv_timeout(Duration::from_millis(500)) {
            Ok(request) => break request,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!((0..20).all(|_| server(&ask(&plane, "")) == "quick"));
    // A change does not make it forget.
    setup.groups[0].choice.stickiness.enabled = true;
    plane.change(&setup);
    eventually(|| !set_cookies(&ask(&plane, "")).is_empty());
    assert!((0..20).all(|_| server(&ask(&plane, "")) == "quick"));
    // Once it is answered, the slow one is as good as the other.
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(hanging.last_mut().unwrap())), 200);
    let again = (0..20).any(|_| {
        let mut stream = plane.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        hanging.push(stream);
        requests.recv_timeout(Duration::from_millis(500)).is_ok()
    });
    assert!(again);
}

#[test]
fn a_newcomer_gets_little_until_slow_start_is_switched_off() {
    let (a, b) = (echo("a"), echo("b"));
    let mut setup = Setup::forwarding_to(&[a]);
    setup.groups[0].choice.slow_start_seconds = 900;
    let plane = Plane::start(&setup);
    plane.until_healthy();
    setup.groups[0].targets = group("tg", &[a, b]).targets;
    plane.change(&setup);
    plane.until(|report| report.targets.len() == 2 && report.targets.iter().all(|one| one.health.reason.is_none()));
    let to_b = || (0..60).filter(|_| server(&ask(&plane, "")) == "b").count();
    let begun = to_b();
    assert!(begun <= 15, "{begun} of 60");
    setup.groups[0].choice.slow_start_seconds = 0;
    plane.change(&setup);
    eventually(|| to_b() >= 25);
}
