//! Elastic Container Registry's face: repositories, images, layers, and the login of container engines.
//!
//! The content is the `registry` crate's, whose `/v2/` face container engines speak; both work on the same operations.
//! Scanning, replication, lifecycle policies, pull-through caches and registry policies are not served yet; repository
//! policies are stored and do not decide yet. <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/>

mod authorization;
mod find;
mod images;
mod layers;
mod policies;
mod repositories;
mod tags;

use api::ecr::*;
use domain::{
    Arn, Scope,
    repositories::{
        Image as StoredImage, ImageTag, Layer as StoredLayer, Repository as StoredRepository, repository_arn,
    },
};
use registry::RegistryError;
use store::Kinds;
use wire::ServiceError;

use crate::{Authorised, Call};

/// The service.
pub struct Ecr;

/// The kinds of resources that this service stores.
pub fn kinds(kinds: Kinds) -> Kinds {
    kinds.durable::<StoredRepository>().durable::<StoredImage>().durable::<ImageTag>().durable::<StoredLayer>()
}

type Answer<T> = Result<T, ServiceError>;

/// A repository that a request names.
struct Target {
    scope: Scope,
    name: String,
}

impl Target {
    /// The repository of a request: `registryId` is the caller's own account unless it says otherwise.
    fn of(call: &Call, registry_id: Option<String>, name: Option<String>) -> Answer<Self> {
        Ok(Self { scope: registry_scope(call, registry_id)?, name: name.unwrap_or_default() })
    }

    fn arn(&self) -> Arn {
        repository_arn(&self.scope, &self.name)
    }

    fn authorise(&self, call: &Call) -> Answer<Authorised> {
        call.authorise(&[self.arn()])
    }

    fn registry_id(&self) -> Option<String> {
        Some(self.scope.account.to_string())
    }

    fn repository_name(&self) -> Option<String> {
        Some(self.name.clone())
    }
}

fn registry_scope(call: &Call, registry_id: Option<String>) -> Answer<Scope> {
    let account = match registry_id {
        None => call.scope.account.clone(),
        Some(id) => id.parse().map_err(|_| invalid("registryId", "must satisfy regular expression '[0-9]{12}'"))?,
    };
    Ok(Scope { account, region: call.scope.region.clone() })
}

/// The refusal of a parameter, in Amazon's words.
fn invalid(parameter: &str, constraint: &str) -> ServiceError {
    let text = format!("Invalid parameter at '{parameter}' failed to satisfy constraint: '{constraint}'");
    error::invalid_parameter_exception(text)
}

/// The refusal of what Amazon has and we do not.
fn unsupported(what: &str, field: &str) -> ServiceError {
    error::invalid_parameter_exception(format!("{what} is not supported by Longshore: {field}"))
}

/// The registry's errors under the API's names.
fn refusal(failure: RegistryError) -> ServiceError {
    use RegistryError as E;
    let text = failure.to_string();
    match failure {
        E::RepositoryNotFound { .. } => error::repository_not_found_exception(text),
        E::ImageNotFound => error::image_not_found_exception(text),
        E::LayerNotFound { .. } | E::LayersNotFound { .. } => error::layers_not_found_exception(text),
        E::ReferencedImagesNotFound { .. } => error::referenced_images_not_found_exception(text),
        E::TagImmutable { .. } => error::image_tag_already_exists_exception(text),
        E::UploadNotFound(_) => error::upload_not_found_exception(text),
        E::Manifest(_) => invalid("imageManifest", &text),
        E::TooLarge(_) | E::TooManyUploads => error::limit_exceeded_exception(text),
        E::Storage(_) | E::Body(_) | E::NotSaved => {
            tracing::error!(error = text, "a registry operation failed");
            error::server_exception(RegistryError::NotSaved.to_string())
        }
        E::LayerInUse { .. }
        | E::ReferencedByIndex { .. }
        | E::TagInvalid(_)
        | E::DigestInvalid(_)
        | E::RangeInvalid { .. }
        | E::SizeInvalid(_) => error::invalid_parameter_exception(text),
    }
}

/// One page of a listing: its items, and the token of the next one when there is more. `position` is where an item
/// stands, from which the next page goes on.
fn page<T>(
    call: &Call,
    items: impl Iterator<Item = T>,
    limit: Option<i32>,
    position: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).map_or(100, |limit| limit.clamp(1, 1000));
    let mut items = items;
    let page: Vec<T> = items.by_ref().take(limit).collect();
    let more = items.next().is_some();
    let next = page.last().filter(|_| more).map(|last| wire::page::token(call.operation, &position(last)));
    (page, next)
}

/// Where a listing goes on; the empty text is its beginning.
fn position(call: &Call, token: Option<&str>) -> Answer<String> {
    match token {
        None => Ok(String::new()),
        Some(token) => wire::page::position(call.operation, token)
            .ok_or_else(|| invalid("nextToken", "must be a token that this operation returned")),
    }
}

impl api::ecr::Ecr for Ecr {
    type Call = Call;

    async fn create_repository(&self, call: Call, input: CreateRepositoryRequest) -> Answer<CreateRepositoryResponse> {
        repositories::create(&call, input).await
    }

    async fn describe_repositories(
        &self,
        call: Call,
        input: DescribeRepositoriesRequest,
    ) -> Answer<DescribeRepositoriesResponse> {
        repositories::describe(&call, input)
    }

    async fn delete_repository(&self, call: Call, input: DeleteRepositoryRequest) -> Answer<DeleteRepositoryResponse> {
        repositories::delete(&call, input).await
    }

    async fn put_image_tag_mutability(
        &self,
        call: Call,
        input: PutImageTagMutabilityRequest,
    ) -> Answer<PutImageTagMutabilityResponse> {
        repositories::put_tag_mutability(&call, input).await
    }

    async fn set_repository_policy(
        &self,
        call: Call,
        input: SetRepositoryPolicyRequest,
    ) -> Answer<SetRepositoryPolicyResponse> {
        policies::set(&call, input).await
    }

    async fn get_repository_policy(
        &self,
        call: Call,
        input: GetRepositoryPolicyRequest,
    ) -> Answer<GetRepositoryPolicyResponse> {
        policies::get(&call, input)
    }

    async fn delete_repository_policy(
        &self,
        call: Call,
        input: DeleteRepositoryPolicyRequest,
    ) -> Answer<DeleteRepositoryPolicyResponse> {
        policies::delete(&call, input).await
    }

    async fn tag_resource(&self, call: Call, input: TagResourceRequest) -> Answer<TagResourceResponse> {
        tags::add(&call, input).await
    }

    async fn untag_resource(&self, call: Call, input: UntagResourceRequest) -> Answer<UntagResourceResponse> {
        tags::remove(&call, input).await
    }

    async fn list_tags_for_resource(
        &self,
        call: Call,
        input: ListTagsForResourceRequest,
    ) -> Answer<ListTagsForResourceResponse> {
        tags::list(&call, input)
    }

    async fn put_image(&self, call: Call, input: PutImageRequest) -> Answer<PutImageResponse> {
        images::put(&call, input).await
    }

    async fn batch_get_image(&self, call: Call, input: BatchGetImageRequest) -> Answer<BatchGetImageResponse> {
        images::batch_get(&call, input).await
    }

    async fn batch_delete_image(&self, call: Call, input: BatchDeleteImageRequest) -> Answer<BatchDeleteImageResponse> {
        images::batch_delete(&call, input).await
    }

    async fn describe_images(&self, call: Call, input: DescribeImagesRequest) -> Answer<DescribeImagesResponse> {
        find::describe(&call, input)
    }

    async fn list_images(&self, call: Call, input: ListImagesRequest) -> Answer<ListImagesResponse> {
        find::list(&call, input)
    }

    async fn list_image_referrers(
        &self,
        call: Call,
        input: ListImageReferrersRequest,
    ) -> Answer<ListImageReferrersResponse> {
        find::referrers(&call, input)
    }

    async fn initiate_layer_upload(
        &self,
        call: Call,
        input: InitiateLayerUploadRequest,
    ) -> Answer<InitiateLayerUploadResponse> {
        layers::initiate(&call, input).await
    }

    async fn upload_layer_part(&self, call: Call, input: UploadLayerPartRequest) -> Answer<UploadLayerPartResponse> {
        layers::upload_part(&call, input).await
    }

    async fn complete_layer_upload(
        &self,
        call: Call,
        input: CompleteLayerUploadRequest,
    ) -> Answer<CompleteLayerUploadResponse> {
        layers::complete(&call, input).await
    }

    async fn batch_check_layer_availability(
        &self,
        call: Call,
        input: BatchCheckLayerAvailabilityRequest,
    ) -> Answer<BatchCheckLayerAvailabilityResponse> {
        layers::check(&call, input)
    }

    async fn get_download_url_for_layer(
        &self,
        call: Call,
        input: GetDownloadUrlForLayerRequest,
    ) -> Answer<GetDownloadUrlForLayerResponse> {
        layers::download_url(&call, input)
    }

    async fn get_authorization_token(
        &self,
        call: Call,
        input: GetAuthorizationTokenRequest,
    ) -> Answer<GetAuthorizationTokenResponse> {
        authorization::token(&call, input)
    }

    async fn describe_registry(&self, call: Call, _: DescribeRegistryRequest) -> Answer<DescribeRegistryResponse> {
        authorization::describe_registry(&call)
    }
}
