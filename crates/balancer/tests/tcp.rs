//! Connections through a network load balancer: bytes and half-closes both ways, cuts, and targets that are not there.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    thread,
};

use domain::balancing::{HealthCheckProtocol, TcpTargetGroup, network::TcpForwarding};
use support::{Plane, Setup, eventually, free_port, read_until};

/// Sends a name, then back what comes until the other side ends, then a last word.
fn target(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(format!("{name}\n").as_bytes());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
                let _ = stream.write_all(b"bye");
            });
        }
    });
    address
}

fn setup(targets: &[SocketAddr], settings: TcpTargetGroup) -> Setup {
    let mut setup = Setup::forwarding_to(targets);
    setup.arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/a/1";
    setup.attributes.idle_timeout_seconds = 60;
    setup.groups[0].tcp = Some(TcpForwarding { settings, zones: Vec::new() });
    setup.groups[0].health_check.protocol = HealthCheckProtocol::Tcp;
    setup
}

#[test]
fn bytes_and_half_closes_go_both_ways() {
    let plane = Plane::start(&setup(&[target("a")], TcpTargetGroup::default()));
    plane.until_healthy();
    let mut stream = plane.connect();
    assert_eq!(read_until(&mut stream, "\n"), "a\n");
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let (mut writer, copy) = (stream.try_clone().unwrap(), sent.clone());
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    writing.join().unwrap();
    assert!(came.strip_suffix(b"bye").unwrap() == sent);
}

#[test]
fn a_drained_target_keeps_its_connections_unless_they_are_to_be_cut() {
    for cut in [false, true] {
        let settings = TcpTargetGroup { deregistration_termination: cut, ..TcpTargetGroup::default() };
        let plane = Plane::start(&setup(&[target("a")], settings.clone()));
        plane.until_healthy();
        let mut held = plane.connect();
        assert_eq!(read_until(&mut held, "\n"), "a\n");
        let mut later = setup(&[target("b")], settings);
        later.groups[0].health_check.interval_seconds = 1;
        plane.change(&later);
        eventually(|| read_until(&mut plane.connect(), "\n") == "b\n");
        if cut {
            assert_eq!(held.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            held.write_all(b"on\n").unwrap();
            assert_eq!(read_until(&mut held, "\n"), "on\n");
        }
    }
}

#[test]
fn silence_and_targets_that_are_not_there_end_with_a_reset() {
    let mut quiet = setup(&[target("a")], TcpTargetGroup::default());
    quiet.attributes.idle_timeout_seconds = 1;
    let plane = Plane::start(&quiet);
    plane.until_healthy();
    let mut stream = plane.connect();
    assert_eq!(read_until(&mut stream, "\n"), "a\n");
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    plane.change(&setup(&[nobody], TcpTargetGroup::default()));
    eventually(|| plane.connect().read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}
