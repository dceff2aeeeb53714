//! Pagination tokens: opaque to callers, bound to the operation that made them.
//!
//! A token says where the next page starts. It is no secret and carries no authority: a handler that
//! reads one applies the same authorisation as for the first page. What must not happen is that a
//! token of one listing is taken by another, or that nonsense is taken at all.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::schema::Operation;

/// Longest token we read back.
const TOKEN_LIMIT: usize = 4096;

/// A token for the page that starts at `position` (the handler's own text, such as the last key shown).
pub fn token(operation: &'static Operation, position: &str) -> String {
    let mut bytes = checksum(operation, position);
    bytes.extend_from_slice(position.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position inside a token of the same operation; `None` for anything else, for which the caller
/// answers its service's own error (`InvalidParameterException`, `InvalidNextToken`, …).
pub fn position(operation: &'static Operation, token: &str) -> Option<String> {
    if token.len() > TOKEN_LIMIT {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (sum, position) = bytes.split_at_checked(8)?;
    let position = std::str::from_utf8(position).ok()?;
    (checksum(operation, position) == sum).then(|| position.to_owned())
}

fn checksum(operation: &'static Operation, position: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(operation.service.name);
    hash.update([0]);
    hash.update(operation.name);
    hash.update([0]);
    hash.update(position);
    hash.finalize().iter().copied().take(8).collect()
}
