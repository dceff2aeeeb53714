//! Certificates for TLS: those imported into ACM, and IAM's server certificates. What is kept of them, and with them their
//! private keys, which nobody is ever shown.
//!
//! Mirrors <https://docs.aws.amazon.com/acm/latest/userguide/import-certificate.html> and
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_server-certs.html>.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Arn, Resource, Scope, Tags, Timestamp, identity::role_key};

/// A private key as PEM. It can be stored and sent, but is in nobody's log: it has no other text than `PrivateKey`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(String);

impl PrivateKey {
    /// Takes a key.
    pub fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The key itself, for who signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// What was handed over: PEM, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// The certificate.
    pub certificate: String,
    /// Those that certify it, each the one before it.
    pub chain: Option<String>,
    /// The key that belongs to it.
    pub private_key: PrivateKey,
}

/// What a certificate says, read once when it comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The subject's common name, else the first of its names.
    pub domain_name: Option<String>,
    /// The DNS names of its subject alternative name, or where it has none its common name; in lower case.
    pub names: Vec<String>,
    /// The subject, e.g. `CN=example.com`.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The serial number in hexadecimal digits with colons.
    pub serial: String,
    /// As ACM names it, e.g. `RSA_2048`.
    pub key_algorithm: String,
    /// As ACM names it, e.g. `SHA256WITHRSA`.
    pub signature_algorithm: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it has expired.
    pub not_after: Timestamp,
    /// As ACM names them, e.g. `DIGITAL_SIGNATURE`.
    pub key_usages: Vec<String>,
    /// As ACM names them, e.g. `TLS_WEB_SERVER_AUTHENTICATION`, with their object identifiers.
    pub extended_key_usages: Vec<(String, String)>,
}

impl Facts {
    /// Whether a name is one that a load balancer's clients can ask for.
    pub fn has_domain(&self) -> bool {
        self.names.iter().any(|name| name.contains('.'))
    }

    /// Whether it has expired.
    pub fn expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

/// A certificate of ACM. All of them were imported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// `arn:…:certificate/{uuid}`.
    pub arn: Arn,
    /// Account and region.
    pub scope: Scope,
    /// What was imported last.
    pub material: Material,
    /// What it says.
    pub facts: Facts,
    /// Tags.
    pub tags: Tags,
    /// When it was imported first.
    pub created_at: Timestamp,
    /// When it was imported last.
    pub imported_at: Timestamp,
}

impl Resource for Certificate {
    const KIND: &'static str = "acm/certificate";
    fn key(&self) -> String {
        self.arn.to_string()
    }
}

/// A server certificate of IAM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerCertificate {
    /// `arn:aws:iam::{account}:server-certificate{path}{name}`.
    pub arn: Arn,
    /// The account it belongs to.
    pub account: AccountId,
    /// Up to 128 characters, unique in the account.
    pub name: String,
    /// Begins and ends with `/`.
    pub path: String,
    /// `ASCA…`, 21 characters.
    pub id: String,
    /// What was uploaded.
    pub material: Material,
    /// What it says.
    pub facts: Facts,
    /// Tags.
    pub tags: Tags,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
}

impl ServerCertificate {
    /// The index that finds one by its ARN.
    pub const BY_ARN: &str = "arn";
}

impl Resource for ServerCertificate {
    const KIND: &'static str = "iam/server-certificate";
    fn key(&self) -> String {
        role_key(&self.account, &self.name)
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![(Self::BY_ARN, self.arn.to_string())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_in_no_text() {
        let key = PrivateKey::new("-----BEGIN PRIVATE KEY-----secret".into());
        let material = Material { certificate: "c".into(), chain: None, private_key: key };
        assert!(!format!("{material:?}").contains("secret"));
        let kept: Material = serde_json::from_str(&serde_json::to_string(&material).unwrap()).unwrap();
        assert_eq!(kept, material);
    }
}
