//! Registry tokens: what `ecr:GetAuthorizationToken` gives and `docker login` sends back as a password.

use domain::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::{Authority, Principal};

const PURPOSE: &str = "registry";
const LAYER_PURPOSE: &str = "registry-layer";

/// How long a registry token is good for.
pub const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// How long the address of a layer is good for.
pub const LAYER_LIFETIME: Duration = Duration::from_secs(60 * 60);

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

#[derive(Serialize, Deserialize)]
struct LayerClaims {
    principal: Principal,
    layer: String,
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

    /// A token that is part of a layer's address, as `ecr:GetDownloadUrlForLayer` gives it: with it whoever has the
    /// address reads this one layer for [`LAYER_LIFETIME`], as `principal`. `layer` names it, repository included.
    pub fn issue_layer_token(&self, principal: &Principal, layer: &str, now: Timestamp) -> Option<String> {
        let claims =
            LayerClaims { principal: principal.clone(), layer: layer.to_owned(), expiration: now + LAYER_LIFETIME };
        self.sealing().seal(LAYER_PURPOSE, &claims)
    }

    /// Who a layer's token was issued to, if it is this layer's.
    pub fn open_layer_token(&self, token: &str, layer: &str, now: Timestamp) -> Result<Principal, TokenError> {
        let claims: LayerClaims = self.sealing().open(LAYER_PURPOSE, token).ok_or(TokenError::Invalid)?;
        if claims.layer != layer {
            return Err(TokenError::Invalid);
        }
        if claims.expiration <= now { Err(TokenError::Expired) } else { Ok(claims.principal) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessKey, SealingKey};

    #[test]
    fn a_layers_token_is_good_for_that_layer_and_an_hour() {
        let account: AccountId = "123456789012".parse().unwrap();
        let key = AccessKey { access_key_id: "AKIAROOT".into(), secret_access_key: "secret".into() };
        let authority = Authority::new(account.clone(), key.clone(), key, SealingKey::new(&[7; 32]).unwrap());
        let principal = Principal::Root { account };
        let token = authority.issue_layer_token(&principal, "r@a", Timestamp(0)).unwrap();
        let end = Timestamp(0) + LAYER_LIFETIME;
        assert_eq!(authority.open_layer_token(&token, "r@a", end - Duration::from_millis(1)), Ok(principal));
        assert_eq!(authority.open_layer_token(&token, "r@a", end), Err(TokenError::Expired));
        assert_eq!(authority.open_layer_token(&token, "r@b", Timestamp(0)), Err(TokenError::Invalid));
        assert_eq!(authority.open_registry_token(&token, Timestamp(0)), Err(TokenError::Invalid));
    }
}
