//! The process: follows the slice, reconciles, serves the routers' sockets, watches the load balancers' processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use domain::network::{
    host::{CONSUMER, HostItem, HostReport},
    names,
};
use feed::{FollowOptions, Follower};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    Config, Error,
    balancers::Balancers,
    desired::{self, Desired},
    dns::{self, Knowledge},
    endpoint, hosts, imds,
    instances::Instances,
    netns,
    reconcile::{Outcome, Reconciler},
    router::Listeners,
    sockets::{self, Ledger, Permit},
};

/// How often everything is looked at, changed or not.
const LOOK: Duration = Duration::from_secs(30);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often load balancers' processes are looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT, which leave everything in the kernel as it is. Makes its own tokio runtime.
pub fn main(config: Config) -> Result<(), Error> {
    let digits = names::digits(&config.platform);
    if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::Platform(config.platform.clone()));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    netns::prepare_directory()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(config))
}

async fn run(config: Config) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut follower = Follower::<HostItem>::start(FollowOptions {
        socket: config.feed_socket.clone(),
        consumer: CONSUMER.to_owned(),
        cache: Some(config.data_dir.join("host/slice.json")),
    });
    let mut host = Host::new(config)?;
    loop {
        tokio::select! {
            slice = follower.changed() => {
                if !slice.known {
                    continue;
                }
                host.desired = Arc::new(desired::sort(&slice));
                host.since = Instant::now();
                host.reconcile(&follower).await?;
                follower.acknowledge(slice.revision);
            }
            () = sleep(host.due.saturating_duration_since(Instant::now())) => {
                host.look(&follower).await?;
            }
            () = host.asked.notified() => host.watch_balancers(&follower),
            () = sleep(WATCH), if host.has_processes() => {
                host.watch_balancers(&follower);
                host.watch_instances(&follower);
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// What serves one router's sockets.
struct Serving {
    knowledge: watch::Sender<Arc<Knowledge>>,
    instances: watch::Sender<Arc<imds::Instances>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Host {
    config: Config,
    reconciler: Option<Reconciler>,
    desired: Arc<Desired>,
    since: Instant,
    serving: BTreeMap<String, Serving>,
    balancers: Balancers,
    instances: Instances,
    ledger: Arc<Ledger>,
    metadata: Arc<imds::Shared>,
    /// A load balancer's process asked for sockets: there may be something to report.
    asked: Arc<Notify>,
    /// When to look at everything again.
    due: Instant,
    /// Whether a slice has been acted upon: before that nothing is known to be wrong.
    started: bool,
    problems: Vec<String>,
    /// The names in the hosts file, as last written.
    hosts: Option<BTreeMap<String, BTreeSet<Ipv4Addr>>>,
    reported: BTreeMap<String, HostReport>,
}

impl Host {
    fn new(config: Config) -> Result<Self, Error> {
        let balancers = Balancers::adopt(&config.data_dir)?;
        let instances = Instances::adopt(&config)?;
        let (ledger, asked) = (Arc::new(Ledger::default()), Arc::new(Notify::new()));
        let (path, platform) = (config.control_socket.clone(), config.platform.clone());
        let (provider_ledger, provider_asked) = (ledger.clone(), asked.clone());
        thread::Builder::new().name("sockets".to_owned()).spawn(move || {
            let outcome = sockets::serve(&path, &platform, &provider_ledger, || provider_asked.notify_one());
            if let Err(error) = outcome {
                tracing::error!(%error, path = %path.display(), "load balancers cannot ask for sockets");
            }
        })?;
        Ok(Self {
            reconciler: Some(Reconciler::new(config.platform.clone(), config.endpoint_port)),
            metadata: Arc::new(imds::Shared::new(config.vpc_socket.clone())?),
            config,
            desired: Arc::default(),
            since: Instant::now(),
            serving: BTreeMap::new(),
            balancers,
            instances,
            ledger,
            asked,
            due: Instant::now() + LOOK,
            started: false,
            problems: Vec::new(),
            hosts: None,
            reported: BTreeMap::new(),
        })
    }

    /// Whether there are processes that may end or get ready by themselves.
    fn has_processes(&self) -> bool {
        !self.desired.load_balancers.is_empty() || !self.instances.is_idle(&self.desired)
    }

    /// Looks at everything again, because time has passed or something failed.
    async fn look(&mut self, follower: &Follower<HostItem>) -> Result<(), Error> {
        if !self.started {
            self.due = Instant::now() + LOOK;
            return Ok(());
        }
        if self.problems.is_empty()
            && let Some(mut reconciler) = self.reconciler.take()
        {
            self.reconciler = Some(
                blocking(move || {
                    reconciler.distrust();
                    reconciler
                })
                .await?,
            );
        }
        self.since = Instant::now();
        self.reconcile(follower).await
    }

    async fn reconcile(&mut self, follower: &Follower<HostItem>) -> Result<(), Error> {
        let Some(mut reconciler) = self.reconciler.take() else { return Ok(()) };
        self.started = true;
        let (desired, since) = (self.desired.clone(), self.since);
        let (reconciler, outcome) = blocking(move || {
            let outcome = reconciler.reconcile(&desired, since);
            (reconciler, outcome)
        })
        .await?;
        self.reconciler = Some(reconciler);
        self.take(outcome, follower);
        self.watch_balancers(follower);
        self.watch_instances(follower);
        Ok(())
    }

    fn watch_instances(&mut self, follower: &Follower<HostItem>) {
        if !self.started {
            return;
        }
        let outcome = self.instances.reconcile(&self.desired);
        for (key, report) in &outcome.reports {
            follower.report(key, report);
        }
        for interface_id in outcome.renew {
            let Some(reconciler) = &mut self.reconciler else { continue };
            if let Err(error) = reconciler.renew(&interface_id) {
                tracing::error!(%error, interface_id, "a network namespace cannot be made anew");
            }
            self.due = Instant::now();
        }
    }

    fn take(&mut self, mut outcome: Outcome, follower: &Follower<HostItem>) {
        if let Err(error) = self.update_hosts() {
            outcome.problems.push(format!("the platform's names do not resolve on this machine: {error}"));
        }
        for (key, report) in &outcome.reports {
            follower.report(key, report);
        }
        for vpc_id in &outcome.removed {
            self.serving.remove(vpc_id);
        }
        for (vpc_id, listeners) in outcome.listeners {
            self.serving.insert(vpc_id, serve(listeners, &self.config, self.metadata.clone()));
        }
        for (vpc_id, serving) in &self.serving {
            if let Some(vpc) = self.desired.vpcs.get(vpc_id) {
                serving.knowledge.send_replace(Arc::new(Knowledge::of(vpc, &self.desired)));
                serving.instances.send_replace(Arc::new(imds::instances_of(vpc, &self.desired)));
            }
        }
        self.due = Instant::now() + if outcome.problems.is_empty() { LOOK } else { RETRY };
        if outcome.problems != self.problems {
            for problem in &outcome.problems {
                tracing::error!(problem, "the network is not as it should be");
            }
            follower.report("platform", &HostReport::Host { problems: outcome.problems.clone() });
            self.problems = outcome.problems;
        }
    }

    fn update_hosts(&mut self) -> io::Result<()> {
        let Some(file) = self.config.hosts_file.as_ref().filter(|_| self.desired.confirmed) else { return Ok(()) };
        let names = hosts::names_of(&self.desired.names);
        if self.hosts.as_ref() != Some(&names) {
            hosts::update(file, &self.config.platform, &names)?;
            self.hosts = Some(names);
        }
        Ok(())
    }

    fn watch_balancers(&mut self, follower: &Follower<HostItem>) {
        if !self.started {
            return;
        }
        for (key, report) in
            self.balancers.reconcile(&self.desired.load_balancers, self.desired.confirmed, &self.config)
        {
            self.reported.insert(key, report);
        }
        let mut permits = Vec::new();
        for (arn, item) in &self.desired.load_balancers {
            let interfaces = self.desired.vpcs.get(&item.vpc_id).map(|vpc| &vpc.interfaces);
            permits.push(Permit {
                arn: arn.clone(),
                pid: self.balancers.process_of(arn),
                host_listeners: item.host_listeners.clone(),
                interfaces: item
                    .interface_ids
                    .iter()
                    .filter_map(|id| Some((id.clone(), interfaces?.get(id)?.address)))
                    .collect(),
                listener_ports: item.listener_ports.clone(),
            });
        }
        self.ledger.set(permits);
        self.reported
            .retain(|key, _| key.strip_prefix("lb/").is_some_and(|arn| self.desired.load_balancers.contains_key(arn)));
        for (key, report) in &mut self.reported {
            let HostReport::LoadBalancer { arn, refused_listeners, .. } = report else { continue };
            let refused = self.ledger.refused(arn);
            if self.balancers.take_changed(arn) || *refused_listeners != refused {
                *refused_listeners = refused;
                follower.report(key, report);
            }
        }
    }
}

fn serve(listeners: Listeners, config: &Config, metadata: Arc<imds::Shared>) -> Serving {
    let (knowledge, receiver) = watch::channel(Arc::default());
    let (instances, known_instances) = watch::channel(Arc::default());
    let server = config.vpc_socket.clone();
    let names = tokio::spawn(async move {
        if let Err(error) = dns::serve(listeners.names_udp, listeners.names_tcp, receiver).await {
            tracing::error!(%error, "a resolver cannot answer");
        }
    });
    let endpoint = tokio::spawn(async move {
        if let Err(error) = endpoint::serve(listeners.endpoint, server).await {
            tracing::error!(%error, "an endpoint cannot answer");
        }
    });
    let metadata = tokio::spawn(async move {
        if let Err(error) = imds::serve(listeners.metadata, known_instances, metadata).await {
            tracing::error!(%error, "an instance metadata service cannot answer");
        }
    });
    Serving { knowledge, instances, tasks: vec![names, endpoint, metadata] }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Io(io::Error::other(error)))
}
