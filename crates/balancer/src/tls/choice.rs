//! Which of a listener's certificates a client gets: one for the host it names, the exact name before a wildcard, of several
//! such the one that suits it best; else the default one.

use std::{cmp::Reverse, sync::Arc};

use domain::Timestamp;
use rustls::{
    CipherSuite, SignatureAlgorithm, SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// TLS 1.2's ciphers for keys on elliptic curves, and for RSA keys.
const ECDSA: [CipherSuite; 2] =
    [CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384];
const RSA: [CipherSuite; 2] =
    [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384];
const TLS13: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A certificate that can be given out.
#[derive(Debug)]
pub struct Held {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl Held {
    /// For the hosts of these names, in lower case.
    pub fn new(names: Vec<String>, key: CertifiedKey, not_after: Timestamp) -> Self {
        Self { names, key: Arc::new(key), not_after }
    }

    /// How well it is for a host, if it is at all.
    fn fits(&self, host: &str) -> Option<Fit> {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        let fit = |name: &String| {
            if name == host {
                return Some(Fit::Exact);
            }
            // A wildcard stands for one label.
            let wild = name.strip_prefix("*.");
            (wild.is_some() && wild == parent).then_some(Fit::Wildcard)
        };
        self.names.iter().filter_map(fit).max()
    }

    fn ecdsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::ECDSA
    }

    /// Whether a client with these signatures and ciphers can use it.
    fn usable(&self, schemes: &[SignatureScheme], ciphers: &[CipherSuite], tls13: bool) -> bool {
        let older = if self.ecdsa() { ECDSA } else { RSA };
        let speaks = |known: &[CipherSuite]| ciphers.iter().any(|cipher| known.contains(cipher));
        self.key.key.choose_scheme(schemes).is_some() && (speaks(&older) || tls13 && speaks(&TLS13))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Wildcard,
    Exact,
}

/// A listener's certificates, the default one first.
#[derive(Debug)]
pub struct Choice {
    held: Vec<Held>,
    tls13: bool,
}

impl Choice {
    /// Of certificates, the default one first. `tls13` is whether TLS 1.3 is spoken.
    pub fn new(held: Vec<Held>, tls13: bool) -> Self {
        Self { held, tls13 }
    }

    /// The certificate for a host. Of several that are for it: keys on elliptic curves first, then those valid for longer.
    fn choose(&self, host: Option<&str>, usable: impl Fn(&Held) -> bool) -> Option<&Held> {
        let host = host.map(str::to_ascii_lowercase);
        let fitting = host.iter().flat_map(|host| {
            let usable = self.held.iter().filter(|held| usable(held));
            usable.filter_map(|held| held.fits(host).map(|fit| (fit, held)))
        });
        // The first of equals: the default one, then in the order in which they were added.
        let best = fitting.min_by_key(|(fit, held)| Reverse((*fit, held.ecdsa(), held.not_after)));
        best.map(|(_, held)| held).or(self.held.first())
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |held: &Held| held.usable(hello.signature_schemes(), hello.cipher_suites(), self.tls13);
        self.choose(hello.server_name(), usable).map(|held| held.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        crypto::ring::sign::any_supported_type,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    use super::*;

    fn held(names: &[&str], not_after: i64) -> Held {
        let key = rcgen::KeyPair::generate().unwrap().serialize_der();
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key))).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Held::new(names, CertifiedKey::new(Vec::new(), key), Timestamp(not_after))
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_that_before_the_default() {
        let choice = Choice::new(
            vec![
                held(&["default.org"], 1),
                held(&["*.example.com"], 9),
                held(&["a.example.com"], 1),
                held(&["b.example.com"], 1),
                held(&["b.example.com"], 2),
            ],
            true,
        );
        let chosen = |host: Option<&str>| {
            let held = choice.choose(host, |_| true).unwrap();
            (held.names[0].as_str(), held.not_after.0)
        };
        assert_eq!(chosen(Some("a.example.com")), ("a.example.com", 1));
        assert_eq!(chosen(Some("A.EXAMPLE.com")), ("a.example.com", 1));
        assert_eq!(chosen(Some("b.example.com")), ("b.example.com", 2));
        assert_eq!(chosen(Some("c.example.com")), ("*.example.com", 9));
        for other in [None, Some("example.com"), Some("x.c.example.com"), Some("other.net"), Some("com")] {
            assert_eq!(chosen(other), ("default.org", 1), "{other:?}");
        }
        let exact = |held: &Held| !held.names[0].starts_with('*');
        assert_eq!(choice.choose(Some("c.example.com"), exact).unwrap().names[0], "default.org");
    }

    #[test]
    fn a_client_gets_only_what_it_can_use() {
        let held = held(&["a.org"], 1);
        let p256 = [SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(held.usable(&p256, &ECDSA, false));
        assert!(!held.usable(&p256, &RSA, true));
        assert!(held.usable(&p256, &TLS13, true));
        assert!(!held.usable(&p256, &TLS13, false));
        assert!(!held.usable(&[SignatureScheme::RSA_PSS_SHA256], &ECDSA, true));
    }
}
