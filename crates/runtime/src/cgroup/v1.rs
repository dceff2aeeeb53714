//! Limits and readings of cgroup v1.

use super::{CgroupError, Group, Limits, Stats, keyed, keyed_in, number, table, write};

/// The kernel's "no limit" is the highest page-aligned number; anything above this is none.
const UNLIMITED: u64 = 1 << 60;

pub(super) fn update(group: &Group, limits: &Limits) -> Result<(), CgroupError> {
    if let Some(bytes) = limits.memory_bytes {
        let swap = group.file("memory", "memory.memsw.limit_in_bytes");
        let hard = group.file("memory", "memory.limit_in_bytes");
        // The limit with swap can never be below the one without: raise first whichever must be higher.
        match limits.memory_swap_bytes {
            Some(total) if swap.exists() => {
                if number(&swap).is_some_and(|current| current < bytes) {
                    write(&swap, total)?;
                    write(&hard, bytes)?;
                } else {
                    write(&hard, bytes)?;
                    write(&swap, total)?;
                }
            }
            Some(total) if total != bytes => return Err(CgroupError::Unsupported("swap")),
            _ => write(&hard, bytes)?,
        }
    }
    if let Some(bytes) = limits.memory_reservation_bytes {
        write(&group.file("memory", "memory.soft_limit_in_bytes"), bytes)?;
    }
    if let Some(swappiness) = limits.swappiness {
        write(&group.file("memory", "memory.swappiness"), swappiness)?;
    }
    if let Some(shares) = limits.cpu_shares {
        write(&group.file("cpu", "cpu.shares"), shares)?;
    }
    if let Some(period) = limits.cpu_period_microseconds {
        write(&group.file("cpu", "cpu.cfs_period_us"), period)?;
    }
    if let Some(quota) = limits.cpu_quota_microseconds {
        write(&group.file("cpu", "cpu.cfs_quota_us"), quota)?;
    }
    if let Some(pids) = limits.pids {
        write(&group.file("pids", "pids.max"), pids)?;
    }
    Ok(())
}

pub(super) fn stats(group: &Group) -> Result<Stats, CgroupError> {
    let usage_file = group.file("memory", "memory.usage_in_bytes");
    let usage: u64 =
        std::fs::read_to_string(&usage_file).map_err(CgroupError::at(&usage_file))?.trim().parse().unwrap_or(0);
    let memory = std::fs::read_to_string(group.file("memory", "memory.stat")).unwrap_or_default();
    let accounting = std::fs::read_to_string(group.file("cpuacct", "cpuacct.stat")).unwrap_or_default();
    let cpu = std::fs::read_to_string(group.file("cpu", "cpu.stat")).unwrap_or_default();
    let per_cpu = std::fs::read_to_string(group.file("cpuacct", "cpuacct.usage_percpu")).unwrap_or_default();
    let (read, written) = block_io(
        &std::fs::read_to_string(group.file("blkio", "blkio.throttle.io_service_bytes_recursive")).unwrap_or_default(),
    );
    // cpuacct.stat counts in hundredths of a second whatever the kernel's own tick is.
    let ticks = |key| keyed_in(&accounting, key).unwrap_or(0).saturating_mul(10_000_000);
    Ok(Stats {
        cpu_usage_nanoseconds: number(&group.file("cpuacct", "cpuacct.usage")).unwrap_or(0),
        cpu_user_nanoseconds: ticks("user"),
        cpu_system_nanoseconds: ticks("system"),
        cpu_throttled_nanoseconds: keyed_in(&cpu, "throttled_time").unwrap_or(0),
        cpu_usage_percpu_nanoseconds: per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
        cpu_periods: keyed_in(&cpu, "nr_periods").unwrap_or(0),
        cpu_throttled_periods: keyed_in(&cpu, "nr_throttled").unwrap_or(0),
        online_cpus: 0,
        memory_usage_bytes: usage.saturating_sub(keyed_in(&memory, "total_inactive_file").unwrap_or(0)),
        memory_max_usage_bytes: number(&group.file("memory", "memory.max_usage_in_bytes")).unwrap_or(0),
        memory_limit_bytes: number(&group.file("memory", "memory.limit_in_bytes")).filter(|bytes| *bytes < UNLIMITED),
        memory_cache_bytes: keyed_in(&memory, "total_cache").unwrap_or(0),
        memory_details: table(&memory),
        pids: number(&group.file("pids", "pids.current")).unwrap_or(0),
        io_read_bytes: read,
        io_write_bytes: written,
        oom_kills: oom_kills_below(&group.file("memory", ""), 0),
    })
}

/// Lines such as `8:0 Read 4096`, summed over devices.
fn block_io(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for line in text.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (Some(kind), Some(bytes)) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) else {
            continue;
        };
        match kind {
            "Read" => sums.0 = sums.0.saturating_add(bytes),
            "Write" => sums.1 = sums.1.saturating_add(bytes),
            _ => {}
        }
    }
    sums
}

/// In v1 a kill is counted in the victim's own group only.
fn oom_kills_below(directory: &std::path::Path, depth: usize) -> u64 {
    let own = keyed(&directory.join("memory.oom_control"), "oom_kill").unwrap_or(0);
    if depth > 8 {
        return own;
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return own };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| oom_kills_below(&entry.path(), depth + 1))
        .sum::<u64>()
        + own
}
