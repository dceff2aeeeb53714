//! From an access key to a secret and a principal. Verifying the signature itself is `wire`'s work.

use std::fmt;

use domain::{AccountId, Timestamp};

use crate::{Principal, SealingKey, SessionError};

/// The account's root access key.
#[derive(Clone, PartialEq, Eq)]
pub struct RootKey {
    /// `AKIA…`, or what the operator gave.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.access_key_id)
    }
}

/// A secret to verify a signature with. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretAccessKey(String);

impl SecretAccessKey {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAccessKey(…)")
    }
}

/// Why an access key is refused. Each protocol has its own codes for them: see `services`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// No such key, or a session key without its token.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The session is over.
    #[error("The security token included in the request is expired")]
    Expired,
}

/// What the platform vouches with: the root key and the key that seals tokens.
#[derive(Debug)]
pub struct Authority {
    account: AccountId,
    root: RootKey,
    sealing: SealingKey,
}

impl Authority {
    /// The authority of a platform.
    pub fn new(account: AccountId, root: RootKey, sealing: SealingKey) -> Self {
        Self { account, root, sealing }
    }

    pub(crate) fn sealing(&self) -> &SealingKey {
        &self.sealing
    }

    /// The secret and the principal that belong to an access key id and, for temporary keys, its session token.
    pub fn authenticate(
        &self,
        access_key_id: &str,
        session_token: Option<&str>,
        now: Timestamp,
    ) -> Result<(SecretAccessKey, Principal), AuthenticationError> {
        if let Some(token) = session_token {
            return match self.open_session(access_key_id, token, now) {
                Ok((secret, principal)) => Ok((SecretAccessKey(secret), principal)),
                Err(SessionError::Expired) => Err(AuthenticationError::Expired),
                Err(SessionError::Invalid) => Err(AuthenticationError::UnknownKey),
            };
        }
        if access_key_id == self.root.access_key_id {
            let principal = Principal::Root { account: self.account.clone() };
            return Ok((SecretAccessKey(self.root.secret_access_key.clone()), principal));
        }
        Err(AuthenticationError::UnknownKey)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{Arn, IdSource};

    use super::*;

    fn authority() -> Authority {
        let root = RootKey { access_key_id: "AKIAROOT".into(), secret_access_key: "secret".into() };
        Authority::new("123456789012".parse().unwrap(), root, SealingKey::new(&[7; 32]).unwrap())
    }

    #[test]
    fn sessions_end_and_belong_to_their_key() {
        let authority = authority();
        let account: AccountId = "123456789012".parse().unwrap();
        let principal = Principal::AssumedRole {
            role: Arn::global(&account, "iam", "role/web"),
            account,
            role_id: "AROA".into(),
            session: "s".into(),
        };
        let mut ids = IdSource::from_seed(1);
        let given =
            authority.issue_session(&mut ids, principal.clone(), Timestamp(0), Duration::from_secs(900)).unwrap();
        let key = given.access_key_id.as_str();
        let token = Some(given.session_token.as_str());
        let (secret, who) = authority.authenticate(key, token, Timestamp(899_999)).unwrap();
        assert_eq!((secret.expose(), who), (given.secret_access_key.as_str(), principal));
        assert_eq!(authority.authenticate(key, token, Timestamp(900_000)), Err(AuthenticationError::Expired));
        assert_eq!(authority.authenticate("ASIAOTHER", token, Timestamp(0)), Err(AuthenticationError::UnknownKey));
        assert_eq!(authority.authenticate(key, None, Timestamp(0)), Err(AuthenticationError::UnknownKey));
    }

    #[test]
    fn the_root_key_is_known_and_no_other() {
        let authority = authority();
        assert!(authority.authenticate("AKIAROOT", None, Timestamp(0)).is_ok());
        assert_eq!(authority.authenticate("AKIAOTHER", None, Timestamp(0)), Err(AuthenticationError::UnknownKey));
        assert_eq!(authority.authenticate("AKIAROOT", Some("x"), Timestamp(0)), Err(AuthenticationError::UnknownKey));
    }

    #[test]
    fn a_registry_token_lasts_twelve_hours() {
        let authority = authority();
        let account: AccountId = "123456789012".parse().unwrap();
        let root = Principal::Root { account: account.clone() };
        let (token, until) = authority.issue_registry_token(&root, &account, Timestamp(0)).unwrap();
        assert_eq!(until, Timestamp(12 * 3_600_000));
        assert_eq!(authority.open_registry_token(&token, until - Duration::from_millis(1)), Ok(root));
        assert_eq!(authority.open_registry_token(&token, until), Err(crate::TokenError::Expired));
        assert_eq!(authority.open_registry_token("x", Timestamp(0)), Err(crate::TokenError::Invalid));
    }
}
