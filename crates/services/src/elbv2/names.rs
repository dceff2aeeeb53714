//! What all operations of this service share: ARNs, names, pages, and the errors that the model does not list.

use domain::{Arn, Tags, balancing::classic::is_classic};
use wire::{ServiceError, schema::Operation};

use crate::Call;

/// The service's name in ARNs.
pub const SERVICE: &str = "elasticloadbalancing";

/// The longest page.
const PAGE: usize = 400;

/// `ValidationError`: the request is well-formed, but says something that cannot be.
pub fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::new("ValidationError", message.into())
}

/// Something that Amazon has and this platform does not.
pub fn unsupported(what: &str) -> ServiceError {
    invalid(format!("{what} is not supported by Longshore"))
}

/// A member that the model says is required.
pub fn required<T>(value: Option<T>, name: &str) -> Result<T, ServiceError> {
    value.ok_or_else(|| invalid(format!("{name} must be specified")))
}

/// An ARN of the call's account and region with this resource type, e.g. `loadbalancer`. `what` is Amazon's word for
/// it, in the message.
pub fn arn(call: &Call, text: &str, kind: &str, what: &str) -> Result<Arn, ServiceError> {
    let arn: Arn = text.parse().map_err(|_| invalid(format!("'{text}' is not a valid {what} ARN")))?;
    let ours = arn.service() == SERVICE
        && arn.resource_type() == kind
        // Those are the other API's.
        && !is_classic(&arn)
        && arn.region() == call.scope.region.as_str()
        && arn.account() == call.scope.account.as_str();
    if ours { Ok(arn) } else { Err(invalid(format!("'{text}' is not a valid {what} ARN"))) }
}

/// All ARNs of a kind in the call's account and region, for policies.
pub fn any(call: &Call, kind: &str) -> Arn {
    call.arn(SERVICE, &format!("{kind}/*"))
}

/// The name of a load balancer or a target group: 1 to 32 letters, digits and hyphens, none of them at an end.
pub fn check_name(name: &str, what: &str) -> Result<(), ServiceError> {
    if name.is_empty() {
        return Err(invalid(format!("{what} name cannot be empty")));
    }
    if name.chars().count() > 32 {
        return Err(invalid(format!("{what} name '{name}' cannot be longer than '32' characters")));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(invalid(format!(
            "{what} name '{name}' can only contain characters that are alphanumeric characters or hyphens(-)"
        )));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(invalid(format!("{what} name '{name}' cannot begin or end with '-'")));
    }
    Ok(())
}

/// Tags of a request.
pub fn tags(tags: Option<Vec<api::elbv2::Tag>>) -> Result<Tags, ServiceError> {
    let pairs =
        tags.unwrap_or_default().into_iter().map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
    Tags::from_request(pairs).map_err(tag_error)
}

/// A refused tag under this service's codes.
pub fn tag_error(error: domain::tags::TagError) -> ServiceError {
    use domain::tags::TagError;
    match &error {
        TagError::TooMany => api::elbv2::error::too_many_tags_exception(error.to_string()),
        TagError::Duplicate(_) => api::elbv2::error::duplicate_tag_keys_exception(error.to_string()),
        _ => invalid(error.to_string()),
    }
}

/// One page of `items`, which are in the order of their keys, and the marker of the next one.
pub fn page<T>(
    operation: &'static Operation,
    items: impl Iterator<Item = T>,
    key: impl Fn(&T) -> String,
    marker: Option<&str>,
    size: Option<i32>,
) -> Result<(Vec<T>, Option<String>), ServiceError> {
    let read = |marker| wire::page::position(operation, marker).ok_or_else(|| invalid("Invalid Marker"));
    let after = marker.map(read).transpose()?;
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let mut items = items.skip_while(|item| after.as_ref().is_some_and(|after| key(item) <= *after)).peekable();
    let page: Vec<T> = items.by_ref().take(size).collect();
    let next = items.peek().and_then(|_| page.last()).map(|last| wire::page::token(operation, &key(last)));
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_amazons() {
        for right in ["a", "web-1", "A9", &"x".repeat(32)] {
            assert!(check_name(right, "Load balancer").is_ok(), "{right}");
        }
        for wrong in ["", "-a", "a-", "a_b", "a.b", "é", &"x".repeat(33)] {
            assert!(check_name(wrong, "Load balancer").is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_follow_one_another_without_gaps() {
        let all = ["a", "b", "c", "d", "e"];
        let (mut seen, mut marker) = (Vec::<&&str>::new(), None::<String>);
        loop {
            let operation = &api::elbv2::operation::DESCRIBE_RULES;
            let key = |item: &&&str| (**item).to_owned();
            let (page, next) = page(operation, all.iter(), key, marker.as_deref(), Some(2)).unwrap();
            assert!(page.len() <= 2);
            seen.extend(page);
            match next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all.iter().collect::<Vec<_>>());
    }
}
