//! Launch templates. Their versions' data is read by `instances::request` and shown by [`data`].

mod data;
pub(super) mod versions;

use std::sync::Arc;

use api::ec2::{
    CreateLaunchTemplateRequest, CreateLaunchTemplateResult, DeleteLaunchTemplateRequest, DeleteLaunchTemplateResult,
    DescribeLaunchTemplatesRequest, DescribeLaunchTemplatesResult, LaunchTemplateSpecification,
    ModifyLaunchTemplateRequest, ModifyLaunchTemplateResult,
};
use domain::instances::{LaunchTemplate, LaunchTemplateVersion};
use store::Snapshot;
use wire::ServiceError;

use super::{
    common::{Filterable, Noun, Query, begin, describe, invalid_value, refuse, required, unsupported},
    instances::{request, shape::time},
    tags,
};
use crate::Call;

/// Launch templates of an account in a region.
const MAX_TEMPLATES: usize = 5000;

const FILTERS: Filterable<LaunchTemplate> = Filterable {
    names: &["create-time", "launch-template-name"],
    values: |_, template, name| {
        vec![match name {
            "create-time" => wire::Timestamp(template.created_at.millis()).to_rfc3339(),
            _ => template.name.clone(),
        }]
    },
};

fn shape(template: &LaunchTemplate) -> api::ec2::LaunchTemplate {
    api::ec2::LaunchTemplate {
        launch_template_id: Some(template.launch_template_id.clone()),
        launch_template_name: Some(template.name.clone()),
        create_time: Some(time(template.created_at)),
        created_by: Some(template.created_by.clone()),
        default_version_number: i64::try_from(template.default_version).ok(),
        latest_version_number: i64::try_from(template.latest_version).ok(),
        tags: tags::shape(&template.tags),
        operator: None,
    }
}

fn by_name(call: &Call, view: &Snapshot, name: &str) -> Option<Arc<LaunchTemplate>> {
    view.find::<LaunchTemplate>(LaunchTemplate::BY_NAME, call.scope.key(name)).next()
}

/// The template that a request means by id or by name, not by both.
fn template(
    call: &Call,
    view: &Snapshot,
    id: Option<&str>,
    name: Option<&str>,
) -> Result<Arc<LaunchTemplate>, ServiceError> {
    match (id, name) {
        (Some(_), Some(_)) => Err(ServiceError::new(
            "InvalidParameterCombination",
            "The parameters LaunchTemplateId and LaunchTemplateName cannot be used together",
        )),
        (Some(id), None) => {
            check_id(id)?;
            super::common::find::<LaunchTemplate>(call, view, id)
        }
        (None, Some(name)) => by_name(call, view, name).ok_or_else(|| no_name(name)),
        (None, None) => Err(ServiceError::new(
            "MissingParameter",
            "The request must contain the parameter LaunchTemplateId or LaunchTemplateName",
        )),
    }
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    let digits = id.strip_prefix("lt-").unwrap_or_default();
    if digits.len() == 17 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    let text = format!("The launch template ID '{id:.64}' is malformed.");
    Err(ServiceError::new("InvalidLaunchTemplateId.Malformed", text))
}

fn no_name(name: &str) -> ServiceError {
    let text = format!("The specified launch template, with template name {name:.128}, does not exist.");
    ServiceError::new("InvalidLaunchTemplateName.NotFoundException", text)
}

/// The version that a launch means; the default one when it names none.
pub(super) fn version(
    call: &Call,
    view: &Snapshot,
    specification: &LaunchTemplateSpecification,
) -> Result<Arc<LaunchTemplateVersion>, ServiceError> {
    let id = specification.launch_template_id.as_deref();
    let template = template(call, view, id, specification.launch_template_name.as_deref())?;
    versions::find(view, &template, specification.version.as_deref().unwrap_or("$Default"))
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-().[]/_".contains(c);
    if (3..=128).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let text = "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and \
        the following characters: - ( ) . / _";
    Err(ServiceError::new("InvalidLaunchTemplateName.MalformedException", text))
}

fn check_description(description: Option<&String>) -> Result<(), ServiceError> {
    match description.filter(|description| description.chars().count() > 255) {
        Some(description) => Err(invalid_value(description, "VersionDescription", "It has at most 255 characters.")),
        None => Ok(()),
    }
}

/// CreateLaunchTemplate: the template with its first version.
pub(super) async fn create(
    call: Call,
    input: CreateLaunchTemplateRequest,
) -> Result<CreateLaunchTemplateResult, ServiceError> {
    refuse!(input; operator);
    let name = required(input.launch_template_name, "LaunchTemplateName")?;
    check_name(&name)?;
    check_description(input.version_description.as_ref())?;
    let data = request::of_template(required(input.launch_template_data, "LaunchTemplateData")?)?;
    let tags = tags::specified(input.tag_specifications, "launch-template")?;
    let auth = begin(&call, &["launch-template/*".to_owned()], input.dry_run)?;
    let (client_token, now) = (input.client_token.filter(|token| !token.is_empty()), auth.now());
    let created_by = auth.principal.arn().to_string();
    let made = auth
        .transact(|tx| {
            if let Some(known) = by_name(&call, tx, &name) {
                if client_token.is_some() && known.client_token == client_token {
                    return Ok(known);
                }
                let text = "Launch template name already in use.";
                return Err(ServiceError::new("InvalidLaunchTemplateName.AlreadyExistsException", text));
            }
            if tx.list::<LaunchTemplate>(&call.scope.prefix()).count() >= MAX_TEMPLATES {
                let text = format!("You have reached the limit of {MAX_TEMPLATES} launch templates per region.");
                return Err(ServiceError::new("LaunchTemplateLimitExceeded", text));
            }
            let template = LaunchTemplate {
                scope: call.scope.clone(),
                launch_template_id: auth.platform().ids().ec2("lt"),
                name,
                default_version: 1,
                latest_version: 1,
                created_by: created_by.clone(),
                created_at: now,
                client_token: client_token.clone(),
                tags,
            };
            tx.put(LaunchTemplateVersion {
                scope: call.scope.clone(),
                launch_template_id: template.launch_template_id.clone(),
                number: 1,
                description: input.version_description,
                data,
                created_by,
                created_at: now,
                client_token,
            });
            tx.put(template.clone());
            Ok(Arc::new(template))
        })
        .await?;
    Ok(CreateLaunchTemplateResult { launch_template: Some(shape(&made)), warning: None })
}

/// DescribeLaunchTemplates.
pub(super) async fn list(
    call: Call,
    input: DescribeLaunchTemplatesRequest,
) -> Result<DescribeLaunchTemplatesResult, ServiceError> {
    if input.include_managed_resources == Some(true) {
        return Err(unsupported("include_managed_resources"));
    }
    let auth = begin(&call, &[], input.dry_run)?;
    let view = auth.snapshot();
    let mut ids = input.launch_template_ids.unwrap_or_default();
    ids.iter().try_for_each(|id| check_id(id))?;
    for name in input.launch_template_names.unwrap_or_default() {
        let known = by_name(&call, &view, &name).ok_or_else(|| no_name(&name))?;
        ids.push(known.launch_template_id.clone());
    }
    // Amazon's pages have up to 200 templates; ours may have more.
    let query = Query {
        ids: Some(ids),
        filters: input.filters,
        max_results: input.max_results.map(|most| most.max(5)),
        next_token: input.next_token,
    };
    let (templates, next_token) = describe(&call, &view, query, &FILTERS)?;
    let launch_templates = Some(templates.iter().map(|template| shape(template)).collect());
    Ok(DescribeLaunchTemplatesResult { launch_templates, next_token })
}

/// ModifyLaunchTemplate: which version is the default one.
pub(super) async fn modify(
    call: Call,
    input: ModifyLaunchTemplateRequest,
) -> Result<ModifyLaunchTemplateResult, ServiceError> {
    let id = input.launch_template_id.as_deref();
    let auth = begin(&call, &[format!("launch-template/{}", id.unwrap_or("*"))], input.dry_run)?;
    let wanted = required(input.default_version.clone(), "SetDefaultVersion")?;
    let made = auth
        .transact(|tx| {
            let known = template(&call, tx, id, input.launch_template_name.as_deref())?;
            let version = versions::find(tx, &known, &wanted)?;
            let changed = LaunchTemplate { default_version: version.number, ..LaunchTemplate::clone(&known) };
            tx.put(changed.clone());
            Ok(changed)
        })
        .await?;
    Ok(ModifyLaunchTemplateResult { launch_template: Some(shape(&made)) })
}

/// DeleteLaunchTemplate: with all its versions.
pub(super) async fn delete(
    call: Call,
    input: DeleteLaunchTemplateRequest,
) -> Result<DeleteLaunchTemplateResult, ServiceError> {
    let id = input.launch_template_id.as_deref();
    let auth = begin(&call, &[format!("launch-template/{}", id.unwrap_or("*"))], input.dry_run)?;
    let gone = auth
        .transact(|tx| {
            let known = template(&call, tx, id, input.launch_template_name.as_deref())?;
            let prefix = LaunchTemplateVersion::prefix_of(&call.scope, known.id());
            let versions: Vec<String> =
                tx.list::<LaunchTemplateVersion>(&prefix).map(|version| domain::Resource::key(&*version)).collect();
            versions.iter().for_each(|key| tx.delete::<LaunchTemplateVersion>(key));
            tx.delete::<LaunchTemplate>(&call.scope.key(known.id()));
            Ok(known)
        })
        .await?;
    Ok(DeleteLaunchTemplateResult { launch_template: Some(shape(&gone)) })
}
