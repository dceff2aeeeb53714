//! Certificates of HTTPS listeners: the default one, the list of others, and which certificates can be had at all.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/https-listener-certificates.html>

use std::collections::BTreeSet;

use api::elbv2::*;
use domain::{
    Arn, Scope, Timestamp,
    balancing::{self, ListenerTls, SslPolicy, slice::CertificateItem},
    certificates::{self, Facts, Material},
};
use store::Snapshot;
use wire::ServiceError;

use super::{
    find,
    names::{arn, invalid, page, required, unsupported},
    ssl_policies,
};
use crate::Call;

/// The most certificates of a load balancer, not counting its listeners' default ones.
pub(super) const MAX_CERTIFICATES: usize = 25;

/// What a request says of TLS.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) policy: Option<String>,
    pub(super) certificates: Option<Vec<Certificate>>,
    pub(super) alpn: Option<Vec<String>>,
    pub(super) mutual: Option<MutualAuthenticationAttributes>,
}

impl Asked {
    fn is_nothing(&self) -> bool {
        self.policy.is_none() && self.certificates.is_none() && self.mutual.is_none()
    }

    /// Refuses what there is none of, for any protocol.
    pub(super) fn check(&self) -> Result<(), ServiceError> {
        if self.alpn.is_some() {
            return Err(unsupported("AlpnPolicy"));
        }
        match &self.mutual {
            // Off is what every listener has.
            Some(mutual) if mutual.mode.as_deref() == Some("off") => {
                let given = [
                    (mutual.trust_store_arn.is_some(), "TrustStoreArn"),
                    (mutual.ignore_client_certificate_expiry.is_some(), "IgnoreClientCertificateExpiry"),
                    (mutual.trust_store_association_status.is_some(), "TrustStoreAssociationStatus"),
                    (mutual.advertise_trust_store_ca_names.is_some(), "AdvertiseTrustStoreCaNames"),
                ];
                let given = given.into_iter().find(|(given, _)| *given);
                given.map_or(Ok(()), |(_, name)| Err(unsupported(&format!("MutualAuthentication with {name}"))))
            }
            Some(_) => Err(unsupported("MutualAuthentication other than 'off'")),
            None => Ok(()),
        }
    }

    /// What a listener speaks after the request: `known` is what it did before, `secure` whether its protocol is HTTPS now.
    pub(super) fn apply(
        self,
        view: &Snapshot,
        scope: &Scope,
        known: Option<ListenerTls>,
        secure: bool,
        now: Timestamp,
    ) -> Result<Option<ListenerTls>, ServiceError> {
        if !secure {
            // Without TLS, what belonged to it is gone.
            return if self.is_nothing() {
                Ok(None)
            } else {
                Err(invalid(
                    "Certificates, SslPolicy and MutualAuthentication can be specified for HTTPS listeners only",
                ))
            };
        }
        let policy = self.policy.map(|name| ssl_policies::named(&name)).transpose()?;
        let default = match self.certificates {
            Some(certificates) => Some(default(view, scope, certificates, now)?),
            None => None,
        };
        let mut tls = match (known, &default) {
            (Some(known), _) => known,
            (None, Some(default)) => ListenerTls {
                ssl_policy: SslPolicy::DEFAULT.into(),
                default_certificate: default.clone(),
                certificates: Vec::new(),
            },
            (None, None) => return Err(invalid("A certificate must be specified for HTTPS listeners")),
        };
        if let Some(policy) = policy {
            tls.ssl_policy = policy.name.into();
        }
        if let Some(default) = default {
            tls.default_certificate = default;
        }
        Ok(Some(tls))
    }
}

/// The one certificate of a request that makes or changes a listener.
fn default(
    view: &Snapshot,
    scope: &Scope,
    certificates: Vec<Certificate>,
    now: Timestamp,
) -> Result<String, ServiceError> {
    let mut certificates = certificates.into_iter();
    let first = certificates.next().ok_or_else(|| invalid("A certificate must be specified for HTTPS listeners"))?;
    if certificates.next().is_some() {
        return Err(error::too_many_certificates_exception(
            "Exactly one certificate can be specified, which is the listener's default certificate",
        ));
    }
    if first.is_default.is_some() {
        return Err(invalid("IsDefault cannot be specified: the certificate of a listener is its default certificate"));
    }
    let text = required(first.certificate_arn, "A certificate ARN")?;
    check(view, scope, &text, now)?;
    Ok(text)
}

/// A certificate that this platform keeps, of whichever service.
fn known(view: &Snapshot, text: &str) -> Option<(Material, Facts)> {
    let arn: Arn = text.parse().ok()?;
    match arn.service() {
        "acm" => {
            let found = view.get::<certificates::Certificate>(text)?;
            Some((found.material.clone(), found.facts.clone()))
        }
        "iam" => {
            let index = certificates::ServerCertificate::BY_ARN;
            let found = view.find::<certificates::ServerCertificate>(index, text).next()?;
            Some((found.material.clone(), found.facts.clone()))
        }
        _ => None,
    }
}

/// Refuses a certificate that is not there for this account and region, or cannot be served.
fn check(view: &Snapshot, scope: &Scope, text: &str, now: Timestamp) -> Result<(), ServiceError> {
    let ours = text.parse::<Arn>().is_ok_and(|arn| {
        let here = arn.region() == scope.region.as_str() || arn.service() == "iam";
        here && arn.account() == scope.account.as_str()
    });
    let found = known(view, text).filter(|_| ours);
    let (_, facts) =
        found.ok_or_else(|| error::certificate_not_found_exception(format!("Certificate '{text:.2048}' not found")))?;
    if facts.expired(now) || !facts.has_domain() {
        return Err(ServiceError::new(
            "UnsupportedCertificate",
            format!(
                "The certificate '{text}' must have a fully-qualified domain name, a supported signature, and a supported \
                 key size."
            ),
        ));
    }
    Ok(())
}

/// What a load balancer's process needs of its listeners' certificates.
pub(super) fn items(view: &Snapshot, listeners: &[std::sync::Arc<balancing::Listener>]) -> Vec<CertificateItem> {
    let arns: BTreeSet<&str> = listeners.iter().flat_map(|listener| listener.certificates()).collect();
    let item = |arn: &str| {
        let (material, facts) = known(view, arn)?;
        Some(CertificateItem { arn: arn.to_owned(), names: facts.names, not_after: facts.not_after, material })
    };
    arns.into_iter().filter_map(item).collect()
}

/// The certificates of a listener of protocol HTTPS.
fn tls(listener: &balancing::Listener) -> Result<ListenerTls, ServiceError> {
    listener.tls.clone().ok_or_else(|| invalid(format!("The listener '{}' is not an HTTPS listener", listener.arn)))
}

fn arns(certificates: Option<Vec<Certificate>>) -> Result<Vec<String>, ServiceError> {
    let certificates = required(certificates, "Certificates")?;
    if certificates.is_empty() {
        return Err(invalid("A certificate must be specified"));
    }
    let arn = |certificate: Certificate| {
        if certificate.is_default.is_some() {
            return Err(invalid("IsDefault cannot be specified: ModifyListener changes the default certificate"));
        }
        required(certificate.certificate_arn, "A certificate ARN")
    };
    certificates.into_iter().map(arn).collect()
}

pub(super) async fn add(
    call: Call,
    input: AddListenerCertificatesInput,
) -> Result<AddListenerCertificatesOutput, ServiceError> {
    let arn = arn(&call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let added = arns(input.certificates)?;
    let now = auth.now();
    auth.transact(|tx| {
        let mut listener = balancing::Listener::clone(&*find::listener(tx, arn.as_str())?);
        let mut tls = tls(&listener)?;
        for text in &added {
            check(tx, &call.scope, text, now)?;
            // Adding what is in the list changes nothing.
            if !tls.certificates.contains(text) {
                tls.certificates.push(text.clone());
            }
        }
        let others = find::listeners_of(tx, &listener.load_balancer);
        let others = others.iter().filter(|other| other.arn != arn).filter_map(|other| other.tls.as_ref());
        let all: BTreeSet<&String> = others.chain([&tls]).flat_map(|tls| &tls.certificates).collect();
        if all.len() > MAX_CERTIFICATES {
            return Err(error::too_many_certificates_exception(format!(
                "The maximum number of certificates per load balancer is {MAX_CERTIFICATES}"
            )));
        }
        listener.tls = Some(tls);
        tx.put(listener);
        Ok(())
    })
    .await?;
    let shape = |arn: String| Certificate { certificate_arn: Some(arn), is_default: Some(false) };
    Ok(AddListenerCertificatesOutput { certificates: Some(added.into_iter().map(shape).collect()) })
}

pub(super) async fn remove(
    call: Call,
    input: RemoveListenerCertificatesInput,
) -> Result<RemoveListenerCertificatesOutput, ServiceError> {
    let arn = arn(&call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let removed = arns(input.certificates)?;
    auth.transact(|tx| {
        let mut listener = balancing::Listener::clone(&*find::listener(tx, arn.as_str())?);
        let mut tls = tls(&listener)?;
        for text in &removed {
            let listed = tls.certificates.contains(text);
            if !listed && tls.default_certificate == *text {
                return Err(error::operation_not_permitted_exception("Default certificate cannot be removed"));
            }
            // Removing what is not in the list changes nothing.
            tls.certificates.retain(|listed| listed != text);
        }
        listener.tls = Some(tls);
        tx.put(listener);
        Ok(())
    })
    .await?;
    Ok(RemoveListenerCertificatesOutput {})
}

/// The default certificate, and the list's; one that is both comes twice, as at Amazon.
pub(super) fn describe(
    call: &Call,
    input: DescribeListenerCertificatesInput,
) -> Result<DescribeListenerCertificatesOutput, ServiceError> {
    let arn = arn(call, &required(input.listener_arn, "A listener ARN")?, "listener", "listener")?;
    let auth = call.authorise(&[&arn])?;
    let listener = find::listener(&auth.snapshot(), arn.as_str())?;
    let tls = tls(&listener)?;
    let mut listed = tls.certificates;
    listed.sort_unstable();
    let all = std::iter::once((true, tls.default_certificate)).chain(listed.into_iter().map(|arn| (false, arn)));
    let (found, next_marker) = page(
        &operation::DESCRIBE_LISTENER_CERTIFICATES,
        all,
        |(default, arn)| format!("{} {arn}", u8::from(!default)),
        input.marker.as_deref(),
        input.page_size,
    )?;
    let shape = |(default, arn)| Certificate { certificate_arn: Some(arn), is_default: Some(default) };
    Ok(DescribeListenerCertificatesOutput { certificates: Some(found.into_iter().map(shape).collect()), next_marker })
}
