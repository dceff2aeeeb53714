//! Temporary credentials, as STS gives them: an `ASIA…` key, a secret, and a token that carries the session.

use domain::{IdSource, Timestamp};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

use crate::{Authority, Principal};

const PURPOSE: &str = "session";

/// Temporary credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// `ASIA…`, 20 characters.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: String,
    /// The session, sealed.
    pub session_token: String,
    /// When they stop working.
    pub expiration: Timestamp,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, until {:?})", self.access_key_id, self.expiration)
    }
}

/// Why a session token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Not a token of ours, or not for this access key.
    #[error("The security token included in the request is invalid.")]
    Invalid,
    /// It was good once.
    #[error("The security token included in the request is expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    access_key_id: String,
    secret_access_key: String,
    principal: Principal,
    expiration: Timestamp,
}

impl Authority {
    /// New credentials for a principal, good from `now` for `duration`. `None` when the system has no randomness.
    pub fn issue_session(
        &self,
        ids: &mut IdSource,
        principal: Principal,
        now: Timestamp,
        duration: Duration,
    ) -> Option<Credentials> {
        let claims = Claims {
            access_key_id: ids.iam("ASIA", 20),
            secret_access_key: ids.secret_access_key(),
            principal,
            expiration: now + duration,
        };
        let session_token = self.sealing().seal(PURPOSE, &claims)?;
        Some(Credentials {
            access_key_id: claims.access_key_id,
            secret_access_key: claims.secret_access_key,
            session_token,
            expiration: claims.expiration,
        })
    }

    /// The secret and the principal of a session.
    pub(crate) fn open_session(
        &self,
        access_key_id: &str,
        token: &str,
        now: Timestamp,
    ) -> Result<(String, Principal), SessionError> {
        let claims: Claims = self.sealing().open(PURPOSE, token).ok_or(SessionError::Invalid)?;
        if claims.access_key_id != access_key_id {
            return Err(SessionError::Invalid);
        }
        if claims.expiration <= now {
            return Err(SessionError::Expired);
        }
        Ok((claims.secret_access_key, claims.principal))
    }
}
