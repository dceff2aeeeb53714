//! Limits and readings of cgroup v2. Docker's units are converted as runc converts them.

use super::{CgroupError, Group, Limits, Stats, keyed_in, number, table, write};

pub(super) fn update(group: &Group, limits: &Limits) -> Result<(), CgroupError> {
    if let Some(bytes) = limits.memory_bytes {
        write(&group.file("memory", "memory.max"), bytes)?;
        if let Some(total) = limits.memory_swap_bytes {
            // v2 counts swap alone.
            let file = group.file("memory", "memory.swap.max");
            let swap = total.saturating_sub(bytes);
            if file.exists() {
                write(&file, swap)?;
            } else if swap != 0 {
                return Err(CgroupError::Unsupported("swap"));
            }
        }
    }
    if let Some(bytes) = limits.memory_reservation_bytes {
        write(&group.file("memory", "memory.low"), bytes)?;
    }
    if limits.swappiness.is_some() {
        return Err(CgroupError::Unsupported("swappiness of one group (cgroup v2)"));
    }
    if let Some(shares) = limits.cpu_shares {
        write(&group.file("cpu", "cpu.weight"), weight(shares))?;
    }
    if limits.cpu_quota_microseconds.is_some() || limits.cpu_period_microseconds.is_some() {
        let quota = limits.cpu_quota_microseconds.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        write(
            &group.file("cpu", "cpu.max"),
            format_args!("{quota} {}", limits.cpu_period_microseconds.unwrap_or(100_000)),
        )?;
    }
    if let Some(pids) = limits.pids {
        write(&group.file("pids", "pids.max"), pids)?;
    }
    Ok(())
}

/// Shares of 2…262144 become a weight of 1…10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

pub(super) fn stats(group: &Group) -> Result<Stats, CgroupError> {
    let current = group.file("memory", "memory.current");
    let usage: u64 = std::fs::read_to_string(&current).map_err(CgroupError::at(&current))?.trim().parse().unwrap_or(0);
    let read = |name: &str| std::fs::read_to_string(group.file("", name)).unwrap_or_default();
    let (memory, cpu, io, events) = (read("memory.stat"), read("cpu.stat"), read("io.stat"), read("memory.events"));
    let microseconds = |key| keyed_in(&cpu, key).unwrap_or(0).saturating_mul(1_000);
    let (read_bytes, write_bytes) = block_io(&io);
    Ok(Stats {
        cpu_usage_nanoseconds: microseconds("usage_usec"),
        cpu_user_nanoseconds: microseconds("user_usec"),
        cpu_system_nanoseconds: microseconds("system_usec"),
        cpu_throttled_nanoseconds: microseconds("throttled_usec"),
        cpu_usage_percpu_nanoseconds: Vec::new(),
        cpu_periods: keyed_in(&cpu, "nr_periods").unwrap_or(0),
        cpu_throttled_periods: keyed_in(&cpu, "nr_throttled").unwrap_or(0),
        online_cpus: 0,
        memory_usage_bytes: usage.saturating_sub(keyed_in(&memory, "inactive_file").unwrap_or(0)),
        memory_max_usage_bytes: number(&group.file("memory", "memory.peak")).unwrap_or(usage),
        memory_limit_bytes: number(&group.file("memory", "memory.max")),
        memory_cache_bytes: keyed_in(&memory, "file").unwrap_or(0),
        memory_details: table(&memory),
        pids: number(&group.file("pids", "pids.current")).unwrap_or(0),
        io_read_bytes: read_bytes,
        io_write_bytes: write_bytes,
        oom_kills: keyed_in(&events, "oom_kill").unwrap_or(0),
    })
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 …`, summed over devices.
fn block_io(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok())
            .fold(0u64, u64::saturating_add)
    };
    (sum("rbytes"), sum("wbytes"))
}
