//! Which group or stream a request means, and Amazon's words when there is none.

use std::sync::Arc;

use api::logs::error;
use domain::{
    Arn, Scope,
    logs::{LogGroup, LogStream},
};
use store::Snapshot;
use wire::ServiceError;

use super::Answer;
use crate::Call;

pub(super) fn invalid(message: impl Into<String>) -> ServiceError {
    error::invalid_parameter_exception(message)
}

/// A field that is not honoured is refused by its name.
pub(super) fn refuse(fields: &[(&str, bool)]) -> Answer<()> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(invalid(format!("{field} is not supported by Longshore yet."))),
        None => Ok(()),
    }
}

pub(super) fn no_group() -> ServiceError {
    error::resource_not_found_exception("The specified log group does not exist.")
}

pub(super) fn no_stream() -> ServiceError {
    error::resource_not_found_exception("The specified log stream does not exist.")
}

/// What a policy's resource is matched with: Amazon asks about the stream, and about an empty one for whole groups.
pub(super) fn permission(scope: &Scope, group: &str, stream: &str) -> Arn {
    scope.arn("logs", &format!("log-group:{group}:log-stream:{stream}"))
}

/// The group's name in `logGroupName` or `logGroupIdentifier`, of which there must be one.
pub(super) fn named(call: &Call, name: Option<&str>, identifier: Option<&str>) -> Answer<String> {
    match (name, identifier) {
        (Some(name), None) => Ok(name.to_owned()),
        (None, Some(identifier)) => of_identifier(call, identifier),
        (Some(_), Some(_)) => Err(invalid("Only one of logGroupName and logGroupIdentifier can be specified.")),
        (None, None) => Err(invalid("Either logGroupName or logGroupIdentifier must be specified.")),
    }
}

/// The group's name in a name or an ARN.
pub(super) fn of_identifier(call: &Call, identifier: &str) -> Answer<String> {
    if identifier.starts_with("arn:") { of_arn(call, identifier) } else { Ok(identifier.to_owned()) }
}

/// The group's name in an ARN, with or without `:*` at its end.
pub(super) fn of_arn(call: &Call, text: &str) -> Answer<String> {
    let malformed = || invalid(format!("Invalid ARN: {text}"));
    let arn: Arn = text.strip_suffix(":*").unwrap_or(text).parse().map_err(|_| malformed())?;
    let name = arn.resource().strip_prefix("log-group:").ok_or_else(malformed)?;
    if arn.service() != "logs" || name.is_empty() || name.contains(':') {
        return Err(malformed());
    }
    let own = arn.region() == call.scope.region.as_str() && arn.account() == call.scope.account.as_str();
    if own { Ok(name.to_owned()) } else { Err(no_group()) }
}

pub(super) fn group(snapshot: &Snapshot, scope: &Scope, name: &str) -> Answer<Arc<LogGroup>> {
    snapshot.get::<LogGroup>(&LogGroup::key_of(scope, name)).ok_or_else(no_group)
}

/// A stream, or whichever is missing: it or its group.
pub(super) fn stream(snapshot: &Snapshot, scope: &Scope, group_name: &str, name: &str) -> Answer<Arc<LogStream>> {
    match snapshot.get::<LogStream>(&LogStream::key_of(scope, group_name, name)) {
        Some(stream) => Ok(stream),
        None => group(snapshot, scope, group_name).and_then(|_| Err(no_stream())),
    }
}

/// A page of at most `limit`, and the key after which the next one begins.
pub(super) fn page<T>(
    items: impl Iterator<Item = T>,
    limit: Option<i32>,
    default: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
    let mut items: Vec<T> = items.take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(key);
    (items, next)
}
