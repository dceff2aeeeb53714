//! Clients and targets that mean harm, over real sockets: nobody gets what belongs to somebody else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use domain::balancing::{HealthReason, HealthState, Matcher};
use support::{Plane, Setup, group, read_all, read_until, scripted, status, target};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// What reached a target: the number of the connection and the request's path, in order.
type Seen = Arc<Mutex<Vec<(usize, String)>>>;

/// A target that takes no bodies: whatever it reads is heads of requests. `answer` makes its answer to a path.
fn naive(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let (log, connections) = (seen.clone(), AtomicUsize::new(0));
    let serve = move |mut stream: TcpStream, first: String| {
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let mut head = first;
        loop {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            log.lock().unwrap().push((number, path.clone()));
            if stream.write_all(&answer(&path)).is_err() {
                return;
            }
            head = String::new();
            let mut byte = [0];
            while !head.ends_with("\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1) => head.push(char::from(byte[0])),
                    _ => return,
                }
            }
        }
    };
    (target(serve), seen)
}

fn ok(path: &str) -> Vec<u8> {
    let body = format!("this is {path}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A plane before a target that answers so.
fn before(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> (Plane, Seen) {
    let (address, seen) = naive(answer);
    (Plane::start(&Setup::forwarding_to(&[address])), seen)
}

fn reached(seen: &Seen, path: &str) -> bool {
    seen.lock().unwrap().iter().any(|(_, found)| found == path)
}

/// Nothing was asked for over the connections that `path` came over once it had.
fn last(seen: &Seen, path: &str) {
    let seen = seen.lock().unwrap();
    for (at, (number, _)) in seen.iter().enumerate().filter(|(_, (_, found))| found == path) {
        let innocent = seen[at..].iter().filter(|(other, found)| other == number && found.starts_with("/innocent"));
        assert_eq!(innocent.count(), 0, "{seen:?}");
    }
}

#[test]
fn requests_that_can_be_read_in_two_ways_are_refused_and_nothing_after_them_is_read() {
    let (plane, seen) = before(ok);
    for (number, wrong) in [
        "Content-Length : 3",
        "Content-Length: +3",
        "Content-Length: 3, 3",
        "Content-Length: -1",
        "Content-Length: 0x3",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 3\r\nContent-Length: 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\u{b}chunked",
        "X: folded\r\n  line",
        " X: folded",
        "X: a\0b",
        "X: a\rb",
        "X\r\nY: 1",
        ": nameless",
        "Host: other",
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("POST /refused-{number} HTTP/1.1\r\nHost: h\r\n{wrong}\r\n\r\n{SMUGGLED}");
        let answer = plane.exchange(&request);
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (400, 1), "{wrong:?}: {answer}");
        assert!(!reached(&seen, &format!("/refused-{number}")), "{wrong:?}");
    }
    let answer = plane.exchange(&format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"));
    assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (400, 1), "{answer}");
    assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
}

#[test]
fn hosts_that_are_none_are_refused() {
    let (plane, seen) = before(ok);
    for host in ["a b", "a/b", "user@h", "h?x", "a\"b", "<h>", "h\\x", "h\u{e9}"] {
        let answer = plane.exchange(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(status(&answer), 400, "{host:?}");
    }
    let huge = "h".repeat(17_000);
    assert_eq!(status(&plane.exchange(&format!("GET / HTTP/1.1\r\nHost: {huge}\r\n\r\n"))), 400);
    assert_eq!(status(&plane.exchange("GET http://user@h/ HTTP/1.1\r\nHost: h\r\n\r\n")), 400);
    assert!(seen.lock().unwrap().is_empty());
    for host in ["", "h_x:8080", "[::1]:80", "EXAMPLE.com."] {
        let answer = plane.exchange(&format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        assert_eq!(status(&answer), 200, "{host:?}");
    }
}

#[test]
fn lines_may_end_without_a_carriage_return_and_the_target_gets_them_with_one() {
    let (address, requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let mut client = plane.connect();
    client.write_all(b"GET /bare HTTP/1.1\nHost: h\nX-A: 1\nConnection: close\n\n").unwrap();
    let (mut far, head) = requests.recv().unwrap();
    assert!(head.starts_with("GET /bare HTTP/1.1\r\n") && !head.replace("\r\n", "").contains('\n'), "{head:?}");
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(status(&read_all(&mut client)), 200);
}

#[test]
fn chunks_that_cannot_be_read_end_the_connection() {
    let (plane, seen) = before(|_| Vec::new());
    for chunk in ["Z\r\n", "-1\r\n", "0x3\r\nabc\r\n", "FFFFFFFFFFFFFFFFF\r\n", "3\r\nabcd\r\n", "3\rabc\r\n", "\r\n"] {
        let request = format!("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{SMUGGLED}");
        let answer = plane.exchange(&request);
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (400, 1), "{chunk:?}: {answer}");
    }
    assert!(!reached(&seen, "/smuggled"));
    // An extension of a chunk without an end, and more of it than anybody needs.
    let endless = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(100_000));
    let answer = plane
        .exchange(&format!("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{endless}{SMUGGLED}"));
    assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (400, 1), "{answer}");
    assert!(!reached(&seen, "/smuggled"));
}

#[test]
fn a_body_that_the_target_takes_for_a_request_gets_nobody_an_answer_of_it() {
    let (plane, seen) = before(ok);
    for method in ["GET", "HEAD"] {
        for number in 0..20 {
            let attack =
                format!("{method} /attack HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
            let mut attacker = plane.connect();
            attacker.write_all(attack.as_bytes()).unwrap();
            let path = format!("/innocent-{method}-{number}");
            let answer = plane.get(&path);
            assert!(answer.ends_with(&format!("this is {path}")), "{answer}");
            // The connection ends as well: what else is in it may be meant for somebody else.
            let answer = read_all(&mut attacker);
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }
    last(&seen, "/attack");
}

#[test]
fn a_target_that_sends_more_than_its_answer_is_asked_nothing_else_over_that_connection() {
    const MORE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, first) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"),
    ] {
        for more in [MORE, ""] {
            let (plane, seen) =
                before(move |path| if path == "/attack" { format!("{first}{more}").into() } else { ok(path) });
            for number in 0..4 {
                let ask = format!("{method} /attack HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
                let answer = plane.exchange(&ask);
                assert!(!answer.contains("evil"), "{first:?}: {answer}");
                let path = format!("/innocent-{number}");
                let answer = plane.get(&path);
                assert!(answer.ends_with(&format!("this is {path}")), "{first:?}: {answer}");
            }
            // Without more bytes these say where they end, and the connection is as good as new.
            let proper = more.is_empty()
                && (method == "HEAD"
                    || first.contains("304")
                    || first.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"));
            if !proper {
                last(&seen, "/attack");
            }
        }
    }
}

#[test]
fn responses_without_an_end_or_with_too_much_are_cut() {
    let answered = |answer: &'static str| {
        let address = target(move |mut stream, _| drop(stream.write_all(answer.as_bytes())));
        let plane = Plane::start(&Setup::forwarding_to(&[address]));
        plane.get("/")
    };
    for wrong in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: folded\r\n line\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "just text, as HTTP/0.9 had it",
    ] {
        assert_eq!(status(&answered(wrong)), 502, "{wrong:?}");
    }
    // What has begun can only be broken off, and the client sees that it is not whole.
    let short = answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(short.contains("content-length: 10") && short.ends_with("half"), "{short}");
    let broken = answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nZ\r\n");
    assert!(!broken.ends_with("0\r\n\r\n"), "{broken}");
    let huge = target(|mut stream, _| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\n\r\n", "x".repeat(33_000)).as_bytes());
        let _ = stream.read(&mut [0]);
    });
    assert_eq!(status(&Plane::start(&Setup::forwarding_to(&[huge])).get("/")), 502);
}

#[test]
fn a_target_that_never_comes_to_the_point_is_given_up() {
    for (first, piece) in [("", "HTTP/1.1 100 Continue\r\n\r\n"), ("HTTP/1.1 200 OK\r\nX: ", "x")] {
        let address = target(move |mut stream, _| {
            stream.write_all(first.as_bytes()).unwrap();
            while stream.write_all(piece.as_bytes()).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        assert_eq!(status(&Plane::start(&Setup::forwarding_to(&[address])).get("/")), 504, "{piece:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_left() {
    let (sender, cut) = mpsc::channel();
    let sender = Mutex::new(sender);
    let address = target(move |mut stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n").unwrap();
        let piece = vec![b'x'; 1 << 20];
        let mut sent = 0_u64;
        while stream.write_all(&piece).is_ok() {
            sent += 1;
        }
        let _ = sender.lock().unwrap().send(sent);
    });
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let mut client = plane.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mebibytes = cut.recv_timeout(Duration::from_secs(60)).expect("the target is let go");
    assert!(mebibytes < 64, "{mebibytes} MiB are kept for a client that does not read");
    drop(client);
}

/// The next request that reaches the target; `client` tells what came of it otherwise.
fn next(requests: &mpsc::Receiver<(TcpStream, String)>, client: &mut TcpStream) -> (TcpStream, String) {
    requests.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("answered {:?}", read_all(client)))
}

#[test]
fn an_upgrade_is_what_both_sides_agree_on() {
    let upgrade = |to: &str| format!("GET /u HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\r\n");
    // Refused by the target: what follows are requests, seen by the load balancer, over another connection.
    let (address, requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let mut client = plane.connect();
    client.write_all(upgrade("websocket").as_bytes()).unwrap();
    let (mut first, _) = next(&requests, &mut client);
    first.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 426"));
    client.write_all(b"GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let (mut second, head) = next(&requests, &mut client);
    assert!(head.starts_with("GET /next ") && head.contains("x-forwarded-for: "), "{head}");
    second.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(&mut client).starts_with("HTTP/1.1 200"));
    // Other protocols are not offered to the target, and it cannot switch to them.
    let mut client = plane.connect();
    client.write_all(upgrade("h2c").as_bytes()).unwrap();
    let (mut far, head) = next(&requests, &mut client);
    assert!(!head.to_ascii_lowercase().contains("upgrade"), "{head}");
    far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 502"));
}

#[test]
fn a_health_check_that_is_redirected_has_its_status_and_one_that_hangs_times_out() {
    let redirecting = target(|mut stream, _| {
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /health\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let hanging = target(|mut stream, _| drop(stream.read(&mut [0])));
    let mut setup = Setup::forwarding_to(&[]);
    setup.groups = vec![group("strict", &[redirecting, hanging]), group("lenient", &[redirecting])];
    setup.default_action = support::forward(&[("strict", 1), ("lenient", 1)]);
    for group in &mut setup.groups {
        group.health_check.path = "/checked".into();
    }
    setup.groups[1].health_check.matcher = Matcher::try_from("200-399".to_owned()).unwrap();
    let plane = Plane::start(&setup);
    plane.until(|report| {
        let health = |group: &str, at: SocketAddr| {
            let found = report
                .targets
                .iter()
                .find(|target| target.target_group == group && SocketAddr::new(target.address, target.port) == at);
            found.map(|target| (target.health.state, target.health.reason.clone()))
        };
        health("strict", redirecting)
            == Some((HealthState::Unhealthy, Some(HealthReason::ResponseCodeMismatch { status: 302 })))
            && health("strict", hanging) == Some((HealthState::Unhealthy, Some(HealthReason::Timeout)))
            && health("lenient", redirecting) == Some((HealthState::Healthy, None))
    });
}
