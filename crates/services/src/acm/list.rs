//! Lists of certificates: filters, order and pages.

use std::sync::Arc;

use api::acm::*;
use domain::{Timestamp, certificates::Certificate};
use store::Snapshot;
use wire::ServiceError;

use super::names::{SERVICE, in_use_by, status};
use crate::Call;

/// Names shown of a certificate in a list, and the longest page.
const MAX_NAMES: usize = 100;
const PAGE: usize = 1000;

/// The keys of the certificates that a list has which asks for none: as at Amazon, where others came later.
const KEY_TYPES: [&str; 2] = ["RSA_1024", "RSA_2048"];

pub(super) fn list(call: &Call, input: ListCertificatesRequest) -> Result<ListCertificatesResponse, ServiceError> {
    let auth = call.authorise::<&str>(&[])?;
    let view = auth.snapshot();
    let now = auth.now();
    if input.certificate_key_pair_origins.is_some() {
        return Err(invalid("CertificateKeyPairOrigins is not supported by Longshore."));
    }
    if input.sort_by.is_some() != input.sort_order.is_some() {
        return Err(invalid("SortBy and SortOrder must be specified together."));
    }
    let filters = input.includes.unwrap_or_default();
    let statuses = input.certificate_statuses.unwrap_or_default();
    let prefix = call.arn(SERVICE, "certificate/").to_string();
    let wanted = |found: &Arc<Certificate>| {
        (statuses.is_empty() || statuses.iter().any(|wanted| wanted == status(&found.facts, now)))
            && matches(&filters, found)
    };
    let mut found: Vec<Arc<Certificate>> = view.list::<Certificate>(&prefix).filter(wanted).collect();
    let descending = input.sort_order.as_deref() == Some("DESCENDING");
    if input.sort_by.is_some() {
        found.sort_by(|a, b| (a.created_at, &a.arn).cmp(&(b.created_at, &b.arn)));
    }
    if descending {
        found.reverse();
    }
    let start = match input.next_token {
        None => 0,
        Some(token) => {
            let last = wire::page::position(call.operation, &token)
                .ok_or_else(|| invalid("The specified NextToken is not valid."))?;
            position(&found, &last, input.sort_by.is_some(), descending)
        }
    };
    let size = input.max_items.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let rest = found.get(start..).unwrap_or_default();
    let page = rest.get(..size.min(rest.len())).unwrap_or_default();
    let next = page.last().filter(|_| rest.len() > size).map(|last| wire::page::token(call.operation, &key(last)));
    Ok(ListCertificatesResponse {
        next_token: next,
        certificate_summary_list: Some(page.iter().map(|found| summary(&view, found, now)).collect()),
    })
}

/// What a token remembers of the last certificate of a page: enough to go on after it when it is gone.
fn key(found: &Certificate) -> String {
    format!("{:020} {}", found.created_at.millis(), found.arn)
}

/// Where a list goes on after the certificate with this key.
fn position(found: &[Arc<Certificate>], last: &str, sorted: bool, descending: bool) -> usize {
    let arn = last.split_once(' ').map_or("", |(_, arn)| arn);
    let after = |found: &Arc<Certificate>| {
        if sorted {
            let key = key(found);
            if descending { key.as_str() < last } else { key.as_str() > last }
        } else {
            found.arn.as_str() > arn
        }
    };
    found.iter().position(after).unwrap_or(found.len())
}

fn matches(filters: &Filters, found: &Certificate) -> bool {
    let facts = &found.facts;
    let any = |wanted: &Option<Vec<String>>, has: &dyn Fn(&str) -> bool| {
        wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|wanted| has(wanted)))
    };
    let key = match &filters.key_types {
        Some(types) => types.contains(&facts.key_algorithm),
        None => KEY_TYPES.contains(&facts.key_algorithm.as_str()),
    };
    // Imported certificates are managed by nobody, and none of them can be exported.
    key && filters.managed_by.is_none()
        && filters.export_option.as_deref().is_none_or(|option| option == "DISABLED")
        && any(&filters.key_usage, &|wanted| facts.key_usages.iter().any(|has| has == wanted))
        && any(&filters.extended_key_usage, &|wanted| facts.extended_key_usages.iter().any(|(has, _)| has == wanted))
}

fn summary(view: &Snapshot, found: &Certificate, now: Timestamp) -> CertificateSummary {
    let facts = &found.facts;
    let time = |time: Timestamp| Some(wire::Timestamp(time.millis()));
    CertificateSummary {
        certificate_arn: Some(found.arn.to_string()),
        domain_name: facts.domain_name.clone(),
        subject_alternative_name_summaries: Some(facts.names.iter().take(MAX_NAMES).cloned().collect()),
        has_additional_subject_alternative_names: Some(facts.names.len() > MAX_NAMES),
        status: Some(status(facts, now).into()),
        r#type: Some("IMPORTED".into()),
        key_algorithm: Some(facts.key_algorithm.clone()),
        key_usages: Some(facts.key_usages.clone()),
        extended_key_usages: Some(facts.extended_key_usages.iter().map(|(name, _)| name.clone()).collect()),
        export_option: Some("DISABLED".into()),
        in_use: Some(!in_use_by(view, &found.arn).is_empty()),
        renewal_eligibility: Some("INELIGIBLE".into()),
        not_before: time(facts.not_before),
        not_after: time(facts.not_after),
        created_at: time(found.created_at),
        imported_at: time(found.imported_at),
        ..CertificateSummary::default()
    }
}

fn invalid(text: &str) -> ServiceError {
    error::validation_exception(text)
}
