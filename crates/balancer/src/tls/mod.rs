//! TLS. With clients: what a listener of protocol HTTPS offers them, compiled once per change of its certificates, its
//! security policy or its load balancer's attributes. Connections keep what they were opened with.
//!
//! [`choice`] is which certificate a client gets, [`handshakes`] how long and how many of them it may take to get it;
//! [`targets`] is TLS with targets.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html>

pub mod choice;
pub mod handshakes;
pub mod targets;

use std::sync::Arc;

use domain::balancing::{
    SslPolicy,
    slice::{CertificateItem, TlsItem},
};
use rustls::{
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite},
    },
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
    version,
};

use choice::{Choice, Held};

/// Protocols above TLS, by their names in ALPN.
pub const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a listener offers.
#[derive(Debug)]
pub struct Tls {
    source: Source,
    /// None where a certificate or policy cannot be used: then nobody is served, least of all without TLS.
    config: Option<Arc<ServerConfig>>,
}

/// What an offer was compiled from.
#[derive(Debug, PartialEq)]
struct Source {
    policy: String,
    certificates: Vec<CertificateItem>,
    http2: bool,
}

/// Why a listener offers nothing.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("there is no security policy '{0}'")]
    Policy(String),
    #[error("the certificate '{0}' has not come")]
    Missing(String),
    // The error has lines of the text, so it is left out.
    #[error("the certificate '{0}' or its key is not in PEM format")]
    Pem(String),
    #[error("the certificate '{arn}' cannot be used: {error}")]
    Key { arn: String, error: rustls::Error },
    #[error("TLS cannot be offered: {0}")]
    Tls(#[from] rustls::Error),
}

impl Tls {
    /// Compiles what a listener offers, or gives `previous` back if that came of the same: clients can go on resuming its
    /// sessions.
    pub fn compile(
        item: &TlsItem,
        known: &dyn Fn(&str) -> Option<CertificateItem>,
        http2: bool,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let found: Vec<Option<CertificateItem>> = item.certificates.iter().map(|arn| known(arn)).collect();
        let missing = found.iter().zip(&item.certificates).find_map(|(found, arn)| found.is_none().then_some(arn));
        let missing = missing.cloned();
        let certificates = found.into_iter().flatten().collect();
        let source = Source { policy: item.ssl_policy.clone(), certificates, http2 };
        if let Some(previous) = previous.filter(|previous| previous.source == source && missing.is_none()) {
            return previous.clone();
        }
        let offered = match missing {
            // Without the one that somebody asks for, another host's would be given out.
            Some(arn) => Err(Unusable::Missing(arn)),
            None => offer(&source),
        };
        let config = offered.inspect_err(|error| tracing::error!(%error, "a listener cannot be served")).ok();
        Arc::new(Self { source, config: config.map(Arc::new) })
    }

    /// How handshakes are made, if they can be.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        self.config.clone()
    }
}

fn offer(source: &Source) -> Result<ServerConfig, Unusable> {
    let policy = SslPolicy::named(&source.policy).ok_or_else(|| Unusable::Policy(source.policy.clone()))?;
    let provider = CryptoProvider {
        cipher_suites: policy.ciphers().into_iter().filter_map(suite).collect(),
        ..ring::default_provider()
    };
    let held = source.certificates.iter().map(hold).collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions(policy))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Choice::new(held, policy.tls13)));
    let http2 = source.http2.then(|| HTTP2.to_vec());
    config.alpn_protocols = http2.into_iter().chain([HTTP1.to_vec()]).collect();
    // The policy's order is the one that counts.
    config.ignore_client_order = true;
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn versions(policy: SslPolicy) -> Vec<&'static SupportedProtocolVersion> {
    let newer = policy.tls13.then_some(&version::TLS13);
    newer.into_iter().chain(policy.tls12.then_some(&version::TLS12)).collect()
}

/// A cipher by Amazon's name for it.
fn suite(name: &str) -> Option<SupportedCipherSuite> {
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => cipher_suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_256_GCM_SHA384" => cipher_suite::TLS13_AES_256_GCM_SHA384,
        "TLS_CHACHA20_POLY1305_SHA256" => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES128-GCM-SHA256" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        _ => return None,
    })
}

/// Reads a certificate with its chain and its key.
fn hold(item: &CertificateItem) -> Result<Held, Unusable> {
    let pem = |_| Unusable::Pem(item.arn.clone());
    let material = &item.material;
    let texts = std::iter::once(&material.certificate).chain(&material.chain);
    let chain = texts
        .flat_map(|text| CertificateDer::pem_slice_iter(text.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(material.private_key.expose().as_bytes()).map_err(pem)?;
    let key = ring::sign::any_supported_type(&key).map_err(|error| Unusable::Key { arn: item.arn.clone(), error })?;
    Ok(Held::new(item.names.clone(), CertifiedKey::new(chain, key), item.not_after))
}

#[cfg(test)]
mod tests {
    use domain::balancing::ssl_policy::POLICIES;

    use super::*;

    #[test]
    fn every_cipher_of_every_policy_is_spoken() {
        for policy in POLICIES {
            for name in policy.ciphers() {
                assert!(suite(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_listener_without_its_certificate_offers_nothing() {
        let item = TlsItem { ssl_policy: SslPolicy::DEFAULT.into(), certificates: vec!["arn".into()] };
        assert!(Tls::compile(&item, &|_| None, true, None).config().is_none());
    }
}
