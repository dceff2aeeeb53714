//! Both layouts on a made-up tree: the files a limit is written to, and how readings are summed.

use std::fs;
use std::path::Path;

use super::*;

fn put(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(root: &Path, file: &str) -> String {
    fs::read_to_string(root.join(file)).unwrap()
}

fn limits() -> Limits {
    Limits {
        memory_bytes: Some(64 << 20),
        memory_reservation_bytes: Some(32 << 20),
        memory_swap_bytes: Some(64 << 20),
        cpu_shares: Some(256),
        cpu_quota_microseconds: Some(25_000),
        cpu_period_microseconds: Some(100_000),
        pids: Some(50),
        ..Limits::default()
    }
}

#[test]
fn v1_limits_go_to_their_controllers() {
    let root = tempfile::tempdir().unwrap();
    for controller in ["memory", "cpu", "cpuacct", "pids"] {
        fs::create_dir(root.path().join(controller)).unwrap();
    }
    let group = Group::below(Hierarchy::fake(root.path(), false), "longshore/ab/task").unwrap();
    group.make(&limits()).unwrap();
    assert_eq!(read(root.path(), "memory/longshore/ab/task/memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(read(root.path(), "memory/longshore/ab/task/memory.soft_limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(read(root.path(), "cpu/longshore/ab/task/cpu.cfs_quota_us"), "25000");
    assert_eq!(read(root.path(), "cpu/longshore/ab/task/cpu.shares"), "256");
    assert_eq!(read(root.path(), "pids/longshore/ab/task/pids.max"), "50");
}

#[test]
fn v1_swap_without_kernel_support_is_refused_not_ignored() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("memory")).unwrap();
    let group = Group::below(Hierarchy::fake(root.path(), false), "a").unwrap();
    let limits = Limits { memory_bytes: Some(1 << 20), memory_swap_bytes: Some(2 << 20), ..Limits::default() };
    assert!(matches!(group.make(&limits), Err(CgroupError::Unsupported("swap"))));
}

#[test]
fn v1_stats_subtract_the_cache_and_sum_the_devices() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "memory/a/memory.usage_in_bytes", "1000\n");
    put(root.path(), "memory/a/memory.stat", "cache 1\ntotal_cache 300\ntotal_inactive_file 250\n");
    put(root.path(), "memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    put(root.path(), "memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    put(root.path(), "memory/a/b/memory.oom_control", "oom_kill 2\n");
    put(root.path(), "cpuacct/a/cpuacct.usage", "123456789\n");
    put(root.path(), "cpuacct/a/cpuacct.stat", "user 7\nsystem 3\n");
    put(root.path(), "cpu/a/cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 42\n");
    put(root.path(), "pids/a/pids.current", "4\n");
    put(
        root.path(),
        "blkio/a/blkio.throttle.io_service_bytes_recursive",
        "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\nTotal 35\n",
    );
    let stats = Group::below(Hierarchy::fake(root.path(), false), "a").unwrap().stats().unwrap();
    assert_eq!(stats.memory_usage_bytes, 750);
    assert_eq!(stats.memory_limit_bytes, None);
    assert_eq!(stats.cpu_usage_nanoseconds, 123_456_789);
    assert_eq!(stats.cpu_user_nanoseconds, 70_000_000);
    assert_eq!(stats.cpu_throttled_nanoseconds, 42);
    assert_eq!((stats.pids, stats.io_read_bytes, stats.io_write_bytes, stats.oom_kills), (4, 15, 20, 3));
}

#[test]
fn v2_limits_are_converted_and_controllers_handed_down() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "cgroup.controllers", "cpuset cpu io memory pids\n");
    put(root.path(), "cgroup.subtree_control", "memory\n");
    put(root.path(), "longshore/cgroup.controllers", "cpu io memory pids\n");
    put(root.path(), "longshore/t/memory.swap.max", "max\n");
    let group = Group::below(Hierarchy::fake(root.path(), true), "longshore/t").unwrap();
    let limits = Limits { memory_swap_bytes: Some(96 << 20), ..limits() };
    group.make(&limits).unwrap();
    // A real kernel adds each word; a plain file keeps the last one written.
    assert_eq!(read(root.path(), "cgroup.subtree_control"), "+io");
    assert_eq!(read(root.path(), "longshore/cgroup.subtree_control"), "+io");
    assert_eq!(read(root.path(), "longshore/t/memory.max"), (64 << 20).to_string());
    assert_eq!(read(root.path(), "longshore/t/memory.swap.max"), (32 << 20).to_string());
    assert_eq!(read(root.path(), "longshore/t/cpu.max"), "25000 100000");
    assert_eq!(read(root.path(), "longshore/t/cpu.weight"), "10");
    assert_eq!(read(root.path(), "longshore/t/pids.max"), "50");
}

#[test]
fn v2_refuses_what_it_cannot_do() {
    let root = tempfile::tempdir().unwrap();
    let group = Group::below(Hierarchy::fake(root.path(), true), "t").unwrap();
    assert!(group.make(&Limits { swappiness: Some(10), ..Limits::default() }).is_err());
}

#[test]
fn v2_stats() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "t/memory.current", "1000\n");
    put(root.path(), "t/memory.max", "max\n");
    put(root.path(), "t/memory.peak", "1500\n");
    put(root.path(), "t/memory.stat", "anon 1\nfile 300\ninactive_file 250\n");
    put(root.path(), "t/memory.events", "low 0\noom 1\noom_kill 1\n");
    put(root.path(), "t/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nthrottled_usec 9\n");
    put(root.path(), "t/io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0\n");
    put(root.path(), "t/pids.current", "4\n");
    let group = Group::below(Hierarchy::fake(root.path(), true), "t").unwrap();
    let stats = group.stats().unwrap();
    assert_eq!((stats.memory_usage_bytes, stats.memory_max_usage_bytes, stats.memory_limit_bytes), (750, 1500, None));
    assert_eq!((stats.cpu_usage_nanoseconds, stats.cpu_throttled_nanoseconds), (5_000, 9_000));
    assert_eq!((stats.io_read_bytes, stats.io_write_bytes, stats.pids, stats.oom_kills), (15, 20, 4, 1));
    assert_eq!(group.oom_kills(), 1);
}

#[test]
fn processes_are_collected_below_and_removal_is_idempotent() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "t/cgroup.procs", "10\n");
    put(root.path(), "t/c/cgroup.procs", "11\n12\n0\n");
    let group = Group::below(Hierarchy::fake(root.path(), true), "t").unwrap();
    assert_eq!(group.processes(), [10, 11, 12]);
    let gone = Group::below(Hierarchy::fake(root.path(), true), "nothing").unwrap();
    gone.remove().unwrap();
    assert!(gone.stats().is_err());
}

#[test]
fn a_path_cannot_leave_the_tree() {
    for path in ["", "/", "..", "a/../b", "a//b", "a/b c", "a/\0"] {
        assert!(Group::open(path).is_err(), "{path:?}");
    }
    assert_eq!(Group::open("/longshore/ab").unwrap().path(), "longshore/ab");
}

#[test]
fn the_last_who_leaves_removes_what_all_share() {
    let root = tempfile::tempdir().unwrap();
    for controller in ["memory", "cpu"] {
        fs::create_dir(root.path().join(controller)).unwrap();
    }
    let group = |path: &str| Group::below(Hierarchy::fake(root.path(), false), path).unwrap();
    let (one, other, all) = (group("longshore/aa"), group("longshore/bb"), group("longshore"));
    one.make(&Limits::default()).unwrap();
    other.make(&Limits::default()).unwrap();
    assert_eq!(all.children(), ["aa", "bb"]);
    one.remove().unwrap();
    all.remove_if_empty();
    assert!(other.exists());
    other.remove().unwrap();
    all.remove_if_empty();
    assert!(!root.path().join("memory/longshore").exists() && !root.path().join("cpu/longshore").exists());
}
