//! What a container must not be able to do, for its first process and for commands executed later alike.

use crate::world::{World, shell, text};

const STATUS: &str = "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd|CapInh|CapAmb):' /proc/self/status | tr '\\t' ' '";
const DEFAULT: &str = "CapInh: 0000000000000000\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nCapAmb: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n";

pub async fn first_process_and_exec_are_confined_alike(world: World) {
    let (_, out, err) = world.script("init", STATUS, |_| {}).await;
    assert_eq!(out, DEFAULT, "{err}");
    let runtime = world.runtime().await;
    let container = runtime.create("exec", world.spec("exec", &["/bin/sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    assert_eq!(text(&container.exec(shell(STATUS)).await.unwrap()), DEFAULT);
    // A user other than root holds nothing, but can gain nothing either.
    let mut unprivileged = shell(STATUS);
    unprivileged.user = Some("app".to_owned());
    let status = text(&container.exec(unprivileged).await.unwrap());
    assert!(status.contains("CapEff: 0000000000000000") && status.contains("Seccomp: 2"), "{status}");
    // The same namespaces and control groups.
    let own = "for n in mnt uts ipc net pid cgroup; do readlink /proc/self/ns/$n; done";
    let first = "for n in mnt uts ipc net pid cgroup; do readlink /proc/1/ns/$n; done";
    let (own, first) = (container.exec(shell(own)).await.unwrap(), container.exec(shell(first)).await.unwrap());
    assert_eq!(text(&own).lines().count(), 6, "{}", text(&own));
    assert_eq!(text(&own), text(&first));
    let groups = container.exec(shell("cat /proc/self/cgroup | cut -d: -f3 | grep -v '^/$' | wc -l")).await.unwrap();
    assert_eq!(text(&groups).trim(), "0", "a command stands outside the container's control groups");
}

pub async fn capabilities_follow_the_specification(world: World) {
    let (_, out, _) = world
        .script("one", "grep CapEff /proc/self/status", |spec| {
            spec.capabilities_drop = vec!["ALL".to_owned()];
            spec.capabilities_add = vec!["NET_BIND_SERVICE".to_owned(), "CAP_SYS_PTRACE".to_owned()];
        })
        .await;
    assert_eq!(out, "CapEff:\t0000000000080400\n");
}

pub async fn forbidden_calls_fail(world: World) {
    let script = "unshare -m true 2>&1; unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; mknod /disk b 254 0 && head -c 1 /disk 2>&1; \
                  echo 1 > /proc/sys/kernel/panic; cat /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; chroot / /bin/echo chroot-works";
    let (code, out, err) = world.script("one", script, |_| {}).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(
        lines
            .iter()
            .filter(|line| line.contains("Operation not permitted") || line.contains("ermission denied"))
            .count()
            >= 3,
        "{out}{err}"
    );
    assert!(out.ends_with("0\n0\nchroot-works\n"), "{out}{err}");
    assert!(err.contains("/proc/sys/kernel/panic: Read-only"), "{err}");
}

pub async fn the_host_is_out_of_reach(world: World) {
    let runtime = world.runtime().await;
    let container = runtime.create("one", world.spec("one", &["/bin/sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let seen = text(
        &container
            .exec(shell("ls / /dev; ps -o args; ls -l /proc/self/fd | wc -l; ip link | grep -c ': '"))
            .await
            .unwrap(),
    );
    assert!(!seen.contains("vmlinuz") && !seen.contains("vda") && !seen.contains("longshore"), "{seen}");
    // Standard streams, the directory being listed, and the heading: nothing is inherited.
    assert!(seen.contains("\n5\n"), "{seen}");
    // The binary behind the processes that enter a container cannot be opened for writing through any of them.
    let shim: serde_json::Value =
        serde_json::from_slice(&std::fs::read(container.directory().join("shim.json")).unwrap()).unwrap();
    let executable = format!("/proc/{}/exe", shim["pid"]);
    let flags = nix::sys::statvfs::statvfs(executable.as_str()).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
    // What the container makes cannot be a device on the host either.
    let made = text(&container.exec(shell("mknod /null c 1 3; echo x > /null; echo $?")).await.unwrap());
    // Where there are no device control groups (cgroup v2), it is not made at all.
    let refused = ["/null: Permission denied", "mknod: /null: Operation not permitted"];
    assert!(refused.iter().any(|refusal| made.contains(refusal)), "{made}");
}

pub async fn disks_cannot_be_read(world: World) {
    let partitions = std::fs::read_to_string("/proc/partitions").unwrap();
    let first = partitions.lines().skip(2).find(|line| !line.contains("loop")).expect("a disk").to_owned();
    let mut fields = first.split_whitespace();
    let (major, minor) = (fields.next().unwrap(), fields.next().unwrap());
    let script = format!(
        "for at in / /dev/ /dev/shm/ /tmp/; do mknod ${{at}}disk b {major} {minor} && head -c 512 ${{at}}disk | wc -c; done 2>/dev/null; \
         head -c 3 /dev/zero | wc -c; echo x > /dev/null && head -c 2 /dev/urandom | wc -c"
    );
    let runtime = world.runtime().await;
    let container = runtime.create("one", world.spec("one", &["/bin/sleep", "1000"])).await.unwrap();
    container.start().await.unwrap();
    let read = text(&container.exec(shell(&script)).await.unwrap());
    let numbers: Vec<&str> = read.split_whitespace().collect();
    let (disk, ordinary) = numbers.split_at(numbers.len().saturating_sub(2));
    assert!(disk.iter().all(|count| *count == "0"), "a disk of the host was read: {read}");
    assert_eq!(ordinary, ["3", "2"], "{read}");
}

pub async fn a_containers_limits_are_not_its_own(world: World) {
    let script = "for f in memory/memory.limit_in_bytes memory.max; do [ -e /sys/fs/cgroup/$f ] && echo 99999999 > /sys/fs/cgroup/$f; done; \
                  for d in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do [ -d $d ] && mkdir ${d}x && echo made ${d}x; done";
    let (_, out, err) = world.script("one", script, |spec| spec.limits.memory_bytes = Some(64 << 20)).await;
    assert!(err.lines().count() >= 2 && err.lines().all(|line| line.contains("Read-only")), "{err}");
    assert_eq!(out, "");
}

/// Before its `execve`, a process that enters holds descriptors of the host, all capabilities at first, and no seccomp filter
/// (CVE-2016-9962).
pub async fn a_command_on_its_way_in_cannot_be_reached(world: World) {
    let runtime = world.runtime().await;
    // Everybody may read what a process is called, which the library tells of those on their way in; a process's root can be
    // followed only by those who may trace it. It counts when the process is on its way in before and after.
    let spy = "ours() { read -r n < $p/comm && case \"$n\" in youki*) return 0;; *) return 1;; esac; }; \
               while :; do for p in /proc/[0-9]*; do ours && : > /seen && [ -e $p/root/bin ] && ours && : > /reached; done; done 2>/dev/null";
    for (id, more) in [("plain", None), ("tracer", Some("SYS_PTRACE".to_owned()))] {
        let mut spec = world.spec(id, &["/bin/sh", "-c", spy]);
        spec.capabilities_add.extend(more);
        let container = runtime.create(id, spec).await.unwrap();
        container.start().await.unwrap();
        let upper = world.directory.join("writable").join(id).join("upper");
        for _ in 0..50 {
            container.exec(shell("true")).await.unwrap();
        }
        assert!(upper.join("seen").exists(), "the spy saw none of fifty commands");
        assert!(!upper.join("reached").exists(), "{id}: a process was reached from inside before it was confined");
        // Renaming between directories goes on to work, and so does looking at one's own children.
        let script = "mkdir -p /a /b && : > /a/x && ln /a/x /b/y && [ -e /b/y ] && sleep 5 & sleep 0.2; [ -e /proc/$!/root/bin ] && echo fine";
        assert_eq!(text(&container.exec(shell(script)).await.unwrap()), "fine\n");
    }
}
