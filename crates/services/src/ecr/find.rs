//! Listing and describing images.

use api::ecr::*;
use domain::{
    Resource,
    repositories::{Digest, Image, ImageTag, content_key},
};
use registry::images::tags_of;
use store::Snapshot;

use super::{Answer, Target, images::lookup, invalid, page, position, refusal};
use crate::Call;

/// The one status that images have: none is archived.
const ACTIVE: &str = "ACTIVE";

pub(super) fn describe(call: &Call, input: DescribeImagesRequest) -> Answer<DescribeImagesResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let snapshot = auth.snapshot();
    registry::layers::repository(&snapshot, &target.scope, &target.name).map_err(refusal)?;
    let filter = input.filter.unwrap_or_default();
    if let Some(ids) = input.image_ids.filter(|ids| !ids.is_empty()) {
        let mut details: Vec<ImageDetail> = Vec::new();
        for id in ids {
            let image = lookup(&snapshot, &target, &id).map_err(|_| not_found(&target, &id))?;
            if details.iter().all(|detail| detail.image_digest.as_deref() != Some(image.digest.as_str())) {
                details.push(detail(&snapshot, &image));
            }
        }
        return Ok(DescribeImagesResponse { image_details: Some(details), next_token: None });
    }
    let prefix = prefix(&target);
    let after = format!("{prefix}{}", position(call, input.next_token.as_deref())?);
    let images = snapshot.list_after::<Image>(&prefix, &after).filter(|image| {
        let tagged = snapshot.count::<ImageTag>(ImageTag::BY_IMAGE, image.key()) > 0;
        wanted(filter.tag_status.as_deref(), tagged) && is_active(filter.image_status.as_deref())
    });
    let (images, next_token) = page(call, images, input.max_results, |image| image.digest.to_string());
    let details = images.iter().map(|image| detail(&snapshot, image)).collect();
    Ok(DescribeImagesResponse { image_details: Some(details), next_token })
}

pub(super) fn list(call: &Call, input: ListImagesRequest) -> Answer<ListImagesResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let snapshot = auth.snapshot();
    registry::layers::repository(&snapshot, &target.scope, &target.name).map_err(refusal)?;
    let filter = input.filter.unwrap_or_default();
    // A position is the digest and, where the page ended between two tags of one image, the tag.
    let position = position(call, input.next_token.as_deref())?;
    let (digest, last_tag) = position.split_once(' ').unwrap_or((position.as_str(), ""));
    let within = (!last_tag.is_empty()).then(|| digest.parse::<Digest>().ok()).flatten();
    let current = within.and_then(|digest| snapshot.get::<Image>(&content_key(&target.scope, &target.name, &digest)));
    let prefix = prefix(&target);
    let after = format!("{prefix}{digest}");
    let images = current.into_iter().chain(snapshot.list_after::<Image>(&prefix, &after));
    let ids = images.filter(|_| is_active(filter.image_status.as_deref())).flat_map(|image| {
        let after = if image.digest.as_str() == digest { last_tag } else { "" };
        let tags = tags_of(&snapshot, &image);
        let untagged = tags.is_empty() && wanted(filter.tag_status.as_deref(), false);
        let tagged = wanted(filter.tag_status.as_deref(), true);
        let tags: Vec<_> = tags.into_iter().filter(|tag| tagged && tag.as_str() > after).map(Some).collect();
        let identifiers = tags.into_iter().chain(untagged.then_some(None));
        let digest = image.digest.to_string();
        identifiers.map(move |image_tag| ImageIdentifier { image_digest: Some(digest.clone()), image_tag })
    });
    let (image_ids, next_token) = page(call, ids, input.max_results, |id| {
        let digest = id.image_digest.as_deref().unwrap_or_default();
        id.image_tag.as_ref().map_or_else(|| digest.to_owned(), |tag| format!("{digest} {tag}"))
    });
    Ok(ListImagesResponse { image_ids: Some(image_ids), next_token })
}

pub(super) fn referrers(call: &Call, input: ListImageReferrersRequest) -> Answer<ListImageReferrersResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let snapshot = auth.snapshot();
    registry::layers::repository(&snapshot, &target.scope, &target.name).map_err(refusal)?;
    let subject = input.subject_id.and_then(|subject| subject.image_digest).unwrap_or_default();
    let subject: Digest = subject.parse().map_err(|_| invalid("subjectId.imageDigest", "must be a sha256 digest"))?;
    let filter = input.filter.unwrap_or_default();
    let types = filter.artifact_types.filter(|types| !types.is_empty());
    let after = position(call, input.next_token.as_deref())?;
    let found = snapshot
        .find::<Image>(Image::BY_SUBJECT, content_key(&target.scope, &target.name, &subject))
        .filter(|image| image.digest.as_str() > after.as_str() && is_active(filter.artifact_status.as_deref()))
        .filter(|image| {
            types.as_ref().is_none_or(|types| image.artifact_type.as_ref().is_some_and(|kind| types.contains(kind)))
        });
    let (found, next_token) = page(call, found, input.max_results, |image| image.digest.to_string());
    let referrers = found.iter().map(|image| ImageReferrer {
        digest: Some(image.digest.to_string()),
        media_type: Some(image.media_type.clone()),
        artifact_type: image.artifact_type.clone(),
        size: i64::try_from(image.manifest_size).ok(),
        annotations: Some(image.annotations.clone()),
        artifact_status: Some(ACTIVE.to_owned()),
    });
    Ok(ListImageReferrersResponse { referrers: Some(referrers.collect()), next_token })
}

/// The prefix of the keys that a repository's images have.
fn prefix(target: &Target) -> String {
    target.scope.key(&format!("{}@", target.name))
}

fn wanted(tag_status: Option<&str>, tagged: bool) -> bool {
    match tag_status {
        Some("TAGGED") => tagged,
        Some("UNTAGGED") => !tagged,
        _ => true,
    }
}

fn is_active(status: Option<&str>) -> bool {
    matches!(status, None | Some(ACTIVE | "ANY"))
}

fn detail(snapshot: &Snapshot, image: &Image) -> ImageDetail {
    let tags = tags_of(snapshot, image);
    ImageDetail {
        registry_id: Some(image.scope.account.to_string()),
        repository_name: Some(image.repository.clone()),
        image_digest: Some(image.digest.to_string()),
        image_tags: (!tags.is_empty()).then_some(tags),
        image_size_in_bytes: i64::try_from(image.size).ok(),
        image_pushed_at: Some(wire::Timestamp(image.pushed.millis())),
        image_manifest_media_type: Some(image.media_type.clone()),
        artifact_media_type: image.artifact_type.clone(),
        subject_manifest_digest: image.subject.as_ref().map(Digest::to_string),
        image_status: Some(ACTIVE.to_owned()),
        ..ImageDetail::default()
    }
}

fn not_found(target: &Target, id: &ImageIdentifier) -> wire::ServiceError {
    let part = |part: &Option<String>| part.as_ref().map_or_else(|| "null".to_owned(), |text| format!("'{text}'"));
    error::image_not_found_exception(format!(
        "The image with imageId {{imageDigest:{}, imageTag:{}}} does not exist within the repository with name '{}' in the registry with id '{}'",
        part(&id.image_digest),
        part(&id.image_tag),
        target.name,
        target.scope.account
    ))
}
