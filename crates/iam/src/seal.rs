//! Sealed tokens: what only the platform can make and read. Session and registry tokens carry their own claims, so
//! issuing one costs no write and any number of them no memory.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest token we look at.
const MAX_LENGTH: usize = 8 * 1024;

/// The platform's sealing key: 32 random bytes kept with the data.
pub struct SealingKey {
    key: LessSafeKey,
    /// Signs what others may read; made from the same bytes, and of no use for sealing.
    signing: hmac::Key,
    random: SystemRandom,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    /// How many bytes a key has.
    pub const LENGTH: usize = 32;

    /// A key from its bytes; `None` when their number is not [`SealingKey::LENGTH`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = hmac::sign(&root, b"longshore signing key");
        let signing = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Some(Self { key, signing, random: SystemRandom::new() })
    }

    /// Fresh bytes for a key; `None` when the system has no randomness to give.
    pub fn generate() -> Option<[u8; Self::LENGTH]> {
        let mut bytes = [0; Self::LENGTH];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Seals claims for one purpose. The purpose is bound to the token: a token of one kind is no token of another.
    /// `None` when the system has no randomness to give.
    pub(crate) fn seal(&self, purpose: &str, claims: &impl Serialize) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = serde_json::to_vec(claims).ok()?;
        let aad = Aad::from(purpose.as_bytes());
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// The claims of a token that this key sealed for this purpose.
    pub(crate) fn open<T: DeserializeOwned>(&self, purpose: &str, token: &str) -> Option<T> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let claims = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut sealed).ok()?;
        serde_json::from_slice(claims).ok()
    }

    /// The signature of a text for one purpose, base64. The same text has the same signature.
    pub(crate) fn sign(&self, purpose: &str, text: &str) -> String {
        STANDARD.encode(hmac::sign(&self.signing, &Self::to_be_signed(purpose, text)))
    }

    /// Whether a signature is this key's for the text and purpose; takes as long for any wrong one.
    pub(crate) fn verify(&self, purpose: &str, text: &str, signature: &str) -> bool {
        if signature.len() > MAX_LENGTH {
            return false;
        }
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        hmac::verify(&self.signing, &Self::to_be_signed(purpose, text), &signature).is_ok()
    }

    /// The purpose has no zero byte, so that no two pairs of purpose and text are the same bytes.
    fn to_be_signed(purpose: &str, text: &str) -> Vec<u8> {
        [purpose.as_bytes(), &[0], text.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_only_whole_with_its_key_and_for_its_purpose() {
        let key = SealingKey::new(&[1; 32]).unwrap();
        let token = key.seal("session", &"claims").unwrap();
        assert_eq!(key.open::<String>("session", &token).as_deref(), Some("claims"));
        assert_eq!(key.open::<String>("registry", &token), None);
        assert_eq!(SealingKey::new(&[2; 32]).unwrap().open::<String>("session", &token), None);
        for at in 0..token.len() {
            let mut broken = token.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open::<String>("session", std::str::from_utf8(&broken).unwrap()), None, "byte {at}");
        }
    }
}
