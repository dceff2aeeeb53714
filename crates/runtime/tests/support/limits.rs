//! Limits are the kernel's.

use std::fs;
use std::time::Duration;

use runtime::{EphemeralVolume, Group, Limits, Ulimit};

use crate::world::{World, printed, shell, text};

pub async fn memory(world: World) {
    let runtime = world.runtime().await;
    let hog = "x=x; while :; do x=$x$x; done";
    let limited = |id: &str, script: &str| {
        let mut spec = world.spec(id, &["/bin/sh", "-c", script]);
        spec.limits.memory_bytes = Some(16 << 20);
        spec.limits.memory_swap_bytes = None;
        spec
    };
    let container = runtime.create("first", limited("first", hog)).await.unwrap();
    container.start().await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (Some(137), true));
    // A child that is killed does not end the container, but it is told.
    let container = runtime.create("child", limited("child", &format!("sh -c '{hog}'; exit 9"))).await.unwrap();
    container.start().await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (Some(9), true));
    // The task's limit holds for its containers together.
    let task = format!("{}/task", world.cgroup);
    let group = Group::create(&task, &Limits { memory_bytes: Some(16 << 20), ..Limits::default() }).unwrap();
    let mut spec = world.spec("in-task", &["/bin/sh", "-c", hog]);
    spec.cgroup_parent = task;
    let container = runtime.create("in-task", spec).await.unwrap();
    container.start().await.unwrap();
    let exit = container.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (Some(137), true));
    container.delete().await.unwrap();
    group.remove().unwrap();
    assert!(!group.exists());
}

pub async fn cpu_and_pids(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec("one", &["/bin/sleep", "1000"]);
    spec.limits = Limits {
        cpu_quota_microseconds: Some(20_000),
        cpu_period_microseconds: Some(100_000),
        cpu_shares: Some(512),
        pids: Some(20),
        ..Limits::default()
    };
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    let read = |controller: &str, file: &str| {
        fs::read_to_string(format!("/sys/fs/cgroup/{controller}/{}/one/{file}", world.cgroup))
            .map(|text| text.trim().to_owned())
    };
    if fs::exists("/sys/fs/cgroup/cpu").unwrap() {
        assert_eq!(read("cpu", "cpu.cfs_quota_us").unwrap(), "20000");
        assert_eq!(read("cpu", "cpu.shares").unwrap(), "512");
        assert_eq!(read("pids", "pids.max").unwrap(), "20");
    } else {
        // One tree for all controllers, and shares counted as a weight.
        for (file, value) in [("cpu.max", "20000 100000"), ("cpu.weight", "20"), ("pids.max", "20")] {
            assert_eq!(read(".", file).unwrap(), value, "{file}");
        }
    }
    let before = container.stats().unwrap();
    let mut spin = shell("while :; do :; done");
    spin.timeout = Duration::from_secs(1);
    assert!(container.exec(spin).await.unwrap().timed_out);
    let used = container.stats().unwrap().cpu_usage_nanoseconds - before.cpu_usage_nanoseconds;
    assert!(used < 700_000_000, "{used} ns in a second of a fifth of a CPU");
    assert!(container.stats().unwrap().cpu_throttled_nanoseconds > 0);
    // Another one for the processes: this one is too slow to start so many where the processor is emulated.
    let mut spec = world.spec("two", &["/bin/sleep", "1000"]);
    spec.limits.pids = Some(20);
    let container = runtime.create("two", spec).await.unwrap();
    container.start().await.unwrap();
    let outcome = container.exec(shell("for i in $(seq 40); do sleep 1000 & done; echo survived")).await.unwrap();
    assert!(text(&outcome).contains("can't fork"), "{}", text(&outcome));
}

pub async fn ulimits_and_sysctls(world: World) {
    let script = "ulimit -n; ulimit -Hn; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax; ls -l /proc/self/fd > /dev/null";
    let (code, out, err) = world
        .script("one", script, |spec| {
            spec.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 100, hard: 200 }];
            spec.sysctls = [("net.core.somaxconn", "321"), ("kernel.msgmax", "4321")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into();
        })
        .await;
    assert_eq!((code, out.as_str()), (Some(0), "100\n200\n321\n4321\n"), "{err}");
    assert_ne!(
        fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(),
        "4321",
        "the host's parameter was changed"
    );
}

pub async fn stats_are_read(world: World) {
    let runtime = world.runtime().await;
    let mut spec = world.spec(
        "one",
        &["/bin/sh", "-c", "x=$(head -c 8000000 /dev/zero | tr '\\0' x); echo ready; while :; do sleep 1; done"],
    );
    spec.limits.memory_bytes = Some(64 << 20);
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    container.logs().next(1).await.unwrap();
    let stats = container.stats().unwrap();
    assert!(stats.memory_usage_bytes > 7_000_000 && stats.memory_usage_bytes < 64 << 20, "{stats:?}");
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
    assert!(stats.cpu_usage_nanoseconds > 0 && stats.pids >= 1 && stats.online_cpus >= 1, "{stats:?}");
}

pub async fn a_volume_is_full_when_it_is_full(world: World) {
    let (image, mount) = (world.directory.join("volumes/task.ext4"), world.directory.join("volumes/task"));
    let volume = EphemeralVolume::create(&image, &mount, 64 << 20).unwrap();
    assert_eq!(EphemeralVolume::adopt(&image, &mount), Some(volume.clone()));
    let runtime = world.runtime().await;
    let mut spec = world.spec(
        "one",
        &["/bin/sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null || echo full; ls -l /big | wc -l"],
    );
    spec.rootfs.upper = mount.join("one/upper");
    spec.rootfs.work = mount.join("one/work");
    let container = runtime.create("one", spec).await.unwrap();
    container.start().await.unwrap();
    container.wait().await;
    assert_eq!(printed(&container).await.0, "full\n1\n");
    let (used, total) = volume.usage().unwrap();
    assert!(total <= 64 << 20 && used > total / 2, "{used} of {total}");
    container.delete().await.unwrap();
    let second = EphemeralVolume::create(
        &world.directory.join("volumes/other.ext4"),
        &world.directory.join("volumes/other"),
        64 << 20,
    )
    .unwrap();
    volume.clone().remove().unwrap();
    volume.remove().unwrap();
    second.remove().unwrap();
    assert_eq!(EphemeralVolume::adopt(&image, &mount), None);
    assert!(!image.exists());
}

pub async fn the_spare_volume_becomes_the_next_one_of_its_size(world: World) {
    let directory = world.directory.join("volumes");
    let (spare, spare_mount) = (directory.join("spare-67108864.ext4"), directory.join("spare-67108864"));
    let create = |name: &str, mebibytes: u64| {
        EphemeralVolume::create(&directory.join(format!("{name}.ext4")), &directory.join(name), mebibytes << 20)
            .unwrap()
    };
    EphemeralVolume::spare(&directory, 64 << 20).unwrap();
    EphemeralVolume::spare(&directory, 64 << 20).unwrap();
    std::fs::write(spare_mount.join("mark"), "").unwrap();
    let other = create("other", 32);
    assert!(spare.exists() && !other.mount_point.join("mark").exists());
    let first = create("first", 64);
    assert!(!spare.exists() && !spare_mount.exists() && first.mount_point.join("mark").exists());
    assert_eq!(EphemeralVolume::adopt(&first.image, &first.mount_point), Some(first.clone()));
    let second = create("second", 64);
    assert!(!second.mount_point.join("mark").exists());
    for volume in [other, first, second] {
        let image = volume.image.clone();
        volume.remove().unwrap();
        assert!(!image.exists());
    }
}
