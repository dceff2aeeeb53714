//! Starting, watching and stopping the platform on this host.

use std::{
    ffi::OsStr,
    io::{self, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use domain::Clock;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Uid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::child::{Child, pid_path, terminate};
use crate::{
    aws::{self, Readiness},
    cli::UpArgs,
    data_directory::{DataDirectory, Settings},
    supervisor::PidFile,
};

/// The roles, in the order in which they are stopped: first what starts new work, last what others lean on.
const ROLES: [&str; 3] = ["agent", "host", "server"];
/// How long the API may take to answer after the start.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the other parts may take after that before the platform counts as ready without them.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a command failed. The text is for people: the cause and the mend.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs the platform until SIGTERM or SIGINT.
pub fn up(args: UpArgs) -> Result<(), Error> {
    if !Uid::effective().is_root() {
        return Err(
            "it needs root to make namespaces, cgroups and mounts: run it with sudo (see `longshore doctor`)".into()
        );
    }
    raise_file_limit();
    let data = DataDirectory::prepare(&args.data.data_dir)?;
    let lock = data.lock()?;
    PidFile::of(i32::try_from(std::process::id())?, Vec::new())?.write(&pid_path(data.path(), "up"))?;
    let settings = settle(&data, &args)?;
    data.write_settings(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(supervise(&data, &settings));
    drop(lock);
    outcome
}

/// Thousands of agents have three connections each.
const OPEN_FILES: u64 = 65_536;

/// Shells start with room for 1024 open files, which some hundred tasks or clients use up. All children inherit this;
/// containers have limits of their own.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = hard.max(OPEN_FILES);
        // Where the kernel or a missing capability refuses more than the hard limit, that is what there is; and where it
        // refuses that, the limit stays as it is.
        let _ =
            setrlimit(Resource::RLIMIT_NOFILE, most, most).or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    }
}

/// The settings of this run. The port of an earlier run is kept when a free one was asked for, since agents, tasks and
/// load balancers that still run know it; platform time goes on where it was.
fn settle(data: &DataDirectory, args: &UpArgs) -> Result<Settings, Error> {
    let earlier = data.settings().ok();
    let adopting = ROLES.iter().any(|role| running(data.path(), role).is_some());
    let listen = match (&earlier, args.listen.port()) {
        (Some(earlier), 0) if adopting && earlier.listen.ip() == args.listen.ip() => earlier.listen,
        (_, 0) => free_port(args.listen)?,
        _ => args.listen,
    };
    if running(data.path(), "server").is_none() {
        check_free(listen)?;
        if !listen.ip().is_loopback() && !listen.ip().is_unspecified() {
            check_free(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), listen.port()))?;
        }
    }
    if let Some(earlier) = &earlier
        && earlier.account != args.account
    {
        return Err(format!(
            "{} belongs to account {}: use --account {}, or another --data-dir",
            data.path().display(),
            earlier.account,
            earlier.account
        )
        .into());
    }
    for mirror in &args.registry_mirror {
        if !mirror.split_once('=').is_some_and(|(from, to)| !from.is_empty() && to.starts_with("http")) {
            return Err(format!(
                "--registry-mirror {mirror}: write REGISTRY=URL, e.g. docker.io=http://127.0.0.1:5000"
            )
            .into());
        }
    }
    let system = Clock::system_now();
    let earlier_clock = earlier.as_ref().filter(|earlier| earlier.clock_rate == args.clock_rate);
    let (clock, clock_system) = match (earlier_clock, &earlier) {
        (Some(same), _) => (same.clock, same.clock_system),
        (None, Some(other)) => (other.clock().now().max(system), system),
        (None, None) => (system, system),
    };
    Ok(Settings {
        listen,
        region: args.region.clone(),
        account: args.account.clone(),
        allow_reset: args.allow_reset,
        allow_load_balancer_updates: args.allow_load_balancer_updates,
        lost_instance_after: args.lost_instance_after,
        hosts: !args.no_hosts,
        registry_mirrors: args.registry_mirror.clone(),
        image_cache: args.image_cache,
        clock,
        clock_system,
        clock_rate: args.clock_rate,
    })
}

fn free_port(wanted: SocketAddr) -> Result<SocketAddr, Error> {
    Ok(TcpListener::bind(wanted).and_then(|listener| listener.local_addr()).map_err(|error| in_use(wanted, &error))?)
}

fn check_free(wanted: SocketAddr) -> Result<(), Error> {
    TcpListener::bind(wanted).map(drop).map_err(|error| in_use(wanted, &error).into())
}

fn in_use(wanted: SocketAddr, error: &io::Error) -> String {
    format!("{wanted}: {error}: choose another address with --listen (port 0 takes a free one)")
}

async fn supervise(data: &DataDirectory, settings: &Settings) -> Result<(), Error> {
    let started = Instant::now();
    if !settings.listen.ip().is_loopback() {
        let authority = data.file("keys/ca.pem");
        tracing::info!(certificate = %authority.display(), "beyond loopback the API speaks TLS: give this authority to your tools (AWS_CA_BUNDLE)");
    }
    let (stop, stopped) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut children = Vec::new();
    for child in children_of(data, settings)? {
        children.push(tokio::spawn(child.supervise(stopped.clone())));
    }
    let ready = announce(settings, started);
    tokio::pin!(ready);
    let mut announced = false;
    let failure = loop {
        tokio::select! {
            outcome = &mut ready, if !announced => match outcome {
                Ok(()) => announced = true,
                Err(error) => break Some(error),
            },
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
        }
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    for child in children {
        // A child's supervision that panicked has been logged; the others are stopped all the same.
        let _ = child.await;
    }
    take_down(data)?;
    failure.map_or(Ok(()), Err)
}

/// Waits until the API answers and tasks can be started, and says so: the one line on standard output.
async fn announce(settings: &Settings, started: Instant) -> Result<(), Error> {
    let mut answers: Option<Instant> = None;
    while started.elapsed() < READY_TIMEOUT {
        let readiness = aws::readiness(settings).await;
        answers = answers.or((readiness != Readiness::Silent).then(Instant::now));
        // Whoever waits for the line starts tasks next: they need the Fargate host and the network.
        let patience_is_over = answers.is_some_and(|since| since.elapsed() > COMPLETE_TIMEOUT);
        if patience_is_over && readiness != Readiness::Complete {
            tracing::warn!("the API answers, but parts of the platform are not there yet: see /health");
        }
        if readiness == Readiness::Complete || patience_is_over {
            tracing::info!(milliseconds = started.elapsed().as_millis(), "the API answers");
            let mut out = io::stdout();
            writeln!(out, "ready {}", settings.endpoint()).and_then(|()| out.flush())?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("the control plane did not answer at {} within {READY_TIMEOUT:?}: its log is above", settings.listen)
        .into())
}

fn children_of(data: &DataDirectory, settings: &Settings) -> Result<[Child; 3], Error> {
    let executable = std::env::current_exe()?;
    let directory = data.path().to_owned();
    let child = |role: &'static str, arguments: Vec<String>, environment: Vec<(String, String)>| Child {
        role,
        executable: executable.clone(),
        arguments,
        environment,
        directory: directory.clone(),
    };
    // The settings are in DATA; what a child must be started again for is in its environment, where it is compared.
    let marks = vec![("LONGSHORE_SETTINGS".to_owned(), serde_json::to_string(settings)?)];
    let mut agent = vec!["agent".to_owned(), "--fargate".to_owned()];
    let mut option = |name: &str, value: String| agent.extend([format!("--{name}"), value]);
    option("endpoint", format!("http://{}", settings.local()));
    option("region", settings.region.to_string());
    option("cluster", domain::agent_protocol::FARGATE_CLUSTER.to_owned());
    option("data-dir", data.file("agent").display().to_string());
    option("platform", data.instance_id()?);
    option("task-endpoint", format!("http://169.254.169.252:{}", settings.listen.port()));
    for mirror in &settings.registry_mirrors {
        option("registry-mirror", mirror.clone());
    }
    option("image-cache", settings.image_cache.to_string());
    let credentials = data.file("keys/fargate-host").display().to_string();
    let mut agents = vec![("AWS_SHARED_CREDENTIALS_FILE".to_owned(), credentials)];
    // Whom the operator trusts beside the authorities of the system: a registry within a company has its own.
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        agents.extend(std::env::var_os(name).and_then(|paths| Some((name.to_owned(), absolute(&paths)?))));
    }
    // The control plane allocates and frees the same small sizes all the time: glibc keeps seven of each at hand, for all
    // others it takes a lock and merges neighbours.
    let memory = ("GLIBC_TUNABLES".to_owned(), "glibc.malloc.tcache_count=512".to_owned());
    let server = marks.iter().cloned().chain([memory]).collect();
    Ok([
        child("server", vec!["server".to_owned()], server),
        child("host", vec!["host".to_owned()], marks),
        child("agent", agent, agents),
    ])
}

/// A list of paths that means the same to a child, which runs in another directory.
fn absolute(paths: &OsStr) -> Option<String> {
    let paths = std::env::split_paths(paths).map(|path| std::path::absolute(&path).unwrap_or(path));
    std::env::join_paths(paths).ok()?.into_string().ok()
}

fn running(data: &Path, role: &str) -> Option<PidFile> {
    PidFile::read(&pid_path(data, role)).filter(PidFile::is_running)
}

/// Ends the platform's processes: a supervisor that runs, which takes its children with it, and children that a killed
/// one has left.
pub async fn stop(data: &DataDirectory) {
    if let Some(supervisor) = running(data.path(), "up") {
        terminate(&supervisor).await;
    }
    for role in ROLES {
        if let Some(process) = running(data.path(), role) {
            terminate(&process).await;
        }
    }
}

/// Removes everything of the platform from the kernel: tasks, then networks. Gives what was removed, a line each.
pub fn take_down(data: &DataDirectory) -> Result<Vec<String>, Error> {
    let id = data.instance_id()?;
    let mut removed = agent::teardown(&id, &data.file("agent"))?;
    removed.extend(host::teardown(&id, data.path())?);
    for role in ROLES {
        // A pid file without its process is only litter.
        let _ = std::fs::remove_file(pid_path(data.path(), role));
    }
    Ok(removed)
}
