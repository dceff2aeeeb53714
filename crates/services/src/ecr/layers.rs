//! Layers: the upload calls, availability, and addresses to download from.

use api::ecr::*;
use domain::repositories::{Digest, content_key, repository_key};
use registry::{RegistryError, UploadId, body_of};
use wire::ServiceError;

use super::{Answer, Target, authorization::registry_endpoint, refusal, unsupported};
use crate::Call;

/// How many bytes a part should have: what Amazon tells its clients.
const PART_BYTES: i64 = 20 * 1024 * 1024;
/// The media type that Amazon shows for every layer, whatever it is.
const LAYER_MEDIA_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

pub(super) async fn initiate(call: &Call, input: InitiateLayerUploadRequest) -> Answer<InitiateLayerUploadResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    let uploads = auth.platform().registry.uploads();
    let id = uploads.begin(&repository_key(&target.scope, &target.name)).await.map_err(refusal)?;
    Ok(InitiateLayerUploadResponse { upload_id: Some(id.as_str().to_owned()), part_size: Some(PART_BYTES) })
}

pub(super) async fn upload_part(call: &Call, input: UploadLayerPartRequest) -> Answer<UploadLayerPartResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    let id = upload_id(&target, input.upload_id)?;
    let bytes = input.layer_part_blob.unwrap_or_default();
    let (first, last) = (input.part_first_byte.unwrap_or(-1), input.part_last_byte.unwrap_or(-1));
    let uploads = auth.platform().registry.uploads();
    let key = repository_key(&target.scope, &target.name);
    let expected =
        last.checked_sub(first).and_then(|bytes| bytes.checked_add(1)).and_then(|bytes| u64::try_from(bytes).ok());
    let outcome = match (u64::try_from(first).ok(), expected) {
        (Some(first), Some(expected)) if expected == bytes.len() as u64 => {
            uploads.append(&key, &id, Some(first), Some(expected), body_of(bytes)).await
        }
        _ => match uploads.size(&key, &id).await {
            Ok(offset) => Err(RegistryError::RangeInvalid { offset }),
            Err(failure) => Err(failure),
        },
    };
    let size = outcome.map_err(|failure| match failure {
        RegistryError::RangeInvalid { offset } => {
            let text = "The layer part size is not valid, or the first byte specified is not consecutive to the last byte of a previous layer part upload.";
            error::invalid_layer_part_exception(text)
                .field("registryId", target.scope.account.as_str())
                .field("repositoryName", target.name.as_str())
                .field("uploadId", id.as_str())
                .field("lastValidByteReceived", last_byte(offset))
        }
        failure => upload_refusal(&target, &id, failure),
    })?;
    Ok(UploadLayerPartResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        upload_id: Some(id.as_str().to_owned()),
        last_byte_received: Some(last_byte(size)),
    })
}

pub(super) async fn complete(call: &Call, input: CompleteLayerUploadRequest) -> Answer<CompleteLayerUploadResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    let id = upload_id(&target, input.upload_id)?;
    let mut digests = input.layer_digests.unwrap_or_default();
    digests.dedup();
    if digests.len() > 1 {
        return Err(unsupported("An upload of a layer with several digests", "layerDigests"));
    }
    let invalid = || {
        let text = "The layer digest calculation performed by Amazon ECR upon receipt of the image layer does not match the digest specified.";
        error::invalid_layer_exception(text)
    };
    let digest: Digest = digests.first().and_then(|digest| digest.parse().ok()).ok_or_else(invalid)?;
    let registry = &auth.platform().registry;
    let size = registry.uploads().size(&repository_key(&target.scope, &target.name), &id).await;
    if size.map_err(|failure| upload_refusal(&target, &id, failure))? == 0 {
        let text = format!("The upload with id '{}' has no layer parts", id.as_str());
        return Err(error::empty_upload_exception(text));
    }
    let (layer, existed) = registry.finish_upload(&target.scope, &target.name, &id, Some(&digest)).await.map_err(
        |failure| match failure {
            RegistryError::DigestInvalid(_) => invalid(),
            failure => upload_refusal(&target, &id, failure),
        },
    )?;
    if existed {
        return Err(error::layer_already_exists_exception(format!(
            "The layer with digest '{digest}' already exists in the repository with name '{}' in the registry with id '{}'",
            target.name, target.scope.account
        )));
    }
    Ok(CompleteLayerUploadResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        upload_id: Some(id.as_str().to_owned()),
        layer_digest: Some(layer.digest.into()),
    })
}

pub(super) fn check(
    call: &Call,
    input: BatchCheckLayerAvailabilityRequest,
) -> Answer<BatchCheckLayerAvailabilityResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    let (mut layers, mut failures) = (Vec::new(), Vec::new());
    for text in input.layer_digests.unwrap_or_default() {
        let Ok(digest) = text.parse::<Digest>() else {
            let reason = "Invalid layer digest: must be a sha256 digest".to_owned();
            failures.push(LayerFailure {
                layer_digest: Some(text),
                failure_code: Some("InvalidLayerDigest".to_owned()),
                failure_reason: Some(reason),
            });
            continue;
        };
        layers.push(match auth.platform().registry.layer(&target.scope, &target.name, &digest) {
            Ok(layer) => Layer {
                layer_digest: Some(text),
                layer_availability: Some("AVAILABLE".to_owned()),
                layer_size: i64::try_from(layer.size).ok(),
                media_type: Some(LAYER_MEDIA_TYPE.to_owned()),
            },
            Err(RegistryError::LayerNotFound { .. }) => Layer {
                layer_digest: Some(text),
                layer_availability: Some("UNAVAILABLE".to_owned()),
                ..Layer::default()
            },
            Err(failure) => return Err(refusal(failure)),
        });
    }
    Ok(BatchCheckLayerAvailabilityResponse { layers: Some(layers), failures: Some(failures) })
}

pub(super) fn download_url(
    call: &Call,
    input: GetDownloadUrlForLayerRequest,
) -> Answer<GetDownloadUrlForLayerResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    let text = input.layer_digest.unwrap_or_default();
    let digest: Digest = text.parse().map_err(|_| {
        let (name, registry) = (target.name.clone(), target.scope.account.clone());
        refusal(RegistryError::LayerNotFound { digest: text.chars().take(160).collect(), name, registry })
    })?;
    let platform = auth.platform();
    platform.registry.layer(&target.scope, &target.name, &digest).map_err(refusal)?;
    let layer = content_key(&target.scope, &target.name, &digest);
    let token = platform
        .authority
        .issue_layer_token(&call.principal, &layer, auth.now())
        .ok_or_else(|| error::server_exception("The system has no randomness to give."))?;
    let endpoint = registry_endpoint(platform, &target.scope);
    Ok(GetDownloadUrlForLayerResponse {
        download_url: Some(format!("{endpoint}/v2/{}/blobs/{digest}?{}={token}", target.name, registry::LAYER_TOKEN)),
        layer_digest: Some(digest.into()),
    })
}

fn upload_id(target: &Target, text: Option<String>) -> Answer<UploadId> {
    let text = text.unwrap_or_default();
    UploadId::parse(&text).ok_or_else(|| unknown_upload(target, &text))
}

fn upload_refusal(target: &Target, id: &UploadId, failure: RegistryError) -> ServiceError {
    match failure {
        RegistryError::UploadNotFound(_) => unknown_upload(target, id.as_str()),
        failure => refusal(failure),
    }
}

fn unknown_upload(target: &Target, id: &str) -> ServiceError {
    error::upload_not_found_exception(format!(
        "The upload with id '{}' does not exist in the repository with name '{}' in the registry with id '{}'",
        id.chars().take(64).collect::<String>(),
        target.name,
        target.scope.account
    ))
}

/// The offset of the last of so many bytes; -1 when there are none.
fn last_byte(size: u64) -> i64 {
    i64::try_from(size).map_or(i64::MAX, |size| size - 1)
}
