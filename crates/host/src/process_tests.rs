//! The process as a whole: fed over its socket, killed and started again, with a load balancer's process below it.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use domain::network::host::{CONSUMER, HostItem, HostReport, InterfaceState, LoadBalancerItem, LoadBalancerState};
use feed::{
    Publisher,
    sockets::{self, Place},
};
use tokio::time::timeout;

use crate::{Config, testing::*};

const DIRECTORY: &str = "LONGSHORE_TEST_HOST";
const USER: u32 = 64_580;
const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
const A: &str = "eni-0aaaaaaaaaaaaaa0a";
const NODE: &str = "eni-0aaaaaaaaaaaaaa0f";
const ARN: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/0123456789abcdef";
/// The load balancer's address on the host, and one that is another's.
const OWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 8099);
const FOREIGN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 8100);

fn config(directory: &Path) -> Config {
    Config {
        platform: PLATFORM.into(),
        data_dir: directory.into(),
        executable: directory.join("longshore"),
        user: (USER, USER),
        endpoint_port: PORT,
        feed_socket: directory.join("feed.sock"),
        control_socket: directory.join("host.sock"),
        vpc_socket: directory.join("vpc.sock"),
        hosts_file: Some(directory.join("hosts")),
    }
}

/// Not a test: what the tests below start as the process.
#[test]
#[ignore = "started by another test"]
fn host_process() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        crate::main(config(Path::new(&directory))).unwrap();
    }
}

/// Not a test: the load balancer's process. Asks for its sockets and answers on the one it gets.
#[test]
#[ignore = "started by another test"]
fn balancer_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let wanted = [OWN, FOREIGN].map(|address| Place { place: sockets::HOST.into(), address });
    let own: TcpListener = loop {
        let answers = sockets::request(&PathBuf::from(&directory).join("host.sock"), &wanted).unwrap_or_default();
        let own = answers.into_iter().filter_map(|answer| answer.socket.ok()).next();
        match own {
            Some(own) => break own,
            // `host` may not yet have noted which process it started.
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    own.set_nonblocking(false).unwrap();
    for stream in own.incoming() {
        let _ = write!(stream.unwrap(), "balanced by {}", std::process::id());
    }
}

fn start(directory: &Path) -> Child {
    Command::new(directory.join("test"))
        .args(["--exact", "process_tests::host_process", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A directory that the unprivileged process can use, with this program in it.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    executable(&path.join("test"), File::open(std::env::current_exe().unwrap()).unwrap());
    let script = format!(
        "#!/bin/sh\nexport {DIRECTORY}={}\nexec {} --exact process_tests::balancer_process --ignored --nocapture\n",
        path.display(),
        path.join("test").display()
    );
    executable(&path.join("longshore"), script.as_bytes());
    directory
}

fn items() -> Items {
    let mut items = Items::new();
    items.vpc(VPC);
    items.group(VPC, "sg-0a", &[(tcp(80), anybody())]);
    items.interface(VPC, A, 10, "sg-0a", domain::network::host::Egress::None);
    items.interface(VPC, NODE, 15, "sg-0a", domain::network::host::Egress::None);
    items.add(HostItem::LoadBalancer(LoadBalancerItem {
        arn: ARN.into(),
        vpc_id: VPC.into(),
        interface_ids: vec![NODE.into()],
        host_listeners: vec![OWN],
        listener_ports: vec![80],
    }));
    items.add(HostItem::Name(domain::network::host::NameItem {
        name: "web.elb.longshore.internal".into(),
        vpc_id: Some(VPC.into()),
        private_addresses: vec![Ipv4Addr::new(10, 0, 0, 15)],
        public_addresses: vec![*OWN.ip()],
    }));
    items
}

/// Waits for a report that is as wanted; others are confirmed on the way.
async fn report<R>(publisher: &Publisher, mut wanted: impl FnMut(&HostReport) -> Option<R>) -> R {
    let found = async {
        loop {
            let incoming = publisher.next_report().await.expect("the publisher lives");
            let report: HostReport = serde_json::from_value(incoming.body.clone()).expect("a report");
            incoming.confirm();
            if let Some(found) = wanted(&report) {
                return found;
            }
        }
    };
    timeout(Duration::from_secs(20), found).await.expect("the report never came")
}

async fn running(publisher: &Publisher, other_than: Option<i32>) -> i32 {
    report(publisher, |report| match report {
        HostReport::LoadBalancer { state: LoadBalancerState::Running, pid, .. } if *pid != other_than => *pid,
        _ => None,
    })
    .await
}

fn answers(by: i32) {
    let end = Instant::now() + Duration::from_secs(10);
    let expected = format!("balanced by {by}");
    loop {
        let answer = fetch_here(*OWN.ip(), OWN.port());
        if answer.as_ref().is_ok_and(|answer| *answer == expected) {
            return;
        }
        assert!(Instant::now() < end, "expected {expected:?}: {answer:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn it_follows_its_slice_and_outlives_its_own_death() {
    world(|| {
        let directory = directory();
        let path = directory.path().to_owned();
        let mut host = start(&path);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = crate::testing::path(NODE);
        let mut items = items();
        runtime.block_on(async {
            let publisher =
                Publisher::bind(&path.join("feed.sock"), |consumer, user| consumer == CONSUMER && user == 0).unwrap();
            publisher.publish(CONSUMER, &items.0).unwrap();
            let mut attached = 0;
            let first = report(&publisher, |report| match report {
                HostReport::Interface { state: InterfaceState::Attached, .. } => {
                    attached += 1;
                    None
                }
                HostReport::LoadBalancer { state: LoadBalancerState::Running, pid, .. } => *pid,
                _ => None,
            })
            .await;
            assert_eq!(attached, 2);
            answers(first);
            let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
            for line in
                ["Uid:\t64580\t64580\t64580\t64580", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Groups:\t \n"]
            {
                assert!(status.contains(line), "{line:?} in {status}");
            }
            let namespace = fs::metadata(format!("/proc/{first}/ns/net")).unwrap();
            assert_eq!(namespace.ino(), fs::metadata(&node).unwrap().ino());
            assert!(fs::read_to_string(path.join("hosts")).unwrap().contains("127.0.0.9 web.elb.longshore.internal\n"));

            // Killed, and started again without the server: what it knows from its disk is enough to adopt.
            tokio::time::sleep(Duration::from_millis(600)).await;
            drop(publisher);
            kill(&mut host);
            answers(first);
            // Its disk does not know what came last: that is no reason to remove it.
            let cache = path.join("host/slice.json");
            let mut stale: serde_json::Value = serde_json::from_slice(&fs::read(&cache).unwrap()).unwrap();
            for key in [format!("eni/{A}"), format!("eni/{NODE}"), format!("lb/{ARN}")] {
                assert!(stale["items"].as_object_mut().unwrap().remove(&key).is_some());
            }
            fs::write(&cache, stale.to_string()).unwrap();
            host = start(&path);
            thread::sleep(Duration::from_millis(700));
            answers(first);
            assert!(crate::testing::path(A).exists() && node.exists());
            let publisher = Publisher::bind(&path.join("feed.sock"), |_, _| true).unwrap();
            publisher.publish(CONSUMER, &items.0).unwrap();
            assert_eq!(running(&publisher, None).await, first);

            // The load balancer's process dies and comes back, with its socket.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
            let second = running(&publisher, Some(first)).await;
            answers(second);

            // A server that has lost its mind, or is not ready yet, takes nothing away by saying nothing.
            drop(publisher);
            let publisher = Publisher::bind(&path.join("feed.sock"), |_, _| true).unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
            answers(second);

            items.remove(&format!("lb/{ARN}"));
            items.remove(&format!("eni/{NODE}"));
            publisher.publish(CONSUMER, &items.0).unwrap();
            let end = Instant::now() + Duration::from_secs(10);
            while Path::new(&format!("/proc/{second}/stat")).exists() || node.exists() {
                assert!(Instant::now() < end, "the load balancer is still there");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(crate::testing::path(A).exists());
        });
        kill(&mut host);
        crate::teardown(PLATFORM, &path).unwrap();
    });
}
