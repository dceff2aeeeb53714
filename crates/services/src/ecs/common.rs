//! What the ECS operations have in common: refusing by name, finding clusters, pages, tags.

use std::{collections::BTreeMap, sync::Arc};

use api::ecs::{Failure, KeyValuePair, Tag, error};
use domain::{
    Scope, Tags, Timestamp,
    ecs::{Cluster, names, status::failure},
};
use store::Snapshot;
use wire::{ServiceError, schema::Operation};

/// Whether a request says something with a member: an empty list, an empty text and `false` say nothing.
pub(super) trait Given {
    fn given(&self) -> bool;
}

impl<T> Given for Option<Vec<T>> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|list| !list.is_empty())
    }
}

impl<K, V> Given for Option<BTreeMap<K, V>> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|map| !map.is_empty())
    }
}

impl Given for Option<String> {
    fn given(&self) -> bool {
        self.as_ref().is_some_and(|text| !text.is_empty())
    }
}

impl Given for Option<bool> {
    fn given(&self) -> bool {
        *self == Some(true)
    }
}

/// The refusal of a member that is not honoured.
pub(super) fn unsupported(field: &str) -> ServiceError {
    error::invalid_parameter_exception(format!("This setting is not supported by Longshore: {field}"))
}

/// Refuses the first member that is given.
pub(super) fn refuse(fields: &[(&str, bool)]) -> Result<(), ServiceError> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(unsupported(field)),
        None => Ok(()),
    }
}

/// An InvalidParameterException.
pub(super) fn invalid(message: impl Into<String>) -> ServiceError {
    error::invalid_parameter_exception(message)
}

/// A ClientException.
pub(super) fn client(message: impl Into<String>) -> ServiceError {
    error::client_exception(message)
}

/// ClusterNotFoundException.
pub(super) fn no_cluster() -> ServiceError {
    error::cluster_not_found_exception("Cluster not found.")
}

/// The ARN of the cluster that a request means, for authorising; text that names nothing here stays as it is.
pub(super) fn cluster_arn(scope: &Scope, cluster: Option<&str>) -> String {
    let text = cluster.unwrap_or(names::DEFAULT_CLUSTER);
    match names::cluster_name(scope, text) {
        Some(name) => names::cluster(scope, name).to_string(),
        None => text.to_owned(),
    }
}

/// The active cluster that a request means; none named means `default`.
pub(super) fn cluster(view: &Snapshot, scope: &Scope, cluster: Option<&str>) -> Result<Arc<Cluster>, ServiceError> {
    let name = names::cluster_name(scope, cluster.unwrap_or(names::DEFAULT_CLUSTER)).ok_or_else(no_cluster)?;
    if !names::is_valid(name) {
        return Err(no_cluster());
    }
    view.get::<Cluster>(names::cluster(scope, name).as_str())
        .filter(|cluster| cluster.is_active())
        .ok_or_else(no_cluster)
}

/// One page of keys, which are in their own order, and the token of the next one.
pub(super) fn page(
    operation: &'static Operation,
    keys: impl Iterator<Item = String>,
    token: Option<&str>,
    most: usize,
) -> Result<(Vec<String>, Option<String>), ServiceError> {
    page_in_order(operation, keys, token, most, |key, after| key <= after)
}

/// As [`page`], for keys in another order: `passed` says whether a key is up to that after which the page begins.
pub(super) fn page_in_order(
    operation: &'static Operation,
    keys: impl Iterator<Item = String>,
    token: Option<&str>,
    most: usize,
    passed: impl Fn(&str, &str) -> bool,
) -> Result<(Vec<String>, Option<String>), ServiceError> {
    let read = |token| wire::page::position(operation, token).ok_or_else(|| invalid("Invalid token."));
    let after = token.filter(|token| !token.is_empty()).map(read).transpose()?;
    let mut rest = keys.skip_while(|key| after.as_ref().is_some_and(|after| passed(key, after)));
    let page: Vec<String> = rest.by_ref().take(most).collect();
    let next = rest.next().and(page.last()).map(|last| wire::page::token(operation, last));
    Ok((page, next))
}

/// How many a page has: what was asked for, within 1 and `largest`.
pub(super) fn page_size(asked: Option<i32>, default: usize, largest: usize) -> Result<usize, ServiceError> {
    match asked {
        None => Ok(default),
        Some(asked) => usize::try_from(asked)
            .ok()
            .filter(|size| (1..=largest).contains(size))
            .ok_or_else(|| invalid(format!("The value for maxResults must be between 1 and {largest}."))),
    }
}

/// The tags of a request.
pub(super) fn tags(tags: Option<Vec<Tag>>) -> Result<Tags, ServiceError> {
    let pairs = tags.unwrap_or_default().into_iter();
    Tags::from_request(pairs.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default())))
        .map_err(|error| invalid(error.to_string()))
}

/// Tags as a response has them.
pub(super) fn tags_shape(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|tag| Tag { key: Some(tag.key.clone()), value: Some(tag.value.clone()) }).collect()
}

/// A name and a value.
pub(super) fn pair(name: &str, value: impl Into<String>) -> KeyValuePair {
    KeyValuePair { name: Some(name.to_owned()), value: Some(value.into()) }
}

/// `failures` of something that there is not.
pub(super) fn missing(arn: impl Into<String>) -> Failure {
    Failure { arn: Some(arn.into()), reason: Some(failure::MISSING.to_owned()), ..Failure::default() }
}

/// A point in time as responses have it.
pub(super) fn time(at: Timestamp) -> wire::Timestamp {
    wire::Timestamp(at.millis())
}

/// A count as responses have it.
pub(super) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A number that does not fit is as large as it can be.
pub(super) fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let keys = || ["a", "b", "c", "d", "e"].into_iter().map(str::to_owned);
        let (first, token) = page(&api::ecs::operation::LIST_CLUSTERS, keys(), None, 2).unwrap();
        let (second, token) = page(&api::ecs::operation::LIST_CLUSTERS, keys(), token.as_deref(), 2).unwrap();
        let (third, last) = page(&api::ecs::operation::LIST_CLUSTERS, keys(), token.as_deref(), 2).unwrap();
        assert_eq!([first, second, third].concat(), ["a", "b", "c", "d", "e"]);
        assert_eq!(last, None);
        assert!(page(&api::ecs::operation::LIST_CLUSTERS, keys(), Some("%%"), 2).is_err());
        assert_eq!(page(&api::ecs::operation::LIST_CLUSTERS, keys(), None, 5).unwrap().1, None);
    }

    #[test]
    fn nothing_given_is_nothing_to_refuse() {
        let fields =
            [("a", Some(Vec::<i32>::new()).given()), ("b", Some(false).given()), ("c", Some("x".to_owned()).given())];
        let refusal = refuse(&fields).unwrap_err();
        assert!(refusal.message().contains(": c"), "{}", refusal.message());
        assert!(refuse(&fields[..2]).is_ok());
    }
}
