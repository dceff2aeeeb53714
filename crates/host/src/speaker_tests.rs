//! Real packets of a network load balancer that speaks for its clients.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd,
};

use domain::network::{
    Peer,
    host::{Egress, HostItem, LoadBalancerItem},
};
use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket,
        sockopt::{IpTransparent, SendTimeout},
    },
    time::{TimeVal, TimeValLike},
};

use crate::{netlink::Netlink, netns, testing::*};

const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
const BALANCER: &str = "eni-0aaaaaaaaaaaaaa0a";
const TARGET: &str = "eni-0aaaaaaaaaaaaaa0b";
const CLIENT: &str = "eni-0aaaaaaaaaaaaaa0c";
const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/a/1";

fn items() -> Items {
    let mut items = Items::new();
    items.vpc(VPC);
    items.group(VPC, "sg-0a", &[]);
    items.group(VPC, "sg-0b", &[(tcp(80), Peer::Group("sg-0a".into()))]);
    items.group(VPC, "sg-0c", &[]);
    items.interface(VPC, BALANCER, 10, "sg-0a", Egress::None);
    items.interface(VPC, TARGET, 11, "sg-0b", Egress::None);
    items.interface(VPC, CLIENT, 12, "sg-0c", Egress::None);
    items.add(HostItem::LoadBalancer(LoadBalancerItem {
        arn: ARN.into(),
        vpc_id: VPC.into(),
        interface_ids: vec![BALANCER.into()],
        host_listeners: Vec::new(),
        listener_ports: Vec::new(),
    }));
    items
}

/// What the target serves to somebody of another address in the load balancer's namespace.
fn fetch_as(source: [u8; 4], port: u16) -> io::Result<String> {
    netns::within(&path(BALANCER), || {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, IpTransparent, &true)?;
        setsockopt(&socket, SendTimeout, &TimeVal::milliseconds(300))?;
        let address = |ip: Ipv4Addr, port| SockaddrIn::from(SocketAddrV4::new(ip, port));
        bind(socket.as_raw_fd(), &address(source.into(), 0))?;
        if let Err(error) = connect(socket.as_raw_fd(), &address(Ipv4Addr::new(10, 0, 0, 11), port)) {
            // How the kernel says that a connection with such a limit took too long.
            let late = error == nix::Error::EINPROGRESS;
            return Err(if late { io::ErrorKind::TimedOut.into() } else { error.into() });
        }
        let mut text = String::new();
        TcpStream::from(socket).read_to_string(&mut text)?;
        Ok(text)
    })
}

#[test]
fn a_target_sees_the_clients_address_and_answers_to_the_load_balancer() {
    world(|| {
        let (mut host, mut items) = (reconciler(), items());
        reconcile(&mut host, &items);
        serve(&path(TARGET), 80, "web");
        // The load balancer's group is let in, whether it comes with its own address, somebody's in the VPC or outside.
        for source in [[10, 0, 0, 10], [10, 0, 0, 12], [192, 0, 2, 1]] {
            let expected = format!("web {}", Ipv4Addr::from(source));
            assert_eq!(fetch_as(source, 80).unwrap(), expected);
        }
        // A target that is its own client takes no packets from itself, as at Amazon.
        dropped(fetch_as([10, 0, 0, 11], 80));
        // What the client itself may do has not changed.
        dropped(fetch(&path(CLIENT), [10, 0, 0, 11], 80));

        // A rule may name the client's address instead.
        items.group(VPC, "sg-0b", &[(tcp(80), Peer::Cidr("192.0.2.0/24".parse().unwrap()))]);
        reconcile(&mut host, &items);
        assert_eq!(fetch_as([192, 0, 2, 9], 80).unwrap(), "web 192.0.2.9");
        dropped(fetch_as([10, 0, 0, 12], 80));

        // What the load balancer may not send, it may not send for anybody, even if they may.
        items.group(VPC, "sg-0b", &[(tcp(80), anybody())]);
        let HostItem::SecurityGroup(mut group) = HostItem::clone(&items.0["sg/sg-0a"]) else { unreachable!() };
        group.rules.clear();
        items.add(HostItem::SecurityGroup(group));
        reconcile(&mut host, &items);
        assert_eq!(fetch(&path(CLIENT), [10, 0, 0, 11], 80).unwrap(), "web 10.0.0.12");
        dropped(fetch_as([10, 0, 0, 12], 80));
    });
}

#[test]
fn the_way_back_goes_with_the_load_balancer() {
    world(|| {
        let (mut host, mut items) = (reconciler(), items());
        reconcile(&mut host, &items);
        let marks = || netns::within(&path(VPC), || Netlink::open()?.rule_marks()).unwrap();
        assert_eq!(marks(), [Ipv4Addr::new(10, 0, 0, 10).to_bits()]);
        // Again, as a process does that has just started.
        reconcile(&mut reconciler(), &items);
        assert_eq!(marks().len(), 1);
        items.remove(&format!("lb/{ARN}"));
        items.remove(&format!("eni/{BALANCER}"));
        host.distrust();
        reconcile(&mut host, &items);
        assert!(marks().is_empty());
    });
}
