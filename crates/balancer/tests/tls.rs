//! HTTPS listeners over real sockets, with clients of rustls that verify what they get.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use domain::{
    Timestamp,
    balancing::{
        HealthCheckProtocol, SslPolicy,
        slice::{CertificateItem, TlsItem},
    },
    certificates::{Material, PrivateKey},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version,
};
use support::{Plane, Setup, echo, eventually, status};

type Connection = StreamOwned<ClientConnection, TcpStream>;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec!["ca.org".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        Self { issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    fn certificate(&self, arn: &str, name: &str) -> CertificateItem {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        CertificateItem {
            arn: arn.into(),
            names: vec![name.into()],
            not_after: Timestamp(i64::MAX),
            material: Material {
                certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
                chain: None,
                private_key: PrivateKey::new(key.serialize_pem()),
            },
        }
    }

    fn connect(
        &self,
        plane: &Plane,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> io::Result<Connection> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connection = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let socket = plane.connect();
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        // With TLS 1.3 a client is done before it knows whether the other side is.
        stream.flush()?;
        Ok(stream)
    }

    fn any(&self, plane: &Plane, name: &str) -> io::Result<Connection> {
        self.connect(plane, name, &[&version::TLS13, &version::TLS12], &[])
    }
}

fn secure(authority: &Authority, certificates: &[(&str, &str)], policy: &str) -> Setup {
    let mut setup = Setup::forwarding_to(&[echo("a")]);
    setup.attributes.idle_timeout_seconds = 60;
    setup.certificates = certificates.iter().map(|(arn, name)| authority.certificate(arn, name)).collect();
    setup.tls = Some(TlsItem {
        ssl_policy: policy.into(),
        certificates: certificates.iter().map(|(arn, _)| (*arn).to_owned()).collect(),
    });
    setup
}

fn get(connection: &mut Connection) -> String {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: one.org\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    // The target's answer ends with the head that it got.
    while bytes.windows(4).filter(|end| end == b"\r\n\r\n").count() < 2 {
        match connection.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

fn leaf(connection: &Connection) -> Vec<u8> {
    connection.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn requests_go_through_and_targets_are_told() {
    let authority = Authority::new();
    let plane = Plane::start(&secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT));
    plane.until_healthy();
    for version in [&version::TLS12, &version::TLS13] {
        let mut connection = authority.connect(&plane, "one.org", &[version], &["http/1.1"]).unwrap();
        for _ in 0..2 {
            let answer = get(&mut connection);
            assert_eq!(status(&answer), 200);
            assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
            assert!(answer.contains(&format!("x-forwarded-port: {}\r\n", plane.port)), "{answer}");
        }
        assert_eq!(connection.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    }
    let connection = authority.connect(&plane, "one.org", &[&version::TLS13], &["http/1.1", "h2"]).unwrap();
    assert_eq!(connection.conn.alpn_protocol(), Some(b"h2".as_slice()));
}

#[test]
fn http2_is_offered_only_if_the_attribute_says_so() {
    let authority = Authority::new();
    let mut setup = secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT);
    setup.attributes.http2 = false;
    let plane = Plane::start(&setup);
    let connection = authority.connect(&plane, "one.org", &[&version::TLS13], &["http/1.1", "h2"]).unwrap();
    assert_eq!(connection.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
}

#[test]
fn the_name_decides_and_the_default_is_for_the_rest() {
    let authority = Authority::new();
    let certificates = [("1", "one.org"), ("2", "*.two.org"), ("3", "a.two.org")];
    let plane = Plane::start(&secure(&authority, &certificates, SslPolicy::DEFAULT));
    for name in ["one.org", "a.two.org", "b.two.org"] {
        assert!(authority.any(&plane, name).is_ok(), "{name}");
    }
    assert_ne!(leaf(&authority.any(&plane, "a.two.org").unwrap()), leaf(&authority.any(&plane, "b.two.org").unwrap()));
    let refusal = authority.any(&plane, "other.org").unwrap_err();
    assert!(refusal.to_string().contains("not valid for name"), "{refusal}");
}

#[test]
fn a_new_certificate_is_served_while_old_connections_go_on() {
    let authority = Authority::new();
    let mut setup = secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT);
    let plane = Plane::start(&setup);
    plane.until_healthy();
    let mut kept = authority.any(&plane, "one.org").unwrap();
    assert_eq!(status(&get(&mut kept)), 200);
    let before = leaf(&kept);
    setup.certificates = vec![authority.certificate("1", "one.org")];
    plane.change(&setup);
    eventually(|| leaf(&authority.any(&plane, "one.org").unwrap()) != before);
    assert_eq!(status(&get(&mut kept)), 200);
}

#[test]
fn a_policy_decides_on_versions() {
    let authority = Authority::new();
    let mut setup = secure(&authority, &[("1", "one.org")], "ELBSecurityPolicy-TLS13-1-3-2021-06");
    let plane = Plane::start(&setup);
    assert!(authority.connect(&plane, "one.org", &[&version::TLS13], &[]).is_ok());
    assert!(authority.connect(&plane, "one.org", &[&version::TLS12], &[]).is_err());
    setup.tls.iter_mut().for_each(|tls| tls.ssl_policy = "ELBSecurityPolicy-FS-1-2-Res-2020-10".into());
    plane.change(&setup);
    eventually(|| authority.connect(&plane, "one.org", &[&version::TLS12], &[]).is_ok());
    assert!(authority.connect(&plane, "one.org", &[&version::TLS13], &[]).is_err());
}

#[test]
fn without_a_usable_certificate_nobody_is_served_in_plain() {
    let authority = Authority::new();
    let mut setup = secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT);
    setup.certificates.clear();
    let plane = Plane::start(&setup);
    assert_eq!(plane.get("/"), "");
    assert!(authority.any(&plane, "one.org").is_err());
    setup.certificates = vec![authority.certificate("1", "one.org")];
    plane.change(&setup);
    eventually(|| authority.any(&plane, "one.org").is_ok());
}

#[test]
fn who_came_before_a_listener_spoke_tls_is_not_served_in_plain_any_more() {
    let authority = Authority::new();
    let after = secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT);
    let mut before = after.clone();
    before.tls = None;
    let plane = Plane::start(&before);
    plane.until_healthy();
    let mut kept = plane.connect();
    let request = b"GET / HTTP/1.1\r\nHost: one.org\r\n\r\n";
    kept.write_all(request).unwrap();
    support::read_until(&mut kept, "\r\n\r\n");
    plane.change(&after);
    eventually(|| authority.any(&plane, "one.org").is_ok());
    // What is left of the first answer comes, and then no other.
    let _ = kept.write_all(request);
    let rest = support::read_all(&mut kept);
    assert!(!rest.contains("HTTP/1.1 200"), "{rest}");
}

#[test]
fn garbage_and_silence_end_and_harm_nobody() {
    let authority = Authority::new();
    let plane = Plane::start(&secure(&authority, &[("1", "one.org")], SslPolicy::DEFAULT));
    plane.until_healthy();
    // More than half of the 1000 connections that there may be: handshakes get no more, so the oldest go.
    let silent: Vec<TcpStream> = (0..700).map(|_| plane.connect()).collect();
    let mut garbage: Vec<TcpStream> = (0..20).map(|_| plane.connect()).collect();
    for stream in &mut garbage {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: one.org\r\n\r\n").unwrap();
    }
    let mut connection = authority.any(&plane, "one.org").unwrap();
    assert_eq!(status(&get(&mut connection)), 200);
    for mut stream in garbage {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        // An alert at most, and no answer.
        assert!(bytes.len() < 16, "{bytes:?}");
    }
    let mut first = &silent[0];
    first.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(first.read(&mut [0; 16]).unwrap_or(0), 0);
    assert_eq!(status(&get(&mut connection)), 200);
}

/// A target that answers over TLS with what it got. Nobody has certified it.
fn secure_target() -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["elsewhere.net".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            thread::spawn(move || {
                loop {
                    let mut head = String::new();
                    let mut byte = [0];
                    while !head.ends_with("\r\n\r\n") {
                        match stream.read(&mut byte) {
                            Ok(1) => head.push(char::from(byte[0])),
                            _ => return,
                        }
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                    if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn targets_may_speak_tls_and_nothing_is_asked_of_their_certificates() {
    let address = secure_target();
    let mut setup = Setup::forwarding_to(&[address]);
    setup.groups[0].secure = true;
    setup.groups[0].health_check.protocol = HealthCheckProtocol::Https;
    let plane = Plane::start(&setup);
    plane.until_healthy();
    for _ in 0..2 {
        let answer = plane.get("/x");
        assert_eq!(status(&answer), 200);
        assert!(answer.contains("x-forwarded-proto: http\r\n"), "{answer}");
    }
    // Without TLS such a target has nothing to say.
    setup.groups[0].health_check.protocol = HealthCheckProtocol::Http;
    plane.change(&setup);
    plane.until(|report| report.targets.iter().all(|target| target.health.reason.is_some()));
}
