//! Real packets through real routers.

use std::{
    io::{self, IoSliceMut, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use domain::network::{
    Cidr, ENDPOINT_ADDRESS, Peer,
    host::{Egress, HostItem, HostReport, InterfaceState, NameItem},
    names,
};

use crate::{
    dns::{self, Knowledge},
    endpoint, imds,
    netlink::{End, Netlink, NewRoute},
    netns, nft, outside,
    testing::*,
};

const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
const A: &str = "eni-0aaaaaaaaaaaaaa0a";
const B: &str = "eni-0aaaaaaaaaaaaaa0b";
const C: &str = "eni-0aaaaaaaaaaaaaa0c";

/// A may reach B at port 80; C is another task.
fn three() -> Items {
    let mut items = Items::new();
    items.vpc(VPC);
    items.group(VPC, "sg-0a", &[]);
    items.group(VPC, "sg-0b", &[(tcp(80), Peer::Group("sg-0a".into()))]);
    items.group(VPC, "sg-0c", &[]);
    items.interface(VPC, A, 10, "sg-0a", Egress::None);
    items.interface(VPC, B, 11, "sg-0b", Egress::None);
    items.interface(VPC, C, 12, "sg-0c", Egress::None);
    items
}

#[test]
fn security_groups_decide_on_real_packets_and_can_be_changed() {
    world(|| {
        let (mut host, mut items) = (reconciler(), three());
        reconcile(&mut host, &items);
        serve(&path(B), 80, "web");
        serve(&path(B), 81, "other");
        assert_eq!(fetch(&path(A), [10, 0, 0, 11], 80).unwrap(), "web 10.0.0.10");
        dropped(fetch(&path(A), [10, 0, 0, 11], 81));
        dropped(fetch(&path(C), [10, 0, 0, 11], 80));
        // An address that nobody has.
        dropped(fetch(&path(A), [10, 0, 0, 99], 80));

        let from_a = Peer::Group("sg-0a".into());
        items.group(VPC, "sg-0b", &[(tcp(80), from_a.clone()), (tcp(81), Peer::Cidr("10.0.0.12/32".parse().unwrap()))]);
        reconcile(&mut host, &items);
        dropped(fetch(&path(A), [10, 0, 0, 11], 81));
        assert_eq!(fetch(&path(C), [10, 0, 0, 11], 81).unwrap(), "other 10.0.0.12");

        // C joins the group that may.
        items.interface(VPC, C, 12, "sg-0a", Egress::None);
        reconcile(&mut host, &items);
        assert_eq!(fetch(&path(C), [10, 0, 0, 11], 80).unwrap(), "web 10.0.0.12");

        // What may come in must also be let out.
        let HostItem::SecurityGroup(mut group) = HostItem::clone(&items.0["sg/sg-0a"]) else { unreachable!() };
        group.rules.clear();
        items.add(HostItem::SecurityGroup(group));
        reconcile(&mut host, &items);
        dropped(fetch(&path(A), [10, 0, 0, 11], 80));
    });
}

#[test]
fn a_false_source_address_gets_nowhere() {
    world(|| {
        let (mut host, mut items) = (reconciler(), three());
        items.group(VPC, "sg-0b", &[(tcp(80), anybody())]);
        reconcile(&mut host, &items);
        serve(&path(B), 80, "web");
        let spoof = |source: Ipv4Addr| {
            netns::within(&path(A), || {
                let mut netlink = Netlink::open()?;
                let link = netlink.link("eth0")?.expect("eth0").index;
                netlink.add_address(link, source, 32)?;
                let socket = nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Datagram,
                    nix::sys::socket::SockFlag::empty(),
                    None,
                )?;
                let socket = UdpSocket::from(socket);
                nix::sys::socket::bind(
                    std::os::fd::AsRawFd::as_raw_fd(&socket),
                    &nix::sys::socket::SockaddrIn::from(SocketAddrV4::new(source, 0)),
                )?;
                socket.send_to(b"hello", (Ipv4Addr::new(10, 0, 0, 11), 80))
            })
            .unwrap();
        };
        items.group(VPC, "sg-0b", &[(domain::network::Protocol::All, anybody())]);
        reconcile(&mut host, &items);
        let listening = netns::within(&path(B), || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 80))).unwrap();
        listening.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        spoof(Ipv4Addr::new(10, 0, 0, 12));
        spoof(Ipv4Addr::new(192, 0, 2, 1));
        let mut buffer = [0; 16];
        assert!(listening.recv_from(&mut buffer).is_err(), "a packet with a false address arrived");
        spoof(Ipv4Addr::new(10, 0, 0, 10));
        assert_eq!(listening.recv_from(&mut buffer).unwrap().0, 5);

        // An interface whose source is not checked may send for others.
        let HostItem::Interface(mut interface) = HostItem::clone(&items.0[&format!("eni/{A}")]) else { unreachable!() };
        interface.source_dest_check = false;
        items.add(HostItem::Interface(interface));
        reconcile(&mut host, &items);
        spoof(Ipv4Addr::new(10, 0, 0, 12));
        assert_eq!(listening.recv_from(&mut buffer).unwrap().1.ip(), Ipv4Addr::new(10, 0, 0, 12));
    });
}

#[test]
fn two_tasks_do_not_see_each_others_traffic() {
    world(|| {
        let (mut host, items) = (reconciler(), three());
        reconcile(&mut host, &items);
        serve(&path(B), 80, "web");
        let listen = |id: &str| {
            netns::within(&path(id), || {
                use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
                Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll)?)
            })
            .unwrap()
        };
        let (of_a, of_c) = (listen(A), listen(C));
        fetch(&path(A), [10, 0, 0, 11], 80).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let count = |socket: &std::os::fd::OwnedFd| {
            let mut frames = 0;
            let mut buffer = [0; 2048];
            while nix::sys::socket::recvmsg::<()>(
                std::os::fd::AsRawFd::as_raw_fd(socket),
                &mut [IoSliceMut::new(&mut buffer)],
                None,
                nix::sys::socket::MsgFlags::empty(),
            )
            .is_ok()
            {
                frames += 1;
            }
            frames
        };
        assert!(count(&of_a) > 4, "the sender sees its own packets");
        assert_eq!(count(&of_c), 0);
    });
}

#[test]
fn two_vpcs_may_have_the_same_addresses() {
    world(|| {
        let mut items = Items::new();
        let other = "vpc-0bbbbbbbbbbbbbbb2";
        for (vpc, from, to) in [(VPC, A, B), (other, "eni-0bb0a", "eni-0bb0b")] {
            let group = if vpc == VPC { "sg-0a" } else { "sg-0b" };
            items.vpc(vpc);
            items.group(vpc, group, &[(tcp(80), anybody())]);
            items.interface(vpc, from, 10, group, Egress::None);
            items.interface(vpc, to, 11, group, Egress::None);
        }
        reconcile(&mut reconciler(), &items);
        serve(&path(B), 80, "first");
        serve(&path("eni-0bb0b"), 80, "second");
        assert_eq!(fetch(&path(A), [10, 0, 0, 11], 80).unwrap(), "first 10.0.0.10");
        assert_eq!(fetch(&path("eni-0bb0a"), [10, 0, 0, 11], 80).unwrap(), "second 10.0.0.10");
    });
}

#[test]
fn what_an_earlier_process_made_is_adopted_and_what_is_too_much_removed() {
    world(|| {
        let mut items = three();
        reconcile(&mut reconciler(), &items);
        let listener = netns::within(&path(B), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))).unwrap();
        let mut client = netns::within(&path(A), || TcpStream::connect((Ipv4Addr::new(10, 0, 0, 11), 80))).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let link = |id: &str| netns::within(&path(id), || Netlink::open()?.link("eth0")).unwrap().unwrap();
        let (before, inode) = (link(A), std::fs::metadata(path(A)).unwrap());

        items.remove(&format!("eni/{C}"));
        let mut outcome = reconcile(&mut reconciler(), &items);
        // The process dies again, and its sockets with it.
        outcome.listeners.clear();
        assert_eq!(link(A), before);
        assert_eq!(
            std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path(A)).unwrap()),
            std::os::unix::fs::MetadataExt::ino(&inode)
        );
        client.write_all(b"still").unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).unwrap();
        assert!(!path(C).exists());
        let attached = outcome
            .reports
            .iter()
            .filter(|(_, report)| matches!(report, HostReport::Interface { state: InterfaceState::Attached, .. }));
        assert_eq!(attached.count(), 2, "what is adopted is reported too");

        // An interface that comes back with the same address is a new one.
        items.interface(VPC, "eni-0new", 12, "sg-0a", Egress::None);
        let mut host = reconciler();
        reconcile(&mut host, &items);
        assert_eq!(link("eni-0new").mac, [10, 0, 0, 0, 0, 12]);

        // Somebody destroys things behind our back.
        netns::within(&path(VPC), || nft::apply("flush ruleset\n")).unwrap();
        netns::within(&path("eni-0new"), || Netlink::open()?.delete_link("eth0")).unwrap();
        nft::apply(&format!("delete table ip {}\n", names::table(PLATFORM))).unwrap();
        host.distrust();
        reconcile(&mut host, &items);
        drop((listener, server, client));
        serve(&path(B), 80, "web");
        assert_eq!(fetch(&path("eni-0new"), [10, 0, 0, 11], 80).unwrap(), "web 10.0.0.12");
        assert!(outside::has_table(PLATFORM));

        // A whole VPC goes.
        reconcile(&mut reconciler(), &Items::new());
        assert_eq!(netns::list(&names::netns_prefix(PLATFORM)).unwrap(), Vec::<String>::new());
        let links = Netlink::open().unwrap().links().unwrap();
        assert!(!links.iter().any(|link| link.name.starts_with("ls")), "{links:?}");
    });
}

/// A machine beyond the host, at 203.0.113.2.
fn internet() {
    let host = netns::current().unwrap();
    netns::on_thread(|| {
        netns::enter_new()?;
        let mut beyond = Netlink::open()?;
        let (here, there) =
            (End { name: "i0", mac: [10, 1, 0, 0, 0, 1] }, End { name: "wan0", mac: [10, 1, 0, 0, 0, 2] });
        beyond.add_pair(&here, &there, std::os::fd::AsFd::as_fd(&host))?;
        let link = beyond.link("i0")?.expect("i0").index;
        beyond.add_address(link, Ipv4Addr::new(203, 0, 113, 2), 24)?;
        let near = Cidr::literal(Ipv4Addr::new(203, 0, 113, 0), 24);
        beyond.set_route(&NewRoute { destination: near, via: None, link, source: None })?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 443))?;
        serve_on(listener, "world");
        Ok(())
    })
    .unwrap();
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link("wan0").unwrap().unwrap().index;
    netlink.set_up(link).unwrap();
    netlink.add_address(link, Ipv4Addr::new(203, 0, 113, 1), 24).unwrap();
    let near = Cidr::literal(Ipv4Addr::new(203, 0, 113, 0), 24);
    netlink.set_route(&NewRoute { destination: near, via: None, link, source: None }).unwrap();
}

/// A has a public address, B a NAT gateway, C nothing.
fn with_ways_out() -> Items {
    let mut items = three();
    items.group(VPC, "sg-0a", &[(tcp(80), anybody())]);
    items.interface(VPC, A, 10, "sg-0a", Egress::Public { address: Ipv4Addr::new(198, 18, 4, 10) });
    items.interface(VPC, B, 11, "sg-0b", Egress::Nat { address: Ipv4Addr::new(198, 18, 4, 20) });
    items
}

#[test]
fn a_public_address_answers_from_the_host_as_its_groups_say() {
    world(|| {
        let (mut host, mut items) = (reconciler(), with_ways_out());
        reconcile(&mut host, &items);
        serve(&path(A), 80, "public");
        serve(&path(A), 81, "closed");
        assert_eq!(fetch_here(Ipv4Addr::new(198, 18, 4, 10), 80).unwrap(), "public 198.18.4.1");
        dropped(fetch_here(Ipv4Addr::new(198, 18, 4, 10), 81));
        // Within the VPC, by its public address: out and back in.
        items.interface(VPC, C, 12, "sg-0c", Egress::Public { address: Ipv4Addr::new(198, 18, 4, 12) });
        reconcile(&mut host, &items);
        assert_eq!(fetch(&path(C), [198, 18, 4, 10], 80).unwrap(), "public 198.18.4.12");
        // The address goes, the interface stays.
        items.interface(VPC, A, 10, "sg-0a", Egress::None);
        reconcile(&mut host, &items);
        assert!(fetch_here(Ipv4Addr::new(198, 18, 4, 10), 80).is_err());
    });
}

#[test]
fn only_who_has_a_way_out_gets_out() {
    world(|| {
        internet();
        let items = with_ways_out();
        reconcile(&mut reconciler(), &items);
        assert_eq!(fetch(&path(A), [203, 0, 113, 2], 443).unwrap(), "world 203.0.113.1");
        assert_eq!(fetch(&path(B), [203, 0, 113, 2], 443).unwrap(), "world 203.0.113.1");
        dropped(fetch(&path(C), [203, 0, 113, 2], 443));
        // A NAT gateway is no way in.
        serve(&path(B), 80, "behind");
        assert!(fetch_here(Ipv4Addr::new(198, 18, 4, 20), 80).is_err());
        // Nor is the private address, even for the host, which could route to it.
        let mut netlink = Netlink::open().unwrap();
        let link = netlink.link(&names::vpc_link(PLATFORM, VPC)).unwrap().unwrap().index;
        let destination = "10.0.0.0/16".parse().unwrap();
        let via = Some(Ipv4Addr::new(198, 18, 4, 2));
        netlink.set_route(&NewRoute { destination, via, link, source: None }).unwrap();
        serve(&path(A), 80, "private");
        dropped(fetch_here(Ipv4Addr::new(10, 0, 0, 10), 80));
    });
}

#[test]
fn a_host_that_forwards_nothing_by_default_forwards_ours() {
    let run = |arguments: &[&str]| Command::new("iptables").args(arguments).status();
    if run(&["--version"]).is_err() {
        eprintln!("skipped: it needs iptables");
        return;
    }
    world(|| {
        internet();
        assert!(run(&["-P", "FORWARD", "DROP"]).unwrap().success());
        assert!(run(&["-N", "DOCKER-USER"]).unwrap().success());
        assert!(run(&["-A", "DOCKER-USER", "-j", "RETURN"]).unwrap().success());
        assert!(run(&["-I", "FORWARD", "-j", "DOCKER-USER"]).unwrap().success());
        reconcile(&mut reconciler(), &with_ways_out());
        assert_eq!(fetch(&path(A), [203, 0, 113, 2], 443).unwrap(), "world 203.0.113.1");
        // A second start adds nothing.
        reconcile(&mut reconciler(), &with_ways_out());
        let rules = Command::new("iptables").arg("-S").output().unwrap();
        let rules = String::from_utf8(rules.stdout).unwrap();
        assert_eq!(rules.matches("ls-0fab1e").count(), 2, "{rules}");
        outside::remove(PLATFORM).unwrap();
        let rules = Command::new("iptables").arg("-S").output().unwrap();
        assert!(!String::from_utf8(rules.stdout).unwrap().contains("ls-0fab1e"));
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn the_platform_and_the_resolver_are_reached_whatever_the_groups_say() {
    world(|| {
        let mut items = three();
        for group in ["sg-0a", "sg-0b", "sg-0c"] {
            let HostItem::SecurityGroup(mut item) = HostItem::clone(&items.0[&format!("sg/{group}")]) else {
                unreachable!()
            };
            item.rules.clear();
            items.add(HostItem::SecurityGroup(item));
        }
        items.add(HostItem::Name(NameItem {
            name: "web.us-east-1.elb.longshore.internal".into(),
            vpc_id: Some(VPC.into()),
            private_addresses: vec![Ipv4Addr::new(10, 0, 0, 11)],
            public_addresses: vec![],
        }));
        let mut outcome = reconcile(&mut reconciler(), &items);
        let (_, listeners) = outcome.listeners.pop().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vpc.sock");
        let runtime = runtime();
        let desired = items.desired();
        let knowledge = Knowledge::of(&desired.vpcs[VPC], &desired);
        let (_sender, receiver) = tokio::sync::watch::channel(std::sync::Arc::new(knowledge));
        runtime.spawn(endpoint::serve(listeners.endpoint, socket.clone()));
        runtime.spawn(dns::serve(listeners.names_udp, listeners.names_tcp, receiver));

        let client = netns::within(&path(A), || {
            let mut stream = TcpStream::connect((ENDPOINT_ADDRESS, PORT))?;
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
            Ok(stream)
        })
        .unwrap();
        // The server comes up only now: the connection waits for it.
        let server = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut line = vec![0; 100];
        let mut text = String::new();
        while !text.contains("GET /") {
            let length = accepted.read(&mut line).unwrap();
            assert!(length > 0, "{text}");
            text.push_str(std::str::from_utf8(&line[..length]).unwrap());
        }
        let port = client.local_addr().unwrap().port();
        assert!(text.starts_with(&format!("PROXY TCP4 10.0.0.10 169.254.169.252 {port} 4580\r\nGET / ")), "{text}");

        for server in [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(169, 254, 169, 253)] {
            let ask = |name: &str| netns::within(&path(A), || ask(server, name)).unwrap();
            let answer = ask("web.us-east-1.elb.longshore.internal");
            assert_eq!((answer[3] & 0x0f, &answer[answer.len() - 4..]), (0, &[10, 0, 0, 11][..]));
            assert_eq!(ask("example.com")[3] & 0x0f, 2, "no way out: no names from outside");
        }
        // Other ports of the router are closed.
        dropped(fetch(&path(A), [169, 254, 169, 252], 22));
        dropped(fetch(&path(A), [10, 0, 0, 1], 22));
        dropped(fetch(&path(A), [169, 254, 169, 254], 22));
        // Who is no instance has no metadata: its connection ends at once.
        let (_instances, none) = tokio::sync::watch::channel(std::sync::Arc::default());
        let shared = std::sync::Arc::new(imds::Shared::new(socket).unwrap());
        runtime.spawn(imds::serve(listeners.metadata, none, shared));
        assert_eq!(fetch(&path(A), [169, 254, 169, 254], 80).unwrap(), "");
    });
}

/// Asks for the address of a name.
fn ask(server: Ipv4Addr, name: &str) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, (server, 53))?;
    let mut buffer = vec![0; 512];
    let (length, _) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[test]
fn teardown_leaves_nothing_and_can_be_repeated() {
    world(|| {
        reconcile(&mut reconciler(), &with_ways_out());
        let directory = tempfile::tempdir().unwrap();
        let removed = crate::teardown(PLATFORM, directory.path()).unwrap();
        assert!(removed.len() >= 6, "{removed:?}");
        assert_eq!(netns::list(&names::netns_prefix(PLATFORM)).unwrap(), Vec::<String>::new());
        let links: Vec<String> = Netlink::open().unwrap().links().unwrap().into_iter().map(|link| link.name).collect();
        assert!(!links.iter().any(|name| name.starts_with("ls")), "{links:?}");
        assert_eq!(Netlink::open().unwrap().our_routes().unwrap(), []);
        assert!(!outside::has_table(PLATFORM));
        assert_eq!(crate::teardown(PLATFORM, directory.path()).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn malformed_items_are_left_out_and_said() {
    world(|| {
        let mut items = three();
        items.interface(VPC, "eni-0; reboot", 13, "sg-0a", Egress::None);
        items.interface("vpc-0nowhere", "eni-0d", 14, "sg-0a", Egress::None);
        let outcome = reconciler().reconcile(&items.desired(), Instant::now());
        assert_eq!(outcome.problems.len(), 2, "{:?}", outcome.problems);
        assert_eq!(outcome.reports.len(), 3);
    });
}

/// Not a test of correctness: prints how long an interface takes. `cargo test -p host --release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn how_long_an_interface_takes() {
    world(|| {
        let (mut host, mut items) = (reconciler(), three());
        reconcile(&mut host, &items);
        let mut times = Vec::new();
        for number in 20..120u8 {
            items.interface(VPC, &format!("eni-0a{number:03}"), number, "sg-0a", Egress::None);
            let outcome = reconcile(&mut host, &items);
            for (_, report) in outcome.reports {
                if let HostReport::Interface { milliseconds, .. } = report {
                    times.push(milliseconds);
                }
            }
        }
        times.sort_by(f64::total_cmp);
        println!("one interface: p50 {:.1} ms, p99 {:.1} ms", times[times.len() / 2], times[times.len() * 99 / 100]);
        let begin = Instant::now();
        for number in 120..170u8 {
            items.interface(VPC, &format!("eni-0b{number:03}"), number, "sg-0a", Egress::None);
        }
        reconcile(&mut host, &items);
        println!("fifty more at once: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
        let begin = Instant::now();
        reconcile(&mut reconciler(), &items);
        println!("adopting 153: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
        let begin = Instant::now();
        reconcile(&mut reconciler(), &Items::new());
        println!("removing 153: {:.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
    });
}

#[test]
fn forwarding_is_switched_off_again_by_the_last_who_needs_it() {
    world(|| {
        let switch = "/proc/sys/net/ipv4/ip_forward";
        let is_on = || std::fs::read_to_string(switch).unwrap().trim() == "1";
        let block = "198.18.4.0/22".parse().unwrap();
        let other = "1fab1e";
        std::fs::write(switch, "0").unwrap();
        outside::ensure_forwarding(PLATFORM, block).unwrap();
        outside::ensure_forwarding(other, block).unwrap();
        outside::remove(PLATFORM).unwrap();
        assert!(is_on(), "another platform needs it");
        let removed = outside::remove(other).unwrap();
        assert!(!is_on(), "{removed:?}");
        assert_eq!(crate::nft::list(&["list", "tables"]), "");
        assert_eq!(outside::remove(other).unwrap(), Vec::<String>::new());

        // Somebody else has come meanwhile.
        outside::ensure_forwarding(PLATFORM, block).unwrap();
        crate::nft::apply("add table ip somebody\n").unwrap();
        outside::remove(PLATFORM).unwrap();
        assert!(is_on());

        // It was on before.
        crate::nft::apply("delete table ip somebody\n").unwrap();
        outside::ensure_forwarding(PLATFORM, block).unwrap();
        outside::remove(PLATFORM).unwrap();
        assert!(is_on());
    });
}
