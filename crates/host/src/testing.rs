//! A world for tests: network namespaces and names of their own, which are gone when the test's thread ends, however it
//! ends. The machine's links, rules and names are never touched.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use domain::network::{
    Cidr, Peer, Protocol,
    host::{Egress, HostItem, InterfaceItem, PlatformItem, RuleItem, SecurityGroupItem, VpcItem},
    names,
};
use feed::Slice;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    desired,
    netlink::Netlink,
    netns,
    reconcile::{Outcome, Reconciler},
};

/// The platform of all tests: each has the names to itself.
pub(crate) const PLATFORM: &str = "0fab1e";
/// The port of the endpoint.
pub(crate) const PORT: u16 = 4580;
/// How long a dropped packet is waited for.
const DROPPED: Duration = Duration::from_millis(300);

/// Whether the test cannot be run because it needs root; says so.
pub(crate) fn needs_root() -> bool {
    let unprivileged = !nix::unistd::geteuid().is_root();
    if unprivileged {
        eprintln!("skipped: it needs root");
    }
    unprivileged
}

/// Makes an executable file of what the reader gives. Another process writes it: would this one, then a test that starts a
/// program at that moment would hand the open file to its child for a moment, and whoever executes it finds "Text file busy".
pub(crate) fn executable(path: &Path, mut content: impl Read) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    io::copy(&mut content, &mut shell.stdin.take().expect("a pipe")).expect("the content is written");
    assert!(shell.wait().expect("the shell ends").success(), "{} is not made", path.display());
}

/// Runs a test in a machine of its own.
pub(crate) fn world(test: impl FnOnce() + Send) {
    if needs_root() {
        return;
    }
    thread::scope(|scope| {
        let ran = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
            std::fs::create_dir_all(names::NETNS_DIRECTORY).expect("a directory for names");
            mount(Some("tmpfs"), names::NETNS_DIRECTORY, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
            netns::prepare_directory().expect("shared names");
            Netlink::open().and_then(|mut netlink| netlink.set_up(1)).expect("loopback");
            test();
        });
        if let Err(panic) = ran.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A slice under construction.
#[derive(Clone, Default)]
pub(crate) struct Items(pub(crate) BTreeMap<String, Arc<HostItem>>);

impl Items {
    pub(crate) fn new() -> Self {
        let mut items = Self::default();
        items.add(HostItem::Platform(PlatformItem { public_block: "198.18.4.0/22".parse().unwrap() }));
        items
    }

    pub(crate) fn add(&mut self, item: HostItem) {
        self.0.insert(item.key(), Arc::new(item));
    }

    pub(crate) fn vpc(&mut self, vpc: &str) {
        self.add(HostItem::Vpc(VpcItem {
            vpc_id: vpc.into(),
            region: "us-east-1".into(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            resolver: Ipv4Addr::new(10, 0, 0, 2),
            dns_support: true,
            gateways: vec![Ipv4Addr::new(10, 0, 0, 1)],
        }));
    }

    /// A group that lets everything out and these in.
    pub(crate) fn group(&mut self, vpc: &str, group: &str, inwards: &[(Protocol, Peer)]) {
        let inwards = inwards.iter().cloned().map(|(protocol, peer)| RuleItem { egress: false, protocol, peer });
        let outwards = RuleItem { egress: true, protocol: Protocol::All, peer: Peer::Cidr(Cidr::ANY) };
        self.add(HostItem::SecurityGroup(SecurityGroupItem {
            group_id: group.into(),
            vpc_id: vpc.into(),
            rules: inwards.chain([outwards]).collect(),
        }));
    }

    pub(crate) fn interface(&mut self, vpc: &str, eni: &str, last: u8, group: &str, egress: Egress) {
        self.add(HostItem::Interface(InterfaceItem {
            interface_id: eni.into(),
            vpc_id: vpc.into(),
            mac_address: format!("0a:00:00:00:00:{last:02x}"),
            address: Ipv4Addr::new(10, 0, 0, last),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            security_groups: vec![group.into()],
            egress,
            source_dest_check: true,
            task_of_instance: None,
        }));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.0.remove(key).expect("there is such an item");
    }

    pub(crate) fn desired(&self) -> desired::Desired {
        desired::sort(&Slice { revision: 1, known: true, confirmed: true, items: self.0.clone() })
    }
}

/// TCP to one port.
pub(crate) fn tcp(port: u16) -> Protocol {
    Protocol::Tcp { from: port, to: port }
}

/// Anybody.
pub(crate) fn anybody() -> Peer {
    Peer::Cidr(Cidr::ANY)
}

/// A reconciler as a process that has just started has it.
pub(crate) fn reconciler() -> Reconciler {
    Reconciler::new(PLATFORM.into(), PORT)
}

/// Reconciles and expects no problem.
pub(crate) fn reconcile(reconciler: &mut Reconciler, items: &Items) -> Outcome {
    let outcome = reconciler.reconcile(&items.desired(), Instant::now());
    assert_eq!(outcome.problems, Vec::<String>::new());
    outcome
}

/// Where an interface's or a router's namespace is.
pub(crate) fn path(id: &str) -> PathBuf {
    names::netns_path(PLATFORM, id)
}

/// Serves `text` to everybody who connects at this port in a namespace, until the world ends.
pub(crate) fn serve(path: &Path, port: u16, text: &'static str) {
    let listener = netns::within(path, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a free port");
    serve_on(listener, text);
}

/// Serves `text` and who asked.
pub(crate) fn serve_on(listener: TcpListener, text: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = write!(stream, "{text} {peer}");
        }
    });
}

/// What is served at an address, as seen by the calling thread.
pub(crate) fn fetch_here(address: Ipv4Addr, port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(address, port).into(), DROPPED)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// What is served at an address, as seen from a namespace.
pub(crate) fn fetch(from: &Path, address: [u8; 4], port: u16) -> io::Result<String> {
    netns::within(from, || fetch_here(address.into(), port))
}

/// Expects that packets are dropped, as opposed to refused.
pub(crate) fn dropped(outcome: io::Result<String>) {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
        other => panic!("expected the connection to time out: {other:?}"),
    }
}
