//! Requests to targets over real sockets: headers, turns, streaming, failures, drains.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use domain::balancing::{HealthReason, HealthState, LoadBalancerAttributes};
use support::{Plane, Setup, echo, eventually, forward, group, read_all, read_until, scripted, status, target};

#[test]
fn headers_are_added_and_hop_by_hop_ones_removed() {
    let plane = Plane::start(&Setup::forwarding_to(&[echo("a")]));
    let response = plane.exchange(
        "GET /p?q=1 HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\r\n",
    );
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("server: a"), "{head}");
    let body = body.to_ascii_lowercase();
    assert!(body.contains("get /p?q=1 http/1.1\r\n"), "{body}");
    assert!(body.contains(&format!("host: example.com:{}\r\n", plane.port)), "{body}");
    assert!(body.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n"), "{body}");
    assert!(body.contains("x-forwarded-proto: http\r\n"), "{body}");
    assert!(body.contains(&format!("x-forwarded-port: {}\r\n", plane.port)), "{body}");
    assert!(body.contains("x-amzn-trace-id: root=1-"), "{body}");
    assert!(!body.contains("x-mine") && !body.contains("connection"), "{body}");
}

#[test]
fn attributes_change_what_the_target_gets() {
    let mut setup = Setup::forwarding_to(&[echo("a")]);
    setup.attributes = LoadBalancerAttributes {
        preserve_host_header: true,
        drop_invalid_header_fields: true,
        xff_client_port: true,
        ..setup.attributes
    };
    let plane = Plane::start(&setup);
    let response = plane.exchange("GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nbad_name: 1\r\n\r\n");
    assert!(response.contains("host: example.com\r\n") && !response.contains("bad_name"), "{response}");
    let forwarded = response.lines().find(|line| line.starts_with("x-forwarded-for: 127.0.0.1:")).unwrap();
    assert!(forwarded.len() > "x-forwarded-for: 127.0.0.1:".len());
}

#[test]
fn targets_take_turns() {
    let plane = Plane::start(&Setup::forwarding_to(&[echo("a"), echo("b")]));
    plane.until_healthy();
    let names: Vec<bool> = (0..6).map(|_| plane.get("/").contains("server: a")).collect();
    assert_eq!(names.iter().filter(|a| **a).count(), 3, "{names:?}");
}

#[test]
fn groups_get_their_weights() {
    let mut setup = Setup::forwarding_to(&[]);
    setup.groups = vec![group("one", &[echo("a")]), group("two", &[echo("b")]), group("none", &[echo("c")])];
    setup.default_action = forward(&[("one", 3), ("two", 1), ("none", 0)]);
    let plane = Plane::start(&setup);
    let to_a = (0..40).filter(|_| plane.get("/").contains("server: a")).count();
    assert!((28..=32).contains(&to_a), "{to_a} of 40");
}

#[test]
fn one_connection_carries_many_requests_and_reuses_the_targets() {
    let plane = Plane::start(&Setup::forwarding_to(&[echo("a")]));
    let mut stream = plane.connect();
    for number in 0..20 {
        write!(stream, "GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").to_ascii_lowercase();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        assert!(String::from_utf8(body).unwrap().contains(&format!("GET /{number} ")));
    }
}

#[test]
fn a_target_that_closes_between_requests_costs_no_request() {
    // Answers one request per connection without saying that it closes.
    let address = target(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    for _ in 0..10 {
        assert_eq!(status(&plane.get("/")), 200);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn bodies_are_streamed_both_ways() {
    let (address, requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let mut client = plane.connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 100 Continue"));
    let (mut far, head) = requests.recv().unwrap();
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked") && !head.contains("expect"), "{head}");
    // Each piece arrives before the next is sent.
    for piece in ["one", "two"] {
        write!(client, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
        assert_eq!(read_until(&mut far, "\r\n"), format!("{:X}\r\n", piece.len()));
        assert_eq!(read_until(&mut far, "\r\n"), format!("{piece}\r\n"));
    }
    far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    client.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "abc\r\n").contains("200 OK"));
    far.write_all(b"2\r\nde\r\n0\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "0\r\n\r\n").contains("de"));
}

#[test]
fn without_targets_the_answer_is_503() {
    let plane = Plane::start(&Setup::forwarding_to(&[]));
    let response = plane.get("/");
    assert_eq!(status(&response), 503);
    assert!(
        response.contains("server: awselb/2.0")
            && response.contains("<center><h1>503 Service Temporarily Unavailable</h1></center>")
    );
}

#[test]
fn refusing_resetting_and_malformed_targets_give_502() {
    let refusing = ([127, 0, 0, 1], support::free_port()).into();
    assert_eq!(status(&Plane::start(&Setup::forwarding_to(&[refusing])).get("/")), 502);
    let closing = target(|_, _| {});
    assert_eq!(status(&Plane::start(&Setup::forwarding_to(&[closing])).get("/")), 502);
    let babbling = target(|mut stream, _| drop(stream.write_all(b"hello\r\n\r\n")));
    assert_eq!(status(&Plane::start(&Setup::forwarding_to(&[babbling])).get("/")), 502);
}

#[test]
fn a_silent_target_gives_504_after_the_idle_timeout() {
    let (address, requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let start = Instant::now();
    assert_eq!(status(&plane.get("/")), 504);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    drop(requests);
}

#[test]
fn a_client_that_stops_sending_gets_408() {
    let (address, _requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let response = plane.exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(status(&response), 408);
}

#[test]
fn idle_and_dribbling_clients_are_closed_without_an_answer() {
    let plane = Plane::start(&Setup::forwarding_to(&[]));
    let mut idle = plane.connect();
    let mut dribbling = plane.connect();
    let start = Instant::now();
    let dribble = thread::spawn(move || {
        while start.elapsed() < Duration::from_secs(5) && dribbling.write_all(b"G").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
        start.elapsed()
    });
    assert_eq!(read_all(&mut idle), "");
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert!(dribble.join().unwrap() < Duration::from_secs(5));
}

#[test]
fn requests_beyond_the_limits_are_refused() {
    let plane = Plane::start(&Setup::forwarding_to(&[echo("a")]));
    let with = |line: &str, headers: &str| {
        status(&plane.exchange(&format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")))
    };
    assert_eq!(with(&format!("GET /{}", "x".repeat(17_000)), "Host: h\r\n"), 414);
    assert_eq!(with("GET /", &format!("Host: h\r\nX-Big: {}\r\n", "x".repeat(17_000))), 400);
    assert_eq!(with("GET /", &format!("Host: h\r\nX-Forwarded-For: {}\r\n", ["1.1.1.1"; 31].join(","))), 463);
    assert_eq!(with("TRACE /", "Host: h\r\n"), 405);
    assert_eq!(with("GET /", ""), 400);
    assert_eq!(with("GET /", "Host: h\r\nX-Big: fits\r\n"), 200);
    // What cannot be read at all is answered too, and so is what two readers could read differently: as chunks, and for the
    // last time on this connection, as Amazon's defensive mode does.
    let smuggled = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG";
    let answer = plane.exchange(smuggled);
    assert!(status(&answer) == 200 && answer.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{answer}");
    assert_eq!(with("POST /", "Host: h\r\nContent-Length: 3\r\nContent-Length: 5\r\n"), 400);
    assert_eq!(with("GET / x", "Host: h\r\n"), 400);
    assert_eq!(with("GET /", &format!("Host: h\r\n{}", "X: 1\r\n".repeat(200))), 431);
}

#[test]
fn unhealthy_targets_get_nothing_until_all_are() {
    let failing = |name: &'static str| {
        target(move |mut stream, _| {
            let response =
                format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(response.as_bytes()).unwrap();
        })
    };
    let mut setup = Setup::forwarding_to(&[echo("good")]);
    // Checked on a port where nothing listens.
    let mut bad = group("bad", &[failing("bad")]);
    bad.health_check.port = Some(support::free_port());
    setup.groups.push(bad.clone());
    let plane = Plane::start(&setup);
    plane.until(|report| {
        report.targets.iter().any(|target| {
            target.target_group == "bad"
                && target.health.state == HealthState::Unhealthy
                && target.health.reason == Some(HealthReason::FailedHealthChecks)
        })
    });
    setup.default_action = forward(&[("bad", 1)]);
    plane.change(&setup);
    eventually(|| plane.get("/").contains("server: bad"));
}

#[test]
fn a_health_check_answered_otherwise_names_the_status() {
    let mut setup = Setup::forwarding_to(&[
        target(|mut stream, _| {
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }),
        echo("good"),
    ]);
    setup.groups[0].health_check.path = "/other".into();
    let plane = Plane::start(&setup);
    plane.until(|report| {
        report
            .targets
            .iter()
            .any(|target| target.health.reason == Some(HealthReason::ResponseCodeMismatch { status: 404 }))
    });
    assert!((0..6).all(|_| plane.get("/").contains("server: good")));
}

#[test]
fn a_draining_target_finishes_what_it_has_and_is_cut_when_it_goes() {
    let (address, requests) = scripted();
    let mut setup = Setup::forwarding_to(&[address]);
    setup.attributes.idle_timeout_seconds = 10;
    let plane = Plane::start(&setup);
    let ask = || {
        let mut stream = plane.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let (mut finishing, mut cut) = (ask(), ask());
    let (mut first, _) = requests.recv().unwrap();
    let (mut second, _) = requests.recv().unwrap();
    setup.groups[0].targets[0].draining = true;
    plane.change(&setup);
    eventually(|| status(&plane.get("/")) == 503);
    first.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let done = |response: &str| response.ends_with("ok");
    setup.groups[0].targets.clear();
    thread::sleep(Duration::from_millis(100));
    plane.change(&setup);
    let (one, two) = (read_all(&mut finishing), read_all(&mut cut));
    assert!(done(&one) != done(&two), "{one} / {two}");
    assert!([one, two].iter().any(|response| response.ends_with("half")));
}

#[test]
fn a_request_under_way_finishes_when_its_rule_changes() {
    let (address, requests) = scripted();
    let mut setup = Setup::forwarding_to(&[address]);
    setup.attributes.idle_timeout_seconds = 10;
    let plane = Plane::start(&setup);
    let mut client = plane.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let (mut far, _) = requests.recv().unwrap();
    setup.groups = vec![group("other", &[echo("other")])];
    setup.default_action = forward(&[("other", 1)]);
    plane.change(&setup);
    eventually(|| plane.get("/").contains("server: other"));
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    assert!(read_all(&mut client).ends_with("ok"));
}

#[test]
fn a_listener_that_goes_is_closed_and_one_that_comes_is_open() {
    let mut setup = Setup::forwarding_to(&[echo("a")]);
    let plane = Plane::start(&setup);
    assert_eq!(status(&plane.get("/")), 200);
    setup.listener = false;
    plane.change(&setup);
    plane.until(|report| report.listening.is_empty());
    eventually(|| std::net::TcpStream::connect(("127.0.0.1", plane.port)).is_err());
    setup.listener = true;
    plane.change(&setup);
    plane.until(|report| !report.listening.is_empty());
    assert_eq!(status(&plane.get("/")), 200);
}
