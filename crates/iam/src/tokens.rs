//! Registry tokens: what `ecr:GetAuthorizationToken` gives and `docker login` sends back as a password.

use domain::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{Authority, Principal};

const PURPOSE: &str = "registry";

/// How long a registry token is good for.
pub const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Why a registry token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours.
    #[error("Your authorization token is invalid. Reauthenticate and try again.")]
    Invalid,
    /// It was good once.
    #[error("Your authorization token has expired. Reauthenticate and try again.")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    principal: Principal,
    registry: AccountId,
    expiration: Timestamp,
}

impl Authority {
    /// A token with which `principal` reaches the registry of an account for [`LIFETIME`], and when that ends.
    /// `None` when the system has no randomness.
    pub fn issue_registry_token(
        &self,
        principal: &Principal,
        registry: &AccountId,
        now: Timestamp,
    ) -> Option<(String, Timestamp)> {
        let expiration = now + LIFETIME;
        let claims = Claims { principal: principal.clone(), registry: registry.clone(), expiration };
        Some((self.sealing().seal(PURPOSE, &claims)?, expiration))
    }

    /// Who a registry token was issued to.
    pub fn open_registry_token(&self, token: &str, now: Timestamp) -> Result<Principal, TokenError> {
        let claims: Claims = self.sealing().open(PURPOSE, token).ok_or(TokenError::Invalid)?;
        if claims.expiration <= now { Err(TokenError::Expired) } else { Ok(claims.principal) }
    }
}
