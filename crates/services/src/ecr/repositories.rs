//! Repositories: create, describe, delete, tag mutability.

use api::ecr::{Repository as RepositoryShape, *};
use domain::{
    Resource, Tags,
    repositories::{Image, NAME_PATTERN, Repository, TagMutability, repository_arn, repository_key, valid_name},
};

use super::{
    Answer, Target, authorization::registry_host, invalid, page, position, refusal, registry_scope, unsupported,
};
use crate::{Authorised, Call};

pub(super) async fn create(call: &Call, input: CreateRepositoryRequest) -> Answer<CreateRepositoryResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    if !valid_name(&target.name) {
        return Err(invalid("repositoryName", &format!("must satisfy regular expression '{NAME_PATTERN}'")));
    }
    if input.image_scanning_configuration.is_some_and(|scanning| scanning.scan_on_push == Some(true)) {
        return Err(unsupported("Image scanning", "imageScanningConfiguration.scanOnPush"));
    }
    if let Some(encryption) = input.encryption_configuration {
        if encryption.encryption_type.is_some_and(|kind| kind != "AES256") {
            return Err(unsupported("Encryption with KMS keys", "encryptionConfiguration.encryptionType"));
        }
        if encryption.kms_key.is_some() {
            return Err(unsupported("Encryption with KMS keys", "encryptionConfiguration.kmsKey"));
        }
    }
    let mutability = mutability(input.image_tag_mutability, input.image_tag_mutability_exclusion_filters)?;
    let repository = Repository {
        scope: target.scope,
        name: target.name,
        created: auth.now(),
        mutability,
        tags: super::tags::from_request(input.tags)?,
        policy: None,
    };
    let shape = shape(&auth, &repository);
    auth.transact(|tx| {
        if tx.contains::<Repository>(&repository.key()) {
            return Err(error::repository_already_exists_exception(format!(
                "The repository with name '{}' already exists in the registry with id '{}'",
                repository.name, repository.scope.account
            )));
        }
        tx.put(repository);
        Ok(())
    })
    .await?;
    Ok(CreateRepositoryResponse { repository: Some(shape) })
}

pub(super) fn describe(call: &Call, input: DescribeRepositoriesRequest) -> Answer<DescribeRepositoriesResponse> {
    let scope = registry_scope(call, input.registry_id)?;
    if let Some(names) = input.repository_names.filter(|names| !names.is_empty()) {
        let arns: Vec<_> = names.iter().map(|name| repository_arn(&scope, name)).collect();
        let auth = call.authorise(&arns)?;
        let snapshot = auth.snapshot();
        let found = names.iter().map(|name| registry::layers::repository(&snapshot, &scope, name).map_err(refusal));
        let found: Vec<_> = found.collect::<Answer<_>>()?;
        let repositories = Some(found.iter().map(|repository| shape(&auth, repository)).collect());
        return Ok(DescribeRepositoriesResponse { repositories, next_token: None });
    }
    let auth = call.authorise(&[repository_arn(&scope, "*")])?;
    let after = match position(call, input.next_token.as_deref())? {
        name if name.is_empty() => String::new(),
        name => repository_key(&scope, &name),
    };
    let (snapshot, prefix) = (auth.snapshot(), scope.prefix());
    let repositories = snapshot.list_after::<Repository>(&prefix, &after);
    let (found, next_token) = page(call, repositories, input.max_results, |repository| repository.name.clone());
    let repositories = Some(found.iter().map(|repository| shape(&auth, repository)).collect());
    Ok(DescribeRepositoriesResponse { repositories, next_token })
}

pub(super) async fn delete(call: &Call, input: DeleteRepositoryRequest) -> Answer<DeleteRepositoryResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let force = input.force == Some(true);
    let deleted = auth
        .transact(|tx| {
            let repository =
                registry::layers::repository(tx, &target.scope, &target.name).map_err(refusal)?;
            if !force && tx.count::<Image>(Image::BY_REPOSITORY, repository.key()) > 0 {
                return Err(error::repository_not_empty_exception(format!(
                    "The repository with name '{}' in registry with id '{}' cannot be deleted because it still contains images",
                    target.name, target.scope.account
                )));
            }
            registry::images::clear(tx, &target.scope, &target.name);
            tx.delete::<Repository>(&repository.key());
            Ok(repository)
        })
        .await?;
    Ok(DeleteRepositoryResponse { repository: Some(shape(&auth, &deleted)) })
}

pub(super) async fn put_tag_mutability(
    call: &Call,
    input: PutImageTagMutabilityRequest,
) -> Answer<PutImageTagMutabilityResponse> {
    let target = Target::of(call, input.registry_id, input.repository_name)?;
    let auth = target.authorise(call)?;
    let mutability = mutability(input.image_tag_mutability, input.image_tag_mutability_exclusion_filters)?;
    change(&auth, &target, |repository| repository.mutability = mutability.clone()).await?;
    Ok(PutImageTagMutabilityResponse {
        registry_id: target.registry_id(),
        repository_name: target.repository_name(),
        image_tag_mutability: Some(mutability.name().to_owned()),
        image_tag_mutability_exclusion_filters: filters(&mutability),
    })
}

/// Changes a repository that must exist, and returns what it was before.
pub(super) async fn change(
    auth: &Authorised,
    target: &Target,
    change: impl FnOnce(&mut Repository),
) -> Answer<std::sync::Arc<Repository>> {
    auth.transact(|tx| {
        let before = registry::layers::repository(tx, &target.scope, &target.name).map_err(refusal)?;
        tx.update(&before.key(), change);
        Ok(before)
    })
    .await
}

fn mutability(
    setting: Option<String>,
    filters: Option<Vec<ImageTagMutabilityExclusionFilter>>,
) -> Answer<TagMutability> {
    let setting = setting.unwrap_or_else(|| "MUTABLE".to_owned());
    let exclusions: Vec<String> = filters.unwrap_or_default().into_iter().filter_map(|filter| filter.filter).collect();
    if exclusions.iter().any(|filter| filter.matches('*').count() > 2) {
        return Err(invalid("imageTagMutabilityExclusionFilters", "a filter can have at most two wildcards"));
    }
    if exclusions.len() > TagMutability::MAX_EXCLUSIONS {
        return Err(invalid("imageTagMutabilityExclusionFilters", "Member must have length less than or equal to 5"));
    }
    if setting.ends_with("_WITH_EXCLUSION") == exclusions.is_empty() {
        let text = "must be given with IMMUTABLE_WITH_EXCLUSION and MUTABLE_WITH_EXCLUSION, and only with them";
        return Err(invalid("imageTagMutabilityExclusionFilters", text));
    }
    Ok(TagMutability { immutable: setting.starts_with("IMMUTABLE"), exclusions })
}

fn filters(mutability: &TagMutability) -> Option<Vec<ImageTagMutabilityExclusionFilter>> {
    let filters = mutability.exclusions.iter().map(|filter| ImageTagMutabilityExclusionFilter {
        filter_type: Some("WILDCARD".to_owned()),
        filter: Some(filter.clone()),
    });
    (!mutability.exclusions.is_empty()).then(|| filters.collect())
}

fn shape(auth: &Authorised, repository: &Repository) -> RepositoryShape {
    let host = registry_host(auth.platform(), &repository.scope);
    RepositoryShape {
        repository_arn: Some(repository.arn().into()),
        registry_id: Some(repository.scope.account.to_string()),
        repository_name: Some(repository.name.clone()),
        repository_uri: Some(format!("{host}/{}", repository.name)),
        created_at: Some(wire::Timestamp(repository.created.millis())),
        image_tag_mutability: Some(repository.mutability.name().to_owned()),
        image_tag_mutability_exclusion_filters: filters(&repository.mutability),
        image_scanning_configuration: Some(ImageScanningConfiguration { scan_on_push: Some(false) }),
        encryption_configuration: Some(EncryptionConfiguration {
            encryption_type: Some("AES256".to_owned()),
            kms_key: None,
        }),
    }
}

/// The tags of a repository's resource, for [`super::tags`].
pub(super) fn tags_of(auth: &Authorised, target: &Target) -> Answer<Tags> {
    let repository = registry::layers::repository(&auth.snapshot(), &target.scope, &target.name).map_err(refusal)?;
    Ok(repository.tags.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_go_with_their_settings_only() {
        let filter = |text: &str| ImageTagMutabilityExclusionFilter {
            filter_type: Some("WILDCARD".into()),
            filter: Some(text.into()),
        };
        let check = |setting: Option<&str>, filters: &[&str]| {
            mutability(setting.map(str::to_owned), Some(filters.iter().map(|text| filter(text)).collect()))
        };
        assert_eq!(check(None, &[]).unwrap().name(), "MUTABLE");
        assert_eq!(check(Some("IMMUTABLE"), &[]).unwrap().name(), "IMMUTABLE");
        assert_eq!(check(Some("IMMUTABLE_WITH_EXCLUSION"), &["dev-*"]).unwrap().name(), "IMMUTABLE_WITH_EXCLUSION");
        for (setting, filters) in [
            ("IMMUTABLE", vec!["dev-*"]),
            ("MUTABLE_WITH_EXCLUSION", vec![]),
            ("MUTABLE_WITH_EXCLUSION", vec!["*a*b*"]),
            ("MUTABLE_WITH_EXCLUSION", vec!["a"; 6]),
        ] {
            let refused = check(Some(setting), &filters).unwrap_err();
            assert!(refused.is(&error::INVALID_PARAMETER_EXCEPTION), "{setting} {filters:?}");
        }
    }
}
