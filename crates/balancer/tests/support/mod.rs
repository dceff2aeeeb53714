//! What the data plane's tests share: a running plane, targets made of plain sockets, and a client that speaks bytes.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several test binaries; a test may panic")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use balancer::{
    cookie::{Key, SECRET},
    plane,
};
use domain::balancing::{
    Action, GroupStickiness, HealthCheck, LoadBalancerAttributes, ProtocolVersion, TargetChoice, WeightedTargetGroup,
    slice::{
        BalancerReport, CertificateItem, ListenerItem, LoadBalancerItem, RuleItem, SliceItem, TargetGroupItem,
        TargetItem, TlsItem,
    },
};
use tokio::sync::watch;

/// A data plane on threads of its own.
pub struct Plane {
    items: watch::Sender<plane::Items>,
    report: Arc<Mutex<BalancerReport>>,
    pub port: u16,
}

/// The slice that a test serves.
#[derive(Clone)]
pub struct Setup {
    pub attributes: LoadBalancerAttributes,
    pub rules: Vec<RuleItem>,
    pub default_action: Action,
    pub groups: Vec<TargetGroupItem>,
    pub listener: bool,
    /// How the listener speaks TLS, if it does.
    pub tls: Option<TlsItem>,
    pub certificates: Vec<CertificateItem>,
    /// The load balancer's ARN, which says its kind.
    pub arn: &'static str,
}

impl Setup {
    /// One group, `tg`, that gets everything.
    pub fn forwarding_to(targets: &[SocketAddr]) -> Self {
        Self {
            attributes: LoadBalancerAttributes { idle_timeout_seconds: 1, ..LoadBalancerAttributes::default() },
            rules: Vec::new(),
            default_action: forward(&[("tg", 1)]),
            groups: vec![group("tg", targets)],
            listener: true,
            tls: None,
            certificates: Vec::new(),
            arn: "lb",
        }
    }

    fn items(&self, port: u16) -> plane::Items {
        let mut items = vec![SliceItem::LoadBalancer(LoadBalancerItem {
            arn: self.arn.into(),
            attributes: self.attributes.clone(),
        })];
        if self.listener {
            items.push(SliceItem::Listener(ListenerItem {
                arn: "listener".into(),
                port,
                places: Vec::new(),
                tls: self.tls.clone(),
                rules: self.rules.clone(),
                default_action: self.default_action.clone(),
            }));
        }
        items.extend(self.certificates.iter().cloned().map(SliceItem::Certificate));
        items.extend(self.groups.iter().cloned().map(SliceItem::TargetGroup));
        Arc::new(items.into_iter().map(Arc::new).collect())
    }
}

pub fn forward(groups: &[(&str, u16)]) -> Action {
    let weighted = |(arn, weight): &(&str, u16)| WeightedTargetGroup { target_group: (*arn).into(), weight: *weight };
    Action::Forward { groups: groups.iter().map(weighted).collect(), stickiness: GroupStickiness::default() }
}

pub fn group(arn: &str, targets: &[SocketAddr]) -> TargetGroupItem {
    let target = |address: &SocketAddr| TargetItem { address: address.ip(), port: address.port(), draining: false };
    TargetGroupItem {
        fail_closed: false,
        arn: arn.into(),
        protocol_version: ProtocolVersion::Http1,
        secure: false,
        tcp: None,
        health_check: HealthCheck {
            path: "/health".into(),
            interval_seconds: 1,
            timeout_seconds: 1,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            ..HealthCheck::default()
        },
        choice: TargetChoice::default(),
        targets: targets.iter().map(target).collect(),
    }
}

impl Plane {
    /// Starts and waits until it listens.
    pub fn start(setup: &Setup) -> Self {
        let port = free_port();
        let (items, slices) = watch::channel(setup.items(port));
        let report = Arc::new(Mutex::new(BalancerReport::default()));
        let latest = report.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut reports) = tokio::sync::mpsc::channel(16);
                let surroundings = plane::Surroundings {
                    bind: Ipv4Addr::LOCALHOST,
                    provider: None,
                    workers: 2,
                    limit: 1000,
                    seed: 1,
                    key: Arc::new(Key::new(&[1; SECRET])),
                };
                let reader = async {
                    while let Some(report) = reports.recv().await {
                        *latest.lock().unwrap() = report;
                    }
                };
                let (ended, ()) = tokio::join!(plane::run(surroundings, slices, sender), reader);
                ended.unwrap();
            });
        });
        let plane = Self { items, report, port };
        if setup.listener {
            plane.until(|report| report.listening == [port]);
        }
        plane
    }

    /// Serves something else from now on.
    pub fn change(&self, setup: &Setup) {
        self.items.send_replace(setup.items(self.port));
    }

    /// Waits for a report.
    pub fn until(&self, wanted: impl Fn(&BalancerReport) -> bool) {
        eventually(|| wanted(&self.report.lock().unwrap()));
    }

    /// Waits until all targets have been checked once and are healthy.
    pub fn until_healthy(&self) {
        self.until(|report| report.targets.iter().all(|target| target.health.reason.is_none()));
    }

    /// Opens a connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends a request whole and reads until the end of the connection.
    pub fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_all(&mut stream)
    }

    /// A GET on a connection of its own.
    pub fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n"))
    }
}

/// Waits for something, long enough for a busy machine.
pub fn eventually(wanted: impl Fn() -> bool) {
    let start = Instant::now();
    while !wanted() {
        assert!(start.elapsed() < Duration::from_secs(30), "it never came true");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody listens on and that the kernel gives to nobody: it is below the range of its own choices.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take(10_000).find(free).expect("a free port")
}

pub fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` has come.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&bytes)),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// A target: each connection is given to `serve` with the head of its first request. Health checks are answered 200.
pub fn target(serve: impl Fn(TcpStream, String) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let serve = serve.clone();
            thread::spawn(move || {
                let head = read_until(&mut stream, "\r\n\r\n");
                if head.starts_with("GET /health ") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                } else {
                    serve(stream, head);
                }
            });
        }
    });
    address
}

/// A target that answers every request with its name and what it got, over connections that it keeps open.
pub fn echo(name: &'static str) -> SocketAddr {
    target(move |mut stream, first| {
        let mut head = first;
        loop {
            let body = format!("{name}\n{head}");
            let response = format!("HTTP/1.1 200 OK\r\nServer: {name}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(response.as_bytes()).is_err() {
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
    })
}

/// A target whose answers a test decides one by one.
pub fn scripted() -> (SocketAddr, mpsc::Receiver<(TcpStream, String)>) {
    let (sender, requests) = mpsc::channel();
    let sender = Mutex::new(sender);
    (target(move |stream, head| drop(sender.lock().unwrap().send((stream, head)))), requests)
}

/// The status code of a raw response.
pub fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {response:?}"))
}
