//! Whose request is it: the claim in its signature, the key's secret, and whether the two agree.

use domain::{
    AccountId, Clock, Region, Scope,
    identity::{Role, role_key},
};
use iam::{AuthenticationError, Authority, Principal};
use services::Platform;
use wire::sigv4::{self, Claim, Error};

/// A caller whose signature has been verified.
pub struct Caller {
    /// Who they are.
    pub principal: Principal,
    /// Their account, and the region they signed for.
    pub scope: Scope,
}

/// Verifies a claim against the body as it was received.
///
/// The signature's age is measured by the system's clock, as the caller's is; a session's end by the platform's, which
/// may run faster.
pub fn verify(platform: &Platform, claim: &Claim, body: &[u8]) -> Result<Caller, Error> {
    let (secret, principal) = secret(&platform.authority, claim, &platform.clock)?;
    let system = wire::Timestamp(Clock::system_now().millis());
    sigv4::verify(claim, secret.expose(), &sigv4::body_sha256(body), system)?;
    if !is_there(platform, &principal) {
        return Err(Error::InvalidToken);
    }
    let region: Region = claim.region.parse().map_err(|_| {
        Error::Invalid(format!("Credential should be scoped to a valid region, not '{}'.", clip(&claim.region)))
    })?;
    let account: AccountId = principal.account().clone();
    Ok(Caller { principal, scope: Scope { account, region } })
}

/// A role's sessions end with the role; one of the same name made later is another role.
fn is_there(platform: &Platform, principal: &Principal) -> bool {
    let Principal::AssumedRole { account, role, role_id, .. } = principal else { return true };
    let known = platform.store.snapshot().get::<Role>(&role_key(account, role.resource_name()));
    known.is_some_and(|known| known.id == *role_id)
}

fn secret(authority: &Authority, claim: &Claim, clock: &Clock) -> Result<(iam::SecretAccessKey, Principal), Error> {
    authority.authenticate(&claim.access_key_id, claim.session_token.as_deref(), clock.now()).map_err(|error| {
        match error {
            AuthenticationError::UnknownKey => Error::UnknownKey,
            AuthenticationError::Expired => Error::ExpiredToken,
        }
    })
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
