//! One request, from the moment its signature is verified, and what it may reach once it is authorised.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use domain::{Scope, Timestamp};
use iam::Principal;
use wire::{Operation, ServiceError};

use crate::{Platform, errors};

/// Where a request came from, and where to.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The caller's address.
    pub source: IpAddr,
    /// The API as the caller reaches it, from the `Host` that it signed: `http://127.0.0.1:4580`.
    pub endpoint: String,
}

/// A verified request: who asks for which operation, where.
///
/// It does not give access to anything: [`Call::authorise`] does.
#[derive(Clone)]
pub struct Call {
    platform: Arc<Platform>,
    /// Who asks.
    pub principal: Principal,
    /// The principal's account and the region the request was signed for.
    pub scope: Scope,
    /// What is asked for.
    pub operation: &'static Operation,
    /// The id that the answer carries in `x-amzn-RequestId`.
    pub request_id: String,
    /// Where the request came from, and where to.
    pub origin: Origin,
}

impl Call {
    /// A call of a principal whose signature has been verified.
    pub fn new(
        platform: Arc<Platform>,
        principal: Principal,
        scope: Scope,
        operation: &'static Operation,
        request_id: String,
        origin: Origin,
    ) -> Self {
        Self { platform, principal, scope, operation, request_id, origin }
    }

    /// Asks whether the principal may do this operation to each of these resources (ARNs; none means `*`).
    pub fn authorise<R: AsRef<str>>(&self, resources: &[R]) -> Result<Authorised, ServiceError> {
        self.authorise_action(self.operation.action, resources)?;
        Ok(Authorised { call: self.clone() })
    }

    /// Asks about a further action that the operation implies, e.g. `iam:PassRole` on a role it hands over.
    pub fn authorise_action<R: AsRef<str>>(&self, action: &str, resources: &[R]) -> Result<(), ServiceError> {
        let decide = |resource: &str| {
            iam::authorise(&self.principal, action, resource)
                .map_err(|denied| errors::access_denied(self.operation.service, &denied))
        };
        if resources.is_empty() {
            return decide("*");
        }
        resources.iter().try_for_each(|resource| decide(resource.as_ref()))
    }

    /// The state before anything was authorised: only to find out which resource is meant.
    pub(crate) fn unchecked_snapshot(&self) -> store::Snapshot {
        self.platform.store.snapshot()
    }

    /// An ARN in the call's account and region: `arn:aws:{service}:{region}:{account}:{resource}`.
    pub fn arn(&self, service: &str, resource: &str) -> domain::Arn {
        self.scope.arn(service, resource)
    }
}

/// A call that has been authorised: the only way to the platform's state.
#[derive(Clone)]
pub struct Authorised {
    call: Call,
}

impl Deref for Authorised {
    type Target = Call;
    fn deref(&self) -> &Call {
        &self.call
    }
}

impl Authorised {
    /// The platform: store, clock, telemetry, …
    pub fn platform(&self) -> &Arc<Platform> {
        &self.call.platform
    }

    /// Everything as of now.
    pub fn snapshot(&self) -> store::Snapshot {
        self.call.platform.store.snapshot()
    }

    /// Platform time now.
    pub fn now(&self) -> Timestamp {
        self.call.platform.clock.now()
    }

    /// Runs one transaction (see [`store::Store::transact`]); a refusal is the service's own error.
    pub async fn transact<R>(
        &self,
        work: impl FnOnce(&mut store::Transaction) -> Result<R, ServiceError>,
    ) -> Result<R, ServiceError> {
        self.call.platform.store.transact(work).await.map_err(errors::commit_failure)
    }
}
