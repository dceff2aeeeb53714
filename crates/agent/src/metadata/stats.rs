//! Statistics in the form of Docker's `stats`, from the container's cgroup.

use domain::Clock;
use serde_json::{Map, Value, json};

use super::Context;
use crate::engine::record::{ContainerRecord, ContainerStatus, TaskRecord};

/// Statistics of one container; an empty object for one that does not run.
pub fn of_container(context: &Context, container: &ContainerRecord) -> Value {
    let id = container.runtime_id.as_deref().filter(|_| container.status == ContainerStatus::Running);
    let Some((id, stats)) = id.and_then(|id| Some((id, (context.stats)(id)?))) else { return json!({}) };
    let now = wire::Timestamp(Clock::system_now().millis()).to_rfc3339();
    let blocks = |operation: &str, bytes: u64| json!({ "major": 0, "minor": 0, "op": operation, "value": bytes });
    json!({
        "read": now,
        "preread": "0001-01-01T00:00:00Z",
        "pids_stats": { "current": stats.pids },
        "blkio_stats": {
            "io_service_bytes_recursive": [blocks("Read", stats.io_read_bytes), blocks("Write", stats.io_write_bytes)],
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": stats.cpu_usage_nanoseconds,
                "usage_in_kernelmode": stats.cpu_system_nanoseconds,
                "usage_in_usermode": stats.cpu_user_nanoseconds,
            },
            "online_cpus": stats.online_cpus,
            "throttling_data": { "throttled_time": stats.cpu_throttled_nanoseconds },
        },
        "memory_stats": {
            "usage": stats.memory_usage_bytes,
            "max_usage": stats.memory_max_usage_bytes,
            "stats": { "cache": stats.memory_cache_bytes },
            "limit": stats.memory_limit_bytes,
        },
        "name": container.name,
        "id": id,
    })
}

/// Statistics of every container of the task, by its id.
pub fn of_task(context: &Context, record: &TaskRecord) -> Value {
    let mut all = Map::new();
    for container in &record.containers {
        if let Some(id) = &container.runtime_id {
            all.insert(id.clone(), of_container(context, container));
        }
    }
    Value::Object(all)
}
