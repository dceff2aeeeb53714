//! Server certificates: what listeners of load balancers can use besides ACM's.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_server-certs.html>

use std::sync::Arc;

use api::iam::*;
use domain::{
    Arn,
    balancing::Listener,
    certificates,
    identity::{DEFAULT_PATH, role_key},
};
use wire::ServiceError;

use super::{
    names::{arn, page, path, required, tags},
    shapes,
};
use crate::{
    Call,
    x509::{self, Fault, MAX_CHAIN, MAX_CHAIN_BYTES, WithoutChain},
};

/// Server certificates of an account, as at Amazon.
const MAX_CERTIFICATES: usize = 20;

pub(super) async fn upload(
    call: Call,
    input: UploadServerCertificateRequest,
) -> Result<UploadServerCertificateResponse, ServiceError> {
    let name = required(input.server_certificate_name, "serverCertificateName")?;
    let path = path(input.path)?;
    let arn = arn(&call, "server-certificate", &path, &name);
    let auth = call.authorise(&[&arn])?;
    let body = required(input.certificate_body, "certificateBody")?;
    let key = required(input.private_key, "privateKey")?;
    let tags = tags(input.tags)?;
    let chain = input.certificate_chain.as_deref();
    let (material, facts) = x509::read(&body, &key, chain, WithoutChain::Allowed, auth.now()).map_err(refused)?;
    let certificate = certificates::ServerCertificate {
        arn,
        account: call.scope.account.clone(),
        path,
        id: auth.platform().ids().iam("ASCA", 21),
        material,
        facts,
        tags,
        uploaded_at: auth.now(),
        name,
    };
    let answer = UploadServerCertificateResponse {
        server_certificate_metadata: Some(metadata(&certificate)),
        tags: (!certificate.tags.is_empty()).then(|| shapes::tags(&certificate.tags)),
    };
    auth.transact(|tx| {
        let account = format!("{}/", certificate.account);
        if tx.contains::<certificates::ServerCertificate>(&role_key(&certificate.account, &certificate.name)) {
            return Err(error::entity_already_exists_exception(format!(
                "The Server Certificate with name {} already exists.",
                certificate.name
            )));
        }
        if tx.list::<certificates::ServerCertificate>(&account).count() >= MAX_CERTIFICATES {
            return Err(error::limit_exceeded_exception(format!(
                "Cannot exceed quota for ServerCertificatesPerAccount: {MAX_CERTIFICATES}"
            )));
        }
        tx.put(certificate);
        Ok(())
    })
    .await?;
    Ok(answer)
}

/// The certificate and its chain; never the key.
pub(super) fn get(
    call: &Call,
    input: GetServerCertificateRequest,
) -> Result<GetServerCertificateResponse, ServiceError> {
    let name = required(input.server_certificate_name, "serverCertificateName")?;
    let auth = call.authorise(&[own_arn(call, &name)])?;
    let found = auth
        .snapshot()
        .get::<certificates::ServerCertificate>(&role_key(&call.scope.account, &name))
        .ok_or_else(|| none(&name))?;
    Ok(GetServerCertificateResponse {
        server_certificate: Some(ServerCertificate {
            server_certificate_metadata: Some(metadata(&found)),
            certificate_body: Some(found.material.certificate.clone()),
            certificate_chain: found.material.chain.clone(),
            tags: (!found.tags.is_empty()).then(|| shapes::tags(&found.tags)),
        }),
    })
}

pub(super) fn list(
    call: &Call,
    input: ListServerCertificatesRequest,
) -> Result<ListServerCertificatesResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let prefix = input.path_prefix.unwrap_or_default();
    let view = auth.snapshot();
    let account = format!("{}/", call.scope.account);
    let found = view.list::<certificates::ServerCertificate>(&account);
    let found = found.filter(|found| found.path.starts_with(&prefix));
    let key = |found: &Arc<certificates::ServerCertificate>| role_key(&found.account, &found.name);
    let page = page(call.operation, found, input.marker.as_deref(), input.max_items, key, |found| metadata(&found))?;
    Ok(ListServerCertificatesResponse {
        server_certificate_metadata_list: Some(page.items),
        is_truncated: Some(page.is_truncated),
        marker: page.marker,
    })
}

pub(super) async fn delete(call: Call, input: DeleteServerCertificateRequest) -> Result<(), ServiceError> {
    let name = required(input.server_certificate_name, "serverCertificateName")?;
    let auth = call.authorise(&[own_arn(&call, &name)])?;
    let key = role_key(&call.scope.account, &name);
    auth.transact(|tx| {
        let found = tx.get::<certificates::ServerCertificate>(&key).ok_or_else(|| none(&name))?;
        if let Some(user) = tx.find::<Listener>(Listener::BY_CERTIFICATE, found.arn.as_str()).next() {
            return Err(error::delete_conflict_exception(format!(
                "Certificate: {} is currently in use by {}. Please remove it first before deleting it from IAM.",
                found.id, user.load_balancer
            )));
        }
        tx.delete::<certificates::ServerCertificate>(&key);
        Ok(())
    })
    .await
}

/// The ARN to authorise against: the certificate's own if it exists, else the one it would have.
fn own_arn(call: &Call, name: &str) -> Arn {
    let key = role_key(&call.scope.account, name);
    let found = call.unchecked_snapshot().get::<certificates::ServerCertificate>(&key);
    found.map_or_else(|| arn(call, "server-certificate", DEFAULT_PATH, name), |found| found.arn.clone())
}

fn none(name: &str) -> ServiceError {
    error::no_such_entity_exception(format!("The Server Certificate with name {name} cannot be found."))
}

fn metadata(found: &certificates::ServerCertificate) -> ServerCertificateMetadata {
    ServerCertificateMetadata {
        path: Some(found.path.clone()),
        server_certificate_name: Some(found.name.clone()),
        server_certificate_id: Some(found.id.clone()),
        arn: Some(found.arn.to_string()),
        upload_date: Some(wire::Timestamp(found.uploaded_at.millis())),
        expiration: Some(wire::Timestamp(found.facts.not_after.millis())),
    }
}

/// A fault in this service's words.
fn refused(fault: Fault) -> ServiceError {
    let malformed = |text: &str| error::malformed_certificate_exception(text);
    match fault {
        Fault::Certificate | Fault::ManyCertificates => {
            malformed("Unable to parse certificate. Please ensure the certificate is in PEM format.")
        }
        Fault::Version => malformed("The certificate must be an X.509 version 3 certificate."),
        Fault::NoIssuer => malformed("The certificate must name its issuer."),
        Fault::Expired => malformed("The certificate has expired."),
        Fault::NotYetValid => malformed("The certificate is not valid yet."),
        Fault::KeyKind(kind) => malformed(&format!(
            "The key algorithm {kind} of the certificate is not supported by Longshore. Supported are RSA_2048, RSA_3072, \
             RSA_4096, EC_prime256v1 and EC_secp384r1."
        )),
        Fault::Key => malformed("Unable to parse private key. Please ensure the private key is in PEM format."),
        Fault::Encrypted => malformed("The private key must not be encrypted."),
        Fault::Mismatch => error::key_pair_mismatch_exception("Certificate and private key don't match."),
        Fault::ChainFormat => {
            malformed("Unable to parse certificate chain. Please ensure the certificates are in PEM format.")
        }
        Fault::ChainLength => malformed(&format!(
            "A certificate chain of more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes is not supported by Longshore."
        )),
        // Amazon counts from the chain's first certificate.
        Fault::Chain(index) => malformed(&format!(
            "Unable to validate certificate chain. The certificate chain must start with the immediate signing \
             certificate, followed by any intermediaries in order. The index within the chain of the invalid certificate \
             is: {index}"
        )),
        Fault::NotSelfSigned => malformed("Unable to validate the certificate without a certificate chain."),
    }
}
