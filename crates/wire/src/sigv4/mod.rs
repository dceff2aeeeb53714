//! AWS Signature Version 4, verifying and signing, without I/O.
//!
//! Verifying is in two steps so that the caller can look the key up in between: [`parse`] says whose
//! key and which scope a request claims, [`verify`] checks the claim with the secret. Both the header
//! and the presigned query form are read; signed and `UNSIGNED-PAYLOAD` bodies are accepted, and the
//! streaming forms (which only object storage uses) are refused by name.
//!
//! Mirrors <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>.

mod canonical;
mod error;
mod parse;
mod sign;

pub use error::Error;
pub use parse::{Claim, parse};
pub use sign::{Keys, presign, sign};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Timestamp;

/// How far a request's clock may be from ours.
pub const SKEW_MILLIS: i64 = 5 * 60 * 1000;

/// The only algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Hashes a body for [`verify`]. Callers that stream may hash as they go instead.
pub fn body_sha256(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Checks a claim with the secret of its access key.
///
/// `body_sha256` is the hash of the body as received; `now` is the verifier's clock.
///
/// # Errors
/// What is wrong with the signature, its time or its body hash.
pub fn verify(claim: &Claim, secret: &str, body_sha256: &[u8; 32], now: Timestamp) -> Result<(), Error> {
    claim.check_time(now)?;
    let actual = hex::encode(body_sha256);
    let payload = claim.payload.as_deref().unwrap_or(&actual);
    let expected = signature(claim, secret, payload);
    if !bool::from(expected.as_slice().ct_eq(claim.signature.as_slice())) {
        return Err(Error::Mismatch);
    }
    // Only after the signature: the header is what was signed, the body is what came.
    if payload != canonical::UNSIGNED && payload != actual {
        return Err(Error::BodyMismatch);
    }
    Ok(())
}

fn signature(claim: &Claim, secret: &str, payload: &str) -> [u8; 32] {
    let canonical = format!("{}\n{payload}", claim.canonical);
    let scope = format!("{}/{}/{}/aws4_request", claim.date, claim.region, claim.service);
    let text = string_to_sign(&claim.timestamp, &scope, &canonical);
    mac(&signing_key(secret, &claim.date, &claim.region, &claim.service), text.as_bytes())
}

fn string_to_sign(timestamp: &str, scope: &str, canonical: &str) -> String {
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())))
}

fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let first = mac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    let second = mac(&first, region.as_bytes());
    let third = mac(&second, service.as_bytes());
    mac(&third, b"aws4_request")
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    // A key of any length is a valid HMAC key, so that the error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(data);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests;
