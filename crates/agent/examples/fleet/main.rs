//! Thousands of agents in one process, and callers that give them tasks: what the control plane costs per task.
//!
//! Everything goes over the wire as with real agents and SDKs: each agent has a signed ACS session and a connection of its
//! own for its reports, each call is signed anew. Only containers there are none: a task is RUNNING as soon as its agent
//! has it. Started by `tests/bench/fleet.py` against a platform of its own.

mod agents;
mod callers;
mod connection;
mod measure;
mod process;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use wire::sigv4::Keys;

use agents::Fleet;
use callers::Callers;
use connection::Connection;
use measure::Percentiles;
use process::{Process, Reading};

/// How long the control plane is watched with nothing to do but heartbeats.
const IDLE: Duration = Duration::from_secs(15);

/// Measures the control plane with simulated agents.
#[derive(Parser, Clone)]
struct Options {
    /// `http://host:port`.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    endpoint: String,
    /// The access key id that everybody signs with.
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    access_key_id: String,
    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_access_key: String,
    /// The control plane's process, which is measured.
    #[arg(long)]
    server: u32,
    /// How many agents there are.
    #[arg(long, default_value_t = 5_000)]
    instances: usize,
    /// How many tasks are brought to RUNNING.
    #[arg(long, default_value_t = 100_000)]
    tasks: usize,
    /// How many callers start tasks at once.
    #[arg(long, default_value_t = 8)]
    callers: usize,
    /// The callers choose the instances themselves (StartTask instead of RunTask): everything but placement.
    #[arg(long)]
    placed: bool,
    /// Between two looks of the loop that measures DescribeTasks and ListTasks, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pause: u64,
    /// Gives up after so many seconds without a task becoming RUNNING.
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// What everybody needs to speak with the control plane.
struct World {
    authority: String,
    keys: Keys,
    cluster: String,
}

impl World {
    fn connection(self: &Arc<Self>) -> Connection {
        Connection::new(self.clone())
    }
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let options = Options::parse();
    process::raise_file_limit(options.instances)?;
    let authority =
        options.endpoint.strip_prefix("http://").ok_or("the endpoint is not of the form http://host:port")?;
    let keys = Keys {
        access_key_id: options.access_key_id.clone(),
        secret_access_key: options.secret_access_key.clone(),
        session_token: None,
        region: "us-east-1".to_owned(),
        service: "ecs".to_owned(),
    };
    let authority = authority.trim_end_matches('/').to_owned();
    let world = Arc::new(World { authority, keys, cluster: "fleet".to_owned() });
    callers::prepare(&world).await?;

    let (server, own) = (Process::new(options.server), Process::own());
    let registering = Reading::of(&server, &own)?;
    let fleet = Fleet::start(&world, options.instances).await?;
    let registered = Reading::of(&server, &own)?.since(&registering);
    println!("{} agents are connected after {:.1} s", options.instances, registered.wall.as_secs_f64());

    let batches = measure::batches(&world).await?;
    let before = Reading::of(&server, &own)?;
    let observer = measure::observe(&world, Duration::from_millis(options.pause));
    let callers = Callers::start(&world, &options, fleet.instances());
    let finished = wait(&world, &options, &fleet).await;
    let running = Reading::of(&server, &own)?.since(&before);
    let answers = callers.stop().await?;
    let (describe, list) = observer.stop().await?;
    let batches = measure::batches(&world).await? - batches;
    finished?;

    tokio::time::sleep(Duration::from_secs(2)).await;
    let still = Reading::of(&server, &own)?;
    tokio::time::sleep(IDLE).await;
    let idle = Reading::of(&server, &own)?.since(&still);

    let tasks = options.tasks as f64;
    let row = |name: &str, text: String| println!("{name:44}{text}");
    println!(
        "\n{} agents, {} tasks to RUNNING, {} callers of {}",
        options.instances,
        options.tasks,
        options.callers,
        if options.placed { "StartTask (nothing is placed)" } else { "RunTask" }
    );
    row("tasks per CPU-second of the control plane", format!("{:>10.0}", tasks / running.cpu));
    row(
        "tasks per second",
        format!("{:>10.0}   ({:.1} s)", tasks / running.wall.as_secs_f64(), running.wall.as_secs_f64()),
    );
    row("CPU, s: control plane, simulator", format!("{:>10.1}{:>10.1}", running.cpu, running.own_cpu));
    row("  of which in the kernel", format!("{:>10.1}{:>10.1}", running.kernel, running.own_kernel));
    row("CPU of the control plane per task, µs", format!("{:>10.0}", running.cpu * 1e6 / tasks));
    row(
        "resident, MiB: agents, tasks, most",
        format!("{:>10.0}{:>10.0}{:>10.0}", before.resident, running.resident, running.peak),
    );
    row("written, MB; bytes per task", format!("{:>10.1}{:>10.0}", running.written / 1e6, running.written / tasks));
    row("durable batches; tasks in each", format!("{:>10.0}{:>10.1}", batches, tasks / batches.max(1.0)));
    println!("{:44}{:>10}{:>10}{:>10}", "milliseconds", "p50", "p99", "most");
    let latencies = |name: &str, values: &Percentiles| {
        println!(
            "{name:44}{:>10.1}{:>10.1}{:>10.1}   ({} calls)",
            values.at(0.5),
            values.at(0.99),
            values.at(1.0),
            values.count()
        );
    };
    latencies(if options.placed { "StartTask of 10 tasks" } else { "RunTask of 10 tasks" }, &answers.latencies);
    latencies("DescribeTasks of 100 tasks, meanwhile", &describe);
    latencies("ListTasks, meanwhile", &list);
    latencies("from an agent's payload to its report's 200", &fleet.latencies());
    row("refused calls, broken sessions", format!("{:>10}{:>10}", answers.failures, fleet.broken()));
    row(
        "registering: s, CPU s, MB written",
        format!("{:>10.1}{:>10.1}{:>10.1}", registered.wall.as_secs_f64(), registered.cpu, registered.written / 1e6),
    );
    row(
        "afterwards: % of a CPU, bytes written/s",
        format!("{:>10.1}{:>10.0}", 100.0 * idle.cpu / idle.wall.as_secs_f64(), idle.written / idle.wall.as_secs_f64()),
    );
    Ok(())
}

/// Waits until the control plane counts all tasks as running.
async fn wait(world: &Arc<World>, options: &Options, fleet: &Fleet) -> Result<(), String> {
    let mut connection = world.connection();
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        // Asking is not free either: the agents' own count says when it is worth while.
        let reported = fleet.reported();
        if reported >= options.tasks && callers::running(&mut connection, world).await? >= options.tasks {
            return Ok(());
        }
        if reported > last {
            (last, moved) = (reported, Instant::now());
        } else if moved.elapsed() > Duration::from_secs(options.patience) {
            return Err(format!(
                "{reported} of {} tasks are RUNNING, and no more since {} s",
                options.tasks, options.patience
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
