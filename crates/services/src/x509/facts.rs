//! What a certificate says, in ACM's words.

use domain::{Timestamp, certificates::Facts};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_SHA1WITHRSA, OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA,
        OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512,
    },
    prelude::*,
    public_key::PublicKey,
};

use super::Fault;

/// The keys that a load balancer can serve with.
const KEYS: [&str; 5] = ["RSA_2048", "RSA_3072", "RSA_4096", "EC_prime256v1", "EC_secp384r1"];

/// The longest name that DNS has.
const MAX_NAME: usize = 253;

/// Reads it. Fails if its key is of a kind or size that cannot be served with.
pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Facts, Fault> {
    let key_algorithm = key_algorithm(certificate.public_key()).ok_or(Fault::Certificate)?;
    if !KEYS.contains(&key_algorithm.as_str()) {
        return Err(Fault::KeyKind(key_algorithm));
    }
    let common_name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let mut names = alternative_names(certificate)?;
    if names.is_empty() {
        names.extend(common_name.filter(|name| is_name(name)).map(str::to_ascii_lowercase));
    }
    let seconds = |time: ASN1Time| Timestamp(time.timestamp().saturating_mul(1000));
    let validity = certificate.validity();
    Ok(Facts {
        domain_name: common_name.map(str::to_owned).or_else(|| names.first().cloned()),
        names,
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: certificate.raw_serial_as_string(),
        key_algorithm,
        signature_algorithm: signature_algorithm(certificate),
        not_before: seconds(validity.not_before),
        not_after: seconds(validity.not_after),
        key_usages: key_usages(certificate)?,
        extended_key_usages: extended_key_usages(certificate)?,
    })
}

fn key_algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let PublicKey::RSA(key) = key.parsed().ok()? else { return None };
        let mut bytes = key.modulus.iter().skip_while(|byte| **byte == 0);
        let first = bytes.next()?;
        return Some(format!("RSA_{}", 8 - first.leading_zeros() as usize + 8 * bytes.count()));
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let known =
            [(OID_EC_P256, "EC_prime256v1"), (OID_NIST_EC_P384, "EC_secp384r1"), (OID_NIST_EC_P521, "EC_secp521r1")];
        let name = known.into_iter().find_map(|(oid, name)| (oid == curve).then_some(name));
        return Some(name.map_or_else(|| format!("EC_{curve}"), str::to_owned));
    }
    Some(algorithm.to_string())
}

fn signature_algorithm(certificate: &X509Certificate<'_>) -> String {
    let algorithm = &certificate.signature_algorithm.algorithm;
    let known = [
        (OID_PKCS1_SHA1WITHRSA, "SHA1WITHRSA"),
        (OID_PKCS1_SHA256WITHRSA, "SHA256WITHRSA"),
        (OID_PKCS1_SHA384WITHRSA, "SHA384WITHRSA"),
        (OID_PKCS1_SHA512WITHRSA, "SHA512WITHRSA"),
        (OID_SIG_ECDSA_WITH_SHA256, "SHA256WITHECDSA"),
        (OID_SIG_ECDSA_WITH_SHA384, "SHA384WITHECDSA"),
        (OID_SIG_ECDSA_WITH_SHA512, "SHA512WITHECDSA"),
    ];
    let name = known.into_iter().find_map(|(oid, name)| (oid == *algorithm).then_some(name));
    name.map_or_else(|| algorithm.to_string(), str::to_owned)
}

/// Whether a text can be the name of a host, or of all hosts of a domain.
fn is_name(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    text.len() <= MAX_NAME
        && host.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, Fault> {
    let extension = certificate.subject_alternative_name().map_err(|_| Fault::Certificate)?;
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) if is_name(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(names.collect())
}

fn key_usages(certificate: &X509Certificate<'_>) -> Result<Vec<String>, Fault> {
    let extension = certificate.key_usage().map_err(|_| Fault::Certificate)?;
    let Some(usage) = extension.map(|extension| extension.value) else { return Ok(Vec::new()) };
    let known = [
        (usage.digital_signature(), "DIGITAL_SIGNATURE"),
        (usage.non_repudiation(), "NON_REPUDIATION"),
        (usage.key_encipherment(), "KEY_ENCIPHERMENT"),
        (usage.data_encipherment(), "DATA_ENCIPHERMENT"),
        (usage.key_agreement(), "KEY_AGREEMENT"),
        (usage.key_cert_sign(), "CERTIFICATE_SIGNING"),
        (usage.crl_sign(), "CRL_SIGNING"),
        (usage.encipher_only(), "ENCIPHER_ONLY"),
        (usage.decipher_only(), "DECIPHER_ONLY"),
    ];
    Ok(known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect())
}

fn extended_key_usages(certificate: &X509Certificate<'_>) -> Result<Vec<(String, String)>, Fault> {
    let extension = certificate.extended_key_usage().map_err(|_| Fault::Certificate)?;
    let Some(usage) = extension.map(|extension| extension.value) else { return Ok(Vec::new()) };
    let known = [
        (usage.server_auth, "TLS_WEB_SERVER_AUTHENTICATION", "1.3.6.1.5.5.7.3.1"),
        (usage.client_auth, "TLS_WEB_CLIENT_AUTHENTICATION", "1.3.6.1.5.5.7.3.2"),
        (usage.code_signing, "CODE_SIGNING", "1.3.6.1.5.5.7.3.3"),
        (usage.email_protection, "EMAIL_PROTECTION", "1.3.6.1.5.5.7.3.4"),
        (usage.time_stamping, "TIME_STAMPING", "1.3.6.1.5.5.7.3.8"),
        (usage.ocsp_signing, "OCSP_SIGNING", "1.3.6.1.5.5.7.3.9"),
        (usage.any, "ANY", "2.5.29.37.0"),
    ];
    let known = known.into_iter().filter(|(set, ..)| *set).map(|(_, name, oid)| (name.to_owned(), oid.to_owned()));
    let others = usage.other.iter().map(|oid| ("CUSTOM".to_owned(), oid.to_string()));
    Ok(known.chain(others).collect())
}
