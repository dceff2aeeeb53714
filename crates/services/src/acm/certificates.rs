//! One certificate: describe, get, delete.

use api::acm::*;
use domain::certificates;
use wire::ServiceError;

use super::names::{arn, find, in_use_by, status};
use crate::Call;

pub(super) fn describe(
    call: &Call,
    input: DescribeCertificateRequest,
) -> Result<DescribeCertificateResponse, ServiceError> {
    let arn = arn(call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    let view = auth.snapshot();
    let found = find(&view, &arn)?;
    let users = in_use_by(&view, &arn).into_iter().map(|arn| arn.to_string()).collect();
    let certificates::Facts { key_usages, extended_key_usages, .. } = &found.facts;
    let facts = &found.facts;
    let time = |time: domain::Timestamp| Some(wire::Timestamp(time.millis()));
    let usage = |name: &String| KeyUsage { name: Some(name.clone()) };
    let extended =
        |(name, oid): &(String, String)| ExtendedKeyUsage { name: Some(name.clone()), oid: Some(oid.clone()) };
    Ok(DescribeCertificateResponse {
        certificate: Some(CertificateDetail {
            certificate_arn: Some(arn.to_string()),
            domain_name: facts.domain_name.clone(),
            subject_alternative_names: Some(facts.names.clone()),
            serial: Some(facts.serial.clone()),
            subject: Some(facts.subject.clone()),
            issuer: Some(facts.issuer.clone()),
            created_at: time(found.created_at),
            imported_at: time(found.imported_at),
            status: Some(status(facts, auth.now()).into()),
            not_before: time(facts.not_before),
            not_after: time(facts.not_after),
            key_algorithm: Some(facts.key_algorithm.clone()),
            signature_algorithm: Some(facts.signature_algorithm.clone()),
            in_use_by: Some(users),
            r#type: Some("IMPORTED".into()),
            key_usages: Some(key_usages.iter().map(usage).collect()),
            extended_key_usages: Some(extended_key_usages.iter().map(extended).collect()),
            renewal_eligibility: Some("INELIGIBLE".into()),
            options: Some(CertificateOptions {
                certificate_transparency_logging_preference: Some("DISABLED".into()),
                export: Some("DISABLED".into()),
                ..CertificateOptions::default()
            }),
            ..CertificateDetail::default()
        }),
    })
}

/// The certificate and its chain; never the key.
pub(super) fn get(call: &Call, input: GetCertificateRequest) -> Result<GetCertificateResponse, ServiceError> {
    let arn = arn(call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    let found = find(&auth.snapshot(), &arn)?;
    Ok(GetCertificateResponse {
        certificate: Some(found.material.certificate.clone()),
        certificate_chain: found.material.chain.clone(),
    })
}

pub(super) async fn delete(call: Call, input: DeleteCertificateRequest) -> Result<(), ServiceError> {
    let arn = arn(&call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    auth.transact(|tx| {
        find(tx, &arn)?;
        if !in_use_by(tx, &arn).is_empty() {
            return Err(error::resource_in_use_exception(format!(
                "Certificate {arn} in account {} is in use.",
                arn.account()
            )));
        }
        tx.delete::<certificates::Certificate>(arn.as_str());
        Ok(())
    })
    .await
}
