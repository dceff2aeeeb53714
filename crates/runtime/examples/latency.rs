//! How long a container takes from `create` to its program's `execve`, and the steps around it. As root: `cargo run --release -p runtime
//! --example latency [rounds]`. Prints medians and extremes in milliseconds; nothing is asserted.

use std::fs;
use std::time::{Duration, Instant};

use runtime::{ContainerSpec, ExecSpec, Helper, Rootfs, Runtime, RuntimeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(code) = runtime::dispatch(std::env::args_os()) {
        std::process::exit(code);
    }
    let rounds: usize = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let directory = std::path::PathBuf::from(format!("/var/tmp/ls-latency-{}", std::process::id()));
    fs::create_dir_all(directory.join("image/bin"))?;
    fs::copy("/bin/busybox", directory.join("image/bin/busybox"))?;
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = tokio.block_on(measure(&directory, rounds));
    Runtime::destroy(&directory.join("containers"), &cgroup())?;
    runtime::rootfs::unmount_under(&directory)?;
    fs::remove_dir_all(&directory)?;
    outcome
}

fn cgroup() -> String {
    format!("longshore/ls-latency-{}", std::process::id())
}

async fn measure(directory: &std::path::Path, rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        Runtime::open(RuntimeOptions { directory: directory.join("containers"), helper: Helper::current()? }).await?;
    let mut rows: Vec<(&str, Vec<Duration>)> =
        ["create", "start", "create to execve", "exec", "signal to exit known", "delete"]
            .map(|name| (name, Vec::new()))
            .into();
    for round in 0..rounds {
        let id = format!("c{round}");
        let writable = directory.join(&id);
        let rootfs = Rootfs {
            lowers: vec![directory.join("image")],
            upper: writable.join("upper"),
            work: writable.join("work"),
        };
        let mut spec = ContainerSpec::new(rootfs, vec!["/bin/busybox".into(), "sleep".into(), "1000".into()]);
        spec.cgroup_parent = cgroup();
        spec.limits.memory_bytes = Some(64 << 20);
        let began = (Instant::now(), std::time::SystemTime::now());
        let container = runtime.create(&id, spec).await?;
        let created = began.0.elapsed();
        let executed = container.start().await?;
        let started = began.0.elapsed();
        let step = Instant::now();
        container
            .exec(ExecSpec {
                args: vec!["/bin/busybox".into(), "true".into()],
                env: None,
                cwd: None,
                user: None,
                timeout: Duration::from_secs(9),
                output_limit: 0,
            })
            .await?;
        let exec = step.elapsed();
        let step = Instant::now();
        container.signal(9).await?;
        container.wait().await;
        let exit = step.elapsed();
        let step = Instant::now();
        container.delete().await?;
        let times =
            [created, started.saturating_sub(created), executed.duration_since(began.1)?, exec, exit, step.elapsed()];
        for ((_, list), time) in rows.iter_mut().zip(times) {
            list.push(time);
        }
    }
    println!("{:<24}{:>10}{:>10}{:>10}", "milliseconds", "median", "min", "max");
    for (name, mut list) in rows {
        list.sort();
        let show = |time: Option<&Duration>| format!("{:.1}", time.copied().unwrap_or_default().as_secs_f64() * 1e3);
        println!("{name:<24}{:>10}{:>10}{:>10}", show(list.get(list.len() / 2)), show(list.first()), show(list.last()));
    }
    Ok(())
}
