//! Latencies, and the loop that reads what a console would while tasks start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::ecs::*;

use crate::World;

/// Durations as they come.
#[derive(Default)]
pub struct Latencies(Mutex<Vec<Duration>>);

impl Latencies {
    pub fn add(&self, duration: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(duration);
    }

    pub fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sorted.sort_unstable();
        Percentiles(sorted)
    }
}

/// Durations in order.
pub struct Percentiles(Vec<Duration>);

impl Percentiles {
    /// Milliseconds that this share of the durations does not exceed.
    pub fn at(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(place.saturating_sub(1)).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// How many batches the control plane has made durable so far.
pub async fn batches(world: &Arc<World>) -> Result<f64, String> {
    let page = world.connection().page("/metrics").await?;
    let line = page.lines().find_map(|line| line.strip_prefix("longshore_store_revision "));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| "no revision among the metrics".to_owned())
}

/// The loop, which goes on until it is stopped.
pub struct Observer {
    describe: Arc<Latencies>,
    list: Arc<Latencies>,
    running: tokio::task::JoinHandle<Result<(), String>>,
}

impl Observer {
    /// The latencies of DescribeTasks and of ListTasks.
    pub async fn stop(self) -> Result<(Percentiles, Percentiles), String> {
        if self.running.is_finished() {
            self.running.await.map_err(|error| error.to_string())??;
        } else {
            self.running.abort();
        }
        Ok((self.describe.percentiles(), self.list.percentiles()))
    }
}

/// Lists a page of 100 tasks and describes them, page after page.
pub fn observe(world: &Arc<World>, pause: Duration) -> Observer {
    let (describe, list) = (Arc::new(Latencies::default()), Arc::new(Latencies::default()));
    let running = tokio::spawn(look(world.clone(), pause, describe.clone(), list.clone()));
    Observer { describe, list, running }
}

async fn look(
    world: Arc<World>,
    pause: Duration,
    describe: Arc<Latencies>,
    list: Arc<Latencies>,
) -> Result<(), String> {
    let mut connection = world.connection();
    let mut next = None;
    loop {
        tokio::time::sleep(pause).await;
        let input = ListTasksRequest { cluster: Some(world.cluster.clone()), next_token: next, ..Default::default() };
        let begin = Instant::now();
        let page: ListTasksResponse = connection.call(&operation::LIST_TASKS, &input).await?;
        list.add(begin.elapsed());
        next = page.next_token;
        let tasks = page.task_arns.unwrap_or_default();
        if tasks.len() < 100 {
            continue;
        }
        let input =
            DescribeTasksRequest { cluster: Some(world.cluster.clone()), tasks: Some(tasks), ..Default::default() };
        let begin = Instant::now();
        let _: DescribeTasksResponse = connection.call(&operation::DESCRIBE_TASKS, &input).await?;
        describe.add(begin.elapsed());
    }
}
