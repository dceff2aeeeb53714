//! `longshore demo`: the main job in one command, told step by step.
//!
//! It uses the platform as anybody would, through its public API: an image pushed to the registry, a task definition,
//! a service of two tasks behind an application load balancer, its log lines.

mod image;
mod progress;
mod stack;
mod traffic;

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Uid};
use tokio::io::AsyncBufReadExt;

use crate::{
    aws::{self, Client, Readiness},
    cli::DemoArgs,
    data_directory::{DataDirectory, Settings},
    supervisor::Error,
};
use progress::Progress;

/// How long the platform may take to answer after it was started.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<(), Error> {
    if !Uid::effective().is_root() {
        return Err(
            "it needs root to make namespaces, cgroups and mounts: run it with sudo (see `longshore doctor`)".into()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(tell(args))
}

async fn tell(args: &DemoArgs) -> Result<(), Error> {
    let mut progress = Progress::start();
    let started = Instant::now();
    let (data, settings, mut own) = platform(args, &mut progress).await?;
    let outcome = main_job(args, &data, &settings, &mut progress).await;
    let outcome = match outcome {
        Ok(summary) => {
            println!("{summary}");
            if args.exit {
                println!("All of it took {:.1} s.", started.elapsed().as_secs_f64());
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    if args.exit {
        // Even after a failure: `--exit` leaves nothing behind.
        let client = Client::new(&settings, Some(data.root_key()?));
        let step = progress.step("taking it down");
        let removed = stack::delete(&client).await;
        if let Some(own) = &mut own {
            stop(own).await?;
        }
        step.finish(if own.is_some() { "platform stopped" } else { "service and load balancer deleted" });
        outcome?;
        return removed;
    }
    outcome?;
    match own {
        Some(mut own) => {
            println!("\nThe platform runs in the foreground: Ctrl-C stops it, tasks included.");
            let interrupted = tokio::signal::ctrl_c().await;
            stop(&mut own).await?;
            interrupted.map_err(Into::into)
        }
        None => Ok(()),
    }
}

/// A platform that answers already, or one of our own, started as a process of this one.
async fn platform(
    args: &DemoArgs,
    progress: &mut Progress,
) -> Result<(DataDirectory, Settings, Option<tokio::process::Child>), Error> {
    if let Ok(data) = DataDirectory::open(&args.data.data_dir)
        && let Ok(settings) = data.settings()
        && aws::readiness(&settings).await != Readiness::Silent
        && data.lock().is_err()
    {
        progress.step("platform").finish(&format!("answers at {}", settings.endpoint()));
        return Ok((data, settings, None));
    }
    let step = progress.step("starting the platform");
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg("up")
        .args(["--data-dir".as_ref(), args.data.data_dir.as_os_str()])
        .args(["--listen", &listen(args.listen).to_string()])
        .env("LONGSHORE_LOG", std::env::var("LONGSHORE_LOG").unwrap_or_else(|_| "warn".to_owned()))
        // Ctrl-C in the terminal is for the demo, which stops the platform itself.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("the platform has no standard output")?;
    let mut lines = tokio::io::BufReader::new(output).lines();
    match tokio::time::timeout(START_TIMEOUT, lines.next_line()).await {
        Ok(Ok(Some(line))) if line.starts_with("ready ") => {}
        _ => {
            let _ = stop(&mut child).await;
            return Err(
                "the platform did not start: its log is above; `longshore doctor` says what this host lacks".into()
            );
        }
    }
    let data = DataDirectory::open(&args.data.data_dir)?;
    let settings = data.settings()?;
    step.finish(&format!("ready {}", settings.endpoint()));
    Ok((data, settings, Some(child)))
}

/// The wanted address, or a free port when that one is taken.
fn listen(wanted: SocketAddr) -> SocketAddr {
    match std::net::TcpListener::bind(wanted) {
        Ok(_) => wanted,
        Err(_) => SocketAddr::new(wanted.ip(), 0),
    }
}

async fn stop(child: &mut tokio::process::Child) -> Result<(), Error> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself: then there is nothing to stop.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(format!("the platform ended with {status}: its log is above").into()) }
}

async fn main_job(
    args: &DemoArgs,
    data: &DataDirectory,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<String, Error> {
    let client = Client::new(settings, Some(data.root_key()?));
    stack::delete(&client).await?;

    let step = progress.step("building the image");
    let image = image::build()?;
    step.finish(&format!("{} ({} KiB)", image.digest, image.size() / 1024));

    let step = progress.step("pushing it to the registry");
    let uri = image::push(&client, settings, &image).await?;
    step.finish(&uri);

    let step = progress.step("load balancer");
    let balancer = stack::load_balancer(&client).await?;
    step.finish(&balancer.url);

    let step = progress.step("task definition and service");
    let service = stack::service(&client, &uri, &balancer.target_group).await?;
    step.finish(&format!("{} with {} tasks", service, stack::TASKS));

    let step = progress.step("tasks");
    let tasks = stack::wait_for_tasks(&client, |status| step.message(status)).await?;
    step.finish(&format!("{} RUNNING", tasks.len()));

    let step = progress.step("HTTP through the load balancer");
    let answers = traffic::reach_every_task(&client, &balancer, &tasks, |status| step.message(status)).await?;
    step.finish(&format!("{answers} requests, every task answered"));

    let step = progress.step("logs");
    let lines = stack::log_lines(&client, &tasks).await?;
    step.finish(&format!("{lines} lines in {}", stack::LOG_GROUP));
    Ok(summary(args, &balancer, &tasks, &uri))
}

fn summary(args: &DemoArgs, balancer: &stack::Balancer, tasks: &[stack::Task], uri: &str) -> String {
    let mut text = format!("\n  load balancer   {}\n  image           {uri}\n\n", balancer.url);
    text.push_str("  TASK                              STATUS   ZONE         PRIVATE IP\n");
    for task in tasks {
        text.push_str(&format!("  {:<32}  {:<7}  {:<11}  {}\n", task.id, task.status, task.zone, task.address));
    }
    if !args.exit {
        text.push_str(&format!(
            "\nTry next, in another terminal:\n\
             \x20 curl {url}\n\
             \x20 eval \"$(longshore env --data-dir {data})\"\n\
             \x20 aws ecs describe-services --cluster {cluster} --services {service}\n\
             \x20 aws ecs update-service --cluster {cluster} --service {service} --desired-count 5\n\
             \x20 aws logs filter-log-events --log-group-name {group} --query 'events[].message'",
            url = balancer.url,
            data = args.data.data_dir.display(),
            cluster = stack::CLUSTER,
            service = stack::SERVICE,
            group = stack::LOG_GROUP,
        ));
    }
    text
}
