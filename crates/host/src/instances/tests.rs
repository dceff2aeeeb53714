//! Real instances, with a shell in place of the platform's own first program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    instances::{AttachedVolume, InstanceItem, Machine, Metadata, VolumeItem},
    network::host::{Egress, HostItem, HostReport},
};

use super::{
    Instances, group,
    record::{self, State},
    stop_instances,
};
use crate::{Config, reconcile::Reconciler, testing::*};

const VPC: &str = "vpc-0aaaaaaaaaaaaaaa1";
const ENI: &str = "eni-0aaaaaaaaaaaaaa0a";
const ROOT: &str = "vol-0aaaaaaaaaaaaaa01";
const DATA: &str = "vol-0aaaaaaaaaaaaaa02";

/// Not a test: the helper processes, which [`World::new`]'s script starts.
#[test]
#[ignore = "started by another test"]
fn helper_process() {
    let Some(word) = std::env::var_os("LONGSHORE_TEST_WORD") else { return };
    let argument = |name: &str| std::env::var_os(name).unwrap_or_default();
    let arguments = ["longshore".into(), word, argument("LONGSHORE_TEST_DIR"), argument("LONGSHORE_TEST_DEVICES")];
    std::process::exit(super::dispatch(arguments.into_iter()).unwrap_or(2));
}

fn instance(id: &str, boot: u64) -> InstanceItem {
    let metadata = serde_json::json!({
        "options": domain::instances::MetadataOptions::default(),
        "image_id": "ami-1", "launch_index": 0, "reservation_id": "r-1", "instance_type": "t3.micro",
        "availability_zone": "us-east-1a", "availability_zone_id": "use1-az1", "mac_address": "0a:00:00:00:00:0a",
        "private_address": "10.0.0.10", "public_address": null, "public_hostname": null, "account": "123456789012",
        "vpc_id": VPC, "vpc_cidr": "10.0.0.0/16", "subnet_id": "subnet-1", "subnet_cidr": "10.0.0.0/24",
        "security_groups": [], "security_group_ids": [], "key": null, "user_data": null, "profile": null,
        "role": null, "tags": [], "block_devices": [["root", "/dev/xvda"]], "identity_document": "",
        "identity_signature": ""
    });
    let metadata: Metadata = serde_json::from_value(metadata).unwrap();
    InstanceItem {
        instance_id: id.into(),
        on: true,
        boot,
        interface_id: ENI.into(),
        vcpus: 1,
        memory_mib: 512,
        hostname: "ip-10-0-0-10.ec2.internal".into(),
        root_volume_id: ROOT.into(),
        volumes: Vec::new(),
        region: "us-east-1".into(),
        metadata,
    }
}

struct World {
    directory: tempfile::TempDir,
    id: String,
    command: Vec<String>,
    instances: Instances,
    network: Reconciler,
    items: Items,
    reports: Vec<HostReport>,
}

impl World {
    /// One instance, `id`, whose first program is a shell with this script.
    fn new(id: &str, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let helper = directory.path().join("longshore");
        let text = format!(
            "#!/bin/sh\nexport LONGSHORE_TEST_WORD=\"$1\" LONGSHORE_TEST_DIR=\"$2\" LONGSHORE_TEST_DEVICES=\"$3\"\n\
             exec {} --exact instances::tests::helper_process --ignored --nocapture --test-threads=1\n",
            std::env::current_exe().unwrap().display()
        );
        executable(&helper, text.as_bytes());
        let command: Vec<String> = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let instances = Instances::with_command(&config(directory.path()), command.clone()).unwrap();
        let mut items = Items::new();
        items.vpc(VPC);
        items.group(VPC, "sg-0a", &[]);
        items.interface(VPC, ENI, 10, "sg-0a", Egress::None);
        items.add(HostItem::Volume(VolumeItem { volume_id: ROOT.into(), size_gib: 1, layers: vec![] }));
        items.add(HostItem::Instance(Box::new(instance(id, 1))));
        let network = reconciler();
        Self { directory, id: id.into(), command, instances, network, items, reports: Vec::new() }
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("instances").join(&self.id)
    }

    fn change(&mut self, change: impl FnOnce(&mut InstanceItem)) {
        let key = format!("instance/{}", self.id);
        let HostItem::Instance(mut item) = HostItem::clone(&self.items.0[&key]) else { unreachable!() };
        change(&mut item);
        self.items.add(HostItem::Instance(item));
    }

    fn step(&mut self) {
        let desired = self.items.desired();
        assert_eq!(desired.malformed, Vec::<String>::new());
        let outcome = self.network.reconcile(&desired, Instant::now());
        assert_eq!(outcome.problems, Vec::<String>::new());
        let outcome = self.instances.reconcile(&desired);
        for interface in outcome.renew {
            self.network.renew(&interface).unwrap();
        }
        self.reports.extend(outcome.reports.into_iter().map(|(_, report)| report));
    }

    fn until<R>(&mut self, what: &str, mut wanted: impl FnMut(&mut Self) -> Option<R>) -> R {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            self.step();
            if let Some(found) = wanted(self) {
                return found;
            }
            let console = String::from_utf8_lossy(&super::console::tail(&self.place())).into_owned();
            assert!(
                Instant::now() < end,
                "{what} never came: {:?}\n{console}\nleft: {:?}",
                self.reports,
                leftovers(self)
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn reported(&mut self, boot: u64, machine: Machine) -> Option<String> {
        self.until(&format!("{machine:?} of boot {boot}"), |world| {
            world.reports.iter().find_map(|report| match report {
                HostReport::Instance { boot: of, machine: is, reason, .. } if (*of, *is) == (boot, machine) => {
                    Some(reason.clone())
                }
                _ => None,
            })
        })
    }

    fn console(&mut self, wanted: &str) -> String {
        self.until(&format!("{wanted:?} on the console"), |world| {
            world.reports.iter().rev().find_map(|report| match report {
                HostReport::Console { output, .. } => {
                    let text = String::from_utf8(STANDARD.decode(output).unwrap()).unwrap();
                    text.contains(wanted).then_some(text)
                }
                _ => None,
            })
        })
    }

    /// Another process that knows nothing but what is in the files.
    fn restart_host(&mut self) {
        let config = config(self.directory.path());
        self.instances = Instances::with_command(&config, self.command.clone()).unwrap();
        self.network = reconciler();
    }

    fn remove(&mut self) {
        self.items.remove(&format!("instance/{}", self.id));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        stop_instances(PLATFORM, self.directory.path());
    }
}

fn config(directory: &Path) -> Config {
    Config {
        platform: PLATFORM.into(),
        data_dir: directory.into(),
        executable: directory.join("longshore"),
        user: (0, 0),
        endpoint_port: PORT,
        feed_socket: directory.join("feed.sock"),
        control_socket: directory.join("host.sock"),
        vpc_socket: directory.join("vpc.sock"),
        hosts_file: None,
    }
}

fn loops() -> String {
    let output = Command::new("losetup").args(["-a", "-O", "BACK-FILE"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Whether anything of an instance is left in the kernel.
fn leftovers(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    if runtime::Group::open(&group(PLATFORM, &world.id)).unwrap().exists() {
        found.push("a control group".to_owned());
    }
    let attached = loops();
    found.extend(
        attached.lines().filter(|line| line.contains(&*world.directory.path().to_string_lossy())).map(str::to_owned),
    );
    found
}

#[test]
fn an_instance_boots_and_sees_itself_alone() {
    world(|| {
        let script = "exec 2>&1; hostname; echo pid $$; cat /etc/os-release; id ec2-user; ls -d /root /home/* /var/lib/longshore; \
             echo processes $(ls /proc | grep -c '^[0-9]*$'); \
             echo memory $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null); \
             echo 'a *:* rwm' > /sys/fs/cgroup/devices/devices.allow || echo no permission to permit; mkdir -p /tmp/x; mknod /tmp/x/disk b $DISK; dd if=/tmp/x/disk of=/dev/null count=1; \
             ls $HOST_DATA || echo no data; echo 1 > /proc/sys/kernel/panic || echo no parameter; \
             echo 1 > /proc/sys/net/ipv4/ip_forward && echo forwards; \
             touch /usr/x || echo usr is not ours; grep CapBnd /proc/self/status; \
             head -c 4 /dev/sdf | od -c; ls -l /dev/sdf /dev/xvdf /dev/xvda; echo kept > /root/kept; \
             mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x && echo group made; ip -o addr show eth0; mount; \
             echo done; exec sleep 1000";
        let disk = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let disk = disk.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let disk = disk.split(' ').nth(2).unwrap().replace(':', " ");
        let directory = tempfile::tempdir().unwrap();
        let script = format!("DISK='{disk}'; HOST_DATA={}; {script}", directory.path().display());
        let mut world = World::new("i-0aaaaaaaaaaaaaa01", &script);
        world.items.add(HostItem::Volume(VolumeItem { volume_id: DATA.into(), size_gib: 2, layers: vec![] }));
        world.change(|item| {
            item.volumes.push(AttachedVolume { volume_id: DATA.into(), device_name: "/dev/sdf".into() })
        });
        assert_eq!(world.reported(1, Machine::Running), None);
        let text = world.console("done");
        println!("{text}");
        for line in [
            "ip-10-0-0-10.ec2.internal\n",
            "pid 1\n",
            "Longshore ECS-optimized image",
            "uid=1000(ec2-user)",
            "/home/ec2-user\n",
            "memory 536870912\n",
            "Operation not permitted",
            "no data\n",
            "no permission to permit\n",
            "no parameter\n",
            "forwards\n",
            "usr is not ours\n",
            "group made\n",
            "/dev/xvdf\n",
            "10.0.0.10/24",
        ] {
            assert!(text.contains(line), "{line:?}");
        }
        assert!(text.contains("\\0  \\0  \\0  \\0"), "the data volume is not readable");
        assert_eq!(text.matches("/home/").count(), 1, "somebody else's home is visible");
    });
}

/// Prints how often it was booted, and ends in order when asked to.
const COUNTING: &str = "echo x >> /root/boots; echo boots $(wc -l < /root/boots); ip link show br0 && echo dirty; \
    [ $(df --output=size -BM / | tail -1 | tr -dc 0-9) -gt 1500 ] && echo grown; \
    ip link add br0 type bridge; trap 'echo goodbye; exit 0' TERM; while :; do sleep 0.05; done";

#[test]
fn an_instance_is_rebooted_stopped_and_terminated() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa02", COUNTING);
        world.reported(1, Machine::Running);
        world.console("boots 1\n");

        // A reboot: the same disk, a new network.
        world.change(|item| item.boot = 2);
        world.reported(2, Machine::Running);
        assert!(!world.console("boots 2\n").contains("dirty"));

        world.reports.clear();
        world.change(|item| item.on = false);
        world.reported(2, Machine::Off);
        assert_eq!(leftovers(&world), Vec::<String>::new());

        // Stopped, it is not in the slice; started, it has its disk still.
        let item = world.items.0[&format!("instance/{}", world.id)].clone();
        world.remove();
        let place = world.place();
        world.until("the directory's end", |_| (!place.exists()).then_some(()));
        world.items.add(HostItem::clone(&item));
        world.items.add(HostItem::Volume(VolumeItem { volume_id: ROOT.into(), size_gib: 2, layers: vec![] }));
        world.change(|item| (item.on, item.boot) = (true, 3));
        world.reported(3, Machine::Running);
        world.console("boots 3\n");
        world.console("grown\n");

        // Terminated: at once, with its volume.
        world.remove();
        world.items.remove(&format!("volume/{ROOT}"));
        let volume = world.directory.path().join(format!("instances/volumes/{ROOT}.ext4"));
        world.until("the end of all", |_| (!place.exists() && !volume.exists()).then_some(()));
        assert_eq!(leftovers(&world), Vec::<String>::new());
    });
}

#[test]
fn one_that_ends_by_itself_is_reported_and_not_booted_again() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa03", "echo x >> /root/boots; wc -l < /root/boots; exit 7");
        let reason = world.reported(1, Machine::Ended).unwrap();
        assert_eq!(reason, "The first process of the instance ended with exit code 7");
        for _ in 0..20 {
            world.step();
        }
        assert_eq!(leftovers(&world), Vec::<String>::new());
        // Nor by the next `host`.
        world.restart_host();
        world.reports.clear();
        assert_eq!(world.reported(1, Machine::Ended).unwrap(), reason);
        world.change(|item| item.boot = 2);
        world.reported(2, Machine::Ended);
        world.console(" 2\n");
    });
}

#[test]
fn one_that_cannot_be_booted_says_why() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa04", "true");
        world.instances.command = vec!["/nowhere/init".into()];
        let reason = world.reported(1, Machine::Ended).unwrap();
        assert!(reason.contains("could not be booted: /nowhere/init: No such file"), "{reason}");
        assert_eq!(leftovers(&world), Vec::<String>::new());
    });
}

#[test]
fn the_next_host_adopts_and_down_is_like_a_power_cut() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa05", COUNTING);
        world.reported(1, Machine::Running);
        world.console("boots 1\n");
        let State::Running(shim) = record::state(&world.place()) else { panic!("it does not run") };
        world.restart_host();
        world.reports.clear();
        world.reported(1, Machine::Running);
        assert_eq!(record::state(&world.place()), State::Running(shim));

        // What is only on the disk, and older than what runs, ends nothing.
        world.change(|item| (item.boot, item.on) = (0, false));
        for _ in 0..20 {
            world.step();
        }
        assert!(matches!(record::state(&world.place()), State::Running(_)));
        world.change(|item| (item.boot, item.on) = (1, true));

        assert_eq!(stop_instances(PLATFORM, world.directory.path()).len(), 1);
        assert_eq!(leftovers(&world), Vec::<String>::new());
        assert!(stop_instances(PLATFORM, world.directory.path()).is_empty());
        world.restart_host();
        world.reports.clear();
        world.reported(1, Machine::Running);
        world.console("boots 2\n");
    });
}

#[test]
fn killing_the_shim_leaves_nothing_behind() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa06", "echo up; sleep 1000 & exec sleep 1000");
        world.reported(1, Machine::Running);
        world.console("up");
        let State::Running(shim) = record::state(&world.place()) else { panic!("it does not run") };
        shim.process.signal(rustix::process::Signal::KILL);
        let reason = world.reported(1, Machine::Ended).unwrap();
        assert!(reason.contains("was killed"), "{reason}");
        world.until("nothing", |world| leftovers(world).is_empty().then_some(()));
    });
}

#[test]
fn one_that_does_not_listen_is_killed_and_memory_is_limited() {
    world(|| {
        let mut world = World::new("i-0aaaaaaaaaaaaaa07", "tail /dev/zero; echo tail $?; exec sleep 1000");
        world.change(|item| item.memory_mib = 64);
        world.reported(1, Machine::Running);
        world.console("tail 137");
        world.remove();
        let place = world.place();
        world.until("the end", |_| (!place.exists()).then_some(()));
        assert_eq!(leftovers(&world), Vec::<String>::new());
    });
}

#[test]
fn items_of_another_form_are_left_out() {
    let left_out = |change: &dyn Fn(&mut InstanceItem)| {
        let mut items = Items::new();
        let mut item = instance("i-0aaaaaaaaaaaaaa08", 1);
        change(&mut item);
        items.add(HostItem::Instance(Box::new(item)));
        !items.desired().malformed.is_empty()
    };
    let attach = |names: &'static [&'static str]| {
        move |item: &mut InstanceItem| {
            let volume = |name: &&str| AttachedVolume { volume_id: DATA.into(), device_name: (*name).to_owned() };
            item.volumes = names.iter().map(volume).collect();
        }
    };
    assert!(!left_out(&|_| {}));
    assert!(!left_out(&attach(&["/dev/sdf", "/dev/xvdba"])));
    assert!(left_out(&|item| item.instance_id = "i-../../etc".into()));
    assert!(left_out(&|item| item.root_volume_id = "vol-/etc/passwd".into()));
    assert!(left_out(&|item| item.interface_id = "vpc-1".into()));
    assert!(left_out(&|item| item.hostname = "a b\n".into()));
    assert!(left_out(&|item| item.vcpus = 0));
    assert!(left_out(&|item| item.memory_mib = u64::MAX));
    assert!(left_out(&attach(&["/dev/../etc/x"])));
    assert!(left_out(&attach(&["/dev/null"])));
    assert!(left_out(&attach(&["/dev/sdf", "/dev/sdf"])));
    assert!(left_out(&attach(&["/dev/xvda"])));
    let mut items = Items::new();
    items.add(HostItem::Volume(VolumeItem { volume_id: ROOT.into(), size_gib: u64::MAX, layers: vec![] }));
    assert!(!items.desired().malformed.is_empty());
}
