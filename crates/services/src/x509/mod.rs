//! Reading certificates that are handed over with their keys and chains: what they say, and whether they belong together.
//!
//! Each service has its own codes and words for a [`Fault`]. Whether the chain ends at a root that anybody trusts is the
//! clients' business, as at Amazon: <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate-prerequisites.html>.

mod facts;
#[cfg(test)]
mod tests;

use domain::{
    Timestamp,
    certificates::{Facts, Material, PrivateKey},
};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{
        PrivateKeyDer,
        pem::{PemObject, SectionKind},
    },
};
use x509_parser::prelude::*;

/// The most certificates of a chain. Amazon says only how many bytes.
pub(crate) const MAX_CHAIN: usize = 10;

/// The longest chain in bytes: what TLS has room for in one message, as PEM. Text around certificates counts.
pub(crate) const MAX_CHAIN_BYTES: usize = 64 << 10;

/// What is wrong with what was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The certificate is no PEM, or no X.509 in it.
    Certificate,
    /// More than one certificate where one is expected.
    ManyCertificates,
    /// A certificate of X.509 before version 3.
    Version,
    /// Nothing says who issued it.
    NoIssuer,
    /// Not valid any more.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// A key of a kind or size that cannot be served with; its name.
    KeyKind(String),
    /// The private key is no PEM, no key, or not the only one.
    Key,
    /// The private key is encrypted.
    Encrypted,
    /// The private key is another certificate's.
    Mismatch,
    /// The chain is no PEM, or holds something else than certificates.
    ChainFormat,
    /// The chain is longer than [`MAX_CHAIN`] or [`MAX_CHAIN_BYTES`].
    ChainLength,
    /// This certificate of the chain does not certify the one before it.
    Chain(usize),
    /// There is no chain, and the certificate does not certify itself.
    NotSelfSigned,
}

/// Whether a certificate may come without those that certify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutChain {
    /// If it certifies itself, as ACM has it.
    SelfSigned,
    /// Always, as IAM has it.
    Allowed,
}

/// Reads a certificate, checks that key and chain belong to it and that it is valid now.
pub(crate) fn read(
    certificate: &str,
    private_key: &str,
    chain: Option<&str>,
    without_chain: WithoutChain,
    now: Timestamp,
) -> Result<(Material, Facts), Fault> {
    let der = match sections(certificate).ok_or(Fault::Certificate)?.as_slice() {
        [(SectionKind::Certificate, der)] => der.clone(),
        [] => return Err(Fault::Certificate),
        several if several.iter().all(|(kind, _)| *kind == SectionKind::Certificate) => {
            return Err(Fault::ManyCertificates);
        }
        _ => return Err(Fault::Certificate),
    };
    let parsed = parse(&der).ok_or(Fault::Certificate)?;
    if parsed.version() != X509Version::V3 {
        return Err(Fault::Version);
    }
    if parsed.issuer().iter().next().is_none() {
        return Err(Fault::NoIssuer);
    }
    let facts = facts::of(&parsed)?;
    check_key(&parsed, private_key)?;
    if now < facts.not_before {
        return Err(Fault::NotYetValid);
    }
    if facts.expired(now) {
        return Err(Fault::Expired);
    }
    match chain {
        Some(chain) => check_chain(&parsed, chain)?,
        None if without_chain == WithoutChain::SelfSigned && !certifies(&parsed, &parsed) => {
            return Err(Fault::NotSelfSigned);
        }
        None => {}
    }
    let material = Material {
        certificate: certificate.to_owned(),
        chain: chain.map(str::to_owned),
        private_key: PrivateKey::new(private_key.to_owned()),
    };
    Ok((material, facts))
}

/// The sections of a PEM text, if it is one; kinds that nobody here asks for are left out.
fn sections(text: &str) -> Option<Vec<(SectionKind, Vec<u8>)>> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
}

/// One certificate, and nothing after it.
fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, parsed) = X509Certificate::from_der(der).ok()?;
    rest.is_empty().then_some(parsed)
}

fn check_key(certificate: &X509Certificate<'_>, private_key: &str) -> Result<(), Fault> {
    // PKCS #8 says so in its label, older forms in a header.
    if private_key.contains("BEGIN ENCRYPTED PRIVATE KEY") || private_key.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Fault::Encrypted);
    }
    if sections(private_key).is_none_or(|sections| sections.len() != 1) {
        return Err(Fault::Key);
    }
    let key = PrivateKeyDer::from_pem_slice(private_key.as_bytes()).map_err(|_| Fault::Key)?;
    let key = any_supported_type(&key).map_err(|_| Fault::Key)?;
    let public = key.public_key().ok_or(Fault::Key)?;
    if public.as_ref() == certificate.public_key().raw { Ok(()) } else { Err(Fault::Mismatch) }
}

/// Each certificate of the chain must certify the one before it; the first one the certificate itself, which is not in it.
fn check_chain(certificate: &X509Certificate<'_>, chain: &str) -> Result<(), Fault> {
    if chain.len() > MAX_CHAIN_BYTES {
        return Err(Fault::ChainLength);
    }
    let sections = sections(chain).filter(|sections| !sections.is_empty()).ok_or(Fault::ChainFormat)?;
    if sections.len() > MAX_CHAIN {
        return Err(Fault::ChainLength);
    }
    let mut before = certificate.clone();
    for (index, (kind, der)) in sections.iter().enumerate() {
        let next = parse(der).filter(|_| *kind == SectionKind::Certificate).ok_or(Fault::ChainFormat)?;
        if next.as_raw() == certificate.as_raw() || !next.is_ca() || !certifies(&next, &before) {
            return Err(Fault::Chain(index));
        }
        before = next;
    }
    Ok(())
}

fn certifies(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    // What stands outside of the signed part is held to it: clients may be stricter than the parser.
    let whole =
        subject.signature_algorithm == subject.tbs_certificate.signature && subject.signature_value.unused_bits == 0;
    whole
        && issuer.subject().as_raw() == subject.issuer().as_raw()
        && subject.verify_signature(Some(issuer.public_key())).is_ok()
}
