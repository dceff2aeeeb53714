//! Certificates that belong together, and all that does not.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::*;

/// 2026-06-01.
const NOW: Timestamp = Timestamp(1_780_272_000_000);

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.distinguished_name.push(rcgen::DnType::CommonName, names.first().copied().unwrap_or("nameless"));
    params
}

fn authority(name: &str) -> Authority {
    let mut params = params(&[name]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

/// Certificate and key.
fn leaf(params: &CertificateParams, authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

fn outcome(certificate: &str, key: &str, chain: Option<&str>) -> Result<Facts, Fault> {
    read(certificate, key, chain, WithoutChain::SelfSigned, NOW).map(|(_, facts)| facts)
}

#[test]
fn what_a_certificate_says_is_read() {
    let authority = authority("ca.example.org");
    let mut params = params(&["Example.com", "*.example.com"]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = leaf(&params, &authority);
    let facts = outcome(&certificate, &key, Some(&authority.pem)).unwrap();
    assert_eq!(facts.domain_name.as_deref(), Some("Example.com"));
    assert_eq!(facts.names, ["example.com", "*.example.com"]);
    assert_eq!(
        (facts.key_algorithm.as_str(), facts.signature_algorithm.as_str()),
        ("EC_prime256v1", "SHA256WITHECDSA")
    );
    assert_eq!(facts.key_usages, ["DIGITAL_SIGNATURE"]);
    assert_eq!(facts.extended_key_usages[0].0, "TLS_WEB_SERVER_AUTHENTICATION");
    assert_eq!(facts.not_after, Timestamp(1_798_761_600_000));
    assert!(facts.has_domain() && facts.subject.contains("CN=Example.com") && facts.issuer.contains("ca.example.org"));
}

#[test]
fn a_chain_must_lead_from_each_to_the_next() {
    let (root, other) = (authority("root.org"), authority("other.org"));
    let mut between_params = params(&["between.org"]);
    between_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let between_key = KeyPair::generate().unwrap();
    let between_pem = between_params.signed_by(&between_key, &root.issuer).unwrap().pem();
    let between = Authority { pem: between_pem, issuer: Issuer::new(between_params, between_key) };
    let (certificate, key) = leaf(&params(&["a.org"]), &between);
    let check = |chain: Option<&str>| outcome(&certificate, &key, chain).err();
    assert_eq!(check(Some(&between.pem)), None);
    assert_eq!(check(Some(&format!("{}{}", between.pem, root.pem))), None);
    assert_eq!(check(Some(&format!("{}{}", root.pem, between.pem))), Some(Fault::Chain(0)));
    assert_eq!(check(Some(&format!("{}{}", between.pem, other.pem))), Some(Fault::Chain(1)));
    assert_eq!(check(Some(&format!("{certificate}{}", between.pem))), Some(Fault::Chain(0)));
    assert_eq!(check(Some("garbage")), Some(Fault::ChainFormat));
    assert_eq!(check(Some(&key)), Some(Fault::ChainFormat));
    assert_eq!(check(Some(&between.pem.repeat(MAX_CHAIN + 1))), Some(Fault::ChainLength));
    assert_eq!(check(Some(&format!("{}{}", between.pem, "\n".repeat(MAX_CHAIN_BYTES)))), Some(Fault::ChainLength));
    assert_eq!(check(None), Some(Fault::NotSelfSigned));
    assert!(read(&certificate, &key, None, WithoutChain::Allowed, NOW).is_ok());
}

#[test]
fn nobody_but_an_authority_certifies() {
    let root = authority("root.org");
    let (plain, plain_key) = leaf(&params(&["plain.org"]), &root);
    let issuer = Issuer::new(params(&["plain.org"]), KeyPair::from_pem(&plain_key).unwrap());
    let (certificate, key) = leaf(&params(&["a.org"]), &Authority { pem: plain.clone(), issuer });
    assert_eq!(outcome(&certificate, &key, Some(&plain)), Err(Fault::Chain(0)));
}

#[test]
fn the_same_name_with_another_key_certifies_nothing() {
    let (authority, impostor) = (authority("ca.org"), authority("ca.org"));
    let (certificate, key) = leaf(&params(&["a.org"]), &authority);
    assert_eq!(outcome(&certificate, &key, Some(&impostor.pem)), Err(Fault::Chain(0)));
}

#[test]
fn times_are_held_to() {
    let key = KeyPair::generate().unwrap();
    let made = |from, to| {
        let mut params = params(&["a.org"]);
        (params.not_before, params.not_after) = (from, to);
        outcome(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem(), None).err()
    };
    assert_eq!(made(date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1)), None);
    assert_eq!(made(date_time_ymd(2026, 7, 1), date_time_ymd(2027, 1, 1)), Some(Fault::NotYetValid));
    assert_eq!(made(date_time_ymd(2025, 1, 1), date_time_ymd(2026, 5, 1)), Some(Fault::Expired));
}

#[test]
fn only_one_key_and_only_the_right_one_is_taken() {
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["a.org"]).self_signed(&key).unwrap().pem();
    let pem = key.serialize_pem();
    let check = |key: &str| outcome(&certificate, key, None).err();
    assert_eq!(check(&pem), None);
    assert_eq!(check(&KeyPair::generate().unwrap().serialize_pem()), Some(Fault::Mismatch));
    assert_eq!(check(&format!("{pem}{pem}")), Some(Fault::Key));
    assert_eq!(check("garbage"), Some(Fault::Key));
    assert_eq!(check(&certificate), Some(Fault::Key));
    assert_eq!(check("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), Some(Fault::Key));
    let encrypted = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(check(&encrypted), Some(Fault::Encrypted));
    let older =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(check(older), Some(Fault::Encrypted));
}

#[test]
fn what_is_no_certificate_is_none() {
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["a.org"]).self_signed(&key).unwrap();
    let (pem, key) = (certificate.pem(), key.serialize_pem());
    let check = |certificate: &str| outcome(certificate, &key, None).err();
    assert_eq!(check(""), Some(Fault::Certificate));
    assert_eq!(check("garbage"), Some(Fault::Certificate));
    assert_eq!(check(&key), Some(Fault::Certificate));
    assert_eq!(check(&pem.replace("-----END", "-----MID")), Some(Fault::Certificate));
    assert_eq!(check(&format!("{pem}{pem}")), Some(Fault::ManyCertificates));
    assert_eq!(check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), Some(Fault::Certificate));
}

#[test]
fn bytes_cut_short_or_changed_never_pass_and_never_panic() {
    let key = KeyPair::generate().unwrap();
    let certificate = params(&["a.org", "b.org"]).self_signed(&key).unwrap();
    let der = certificate.der().to_vec();
    let signed = parse(&der).unwrap().tbs_certificate.as_ref().to_vec();
    let start = der.windows(signed.len()).position(|part| part == signed).unwrap();
    for index in 0..der.len() {
        assert!(parse(&der[..index]).is_none());
        let mut changed = der.clone();
        changed[index] ^= 0x55;
        let certified = parse(&changed).is_some_and(|parsed| facts::of(&parsed).is_ok() && certifies(&parsed, &parsed));
        // The parser is lax about tags in what is not signed.
        assert!(!certified || !(start..start + signed.len()).contains(&index), "{index}");
    }
}

#[test]
fn keys_that_cannot_be_served_with_are_named() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = params(&["a.org"]).self_signed(&key).unwrap().pem();
    assert_eq!(outcome(&certificate, &key.serialize_pem(), None), Err(Fault::KeyKind("1.3.101.112".into())));
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = params(&["a.org"]).self_signed(&key).unwrap().pem();
    assert_eq!(outcome(&certificate, &key.serialize_pem(), None).unwrap().key_algorithm, "EC_secp384r1");
}
