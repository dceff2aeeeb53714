//! Importing: what comes is checked, and takes the place of what was there under the same ARN.

use api::acm::*;
use domain::{
    Arn, Tags,
    certificates::{Certificate, Facts, Material},
};
use store::Transaction;
use wire::ServiceError;

use super::names::{self, SERVICE, tag_error};
use crate::{
    Authorised, Call,
    x509::{self, Fault, MAX_CHAIN, MAX_CHAIN_BYTES, WithoutChain},
};

/// Certificates of an account in a region, as at Amazon.
const MAX_CERTIFICATES: usize = 2500;

/// The largest private key in bytes; the model would take more than the documentation says.
const MAX_KEY: usize = 5120;

pub(super) fn request(call: &Call) -> Result<RequestCertificateResponse, ServiceError> {
    call.authorise::<&str>(&[])?;
    Err(error::invalid_parameter_exception(
        "RequestCertificate is not supported by Longshore, which is no certificate authority. Have the certificate made \
         elsewhere and import it with ImportCertificate.",
    ))
}

pub(super) async fn import(
    call: Call,
    input: ImportCertificateRequest,
) -> Result<ImportCertificateResponse, ServiceError> {
    let replaced = input.certificate_arn.map(|text| names::arn(&call, Some(text))).transpose()?;
    let auth = match &replaced {
        Some(arn) => call.authorise(&[arn])?,
        None => call.authorise(&[call.arn(SERVICE, "certificate/*")])?,
    };
    let tags = input.tags.unwrap_or_default();
    if replaced.is_some() && !tags.is_empty() {
        return Err(invalid("Tagging is not permitted on re-import."));
    }
    let tags = tags.into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    let tags = Tags::from_request(tags).map_err(tag_error)?;
    let (certificate, private_key) = (input.certificate.unwrap_or_default(), input.private_key.unwrap_or_default());
    if private_key.len() > MAX_KEY {
        return Err(invalid(format!("The private key is larger than {MAX_KEY} bytes.")));
    }
    let certificate = std::str::from_utf8(&certificate).map_err(|_| refused(Fault::Certificate))?;
    let private_key = std::str::from_utf8(&private_key).map_err(|_| refused(Fault::Key))?;
    let chain = input.certificate_chain.unwrap_or_default();
    let chain = std::str::from_utf8(&chain).map_err(|_| refused(Fault::ChainFormat))?;
    let chain = (!chain.is_empty()).then_some(chain);
    let (material, facts) =
        x509::read(certificate, private_key, chain, WithoutChain::SelfSigned, auth.now()).map_err(refused)?;
    let arn = auth
        .transact(|tx| match replaced {
            Some(arn) => replace(tx, arn, material, facts, &auth),
            None => create(tx, material, facts, tags, &auth),
        })
        .await?;
    Ok(ImportCertificateResponse { certificate_arn: Some(arn.to_string()) })
}

fn create(
    tx: &mut Transaction,
    material: Material,
    facts: Facts,
    tags: Tags,
    auth: &Authorised,
) -> Result<Arn, ServiceError> {
    let prefix = auth.arn(SERVICE, "certificate/").to_string();
    if tx.list::<Certificate>(&prefix).count() >= MAX_CERTIFICATES {
        return Err(error::limit_exceeded_exception(
            "You have reached the maximum number of certificates. Delete certificates that are not in use.",
        ));
    }
    let arn = auth.arn(SERVICE, &format!("certificate/{}", auth.platform().ids().uuid()));
    let now = auth.now();
    tx.put(Certificate {
        arn: arn.clone(),
        scope: auth.scope.clone(),
        material,
        facts,
        tags,
        created_at: now,
        imported_at: now,
    });
    Ok(arn)
}

/// What listeners serve with is this from now on.
fn replace(
    tx: &mut Transaction,
    arn: Arn,
    material: Material,
    facts: Facts,
    auth: &Authorised,
) -> Result<Arn, ServiceError> {
    let known = names::find(tx, &arn)?;
    check_replacement(&known.facts, &facts)?;
    tx.put(Certificate { material, facts, imported_at: auth.now(), ..Certificate::clone(&known) });
    Ok(arn)
}

/// What a replacement may not change:
/// <https://docs.aws.amazon.com/acm/latest/userguide/import-reimport.html>.
fn check_replacement(known: &Facts, new: &Facts) -> Result<(), ServiceError> {
    if known.key_algorithm != new.key_algorithm {
        return Err(invalid(format!(
            "The key type and size of a reimported certificate cannot be changed: it is {}, not {}.",
            new.key_algorithm, known.key_algorithm
        )));
    }
    if !known.names.is_empty() && new.names.is_empty() {
        return Err(invalid("All domain names of a certificate cannot be removed by a reimport."));
    }
    // The object identifier is what tells extended usages without a name of their own.
    let oids = |facts: &Facts| facts.extended_key_usages.iter().map(|(_, oid)| oid.clone()).collect::<Vec<_>>();
    let keeps = |known: &[String], new: &[String]| known.iter().all(|value| new.contains(value));
    if !keeps(&known.key_usages, &new.key_usages) || !keeps(&oids(known), &oids(new)) {
        return Err(invalid("Key usages and extended key usages cannot be removed by a reimport."));
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> ServiceError {
    error::validation_exception(text)
}

/// A fault in this service's words.
fn refused(fault: Fault) -> ServiceError {
    invalid(match fault {
        Fault::Certificate => {
            "The certificate body is not in a valid PEM format. Please ensure the certificate is in PEM format.".into()
        }
        Fault::ManyCertificates => {
            "The certificate field contains more than one certificate. You can specify only one \
             certificate in this field."
                .into()
        }
        Fault::Version => "Only X.509 version 3 certificates can be imported.".into(),
        Fault::NoIssuer => "The Issuer field of the certificate must not be empty.".into(),
        Fault::Expired => "The certificate has expired.".into(),
        Fault::NotYetValid => "The certificate is not valid yet.".into(),
        Fault::KeyKind(kind) => format!(
            "The key algorithm {kind} of the certificate is not supported by Longshore. Supported are RSA_2048, RSA_3072, \
             RSA_4096, EC_prime256v1 and EC_secp384r1."
        ),
        Fault::Key => "The private key is not supported. It must be one unencrypted key in PEM format.".into(),
        Fault::Encrypted => "The private key is not supported. It must not be encrypted.".into(),
        Fault::Mismatch => "The private key does not match the certificate.".into(),
        Fault::ChainFormat => {
            "The certificate chain is not in a valid PEM format. Please ensure the certificates are in PEM format."
                .into()
        }
        Fault::ChainLength => {
            format!(
                "A certificate chain of more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes is not supported by Longshore."
            )
        }
        Fault::Chain(_) => "Could not validate the certificate with the certificate chain.".into(),
        Fault::NotSelfSigned => "Provided certificate is not a valid self signed. Please provide either a valid \
             self-signed certificate or certificate chain."
            .into(),
    })
}
