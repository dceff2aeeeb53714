//! Who a request comes from, and whether they may.

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    Scope, Timestamp,
    repositories::{Digest, content_key, repository_arn},
};
use http::{header, request::Parts};
use iam::{Authority, Principal, TokenError};

use super::answer::Refusal;

/// The query parameter that carries a layer's own token.
pub const LAYER_TOKEN: &str = "layer-token";

/// A principal that has proved itself.
pub(super) struct Access {
    principal: Principal,
}

impl Access {
    /// By `Authorization: Basic`, with the user `AWS` and a registry token for a password.
    pub(super) fn of(parts: &Parts, authority: &Authority, now: Timestamp) -> Result<Self, Refusal> {
        let none = || Refusal::unauthorized("Not Authorized");
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(none)?;
        let (scheme, credentials) = header.split_once(' ').ok_or_else(none)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(none());
        }
        let credentials = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let credentials = credentials.ok_or_else(none)?;
        let token = credentials.strip_prefix("AWS:").ok_or_else(none)?;
        Self::with(authority.open_registry_token(token, now))
    }

    /// By the token in a layer's own address.
    pub(super) fn of_layer(
        authority: &Authority,
        token: &str,
        scope: &Scope,
        name: &str,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        Self::with(authority.open_layer_token(token, &content_key(scope, name, digest), now))
    }

    fn with(principal: Result<Principal, TokenError>) -> Result<Self, Refusal> {
        match principal {
            Ok(principal) => Ok(Self { principal }),
            // Docker shows this text; for a 401 it would say "no basic auth credentials".
            Err(TokenError::Expired) => Err(Refusal::denied(TokenError::Expired.to_string())),
            Err(TokenError::Invalid) => Err(Refusal::unauthorized(TokenError::Invalid.to_string())),
        }
    }

    /// Passes the authorisation seam.
    pub(super) fn authorise(&self, action: &str, scope: &Scope, name: &str) -> Result<(), Refusal> {
        iam::authorise(&self.principal, action, repository_arn(scope, name).as_str())
            .map_err(|denied| Refusal::denied(denied.to_string()))
    }
}
