//! What EC2's handlers have in common: authorisation with DryRun, refusals by name, filters and pages.

use domain::{Resource, Tags};
use store::Snapshot;
use wire::ServiceError;

use crate::{Authorised, Call};

/// A resource of this service: how it is called, found and tagged.
pub(super) trait Noun: Resource {
    /// Its type in ARNs and tags, e.g. `vpc`.
    const TYPE: &'static str;
    /// EC2's code when there is none of an id.
    const NOT_FOUND: &'static str;
    /// EC2's word for it in that message, e.g. `vpc ID`.
    const WORD: &'static str;

    /// Its id.
    fn id(&self) -> &str;
    /// Its tags.
    fn tags(&self) -> &Tags;
    /// Its tags, to be changed.
    fn tags_mut(&mut self) -> &mut Tags;

    /// The error for an id that nothing has.
    fn not_found(id: &str) -> ServiceError {
        ServiceError::new(Self::NOT_FOUND, format!("The {} '{id:.64}' does not exist", Self::WORD))
    }
}

/// Asks whether the call is allowed on these resources (`vpc/vpc-…`; none means all), and ends a dry run there.
pub(super) fn begin(call: &Call, resources: &[String], dry_run: Option<bool>) -> Result<Authorised, ServiceError> {
    let arns: Vec<String> = resources.iter().map(|resource| call.arn("ec2", resource).to_string()).collect();
    let authorised = call.authorise(&arns)?;
    if dry_run == Some(true) {
        let text = "Request would have succeeded, but DryRun flag is set.";
        return Err(ServiceError::new("DryRunOperation", text).status(412));
    }
    Ok(authorised)
}

/// A parameter that must be there.
pub(super) fn required<T>(value: Option<T>, name: &str) -> Result<T, ServiceError> {
    value.ok_or_else(|| ServiceError::new("MissingParameter", format!("The request must contain the parameter {name}")))
}

/// A value that makes no sense.
pub(super) fn invalid_value(value: &str, name: &str, why: &str) -> ServiceError {
    ServiceError::new("InvalidParameterValue", format!("Value ({value:.128}) for parameter {name} is invalid. {why}"))
}

/// A parameter that is not honoured here: refused, never ignored.
pub(super) fn unsupported(field: &str) -> ServiceError {
    let name: String = field
        .trim_start_matches("r#")
        .split('_')
        .map(|word| word.get(..1).unwrap_or_default().to_uppercase() + word.get(1..).unwrap_or_default())
        .collect();
    ServiceError::new("InvalidParameterValue", format!("The parameter {name} is not supported by Longshore"))
}

/// Refuses the parameters of a request that are not honoured here.
macro_rules! refuse {
    ($input:expr; $($field:ident),+ $(,)?) => {
        $(if $input.$field.is_some() {
            return Err($crate::ec2::common::unsupported(stringify!($field)));
        })+
    };
}
pub(super) use refuse;

/// The resource of this id in the call's account and region.
pub(super) fn find<T: Noun>(call: &Call, view: &Snapshot, id: &str) -> Result<std::sync::Arc<T>, ServiceError> {
    view.get::<T>(&call.scope.key(id)).ok_or_else(|| T::not_found(id))
}

/// How a kind of resource answers to filters.
pub(super) struct Filterable<T> {
    /// The names it knows, besides `tag:…`, `tag-key` and `owner-id`.
    pub(super) names: &'static [&'static str],
    /// Its values under such a name; any of them may match.
    pub(super) values: fn(&Snapshot, &T, &str) -> Vec<String>,
}

/// What a Describe call asks for.
#[derive(Default)]
pub(super) struct Query {
    pub(super) ids: Option<Vec<String>>,
    pub(super) filters: Option<Vec<api::ec2::Filter>>,
    pub(super) max_results: Option<i32>,
    pub(super) next_token: Option<String>,
}

/// The resources a Describe call asks for, and the token of the next page. An id that nothing has is an error.
pub(super) fn describe<T: Noun>(
    call: &Call,
    view: &Snapshot,
    query: Query,
    filterable: &Filterable<T>,
) -> Result<(Vec<std::sync::Arc<T>>, Option<String>), ServiceError> {
    let filters = query.filters.unwrap_or_default();
    check_filters(&filters, filterable.names)?;
    let ids = query.ids.unwrap_or_default();
    for id in &ids {
        find::<T>(call, view, id)?;
    }
    let prefix = call.scope.prefix();
    let after = query.next_token.map(|token| position(call, &token)).transpose()?.unwrap_or_default();
    let limit = page_size(query.max_results)?;
    let mut page = Vec::new();
    for item in view.list_after::<T>(&prefix, &after) {
        let wanted = (ids.is_empty() || ids.iter().any(|id| id == item.id()))
            && filters.iter().all(|filter| {
                let name = filter.name.as_deref().unwrap_or_default();
                let values = filter.values.as_deref().unwrap_or_default();
                let known = match name.strip_prefix("tag:") {
                    Some(key) => item.tags().get(key).map(str::to_owned).into_iter().collect(),
                    None if name == "tag-key" => item.tags().iter().map(|tag| tag.key.clone()).collect(),
                    None if name == "owner-id" => vec![call.scope.account.to_string()],
                    None => (filterable.values)(view, &item, name),
                };
                matches_any(values, &known)
            });
        if !wanted {
            continue;
        }
        if page.len() == limit {
            let last = page.last().map(|last: &std::sync::Arc<T>| last.key());
            let token = last.map(|key| wire::page::token(call.operation, &key));
            return Ok((page, token));
        }
        page.push(item);
    }
    Ok((page, None))
}

/// Refuses filters nobody knows.
pub(super) fn check_filters(filters: &[api::ec2::Filter], names: &[&str]) -> Result<(), ServiceError> {
    for filter in filters {
        let name = filter.name.as_deref().unwrap_or_default();
        let known = names.contains(&name) || name == "tag-key" || name == "owner-id" || name.starts_with("tag:");
        if !known {
            return Err(ServiceError::new("InvalidParameterValue", format!("The filter '{name:.64}' is invalid")));
        }
    }
    Ok(())
}

/// Whether one of the values matches one of the patterns.
pub(super) fn matches_any(patterns: &[String], values: &[String]) -> bool {
    patterns.iter().any(|pattern| values.iter().any(|value| matches(pattern.as_bytes(), value.as_bytes())))
}

/// Matches `*` (anything), `?` (one character) and `\` (the next character as it is), without recursion: the pattern
/// comes from outside.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let (literal, width) = match pattern.get(p..) {
            Some([b'\\', next, ..]) => (Some(*next), 2),
            Some([b'*', ..]) => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some([b'?', ..]) => (text.get(t).copied(), 1),
            Some([byte, ..]) => (Some(*byte), 1),
            _ => (None, 0),
        };
        if literal.is_some() && literal == text.get(t).copied() {
            p += width;
            t += 1;
        } else if let Some((after, at)) = star {
            // Let the last star take one character more.
            star = Some((after, at + 1));
            p = after;
            t = at + 1;
        } else {
            return false;
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// One page of things that are no resources of their own, each with its key, and the token of the next page.
pub(super) fn page<T>(
    call: &Call,
    mut items: Vec<(String, T)>,
    max_results: Option<i32>,
    next_token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), ServiceError> {
    let after = next_token.map(|token| position(call, token)).transpose()?;
    let limit = page_size(max_results)?;
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items.retain(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|(key, _)| wire::page::token(call.operation, key));
    Ok((items.into_iter().map(|(_, item)| item).collect(), next))
}

/// What a token of this operation stands for.
fn position(call: &Call, token: &str) -> Result<String, ServiceError> {
    let position = wire::page::position(call.operation, token);
    position.ok_or_else(|| ServiceError::new("InvalidNextToken", format!("The token '{token:.64}' is invalid")))
}

fn page_size(max_results: Option<i32>) -> Result<usize, ServiceError> {
    match max_results {
        None => Ok(1000),
        Some(number @ 5..=1000) => Ok(usize::try_from(number).unwrap_or(1000)),
        Some(number) => Err(ServiceError::new(
            "InvalidParameterValue",
            format!("Value ( {number} ) for parameter maxResults is invalid. Expecting a value between 5 and 1000."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_amazons() {
        for (pattern, text, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*c", "abbbc", true),
            ("*a*b*", "xxaxxbxx", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("*abab", "abababab", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_parameter_is_refused_by_amazons_name() {
        assert!(unsupported("ipv6_cidr_block").message().contains("Ipv6CidrBlock"));
    }
}
