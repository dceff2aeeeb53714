//! From an access key to a secret and a principal. Verifying the signature itself is `wire`'s work.

use std::fmt;

use domain::{AccountId, Timestamp};

use crate::{Principal, SealingKey, SessionError};

/// The service principal of the platform's own Fargate host.
pub const FARGATE_HOST: &str = "fargate.longshore.internal";

/// A long-lived access key: the account's root key, or the one that the platform's own Fargate host signs with.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// `AKIA…`, or what the operator gave.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.access_key_id)
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

/// What the platform vouches with: the root key, the Fargate host's key, and the key that seals tokens.
#[derive(Debug)]
pub struct Authority {
    account: AccountId,
    root: AccessKey,
    fargate_host: AccessKey,
    sealing: SealingKey,
}

impl Authority {
    /// The authority of a platform.
    pub fn new(account: AccountId, root: AccessKey, fargate_host: AccessKey, sealing: SealingKey) -> Self {
        Self { account, root, fargate_host, sealing }
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
        let account = self.account.clone();
        let (key, principal) = if access_key_id == self.root.access_key_id {
            (&self.root, Principal::Root { account })
        } else if access_key_id == self.fargate_host.access_key_id {
            (&self.fargate_host, Principal::Service { account, name: FARGATE_HOST.to_owned() })
        } else {
            return Err(AuthenticationError::UnknownKey);
        };
        Ok((SecretAccessKey(key.secret_access_key.clone()), principal))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{Arn, IdSource};

    use super::*;

    fn authority() -> Authority {
        let key = |id: &str| AccessKey { access_key_id: id.into(), secret_access_key: format!("secret of {id}") };
        let sealing = SealingKey::new(&[7; 32]).unwrap();
        Authority::new("123456789012".parse().unwrap(), key("AKIAROOT"), key("AKIAHOST"), sealing)
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
    fn the_root_key_and_the_hosts_are_known_and_no_other() {
        let authority = authority();
        let (secret, who) = authority.authenticate("AKIAROOT", None, Timestamp(0)).unwrap();
        assert_eq!(secret.expose(), "secret of AKIAROOT");
        assert!(matches!(who, Principal::Root { .. }));
        let (_, who) = authority.authenticate("AKIAHOST", None, Timestamp(0)).unwrap();
        assert!(matches!(who, Principal::Service { name, .. } if name == FARGATE_HOST));
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
