//! Statistics in the form of Docker's `stats`, from the container's cgroup and the task's network interface.
//!
//! Docker gives two readings of the processor, a second apart, so that a reader can take the difference. Here the
//! earlier one is that of the request before, and the first request has none, as Docker's `one-shot`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::{Clock, Timestamp};
use serde_json::{Map, Value, json};

use super::Context;
use super::network::Counters;
use crate::engine::record::{ContainerRecord, ContainerStatus, TaskRecord};

/// Readings closer than this say nothing about a rate: the older one is kept to compare with.
const CLOSEST: Duration = Duration::from_millis(500);
/// The kernel counts the host's processor time in hundredths of a second.
const TICK: u64 = 10_000_000;

/// One reading of one container.
#[derive(Clone)]
struct Reading {
    at: Timestamp,
    taken: Instant,
    stats: runtime::Stats,
    host_cpu: u64,
    network: BTreeMap<String, Counters>,
}

/// The last readings of a task's containers, by their ids.
#[derive(Default)]
pub struct Readings(Mutex<HashMap<String, Reading>>);

impl Readings {
    /// Takes in a reading; the one to compare it with, if there is one.
    fn follow(&self, id: &str, new: &Reading) -> Option<Reading> {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = readings.get(id).cloned();
        if before.as_ref().is_none_or(|before| new.taken.duration_since(before.taken) >= CLOSEST) {
            readings.insert(id.to_owned(), new.clone());
        }
        before
    }
}

/// Statistics of one container; an empty object for one that does not run.
pub fn of_container(context: &Context, record: &TaskRecord, container: &ContainerRecord) -> Value {
    read(context, record, container, (context.network)(container))
}

/// Statistics of every container of the task, by its id.
pub fn of_task(context: &Context, record: &TaskRecord) -> Value {
    let mut all = Map::new();
    for container in &record.containers {
        if let Some(id) = &container.runtime_id {
            all.insert(id.clone(), read(context, record, container, (context.network)(container)));
        }
    }
    Value::Object(all)
}

fn read(
    context: &Context,
    record: &TaskRecord,
    container: &ContainerRecord,
    network: BTreeMap<String, Counters>,
) -> Value {
    let id = container.runtime_id.as_deref().filter(|_| container.status == ContainerStatus::Running);
    let Some((id, stats)) = id.and_then(|id| Some((id, (context.stats)(id)?))) else { return json!({}) };
    let new = Reading {
        at: Clock::system_now(),
        taken: Instant::now(),
        stats,
        host_cpu: host_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        network,
    };
    let before = context.readings.follow(id, &new);
    let limit = new.stats.memory_limit_bytes.or_else(|| Some(u64::try_from(record.task.memory?).ok()? << 20));
    document(id, &container.name, &new, before.as_ref(), limit)
}

fn document(id: &str, name: &str, new: &Reading, before: Option<&Reading>, limit: Option<u64>) -> Value {
    let stats = &new.stats;
    let blocks = |operation: &str, bytes: u64| json!({ "major": 0, "minor": 0, "op": operation, "value": bytes });
    let time = |at: Timestamp| wire::Timestamp(at.millis()).to_rfc3339();
    let mut document = json!({
        "read": time(new.at),
        "preread": before.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |before| time(before.at)),
        "pids_stats": { "current": stats.pids },
        "blkio_stats": {
            "io_service_bytes_recursive": [blocks("Read", stats.io_read_bytes), blocks("Write", stats.io_write_bytes)],
            "io_serviced_recursive": [],
            "io_queue_recursive": [],
            "io_service_time_recursive": [],
            "io_wait_time_recursive": [],
            "io_merged_recursive": [],
            "io_time_recursive": [],
            "sectors_recursive": [],
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(new),
        "precpu_stats": before.map_or_else(no_cpu, cpu),
        "memory_stats": {
            "usage": stats.memory_usage_bytes,
            "max_usage": stats.memory_max_usage_bytes,
            "stats": stats.memory_details,
            "limit": limit.unwrap_or_default(),
        },
        "name": name,
        "id": id,
        "networks": new.network,
    });
    if let Some(before) = before {
        let seconds = new.taken.duration_since(before.taken).as_secs_f64().max(0.001);
        let sum = |reading: &Reading, of: fn(&Counters) -> u64| reading.network.values().map(of).sum::<u64>();
        let rate = |of: fn(&Counters) -> u64| sum(new, of).saturating_sub(sum(before, of)) as f64 / seconds;
        document["network_rate_stats"] = json!({
            "rx_bytes_per_sec": rate(|counters| counters.rx_bytes),
            "tx_bytes_per_sec": rate(|counters| counters.tx_bytes),
        });
    }
    document
}

fn cpu(reading: &Reading) -> Value {
    let stats = &reading.stats;
    let mut usage = json!({
        "total_usage": stats.cpu_usage_nanoseconds,
        "usage_in_kernelmode": stats.cpu_system_nanoseconds,
        "usage_in_usermode": stats.cpu_user_nanoseconds,
    });
    if !stats.cpu_usage_percpu_nanoseconds.is_empty() {
        usage["percpu_usage"] = json!(stats.cpu_usage_percpu_nanoseconds);
    }
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": reading.host_cpu,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": stats.cpu_periods,
            "throttled_periods": stats.cpu_throttled_periods,
            "throttled_time": stats.cpu_throttled_nanoseconds,
        },
    })
}

fn no_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

/// The time of all the host's processors, idle or not, in nanoseconds, as Docker counts it.
fn host_cpu(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    line.split_whitespace().take(7).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>().saturating_mul(TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(after: u64, cpu: u64, received: u64) -> Reading {
        Reading {
            at: Timestamp(i64::try_from(after).unwrap_or_default()),
            taken: *START.get_or_init(Instant::now) + Duration::from_millis(after),
            stats: runtime::Stats { cpu_usage_nanoseconds: cpu, ..Default::default() },
            host_cpu: cpu * 4,
            network: [("eth0".to_owned(), Counters { rx_bytes: received, ..Default::default() })].into(),
        }
    }

    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

    #[test]
    fn a_reading_is_compared_with_the_one_before() {
        let readings = Readings::default();
        let first = reading(1_000, 50, 100);
        assert!(readings.follow("c", &first).is_none());
        let alone = document("c", "app", &first, None, Some(1));
        assert_eq!(alone["precpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert!(alone.get("network_rate_stats").is_none());
        // Too close to be what the next one is compared with.
        assert!(readings.follow("c", &reading(1_100, 60, 100)).is_some());
        let second = reading(3_000, 90, 500);
        let before = readings.follow("c", &second).expect("the first");
        let shown = document("c", "app", &second, Some(&before), Some(1));
        assert_eq!(shown["precpu_stats"]["cpu_usage"]["total_usage"], 50);
        assert_eq!(shown["cpu_stats"]["system_cpu_usage"], 360);
        assert_eq!(shown["network_rate_stats"]["rx_bytes_per_sec"], 200.0);
        assert_eq!(shown["networks"]["eth0"]["rx_bytes"], 500);
    }

    #[test]
    fn the_hosts_time_is_everything_but_what_guests_had() {
        assert_eq!(host_cpu("cpu  1 2 3 4 5 6 7 800 900 1000\ncpu0 1 1 1\n"), 28 * TICK);
    }
}
