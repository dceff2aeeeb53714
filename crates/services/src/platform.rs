//! What handlers work with, put together once by the composition root.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domain::{AccountId, Clock, IdSource, Region};
use iam::Authority;
use placement::Fleets;
use registry::Registry;
use store::Store;
use telemetry::LogStore;

use crate::ecs::agent_endpoints::Wakeups;

/// What the operator chose when starting the platform.
#[derive(Clone, Debug)]
pub struct Options {
    /// The account that the root key belongs to.
    pub account: AccountId,
    /// The region of requests that name none (registry, presigned health checks).
    pub region: Region,
    /// Where the control plane listens.
    pub listen: SocketAddr,
    /// Six hexadecimal digits that mark this platform's kernel objects, so that two can share a host.
    pub instance_id: String,
    /// Today's Amazon behaviour: a load balancer may be added to an existing service.
    pub allow_load_balancer_updates: bool,
    /// How long an agent of a user's cluster may be away before its tasks are given up; `None`: for ever, as on Amazon.
    pub lost_instance_after: Option<Duration>,
}

/// The platform behind the services' faces.
pub struct Platform {
    /// All state.
    pub store: Store,
    /// The platform's clock.
    pub clock: Clock,
    /// Credentials and tokens.
    pub authority: Authority,
    /// What the operator chose.
    pub options: Options,
    /// The events of log streams.
    pub logs: Arc<LogStore>,
    /// The content of repositories.
    pub registry: Arc<Registry>,
    /// The agents' sessions that wait for something to do.
    pub(crate) wakeups: Arc<Wakeups>,
    /// What placement knows of the clusters' instances: only ever asked within a transaction, of what that sees.
    pub fleets: Arc<Fleets>,
    ids: Mutex<IdSource>,
}

impl Platform {
    /// Puts a platform together.
    pub fn new(
        store: Store,
        clock: Clock,
        authority: Authority,
        options: Options,
        ids: IdSource,
        logs: Arc<LogStore>,
        registry: Arc<Registry>,
    ) -> Self {
        let (wakeups, fleets) = (Arc::default(), Arc::default());
        Self { store, clock, authority, options, logs, registry, wakeups, fleets, ids: Mutex::new(ids) }
    }

    /// The source of identifiers. Hold it briefly: never across an await.
    pub fn ids(&self) -> MutexGuard<'_, IdSource> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
