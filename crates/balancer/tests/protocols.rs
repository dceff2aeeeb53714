//! Rules, redirects, WebSocket and HTTP/2 over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use bytes::Bytes;
use domain::balancing::{Action, Condition, ProtocolVersion, slice::RuleItem};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Plane, Setup, echo, eventually, forward, group, read_until, scripted, status};

fn rule(condition: Condition, action: Action) -> RuleItem {
    RuleItem { arn: "rule".into(), conditions: vec![condition], action }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut setup = Setup::forwarding_to(&[echo("default")]);
    setup.groups.push(group("img", &[echo("img")]));
    setup.rules = vec![
        rule(
            Condition::PathPattern { values: vec!["/old/*".into()] },
            Action::Redirect {
                protocol: "#{protocol}".into(),
                host: "#{host}".into(),
                port: "#{port}".into(),
                path: "/new/#{path}".into(),
                query: "#{query}".into(),
                status_code: 301,
            },
        ),
        rule(Condition::PathPattern { values: vec!["/img/*".into()] }, forward(&[("img", 1)])),
        rule(
            Condition::HostHeader { values: vec!["*.fixed.com".into()] },
            Action::FixedResponse {
                status_code: 418,
                content_type: Some("application/json".into()),
                body: Some("{\"a\":1}".into()),
            },
        ),
    ];
    let plane = Plane::start(&setup);
    assert!(plane.get("/").contains("server: default"));
    assert!(plane.get("/img/x").contains("server: img"));
    let moved = plane.get("/old/x?y=1");
    assert_eq!(status(&moved), 301);
    assert!(moved.contains(&format!("location: http://example.com:{}/new/old/x?y=1\r\n", plane.port)), "{moved}");
    assert!(moved.contains("<h1>301 Moved Permanently</h1>"));
    let fixed = plane.exchange("GET / HTTP/1.1\r\nHost: A.fixed.com:80\r\nConnection: close\r\n\r\n");
    assert!(fixed.contains("418") && fixed.contains("content-type: application/json") && fixed.ends_with("{\"a\":1}"));
}

#[test]
fn websockets_are_tunnelled_until_their_target_goes() {
    let (address, requests) = scripted();
    let mut setup = Setup::forwarding_to(&[address]);
    setup.attributes.idle_timeout_seconds = 10;
    let plane = Plane::start(&setup);
    let mut client = plane.connect();
    client
        .write_all(
            b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
        )
        .unwrap();
    let (mut far, head) = requests.recv().unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("upgrade: websocket")
            && head.contains("connection: upgrade")
            && head.contains("sec-websocket-key: k")
    );
    far.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nearly",
    )
    .unwrap();
    let answer = read_until(&mut client, "early").to_ascii_lowercase();
    assert!(
        answer.starts_with("http/1.1 101")
            && answer.contains("upgrade: websocket")
            && answer.contains("sec-websocket-accept: a")
    );
    for _ in 0..3 {
        client.write_all(b"ping").unwrap();
        assert_eq!(read_until(&mut far, "ping"), "ping");
        far.write_all(b"pong").unwrap();
        assert_eq!(read_until(&mut client, "pong"), "pong");
    }
    setup.groups[0].targets.clear();
    plane.change(&setup);
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn a_silent_tunnel_ends_after_the_idle_timeout() {
    let (address, requests) = scripted();
    let plane = Plane::start(&Setup::forwarding_to(&[address]));
    let mut client = plane.connect();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let (mut far, _) = requests.recv().unwrap();
    far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    read_until(&mut client, "\r\n\r\n");
    assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
}

/// A target that speaks HTTP/2 only, with prior knowledge, and answers with what it got.
fn http2_target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                    let head = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let text = format!("{head} body={}", String::from_utf8_lossy(&body));
                    Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(text))))
                });
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    address
}

#[test]
fn targets_may_speak_http2() {
    let mut setup = Setup::forwarding_to(&[http2_target()]);
    setup.groups[0].protocol_version = ProtocolVersion::Http2;
    let plane = Plane::start(&setup);
    plane.until_healthy();
    let response =
        plane.exchange("POST /x?y=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    assert!(
        response.contains("HTTP/2.0 http://h") && response.contains("/x?y=1") && response.contains("body=abc"),
        "{response}"
    );
    assert!(response.contains("x-forwarded-for"), "{response}");
}

#[test]
fn clients_may_speak_http2_with_prior_knowledge() {
    let setup = Setup::forwarding_to(&[echo("a")]);
    let plane = Plane::start(&setup);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |port: u16| {
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            let request =
                http::Request::get(format!("http://example.com:{port}/two")).body(Empty::<Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.ok()?;
            Some(String::from_utf8(response.into_body().collect().await.ok()?.to_bytes().to_vec()).unwrap())
        })
    };
    let body = ask(plane.port).unwrap();
    assert!(
        body.contains("GET /two HTTP/1.1") && body.contains(&format!("host: example.com:{}", plane.port)),
        "{body}"
    );
    let mut without = setup.clone();
    without.attributes.http2 = false;
    plane.change(&without);
    eventually(|| ask(plane.port).is_none());
}
