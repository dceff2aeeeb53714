//! The control plane's one port: AWS services, the registry, the agents' sessions, health and metrics, told apart by
//! path, header and host name.
//!
//! Nothing passes without a verified signature but the registry (which has its own login) and the two read-only pages
//! for operators on loopback.

mod agents;
mod aws;
mod body;
mod hosts;
mod idle;
mod listeners;
mod metadata;
mod operator;
mod signature;
mod tls;

pub use listeners::{Listener, bind, connection_limit, open, serve};

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use body::Body;
use bytes::Bytes;
use domain::{AccountId, Region, Scope};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use crate::platform::ControlPlane;

/// The front door and what is behind it.
pub struct FrontDoor {
    control_plane: Arc<ControlPlane>,
    allow_reset: bool,
    /// Accounts and regions that are known to have their default resources.
    prepared: Mutex<HashSet<Scope>>,
    /// See [`body::room`].
    room: Arc<Semaphore>,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The caller's address: of a task or an instance, where the request came through its VPC's endpoint.
    pub address: IpAddr,
    /// Whether it came to a loopback listener of the host itself.
    pub on_host: bool,
    /// Whether it came over TLS.
    pub secure: bool,
}

impl FrontDoor {
    /// A front door to the control plane.
    pub fn new(control_plane: Arc<ControlPlane>, allow_reset: bool) -> Self {
        Self { control_plane, allow_reset, prepared: Mutex::default(), room: body::room() }
    }

    /// Answers one request. Never fails: what goes wrong is the answer.
    pub async fn handle(self: Arc<Self>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let host = match hosts::check(&request, &self.control_plane.platform.options.listen) {
            Ok(host) => host,
            Err(refusal) => return text(StatusCode::FORBIDDEN, refusal),
        };
        match request.uri().path() {
            "/health" if peer.on_host => operator::health(&self.control_plane),
            "/metrics" if peer.on_host => operator::metrics(&self.control_plane),
            "/_longshore/reset" => self.reset(peer, request).await,
            path if path.starts_with(aws::RECLAIM) => self.reclaim(request).await,
            "/acs/ws" => agents::connect(&self, agents::Session::Acs, request).await,
            "/tcs/ws" => agents::connect(&self, agents::Session::Tcs, request).await,
            path if path == "/v2" || path.starts_with("/v2/") => self.registry(&host, request).await,
            _ => self.aws(peer, request).await,
        }
    }

    async fn registry(&self, host: &str, request: Request<Incoming>) -> Response<Body> {
        let control_plane = &self.control_plane;
        let options = &control_plane.platform.options;
        let default = Scope { account: options.account.clone(), region: options.region.clone() };
        let scope = registry::host_scope(host, &default);
        let platform = &control_plane.platform;
        body::boxed(registry::handle(&platform.registry, &platform.authority, &scope, request).await)
    }

    /// Makes what every account and region has from the start, the first time one is used.
    async fn prepare(&self, account: &AccountId, region: &Region) -> Result<(), wire::ServiceError> {
        let scope = Scope { account: account.clone(), region: region.clone() };
        if self.prepared.lock().unwrap_or_else(PoisonError::into_inner).contains(&scope) {
            return Ok(());
        }
        self.control_plane.prepare(&scope).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(scope);
        Ok(())
    }

    /// Forgets what is prepared: the account has been emptied.
    fn forget_prepared(&self) {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
