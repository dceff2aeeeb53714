//! Images: putting, getting and deleting by tag and by digest.

use std::sync::Arc;

use api::ecr::{Image as ImageShape, *};
use domain::repositories::{Digest, Image, valid_tag};
use registry::{ImageReference, PutImage, RegistryError};
use store::Snapshot;

use super::{Answer, Target, invalid, refusal};
use crate::Call;

/// The most bytes of manifests that one answer carries.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

pub(super) async fn put(call: &Call, input: PutImageRequest) -> Answer<PutImageResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let manifest = input.image_manifest.unwrap_or_default();
    let digest = input.image_digest.map(|text| {
        text.parse::<Digest>()
            .map_err(|_| invalid("imageDigest", "must be a sha256 digest: 'sha256:' and 64 hexadecimal digits"))
    });
    let put = PutImage {
        manifest: manifest.clone().into(),
        media_type: input.image_manifest_media_type,
        digest: digest.transpose()?,
        tag: input.image_tag.clone(),
    };
    let put =
        auth.platform().registry.put_image(&target.scope, &target.name, put).await.map_err(
            |failure| match failure {
                RegistryError::DigestInvalid(_) => error::image_digest_does_not_match_exception(
                    "The specified image digest does not match the digest that Amazon ECR calculated for the image.",
                ),
                failure => refusal(failure),
            },
        )?;
    if put.existed {
        let tag = input.image_tag.map(|tag| format!(" and tag '{tag}'")).unwrap_or_default();
        return Err(error::image_already_exists_exception(format!(
            "Image with digest '{}'{tag} already exists in the repository with name '{}' in registry with id '{}'",
            put.image.digest, target.name, target.scope.account
        )));
    }
    let image = shape(&put.image, input.image_tag, Some(manifest));
    Ok(PutImageResponse { image: Some(image) })
}

pub(super) async fn batch_get(call: &Call, input: BatchGetImageRequest) -> Answer<BatchGetImageResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let snapshot = auth.snapshot();
    registry::layers::repository(&snapshot, &target.scope, &target.name).map_err(refusal)?;
    let accepted = input.accepted_media_types.filter(|types| !types.is_empty());
    let (mut images, mut failures, mut bytes) = (Vec::new(), Vec::new(), 0);
    for id in input.image_ids.unwrap_or_default() {
        let image = match lookup(&snapshot, &target, &id) {
            Ok(image) => image,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        if accepted.as_ref().is_some_and(|types| !types.contains(&image.media_type)) {
            let reason = format!("Requested image has the media type '{}', which is not accepted", image.media_type);
            failures.push(failed(id, "ImageNotFound", reason));
            continue;
        }
        let manifest = auth.platform().registry.manifest(&image).await.map_err(refusal)?;
        bytes += manifest.len();
        if bytes > MAX_ANSWER_BYTES {
            let text = format!("The manifests of these images have more than {MAX_ANSWER_BYTES} bytes: ask for fewer");
            return Err(error::limit_exceeded_exception(text));
        }
        images.push(shape(&image, id.image_tag, String::from_utf8(manifest.into()).ok()));
    }
    Ok(BatchGetImageResponse { images: Some(images), failures: Some(failures) })
}

pub(super) async fn batch_delete(call: &Call, input: BatchDeleteImageRequest) -> Answer<BatchDeleteImageResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    auth.transact(|tx| {
        registry::layers::repository(tx, &target.scope, &target.name).map_err(refusal)?;
        let (mut deleted, mut failures) = (Vec::new(), Vec::new());
        for id in input.image_ids.unwrap_or_default() {
            if let Err(failure) = lookup(tx, &target, &id) {
                failures.push(failure);
                continue;
            }
            let reference = match (&id.image_tag, id.image_digest.as_ref().and_then(|digest| digest.parse().ok())) {
                (Some(tag), _) => ImageReference::Tag(tag.clone()),
                (None, Some(digest)) => ImageReference::Digest(digest),
                (None, None) => continue,
            };
            match registry::images::delete(tx, &target.scope, &target.name, &reference) {
                Ok((digest, tags)) => {
                    let gone = |tag| ImageIdentifier { image_digest: Some(digest.to_string()), image_tag: tag };
                    if tags.is_empty() {
                        deleted.push(gone(None));
                    }
                    deleted.extend(tags.into_iter().map(|tag| gone(Some(tag))));
                }
                Err(failure @ RegistryError::ReferencedByIndex { .. }) => {
                    failures.push(failed(id, "ImageReferencedByManifestList", failure.to_string()));
                }
                Err(failure) => return Err(refusal(failure)),
            }
        }
        Ok(BatchDeleteImageResponse { image_ids: Some(deleted), failures: Some(failures) })
    })
    .await
}

/// The image that an identifier means: by digest, by tag, or by both when they agree.
pub(super) fn lookup(snapshot: &Snapshot, target: &Target, id: &ImageIdentifier) -> Result<Arc<Image>, ImageFailure> {
    let fail = |code: &str, reason: &str| failed(id.clone(), code, reason.to_owned());
    let find = |reference| {
        registry::images::find(snapshot, &target.scope, &target.name, &reference)
            .map_err(|failure| fail("ImageNotFound", &failure.to_string()))
    };
    let digest = id.image_digest.as_ref().map(|text| {
        let reason =
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'";
        text.parse::<Digest>().map_err(|_| fail("InvalidImageDigest", reason))
    });
    let tag = id.image_tag.clone();
    if tag.as_ref().is_some_and(|tag| !valid_tag(tag)) {
        return Err(fail("InvalidImageTag", "Invalid request parameters: image tag is not valid"));
    }
    match (digest.transpose()?, tag) {
        (None, None) => {
            Err(fail("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"))
        }
        (Some(digest), None) => find(ImageReference::Digest(digest)),
        (None, Some(tag)) => find(ImageReference::Tag(tag)),
        (Some(digest), Some(tag)) => {
            let image = find(ImageReference::Tag(tag))?;
            if image.digest == digest {
                Ok(image)
            } else {
                Err(fail(
                    "ImageTagDoesNotMatchDigest",
                    "Requested image tag and digest do not belong to the same image",
                ))
            }
        }
    }
}

fn failed(id: ImageIdentifier, code: &str, reason: String) -> ImageFailure {
    ImageFailure { image_id: Some(id), failure_code: Some(code.to_owned()), failure_reason: Some(reason) }
}

fn shape(image: &Image, tag: Option<String>, manifest: Option<String>) -> ImageShape {
    ImageShape {
        registry_id: Some(image.scope.account.to_string()),
        repository_name: Some(image.repository.clone()),
        image_id: Some(ImageIdentifier { image_digest: Some(image.digest.to_string()), image_tag: tag }),
        image_manifest: manifest,
        image_manifest_media_type: Some(image.media_type.clone()),
    }
}
