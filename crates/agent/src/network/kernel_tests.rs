//! Real packets over a real bridge, in namespaces and under names of the test's own, which are gone when its thread
//! ends, however it ends. The machine's links, rules and names are never touched.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use domain::agent_protocol::payload::PortMapping;
use domain::network::names::NETNS_DIRECTORY;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::bridge::{self, AttachError, Bridge};
use domain::network::Cidr;
use plumbing::netlink::{End, Netlink, NewRoute};
use plumbing::{netns, nft};

/// The digits of all tests: each has the names to itself.
const DIGITS: &str = "0fab1e";
/// How long a dropped packet is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs a test in a machine of its own: `outside` is another machine at 192.0.2.2, the machine itself is 192.0.2.1.
fn world(test: impl FnOnce(&Path, &Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let ran = thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces");
                let none = None::<&str>;
                mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
                std::fs::create_dir_all(NETNS_DIRECTORY).expect("a directory for names");
                mount(Some("tmpfs"), NETNS_DIRECTORY, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
                netns::prepare_directory().expect("shared names");
                // A new namespace may have it from the machine.
                netns::set_parameter("ipv4/ip_forward", "0").expect("a parameter");
                let outside = neighbour().expect("another machine");
                test(directory.path(), &outside);
            })
            .join()
    });
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

/// Another machine on a wire of its own.
fn neighbour() -> io::Result<std::path::PathBuf> {
    let path = Path::new(NETNS_DIRECTORY).join("outside");
    let mut netlink = Netlink::open()?;
    netlink.set_up(1)?;
    netns::make(&path)?;
    // A bridge with one port stands for the machine's network card.
    netlink.add_bridge(&End { name: "card", mac: [2, 0, 0, 0, 0, 1] })?;
    let card = netlink.link("card")?.expect("a card").index;
    netlink.add_address_and_route(card, Ipv4Addr::new(192, 0, 2, 1), 24)?;
    use std::os::fd::AsFd;
    let (here, there) = (End { name: "wire", mac: [2, 0, 0, 0, 0, 3] }, End { name: "eth0", mac: [2, 0, 0, 0, 0, 2] });
    netlink.add_pair(&here, &there, std::fs::File::open(&path)?.as_fd())?;
    netlink.attach_to_bridge("wire", card)?;
    netns::within(&path, || {
        let mut netlink = Netlink::open()?;
        netlink.set_up(1)?;
        let link = netlink.link("eth0")?.expect("eth0").index;
        netlink.add_address_and_route(link, Ipv4Addr::new(192, 0, 2, 2), 24)?;
        netlink.set_up(link)
    })?;
    Ok(path)
}

fn open(directory: &Path, known: &[&str]) -> Bridge {
    let known: HashSet<String> = known.iter().map(|key| (*key).to_owned()).collect();
    Bridge::open(DIGITS, directory.join("network"), 49_153..=49_160, &known).expect("a bridge")
}

fn mapping(container: i64, host: i64, protocol: &str) -> PortMapping {
    PortMapping { container_port: container, host_port: host, protocol: protocol.into(), ..PortMapping::default() }
}

/// Tells everybody who connects at this port of a namespace who they are.
fn serve(path: &Path, port: u16) {
    let listener = netns::within(path, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a free port");
    serve_on(listener);
}

fn serve_on(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// Whom the server at an address takes the calling thread for.
fn ask(address: [u8; 4], port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddrV4::new(address.into(), port).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_from(from: &Path, address: [u8; 4], port: u16) -> io::Result<String> {
    netns::within(from, || ask(address, port))
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    world(|directory, outside| {
        let bridge = open(directory, &[]);
        let web = bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp"), mapping(80, 0, "tcp")]).expect("a network");
        assert_eq!(web.address, Some(Ipv4Addr::new(172, 17, 0, 2)));
        let open_port = web.bindings[1].host_port;
        assert!((49_153..=49_160).contains(&open_port));
        bridge.attach("0b-0", true, &[]).expect("a network");
        let (web, other) = (bridge.namespace("0a-0"), bridge.namespace("0b-0"));
        serve(&web, 80);
        // The machine itself, over its loopback and by its address.
        assert_eq!(ask([127, 0, 0, 1], 8080).expect("over the loopback"), "172.17.0.1");
        assert_eq!(ask([127, 0, 0, 1], open_port).expect("over the loopback"), "172.17.0.1");
        assert_eq!(ask([192, 0, 2, 1], 8080).expect("by the machine's address"), "192.0.2.1");
        // Another machine, which is seen as what it is.
        assert_eq!(ask_from(outside, [192, 0, 2, 1], 8080).expect("from outside"), "192.0.2.2");
        // Another container, and the container itself, by the machine's address.
        assert_eq!(ask_from(&other, [192, 0, 2, 1], 8080).expect("from a container"), "172.17.0.1");
        assert_eq!(ask_from(&web, [192, 0, 2, 1], 8080).expect("from itself"), "172.17.0.1");
        // And a container by its own.
        assert_eq!(ask_from(&other, [172, 17, 0, 2], 80).expect("on the bridge"), "172.17.0.3");

        bridge.detach("0a-0").expect("detached");
        assert!(ask([127, 0, 0, 1], 8080).is_err());
        assert!(!netns::is_ready(&web));
        let again = bridge.attach("0c-0", true, &[mapping(81, 8080, "tcp")]).expect("a port that was given back");
        assert_eq!(again.address, Some(Ipv4Addr::new(172, 17, 0, 4)), "an address is not given out again at once");
    });
}

#[test]
fn datagrams_are_published_too() {
    world(|directory, outside| {
        let bridge = open(directory, &[]);
        bridge.attach("0a-0", true, &[mapping(53, 5353, "udp")]).expect("a network");
        let within = bridge.namespace("0a-0");
        let server = netns::within(&within, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))).expect("a socket");
        server.set_read_timeout(Some(PATIENCE)).expect("a bound");
        netns::within(outside, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"hello", (Ipv4Addr::new(192, 0, 2, 1), 5353))
        })
        .expect("sent");
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).expect("received");
        assert_eq!((&buffer[..length], peer.ip().to_string().as_str()), (&b"hello"[..], "192.0.2.2"));
    });
}

#[test]
fn a_container_reaches_the_world_as_the_machine_and_not_the_machines_loopback() {
    world(|directory, outside| {
        let bridge = open(directory, &[]);
        bridge.attach("0a-0", true, &[]).expect("a network");
        let within = bridge.namespace("0a-0");
        serve(outside, 80);
        assert_eq!(ask_from(&within, [192, 0, 2, 2], 80).expect("outside"), "192.0.2.1");
        // What listens on the machine's loopback is nobody else's, though the bridge lets the loopback's packets out.
        serve_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 9000)).expect("a listener"));
        assert!(ask_from(&within, [172, 17, 0, 1], 9000).is_err());
        netns::within(&within, || {
            let mut netlink = Netlink::open()?;
            // As a container with the capability may: its own loopback is out of the way, the machine's is routed to.
            netns::set_parameter("ipv4/conf/eth0/route_localnet", "1")?;
            std::process::Command::new("ip").args(["route", "del", "table", "local", "127.0.0.0/8"]).status()?;
            std::process::Command::new("ip").args(["route", "del", "table", "local", "127.0.0.1"]).status()?;
            let link = netlink.link("eth0")?.expect("eth0").index;
            netlink.set_route(&NewRoute {
                destination: Cidr::ANY,
                via: Some(Ipv4Addr::new(172, 17, 0, 1)),
                link,
                source: None,
            })
        })
        .expect("prepared");
        assert!(ask_from(&within, [127, 0, 0, 1], 9000).is_err());
    });
}

#[test]
fn without_a_network_there_is_a_loopback_and_nothing_else() {
    world(|directory, _| {
        let bridge = open(directory, &[]);
        let network = bridge.attach("0a-0", false, &[]).expect("a namespace");
        assert_eq!((network.address, network.bindings.len()), (None, 0));
        let within = bridge.namespace("0a-0");
        serve(&within, 80);
        assert_eq!(ask_from(&within, [127, 0, 0, 1], 80).expect("its own loopback"), "127.0.0.1");
        let links = netns::within(&within, || Netlink::open()?.links()).expect("links");
        assert_eq!(links.iter().filter(|link| link.name.starts_with("eth")).count(), 0, "{links:?}");
        assert!(ask_from(&within, [192, 0, 2, 2], 80).is_err());
    });
}

#[test]
fn the_next_agent_takes_over_what_is_known_and_removes_the_rest() {
    world(|directory, outside| {
        let bridge = open(directory, &[]);
        bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp")]).expect("a network");
        bridge.attach("0b-0", true, &[mapping(80, 8081, "tcp")]).expect("a network");
        let (kept, gone) = (bridge.namespace("0a-0"), bridge.namespace("0b-0"));
        serve(&kept, 80);
        // Killed: what it holds in memory is gone, nothing else.
        drop(bridge);
        let bridge = open(directory, &["0a-0"]);
        assert_eq!(ask_from(outside, [192, 0, 2, 1], 8080).expect("still there"), "192.0.2.2");
        assert!(ask_from(outside, [192, 0, 2, 1], 8081).is_err());
        assert!(!netns::is_ready(&gone));
        assert_eq!(bridge.keys(), ["0a-0"]);
        let links = Netlink::open().and_then(|mut netlink| netlink.links()).expect("links");
        assert_eq!(links.iter().filter(|link| link.name.starts_with("ls0fab1ev")).count(), 1, "{links:?}");
        // A container that is restarted in place keeps everything.
        let before = bridge.network("0a-0");
        assert_eq!(Some(bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp")]).expect("its own")), before);
        assert!(matches!(bridge.attach("0c-0", true, &[mapping(1, 8080, "tcp")]), Err(AttachError::Port(_))));
        assert_eq!(bridge.keys(), ["0a-0"], "a container without its port has nothing");
    });
}

#[test]
fn what_a_killed_agent_had_half_made_is_made_anew() {
    world(|directory, outside| {
        let bridge = open(directory, &[]);
        let before = bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp")]).expect("a network");
        drop(bridge);
        // As if it had been killed before there was a link.
        Netlink::open().and_then(|mut netlink| netlink.delete_link("ls0fab1ev0002")).expect("removed");
        let bridge = open(directory, &["0a-0"]);
        let after = bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp")]).expect("a network");
        assert_eq!(after.bindings, before.bindings);
        serve(&bridge.namespace("0a-0"), 80);
        assert_eq!(ask_from(outside, [192, 0, 2, 1], 8080).expect("from outside"), "192.0.2.2");
    });
}

#[test]
fn teardown_leaves_nothing() {
    world(|directory, _| {
        let before = Netlink::open().and_then(|mut netlink| netlink.links()).expect("links");
        let bridge = open(directory, &[]);
        bridge.attach("0a-0", true, &[mapping(80, 8080, "tcp")]).expect("a network");
        bridge.attach("0b-0", false, &[]).expect("a namespace");
        drop(bridge);
        let removed = bridge::teardown(DIGITS).expect("removed");
        assert!(removed.iter().any(|what| what == "nftables table ip ls_agent_0fab1e"), "{removed:?}");
        assert_eq!(Netlink::open().and_then(|mut netlink| netlink.links()).expect("links"), before);
        assert!(netns::list("ls-").expect("names").is_empty());
        assert!(!nft::tables().iter().any(|name| name.starts_with("ls_")), "{:?}", nft::tables());
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable").trim(), "0");
        assert!(bridge::teardown(DIGITS).expect("nothing to do").is_empty());
    });
}

#[test]
fn an_address_block_that_is_routed_elsewhere_is_not_taken() {
    world(|directory, _| {
        let mut netlink = Netlink::open().expect("a socket");
        let card = netlink.link("card").expect("links").expect("a card").index;
        netlink.add_address_and_route(card, Ipv4Addr::new(172, 17, 9, 1), 24).expect("an address");
        let bridge = open(directory, &[]);
        let network = bridge.attach("0a-0", true, &[]).expect("a network");
        assert_eq!(network.address, Some(Ipv4Addr::new(172, 18, 0, 2)));
    });
}
