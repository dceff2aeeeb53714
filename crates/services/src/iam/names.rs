//! What every IAM call needs: names, paths, pages, and the roles they are about.

use std::sync::Arc;

use api::iam::error;
use domain::{
    Arn, Tags,
    identity::{DEFAULT_PATH, Role, role_key},
};
use store::Snapshot;
use wire::{Operation, ServiceError};

use crate::Call;

/// The largest page, and the one given when none is asked for.
const PAGE: usize = 100;

/// A required member: the model's validation has refused requests without it.
pub(super) fn required(member: Option<String>, name: &str) -> Result<String, ServiceError> {
    member
        .ok_or_else(|| ServiceError::new("ValidationError", format!("1 validation error detected: {name} is required")))
}

/// The ARN of something of the caller's account: `{kind}{path}{name}`, the path beginning and ending with `/`.
pub(super) fn arn(call: &Call, kind: &str, path: &str, name: &str) -> Arn {
    Arn::global(&call.scope.account, "iam", &format!("{kind}{path}{name}"))
}

pub(super) fn path(path: Option<String>) -> Result<String, ServiceError> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.to_owned());
    if path.starts_with('/') && path.ends_with('/') {
        return Ok(path);
    }
    Err(ServiceError::new(
        "ValidationError",
        "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
    ))
}

/// A role of the caller's account.
pub(super) fn role(call: &Call, snapshot: &Snapshot, name: &str) -> Result<Arc<Role>, ServiceError> {
    snapshot.get::<Role>(&role_key(&call.scope.account, name)).ok_or_else(|| no_role(name))
}

pub(super) fn no_role(name: &str) -> ServiceError {
    error::no_such_entity_exception(format!("The role with name {name} cannot be found."))
}

/// The ARN to authorise against: the role's own if it exists, else the one it would have.
pub(super) fn role_arn(call: &Call, name: &str) -> Arn {
    let role = call.unchecked_snapshot().get::<Role>(&role_key(&call.scope.account, name));
    role.map_or_else(|| arn(call, "role", DEFAULT_PATH, name), |role| role.arn.clone())
}

pub(super) fn tags(tags: Option<Vec<api::iam::Tag>>) -> Result<Tags, ServiceError> {
    let pairs =
        tags.unwrap_or_default().into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    Tags::from_request(pairs).map_err(|error| error::invalid_input_exception(error.to_string()))
}

/// One page of a list in key order. The marker stands for the last key of the page before.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) is_truncated: bool,
    pub(super) marker: Option<String>,
}

pub(super) fn page<T, S>(
    operation: &'static Operation,
    items: impl Iterator<Item = S>,
    marker: Option<&str>,
    max_items: Option<i32>,
    key: impl Fn(&S) -> String,
    shape: impl Fn(S) -> T,
) -> Result<Page<T>, ServiceError> {
    let after =
        marker.map(|marker| wire::page::position(operation, marker).ok_or_else(|| invalid(marker))).transpose()?;
    let size = max_items.and_then(|max| usize::try_from(max).ok()).unwrap_or(PAGE);
    let mut rest = items.skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after)).peekable();
    let mut page = Page { items: Vec::new(), is_truncated: false, marker: None };
    let mut last = None;
    while page.items.len() < size {
        let Some(item) = rest.next() else { return Ok(page) };
        last = Some(key(&item));
        page.items.push(shape(item));
    }
    page.is_truncated = rest.peek().is_some();
    if page.is_truncated {
        page.marker = last.map(|key| wire::page::token(operation, &key));
    }
    Ok(page)
}

fn invalid(marker: &str) -> ServiceError {
    ServiceError::new("ValidationError", format!("Invalid Marker: {}", marker.chars().take(64).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use api::iam::operation;

    use super::*;

    #[test]
    fn pages_follow_each_other_without_loss() {
        let names: Vec<String> = (0..250).map(|n| format!("r{n:03}")).collect();
        let list = |marker: Option<&str>| {
            page(&operation::LIST_ROLES, names.iter(), marker, None, |name| (*name).clone(), String::clone)
        };
        let mut seen = Vec::new();
        let mut marker = None;
        loop {
            let page = list(marker.as_deref()).unwrap();
            seen.extend(page.items);
            marker = page.marker;
            if !page.is_truncated {
                break;
            }
        }
        assert_eq!(seen, names);
        assert!(list(Some("zz")).is_err());
        let of_another = wire::page::token(&operation::LIST_ROLE_TAGS, "r001");
        assert!(list(Some(&of_another)).is_err());
    }
}
