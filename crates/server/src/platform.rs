//! Putting the control plane together: the store with every service's kinds, the services' handles, the reconcilers and
//! the feed.

use std::{path::Path, sync::Arc, time::Duration};

use domain::{IdSource, Scope, Timestamp};
use iam::Authority;
use serde::{Deserialize, Serialize};
use services::{Options, Platform};
use store::{Kinds, Store};
use wire::ServiceError;

use crate::{
    data_directory::{DataDirectory, Settings},
    supervisor::Error,
};

/// The Fargate host ends its tasks and registers again after a reset, which takes it a moment.
const HOST_RETURNS: Duration = Duration::from_secs(60);

/// The control plane: what the front door leads to.
pub struct ControlPlane {
    /// What handlers work with.
    pub platform: Arc<Platform>,
    /// The reconcilers.
    pub control: control::Handle,
    /// The feed of `host` and the load balancers.
    pub publisher: Arc<feed::Publisher>,
}

/// How one part of the platform is.
pub struct Component {
    /// E.g. `host`.
    pub name: String,
    /// Whether it does its work.
    pub healthy: bool,
    /// For people.
    pub detail: String,
}

/// A mark that an account or a region has been given what Amazon gives from the start. What people delete later stays
/// deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Prepared {
    key: String,
    at: Timestamp,
}

impl domain::Resource for Prepared {
    const KIND: &'static str = "longshore/prepared";
    fn key(&self) -> String {
        self.key.clone()
    }
}

/// Every kind of resource of every service.
fn kinds() -> Kinds {
    let kinds = Kinds::new().durable::<Prepared>();
    let kinds = services::acm::kinds(kinds);
    let kinds = services::iam::kinds(kinds);
    let kinds = services::ec2::kinds(kinds);
    let kinds = services::ecr::kinds(kinds);
    let kinds = services::ecs::kinds(kinds);
    let kinds = services::elbv2::kinds(kinds);
    services::logs::kinds(kinds)
}

impl ControlPlane {
    /// Opens the data directory, which must be the working directory, and starts the reconcilers.
    pub async fn start(data: &DataDirectory, settings: &Settings) -> Result<Arc<Self>, Error> {
        let clock = settings.clock();
        let store = Store::open(store::embedded::open(Path::new("state"))?, kinds())?;
        // Before the reconcilers look for the first time.
        let waiting = store.transact(|tx| {
            services::ecs::await_agents(tx, &clock, settings.lost_instance_after());
            Ok::<(), std::convert::Infallible>(())
        });
        waiting.await?;
        let authority =
            Authority::new(settings.account.clone(), data.root_key()?, data.fargate_host_key()?, data.sealing_key()?);
        let options = Options {
            account: settings.account.clone(),
            region: settings.region.clone(),
            listen: settings.listen,
            instance_id: data.instance_id()?,
            allow_load_balancer_updates: settings.allow_load_balancer_updates,
            lost_instance_after: settings.lost_instance_after(),
        };
        let logs = Arc::new(telemetry::logs::LogStore::open(Path::new("logs"))?);
        let registry = registry::Registry::open(Path::new("registry"), store.clone(), clock)?;
        tokio::spawn(registry.clone().sweep_forever());
        let ids = IdSource::from_system();
        let platform = Arc::new(Platform::new(store.clone(), clock, authority, options, ids, logs, registry));
        tokio::spawn(services::ecs::wake_agents(&platform));
        let publisher = Arc::new(feed::Publisher::bind(Path::new("run/feed.sock"), |_, user| {
            // `host` is root, load balancers run as we do.
            user == 0 || user == crate::data_directory::SERVICE_USER
        })?);
        tokio::spawn(control::targets::drained::run(store.clone(), clock));
        tokio::spawn(control::instances::run(store.clone(), clock));
        tokio::spawn(control::instances::run_interruptions(store.clone(), clock));
        let control = control::start(
            store,
            clock,
            Arc::new(crate::launcher::Launcher(platform.fleets.clone())),
            IdSource::from_system(),
        );
        let control_plane = Arc::new(Self { platform, control, publisher });
        control_plane.prepare(&control_plane.default_scope()).await?;
        Ok(control_plane)
    }

    /// The account and region of requests that name none.
    pub fn default_scope(&self) -> Scope {
        let options = &self.platform.options;
        Scope { account: options.account.clone(), region: options.region.clone() }
    }

    /// Gives an account and a region, once in their life, what Amazon gives from the start: the roles that the console
    /// makes, and the default VPC.
    pub async fn prepare(&self, scope: &Scope) -> Result<(), ServiceError> {
        let now = self.platform.clock.now();
        let platform = &self.platform;
        let prepared = platform.store.transact(|tx| {
            let mut ids = platform.ids();
            let account = scope.account.to_string();
            if !tx.contains::<Prepared>(&account) {
                services::iam::ensure_account(tx, &scope.account, &mut ids, now);
                tx.put(Prepared { key: account, at: now });
            }
            services::ec2::configure(tx, &platform.options.instance_id, None);
            let region = scope.prefix();
            if !tx.contains::<Prepared>(&region) {
                services::ec2::ensure_region(tx, scope, &mut ids);
                tx.put(Prepared { key: region, at: now });
            }
            Ok(())
        });
        prepared.await.map_err(services::commit_failure)
    }

    /// Empties the account, and gives it again what it has from the start: when this returns `Ok`, tasks are taken again.
    pub async fn reset(&self) -> Result<(), ServiceError> {
        let store = &self.platform.store;
        let mut changes = store.watch();
        let cleared = store.transact(|tx| {
            tx.clear();
            Ok(())
        });
        cleared.await.map_err(services::commit_failure)?;
        self.prepare(&self.default_scope()).await?;
        let host_back = async {
            while services::ecs::fargate_hosts_connected(&store.snapshot()) == 0 && changes.next().await.is_some() {}
        };
        tokio::time::timeout(HOST_RETURNS, host_back).await.map_err(|_| {
            ServiceError::internal(
                "The account is empty, but the Fargate host has not come back yet. Its log says why.",
            )
        })
    }

    /// How the parts of the platform are.
    pub fn components(&self) -> Vec<Component> {
        let mut components: Vec<Component> = self
            .control
            .status()
            .into_iter()
            .map(|status| Component {
                name: format!("control/{}", status.name),
                healthy: status.alive,
                detail: status.detail,
            })
            .collect();
        components.extend(self.publisher.status().into_iter().map(|status| Component {
            healthy: status.connected,
            detail: format!("revision {} of {}", status.acknowledged, status.revision),
            name: status.consumer,
        }));
        let connected = services::ecs::fargate_hosts_connected(&self.platform.store.snapshot());
        components.push(Component {
            name: "fargate".to_owned(),
            healthy: connected > 0,
            detail: format!("{connected} connected"),
        });
        components
    }

    /// Figures about the platform: name, help, value.
    pub fn metrics(&self) -> Vec<(&'static str, &'static str, f64)> {
        let snapshot = self.platform.store.snapshot();
        let count = |number: usize| number as f64;
        vec![
            ("longshore_store_revision", "Batches made durable so far.", snapshot.revision() as f64),
            (
                "longshore_tasks",
                "Tasks known, stopped ones included.",
                count(snapshot.count_all::<domain::ecs::Task>()),
            ),
            ("longshore_services", "Services known.", count(snapshot.count_all::<domain::ecs::Service>())),
            (
                "longshore_task_definitions",
                "Task definition revisions known.",
                count(snapshot.count_all::<domain::ecs::TaskDefinition>()),
            ),
            (
                "longshore_network_interfaces",
                "Network interfaces known.",
                count(snapshot.count_all::<domain::network::NetworkInterface>()),
            ),
        ]
    }
}
