//! Session tokens (IMDSv2). A token carries its own end and the instance it was given to, sealed with a key that lives as
//! long as this process: after a restart clients are told 401 and ask for another, as they must at any time.

use std::{
    fs::File,
    io::{self, Read},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The longest life of a token, in seconds: Amazon's.
pub(super) const LONGEST: u64 = 21_600;

/// Gives tokens and knows them again.
pub(super) struct Tokens([u8; 32]);

impl Tokens {
    pub(super) fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self(key))
    }

    /// A token for an instance, good for so many seconds.
    pub(super) fn give(&self, instance_id: &str, seconds: u64) -> String {
        self.seal(instance_id, now() + seconds.min(LONGEST))
    }

    /// Whether a token was given to this instance and is still good.
    pub(super) fn accept(&self, instance_id: &str, token: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((end, seal)) = bytes.split_first_chunk::<8>() else { return false };
        let end = u64::from_be_bytes(*end);
        // In constant time, whatever differs.
        self.mac(instance_id, end).is_some_and(|mac| mac.verify_slice(seal).is_ok()) && end > now()
    }

    fn seal(&self, instance_id: &str, end: u64) -> String {
        let mut bytes = end.to_be_bytes().to_vec();
        if let Some(mac) = self.mac(instance_id, end) {
            bytes.extend_from_slice(&mac.finalize().into_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn mac(&self, instance_id: &str, end: u64) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(&end.to_be_bytes());
        mac.update(instance_id.as_bytes());
        Some(mac)
    }
}

/// Tokens are about real seconds, as the machine's clock counts them.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_instance_and_its_time() {
        let tokens = Tokens::new().unwrap();
        let token = tokens.give("i-1", 60);
        assert!(tokens.accept("i-1", &token));
        assert!(!tokens.accept("i-2", &token));
        assert!(!tokens.accept("i-1", &tokens.seal("i-1", now() - 1)));
        assert!(!Tokens::new().unwrap().accept("i-1", &token));
        for wrong in ["", "x", "AAAAAAAAAAA", "%%%", &token[..token.len() - 1]] {
            assert!(!tokens.accept("i-1", wrong), "{wrong}");
        }
    }
}
