//! Instance identity documents: what an EC2 instance shows to prove which one it is.
//!
//! Amazon signs them with a private key, and anyone can verify them. Here only the platform does, so a key of its own
//! is enough.

use crate::Authority;

const PURPOSE: &str = "instance-identity-document";

/// The longest document we look at; ours have some 500 bytes.
const MAX_LENGTH: usize = 8 * 1024;

impl Authority {
    /// The platform's signature of an instance identity document, base64.
    pub fn sign_identity_document(&self, document: &str) -> String {
        self.sealing().sign(PURPOSE, document)
    }

    /// Whether the platform has signed this document, to the byte.
    pub fn verify_identity_document(&self, document: &str, signature: &str) -> bool {
        document.len() <= MAX_LENGTH && self.sealing().verify(PURPOSE, document, signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessKey, SealingKey};

    #[test]
    fn a_document_is_good_as_it_was_signed_and_by_whom() {
        let authority = |seed: u8| {
            let key = AccessKey { access_key_id: "AKIAROOT".into(), secret_access_key: "secret".into() };
            Authority::new("123456789012".parse().unwrap(), key.clone(), key, SealingKey::new(&[seed; 32]).unwrap())
        };
        let signature = authority(1).sign_identity_document("{}");
        assert!(authority(1).verify_identity_document("{}", &signature));
        assert!(!authority(1).verify_identity_document("{ }", &signature));
        assert!(!authority(2).verify_identity_document("{}", &signature));
        for wrong in ["", "AAAA", "not base64!"] {
            assert!(!authority(1).verify_identity_document("{}", wrong), "{wrong}");
        }
    }
}
