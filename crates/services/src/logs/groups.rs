//! Log groups: create, delete, describe, retention, protection.

use api::logs::{LogGroup as LogGroupShape, *};
use domain::{
    IdSource, Tags,
    logs::{LogGroup, LogStream, RETENTION_DAYS},
};
use wire::ServiceError;

use super::{
    Answer,
    names::{self, invalid, no_group, page, permission, refuse},
    tags, tokens,
};
use crate::Call;

/// The most log groups, which is Amazon's limit for an account and region.
const MAX_GROUPS: usize = 1_000_000;
/// Groups on a page where no limit is given.
const PAGE: usize = 50;
/// The only class of log groups there is here.
const CLASS: &str = "STANDARD";

pub(super) async fn create(call: &Call, input: CreateLogGroupRequest) -> Answer<()> {
    let name = input.log_group_name.unwrap_or_default();
    let auth = call.authorise(&[permission(&call.scope, &name, "")])?;
    refuse(&[
        ("kmsKeyId", input.kms_key_id.is_some()),
        ("logGroupClass", input.log_group_class.is_some_and(|class| class != CLASS)),
    ])?;
    if name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws/")) {
        return Err(invalid("Log groups starting with AWS/ are reserved for AWS."));
    }
    let group = LogGroup {
        scope: call.scope.clone(),
        id: new_id(&mut auth.platform().ids()),
        created: auth.now(),
        retention_in_days: None,
        deletion_protected: input.deletion_protection_enabled.unwrap_or(false),
        tags: Tags::from_request(input.tags.unwrap_or_default()).map_err(tags::refusal)?,
        name,
    };
    auth.transact(|tx| {
        if tx.contains::<LogGroup>(&LogGroup::key_of(&group.scope, &group.name)) {
            return Err(error::resource_already_exists_exception("The specified log group already exists"));
        }
        if tx.count_all::<LogGroup>() >= MAX_GROUPS {
            return Err(error::limit_exceeded_exception("Resource limit exceeded."));
        }
        tx.put(group);
        Ok(())
    })
    .await
}

pub(super) async fn delete(call: &Call, input: DeleteLogGroupRequest) -> Answer<()> {
    let name = input.log_group_name.unwrap_or_default();
    let auth = call.authorise(&[permission(&call.scope, &name, "")])?;
    let scope = call.scope.clone();
    let deleted = auth
        .transact(move |tx| {
            refuse_protected(names::group(tx, &scope, &name)?.as_ref())?;
            let streams: Vec<_> = tx.list::<LogStream>(&LogStream::key_of(&scope, &name, "")).collect();
            for stream in &streams {
                tx.delete::<LogStream>(&LogStream::key_of(&scope, &name, &stream.name));
            }
            tx.delete::<LogGroup>(&LogGroup::key_of(&scope, &name));
            Ok(streams)
        })
        .await?;
    for stream in deleted {
        auth.platform().logs.forget(stream.id);
    }
    Ok(())
}

/// Refuses to delete a protected group or anything in it.
pub(super) fn refuse_protected(group: &LogGroup) -> Answer<()> {
    if group.deletion_protected {
        let text = "The log group has deletion protection enabled. Disable it before deleting the resource.";
        return Err(error::validation_exception(text));
    }
    Ok(())
}

pub(super) fn describe(call: &Call, input: &DescribeLogGroupsRequest) -> Answer<DescribeLogGroupsResponse> {
    let auth = call.authorise(&[permission(&call.scope, "", "")])?;
    refuse(&[
        ("includeLinkedAccounts", input.include_linked_accounts == Some(true)),
        ("accountIdentifiers", input.account_identifiers.as_ref().is_some_and(|accounts| !accounts.is_empty())),
    ])?;
    let snapshot = auth.snapshot();
    let events = &auth.platform().logs;
    let shape = |group: &LogGroup| shape(group, events.group_bytes(group.id));
    if let Some(identifiers) = &input.log_group_identifiers {
        let names: Result<Vec<String>, ServiceError> =
            identifiers.iter().map(|identifier| names::of_identifier(call, identifier)).collect();
        let mut groups: Vec<_> =
            names?.iter().filter_map(|name| snapshot.get::<LogGroup>(&LogGroup::key_of(&call.scope, name))).collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups.dedup_by(|a, b| a.name == b.name);
        let log_groups = Some(groups.iter().map(|group| shape(group)).collect());
        return Ok(DescribeLogGroupsResponse { log_groups, next_token: None });
    }
    let (prefix, pattern) = (input.log_group_name_prefix.as_deref(), input.log_group_name_pattern.as_deref());
    if prefix.is_some() && pattern.is_some() {
        let text = "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.";
        return Err(invalid(text));
    }
    let prefix = call.scope.key(prefix.unwrap_or(""));
    let after = after(call, input.next_token.as_deref())?;
    let wanted = input.log_group_class.as_deref().is_none_or(|class| class == CLASS);
    let groups = snapshot
        .list_after::<LogGroup>(&prefix, &after)
        .filter(|group| wanted && pattern.is_none_or(|pattern| group.name.contains(pattern)));
    let (groups, next) = page(groups, input.limit, PAGE, |group| group.name.clone());
    let mut shapes: Vec<LogGroupShape> = groups.iter().map(|group| shape(group)).collect();
    if pattern.is_some_and(|pattern| !pattern.is_empty()) {
        // Searched by a pattern, Amazon tells only what this leaves.
        for shape in &mut shapes {
            *shape = LogGroupShape {
                log_group_name: shape.log_group_name.take(),
                arn: shape.arn.take(),
                creation_time: shape.creation_time,
                ..LogGroupShape::default()
            };
        }
    }
    let next_token = next.map(|name| tokens::opaque(&name));
    Ok(DescribeLogGroupsResponse { log_groups: Some(shapes), next_token })
}

pub(super) fn list(call: &Call, input: &ListLogGroupsRequest) -> Answer<ListLogGroupsResponse> {
    let auth = call.authorise(&[permission(&call.scope, "", "")])?;
    refuse(&[
        ("includeLinkedAccounts", input.include_linked_accounts == Some(true)),
        ("accountIdentifiers", input.account_identifiers.as_ref().is_some_and(|accounts| !accounts.is_empty())),
        ("dataSources", input.data_sources.is_some()),
        ("fieldIndexNames", input.field_index_names.is_some()),
    ])?;
    let snapshot = auth.snapshot();
    let after = after(call, input.next_token.as_deref())?;
    let prefix = call.scope.prefix();
    let wanted = input.log_group_class.as_deref().is_none_or(|class| class == CLASS);
    let named = |group: &LogGroup| {
        let mut parts = input.log_group_name_pattern.as_deref().map(|pattern| pattern.split('|'));
        parts.as_mut().is_none_or(|parts| {
            parts.any(|part| match part.strip_prefix('^') {
                Some(start) => group.name.starts_with(start),
                None => group.name.contains(part),
            })
        })
    };
    let tagged = |group: &LogGroup| {
        input.log_group_tags.iter().flatten().all(|filter| {
            let value = group.tags.get(filter.key.as_deref().unwrap_or(""));
            let values = filter.values.as_deref().unwrap_or_default();
            value.is_some_and(|value| values.is_empty() || values.iter().any(|wanted| wanted == value))
        })
    };
    let groups = snapshot.list_after::<LogGroup>(&prefix, &after);
    let groups = groups.filter(|group| wanted && named(group) && tagged(group));
    let (groups, next) = page(groups, input.limit, PAGE, |group| group.name.clone());
    let summary = |group: &LogGroup| LogGroupSummary {
        log_group_name: Some(group.name.clone()),
        log_group_arn: Some(group.arn().to_string()),
        log_group_class: Some(CLASS.to_owned()),
    };
    let log_groups = Some(groups.iter().map(|group| summary(group)).collect());
    Ok(ListLogGroupsResponse { log_groups, next_token: next.map(|name| tokens::opaque(&name)) })
}

fn after(call: &Call, token: Option<&str>) -> Answer<String> {
    match token {
        Some(token) => Ok(call.scope.key(&tokens::parse_opaque(token)?)),
        None => Ok(String::new()),
    }
}

pub(super) async fn put_retention(call: &Call, input: PutRetentionPolicyRequest) -> Answer<()> {
    let given = input.retention_in_days.unwrap_or_default();
    let days = u32::try_from(given).ok().filter(|days| RETENTION_DAYS.contains(days));
    let name = input.log_group_name.unwrap_or_default();
    change(call, name, |group| match days {
        Some(days) => {
            group.retention_in_days = Some(days);
            Ok(())
        }
        None => Err(invalid(format!(
            "1 validation error detected: Value '{given}' at 'retentionInDays' failed to satisfy constraint: \
             Member must satisfy enum value set: {RETENTION_DAYS:?}"
        ))),
    })
    .await
}

pub(super) async fn delete_retention(call: &Call, input: DeleteRetentionPolicyRequest) -> Answer<()> {
    let name = input.log_group_name.unwrap_or_default();
    change(call, name, |group| {
        group.retention_in_days = None;
        Ok(())
    })
    .await
}

pub(super) async fn put_deletion_protection(call: &Call, input: PutLogGroupDeletionProtectionRequest) -> Answer<()> {
    let name = names::of_identifier(call, input.log_group_identifier.as_deref().unwrap_or(""))?;
    change(call, name, |group| {
        group.deletion_protected = input.deletion_protection_enabled.unwrap_or(false);
        Ok(())
    })
    .await
}

/// Changes a group in one transaction.
pub(super) async fn change(call: &Call, name: String, change: impl FnOnce(&mut LogGroup) -> Answer<()>) -> Answer<()> {
    let auth = call.authorise(&[permission(&call.scope, &name, "")])?;
    let key = LogGroup::key_of(&call.scope, &name);
    auth.transact(move |tx| {
        let mut result = Err(no_group());
        let group = tx.get::<LogGroup>(&key);
        if let Some(group) = group {
            let mut group = LogGroup::clone(&group);
            result = change(&mut group);
            if result.is_ok() {
                tx.put(group);
            }
        }
        result
    })
    .await
}

/// A number for a new group or stream: 64 random bits, so that none comes twice.
pub(super) fn new_id(ids: &mut IdSource) -> u64 {
    u64::from_str_radix(&ids.hex(16), 16).unwrap_or_default()
}

fn shape(group: &LogGroup, bytes: u64) -> LogGroupShape {
    let arn = group.arn().to_string();
    LogGroupShape {
        log_group_name: Some(group.name.clone()),
        creation_time: Some(group.created.millis()),
        retention_in_days: group.retention_in_days.and_then(|days| i32::try_from(days).ok()),
        metric_filter_count: Some(0),
        arn: Some(format!("{arn}:*")),
        stored_bytes: Some(i64::try_from(bytes).unwrap_or(i64::MAX)),
        log_group_class: Some(CLASS.to_owned()),
        log_group_arn: Some(arn),
        deletion_protection_enabled: Some(group.deletion_protected),
        ..LogGroupShape::default()
    }
}
