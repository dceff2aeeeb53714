//! What containers use, as Docker Engine tells each second for as long as they run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde::Deserialize;

use super::client::{Client, Documents};
use super::{Docker, api, lock};
use crate::metadata::Counters;
use crate::session::tcs::Usage;

/// Before an engine that went away is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// The newest reading of one container.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// What it uses.
    pub stats: runtime::Stats,
    /// What passed through its interfaces.
    pub network: BTreeMap<String, Counters>,
}

/// The newest readings by Docker's identifiers.
pub type Readings = Arc<Mutex<HashMap<String, Reading>>>;

impl Docker {
    /// Follows what a container uses, unless somebody does already.
    pub(super) fn measure(&self, id: &str) {
        let mut readings = lock(&self.readings);
        if !readings.contains_key(id) {
            readings.insert(id.to_owned(), Reading::default());
            tokio::spawn(follow(self.client.clone(), id.to_owned(), self.readings.clone()));
        }
    }

    /// The newest reading of a container, once there is one.
    pub(super) fn reading(&self, runtime_id: &str) -> Option<Reading> {
        let reading = lock(&self.readings).get(&self.resolve(runtime_id)).cloned();
        reading.filter(|reading| reading.stats.online_cpus > 0)
    }

    /// What a container used, for telemetry.
    pub fn usage(&self, runtime_id: &str) -> Option<Usage> {
        let stats = self.reading(runtime_id)?.stats;
        Some(Usage {
            cpu_nanoseconds: stats.cpu_usage_nanoseconds,
            cores: stats.online_cpus,
            memory: stats.memory_usage_bytes,
            read: stats.io_read_bytes,
            written: stats.io_write_bytes,
        })
    }
}

async fn follow(client: Client, id: String, readings: Readings) {
    loop {
        let stream = client.stream(Method::GET, &format!("/containers/{id}/stats?stream=1"), &[]).await;
        if let Ok(body) = stream {
            let mut documents = Documents::new(body);
            // One without processors is of a container that does not run any more.
            while let Ok(Some(document)) = documents.next::<Document>().await
                && document.cpu_stats.online_cpus > 0
            {
                lock(&readings).insert(id.clone(), document.into());
            }
        }
        tokio::time::sleep(PAUSE).await;
        // It may have been started again meanwhile, or the engine was.
        match client.get::<api::Container>(&format!("/containers/{id}/json")).await {
            Ok(container) if !container.state.running => break,
            Err(error) if error.is_absent() => break,
            _ => {}
        }
    }
    lock(&readings).remove(&id);
}

/// Docker's document, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    cpu_stats: Cpu,
    memory_stats: Memory,
    pids_stats: Pids,
    blkio_stats: Blocks,
    networks: BTreeMap<String, Counters>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    cpu_usage: CpuUsage,
    online_cpus: u32,
    throttling_data: Throttling,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    total_usage: u64,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
    percpu_usage: Option<Vec<u64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    max_usage: u64,
    limit: u64,
    stats: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Blocks {
    io_service_bytes_recursive: Option<Vec<Block>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    op: String,
    value: u64,
}

impl From<Document> for Reading {
    fn from(document: Document) -> Reading {
        let Document { cpu_stats: cpu, memory_stats: memory, pids_stats, blkio_stats, networks } = document;
        let blocks = blkio_stats.io_service_bytes_recursive.unwrap_or_default();
        let sum = |operation: &str| {
            blocks.iter().filter(|block| block.op.eq_ignore_ascii_case(operation)).map(|block| block.value).sum()
        };
        // What the kernel can take back at any time is not counted, as `docker stats` does it for either version of cgroups.
        let idle = ["total_inactive_file", "inactive_file"].into_iter().find_map(|name| memory.stats.get(name));
        let stats = runtime::Stats {
            cpu_usage_nanoseconds: cpu.cpu_usage.total_usage,
            cpu_user_nanoseconds: cpu.cpu_usage.usage_in_usermode,
            cpu_system_nanoseconds: cpu.cpu_usage.usage_in_kernelmode,
            cpu_throttled_nanoseconds: cpu.throttling_data.throttled_time,
            cpu_usage_percpu_nanoseconds: cpu.cpu_usage.percpu_usage.unwrap_or_default(),
            cpu_periods: cpu.throttling_data.periods,
            cpu_throttled_periods: cpu.throttling_data.throttled_periods,
            online_cpus: cpu.online_cpus,
            memory_usage_bytes: memory.usage.saturating_sub(idle.copied().unwrap_or_default()),
            memory_max_usage_bytes: memory.max_usage,
            memory_limit_bytes: Some(memory.limit).filter(|limit| *limit > 0),
            memory_cache_bytes: ["cache", "file"]
                .into_iter()
                .find_map(|name| memory.stats.get(name))
                .copied()
                .unwrap_or(0),
            pids: pids_stats.current,
            io_read_bytes: sum("read"),
            io_write_bytes: sum("write"),
            memory_details: memory.stats,
            ..runtime::Stats::default()
        };
        Reading { stats, network: networks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_as_docker_writes_it() {
        let text = r#"{"cpu_stats": {"cpu_usage": {"total_usage": 7, "percpu_usage": null}, "online_cpus": 2, "throttling_data": {}},
            "memory_stats": {"usage": 100, "limit": 400, "stats": {"inactive_file": 30, "file": 40}}, "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [{"major": 8, "op": "Read", "value": 5}, {"op": "Write", "value": 6}]},
            "networks": {"eth0": {"rx_bytes": 9, "tx_bytes": 1}}}"#;
        let reading: Reading = serde_json::from_str::<Document>(text).expect("readable").into();
        let stats = &reading.stats;
        assert_eq!((stats.cpu_usage_nanoseconds, stats.online_cpus, stats.pids), (7, 2, 3));
        assert_eq!((stats.memory_usage_bytes, stats.memory_limit_bytes), (70, Some(400)));
        assert_eq!((stats.io_read_bytes, stats.io_write_bytes), (5, 6));
        assert_eq!(reading.network["eth0"].rx_bytes, 9);
    }
}
