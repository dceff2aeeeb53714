//! Tags of certificates.

use api::acm::*;
use domain::certificates::Certificate;
use wire::ServiceError;

use super::names::{arn, find, not_found, tag_error};
use crate::Call;

pub(super) async fn add(call: Call, input: AddTagsToCertificateRequest) -> Result<(), ServiceError> {
    let arn = arn(&call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    let added = input.tags.unwrap_or_default();
    auth.transact(|tx| {
        let mut tags = find(tx, &arn)?.tags.clone();
        for tag in added {
            tags.set(tag.key.unwrap_or_default(), tag.value.unwrap_or_default()).map_err(tag_error)?;
        }
        let written = tx.update::<Certificate>(arn.as_str(), |found| found.tags = tags);
        if written { Ok(()) } else { Err(not_found(&arn)) }
    })
    .await
}

/// A tag with a value goes only if it has that value, one without goes whatever it has.
pub(super) async fn remove(call: Call, input: RemoveTagsFromCertificateRequest) -> Result<(), ServiceError> {
    let arn = arn(&call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    let removed = input.tags.unwrap_or_default();
    auth.transact(|tx| {
        let mut tags = find(tx, &arn)?.tags.clone();
        for tag in removed {
            let key = tag.key.unwrap_or_default();
            if tag.value.is_none() || tag.value.as_deref() == tags.get(&key) {
                tags.remove(&key);
            }
        }
        let written = tx.update::<Certificate>(arn.as_str(), |found| found.tags = tags);
        if written { Ok(()) } else { Err(not_found(&arn)) }
    })
    .await
}

pub(super) fn list(
    call: &Call,
    input: ListTagsForCertificateRequest,
) -> Result<ListTagsForCertificateResponse, ServiceError> {
    let arn = arn(call, input.certificate_arn)?;
    let auth = call.authorise(&[&arn])?;
    let found = find(&auth.snapshot(), &arn)?;
    let shape = |tag: &domain::Tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) };
    Ok(ListTagsForCertificateResponse { tags: Some(found.tags.iter().map(shape).collect()) })
}
