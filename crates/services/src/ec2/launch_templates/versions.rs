//! Versions of launch templates. Numbers are given once: what was deleted leaves a gap.

use std::sync::Arc;

use api::ec2::{
    CreateLaunchTemplateVersionRequest, CreateLaunchTemplateVersionResult, DeleteLaunchTemplateVersionsRequest,
    DeleteLaunchTemplateVersionsResponseErrorItem, DeleteLaunchTemplateVersionsResponseSuccessItem,
    DeleteLaunchTemplateVersionsResult, DescribeLaunchTemplateVersionsRequest, DescribeLaunchTemplateVersionsResult,
    ResponseError,
};
use domain::instances::{LaunchTemplate, LaunchTemplateVersion};
use store::Snapshot;
use wire::ServiceError;

use super::{check_description, data, template};
use crate::{
    Call,
    ec2::{
        common::{begin, check_filters, matches_any, page, required, unsupported},
        instances::{request, shape::time},
    },
};

/// Versions of one template.
const MAX_VERSIONS: usize = 10_000;
/// Versions that one request may name.
const MAX_NAMED: usize = 200;

/// The number that a request means: itself, `$Latest` or `$Default`.
fn number(template: &LaunchTemplate, text: &str) -> Result<u64, ServiceError> {
    match text {
        "$Latest" => Ok(template.latest_version),
        "$Default" => Ok(template.default_version),
        text => text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
            let text = format!("Launch template version must be a number, $Latest or $Default: {text:.32}");
            ServiceError::new("InvalidLaunchTemplateId.VersionNotFound", text)
        }),
    }
}

/// The version of a template that a request means.
pub(super) fn find(
    view: &Snapshot,
    template: &LaunchTemplate,
    text: &str,
) -> Result<Arc<LaunchTemplateVersion>, ServiceError> {
    let number = number(template, text)?;
    let key = LaunchTemplateVersion::key_of(&template.scope, &template.launch_template_id, number);
    view.get::<LaunchTemplateVersion>(&key).ok_or_else(|| no_version(template, number))
}

fn no_version(template: &LaunchTemplate, number: u64) -> ServiceError {
    let text = format!(
        "Could not find the specified version {number} for the launch template with ID {}.",
        template.launch_template_id
    );
    ServiceError::new("InvalidLaunchTemplateId.VersionNotFound", text)
}

fn shape(template: &LaunchTemplate, version: &LaunchTemplateVersion) -> api::ec2::LaunchTemplateVersion {
    api::ec2::LaunchTemplateVersion {
        launch_template_id: Some(template.launch_template_id.clone()),
        launch_template_name: Some(template.name.clone()),
        version_number: i64::try_from(version.number).ok(),
        version_description: version.description.clone(),
        create_time: Some(time(version.created_at)),
        created_by: Some(version.created_by.clone()),
        default_version: Some(template.default_version == version.number),
        launch_template_data: Some(data::shape(&version.data)),
        operator: None,
    }
}

/// CreateLaunchTemplateVersion: with SourceVersion, what is not said is taken from there.
pub(in crate::ec2) async fn create(
    call: Call,
    input: CreateLaunchTemplateVersionRequest,
) -> Result<CreateLaunchTemplateVersionResult, ServiceError> {
    if input.resolve_alias == Some(true) {
        return Err(unsupported("resolve_alias"));
    }
    check_description(input.version_description.as_ref())?;
    let said = request::of_template(required(input.launch_template_data, "LaunchTemplateData")?)?;
    let id = input.launch_template_id.as_deref();
    let auth = begin(&call, &[format!("launch-template/{}", id.unwrap_or("*"))], input.dry_run)?;
    let (client_token, now) = (input.client_token.filter(|token| !token.is_empty()), auth.now());
    let shape = auth
        .transact(|tx| {
            let known = template(&call, tx, id, input.launch_template_name.as_deref())?;
            let prefix = LaunchTemplateVersion::prefix_of(&call.scope, &known.launch_template_id);
            let made = tx
                .list::<LaunchTemplateVersion>(&prefix)
                .find(|one| client_token.is_some() && one.client_token == client_token);
            if let Some(made) = made {
                return Ok(shape(&known, &made));
            }
            if tx.list::<LaunchTemplateVersion>(&prefix).count() >= MAX_VERSIONS {
                let text = format!("A launch template cannot have more than {MAX_VERSIONS} versions.");
                return Err(ServiceError::new("VersionLimitExceeded", text));
            }
            let data = match input.source_version.as_deref() {
                Some(source) => said.over(find(tx, &known, source)?.data.clone()),
                None => said,
            };
            let number = known.latest_version.saturating_add(1);
            let changed = LaunchTemplate { latest_version: number, ..LaunchTemplate::clone(&known) };
            let version = LaunchTemplateVersion {
                scope: call.scope.clone(),
                launch_template_id: known.launch_template_id.clone(),
                number,
                description: input.version_description,
                data,
                created_by: auth.principal.arn().to_string(),
                created_at: now,
                client_token,
            };
            let shown = shape(&changed, &version);
            tx.put(changed);
            tx.put(version);
            Ok(shown)
        })
        .await?;
    Ok(CreateLaunchTemplateVersionResult { launch_template_version: Some(shape), warning: None })
}

const FILTERS: [&str; 12] = [
    "create-time",
    "ebs-optimized",
    "http-endpoint",
    "http-tokens",
    "iam-instance-profile",
    "image-id",
    "instance-type",
    "is-default-version",
    "kernel-id",
    "key-name",
    "ram-disk-id",
    "network-interface-id",
];

fn value(version: &api::ec2::LaunchTemplateVersion, name: &str) -> Option<String> {
    let data = version.launch_template_data.as_ref()?;
    match name {
        "create-time" => version.create_time.map(|at| at.to_rfc3339()),
        "ebs-optimized" => data.ebs_optimized.map(|on| on.to_string()),
        "http-endpoint" => data.metadata_options.as_ref()?.http_endpoint.clone(),
        "http-tokens" => data.metadata_options.as_ref()?.http_tokens.clone(),
        "iam-instance-profile" => {
            data.iam_instance_profile.as_ref().and_then(|profile| profile.arn.clone().or_else(|| profile.name.clone()))
        }
        "image-id" => data.image_id.clone(),
        "instance-type" => data.instance_type.clone(),
        "is-default-version" => version.default_version.map(|on| on.to_string()),
        "key-name" => data.key_name.clone(),
        _ => None,
    }
}

/// DescribeLaunchTemplateVersions: of one template; or, without one, the default or latest versions of all.
pub(in crate::ec2) async fn list(
    call: Call,
    input: DescribeLaunchTemplateVersionsRequest,
) -> Result<DescribeLaunchTemplateVersionsResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    if input.resolve_alias == Some(true) {
        return Err(unsupported("resolve_alias"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let filters = input.filters.unwrap_or_default();
    check_filters(&filters, &FILTERS)?;
    let view = auth.snapshot();
    let named = input.versions.unwrap_or_default();
    if named.len() > MAX_NAMED {
        let text = format!("A request cannot name more than {MAX_NAMED} versions.");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    let (id, name) = (input.launch_template_id.as_deref(), input.launch_template_name.as_deref());
    let mut found: Vec<(String, api::ec2::LaunchTemplateVersion)> = Vec::new();
    let mut add = |template: &LaunchTemplate, version: &LaunchTemplateVersion| {
        // The newest comes first, as at Amazon.
        let key = format!("{}/{:020}", template.launch_template_id, u64::MAX - version.number);
        if !found.iter().any(|(known, _)| *known == key) {
            found.push((key, shape(template, version)));
        }
    };
    if id.is_none() && name.is_none() {
        if named.is_empty() || !named.iter().all(|one| matches!(one.as_str(), "$Latest" | "$Default")) {
            let text = "The request must contain a launch template, or the versions $Latest or $Default";
            return Err(ServiceError::new("MissingParameter", text));
        }
        for template in view.list::<LaunchTemplate>(&call.scope.prefix()) {
            for text in &named {
                if let Ok(version) = find(&view, &template, text) {
                    add(&template, &version);
                }
            }
        }
    } else {
        let template = template(&call, &view, id, name)?;
        if named.is_empty() {
            let bound = |text: Option<String>| text.map(|text| number(&template, &text)).transpose();
            let (least, most) = (bound(input.min_version)?.unwrap_or(1), bound(input.max_version)?.unwrap_or(u64::MAX));
            let prefix = LaunchTemplateVersion::prefix_of(&call.scope, &template.launch_template_id);
            let versions = view.list::<LaunchTemplateVersion>(&prefix);
            versions
                .filter(|version| (least..=most).contains(&version.number))
                .for_each(|version| add(&template, &version));
        } else {
            for text in &named {
                add(&template, &*find(&view, &template, text)?);
            }
        }
    }
    found.retain(|(_, version)| {
        filters.iter().all(|filter| {
            let known: Vec<String> = value(version, filter.name.as_deref().unwrap_or_default()).into_iter().collect();
            matches_any(filter.values.as_deref().unwrap_or_default(), &known)
        })
    });
    let most = input.max_results.map(|most| most.max(5));
    let (versions, next_token) = page(&call, found, most, input.next_token.as_deref())?;
    Ok(DescribeLaunchTemplateVersionsResult { launch_template_versions: Some(versions), next_token })
}

/// DeleteLaunchTemplateVersions: each by itself; the default one stays.
pub(in crate::ec2) async fn delete(
    call: Call,
    input: DeleteLaunchTemplateVersionsRequest,
) -> Result<DeleteLaunchTemplateVersionsResult, ServiceError> {
    let id = input.launch_template_id.as_deref();
    let named = required(input.versions, "LaunchTemplateVersion")?;
    if named.len() > MAX_NAMED {
        let text = format!("A request cannot name more than {MAX_NAMED} versions.");
        return Err(ServiceError::new("InvalidParameterValue", text));
    }
    let auth = begin(&call, &[format!("launch-template/{}", id.unwrap_or("*"))], input.dry_run)?;
    auth.transact(|tx| {
        let known = template(&call, tx, id, input.launch_template_name.as_deref())?;
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for text in &named {
            let outcome = find(tx, &known, text).and_then(|version| {
                if version.number == known.default_version {
                    let text = "The default version of a launch template cannot be deleted.";
                    return Err(ServiceError::new("unexpectedError", text));
                }
                Ok(version)
            });
            match outcome {
                Ok(version) => {
                    tx.delete::<LaunchTemplateVersion>(&domain::Resource::key(&*version));
                    gone.push(DeleteLaunchTemplateVersionsResponseSuccessItem {
                        launch_template_id: Some(known.launch_template_id.clone()),
                        launch_template_name: Some(known.name.clone()),
                        version_number: i64::try_from(version.number).ok(),
                    });
                }
                Err(error) => {
                    let missing = error.code().ends_with("VersionNotFound");
                    kept.push(DeleteLaunchTemplateVersionsResponseErrorItem {
                        launch_template_id: Some(known.launch_template_id.clone()),
                        launch_template_name: Some(known.name.clone()),
                        version_number: number(&known, text).ok().and_then(|number| i64::try_from(number).ok()),
                        response_error: Some(ResponseError {
                            code: Some(
                                if missing { "launchTemplateVersionDoesNotExist" } else { "unexpectedError" }.into(),
                            ),
                            message: Some(error.message().to_owned()),
                        }),
                    });
                }
            }
        }
        Ok(DeleteLaunchTemplateVersionsResult {
            successfully_deleted_launch_template_versions: Some(gone),
            unsuccessfully_deleted_launch_template_versions: Some(kept),
        })
    })
    .await
}
