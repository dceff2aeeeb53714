//! The HTTP bindings of restJson: labels in the path, the query string, headers and the status.

use super::form::{percent_encode, scalar_text};
use super::{Problem, fill_text};
use crate::schema::{Kind, Location, Member, Operation, TimestampFormat};
use crate::value::{Reflect, Slot, View};

/// The labels of a path that matches an operation's template; `None` when it does not.
pub(crate) fn match_path(template: &str, path: &str) -> Option<Vec<(String, String)>> {
    let template = template.split('?').next().unwrap_or_default();
    let mut labels = Vec::new();
    let mut given = path.trim_start_matches('/').split('/');
    for part in template.trim_matches('/').split('/') {
        let label = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match label {
            Some(label) if label.ends_with('+') => {
                let rest: Vec<&str> = given.by_ref().collect();
                labels.push((label.trim_end_matches('+').to_owned(), unescape(&rest.join("/"))?));
            }
            Some(label) => {
                let text = given.next().filter(|text| !text.is_empty())?;
                labels.push((label.to_owned(), unescape(text)?));
            }
            None if given.next()? == part => {}
            None => return None,
        }
    }
    // A trailing slash does not make another resource.
    match given.next() {
        None => Some(labels),
        Some("") if given.next().is_none() => Some(labels),
        Some(_) => None,
    }
}

/// Labels stand for more than literals: of two matching templates the one with fewer labels wins.
pub(crate) fn looseness(template: &str) -> usize {
    template.matches('{').count()
}

/// Decodes `%41`; a plus sign is itself, unlike in forms.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            out.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// Fills the members that travel outside the body of a request.
pub(crate) fn read_request(
    labels: &[(String, String)],
    query: &str,
    headers: &http::HeaderMap,
    into: &mut dyn Reflect,
) -> Result<(), Problem> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |text: &str| {
            unescape(&text.replace('+', " ")).ok_or_else(|| Problem::new("The query string is not correctly encoded."))
        };
        pairs.push((text(name)?, text(value)?));
    }
    for (index, member) in into.schema().members.iter().enumerate() {
        match member.location {
            Location::Uri => {
                let label = labels.iter().find(|(name, _)| name == member.wire_name);
                if let Some((_, text)) = label {
                    fill_text(into.member_mut(index), text, member.name)?;
                }
            }
            Location::QueryString => {
                for (_, text) in pairs.iter().filter(|(name, _)| name == member.wire_name) {
                    fill(into.member_mut(index), text, member)?;
                }
            }
            Location::Header => {
                if let Some(text) = headers.get(member.wire_name).and_then(|value| value.to_str().ok()) {
                    fill(into.member_mut(index), text, member)?;
                }
            }
            Location::Body | Location::StatusCode => {}
        }
    }
    Ok(())
}

/// A repeated parameter fills a list, one element each.
fn fill(slot: Slot<'_>, text: &str, member: &'static Member) -> Result<(), Problem> {
    match slot {
        Slot::List(list) => fill_text(list.append(), text, member.name),
        slot => fill_text(slot, text, member.name),
    }
}

/// The path and query string of a request our client sends.
pub(crate) fn write_target(operation: &'static Operation, value: &dyn Reflect) -> String {
    let mut path = operation.path.to_owned();
    let mut query = Vec::new();
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        let text = |view: &View<'_>| scalar_text(view, member.timestamp, TimestampFormat::DateTime);
        match member.location {
            Location::Uri => {
                let label = format!("{{{}}}", member.wire_name);
                path = path.replace(&label, &percent_encode(&text(&view).unwrap_or_default()));
            }
            Location::QueryString => match (&view, &member.shape.kind) {
                (View::List(list), Kind::List { .. }) => {
                    let items = (0..list.length()).filter_map(|index| text(&list.item(index)));
                    query.extend(items.map(|item| format!("{}={}", member.wire_name, percent_encode(&item))));
                }
                _ => query.extend(text(&view).map(|item| format!("{}={}", member.wire_name, percent_encode(&item)))),
            },
            _ => {}
        }
    }
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

/// Whether any member of the structure travels in the body.
pub(crate) fn has_body(operation: &'static Operation) -> bool {
    operation.input.members.iter().any(|member| member.location == Location::Body)
}

/// Headers and status that an answer carries outside its body.
pub(crate) fn write_response(value: &dyn Reflect) -> (Vec<(&'static str, String)>, Option<u16>) {
    let mut headers = Vec::new();
    let mut status = None;
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        match (member.location, &view) {
            (Location::Header, view) => headers.extend(
                scalar_text(view, member.timestamp, TimestampFormat::HttpDate).map(|text| (member.wire_name, text)),
            ),
            (Location::StatusCode, View::Integer(number)) => status = u16::try_from(*number).ok(),
            _ => {}
        }
    }
    (headers, status)
}

/// Fills what an answer carries outside its body, for our client.
pub(crate) fn read_response(status: u16, headers: &http::HeaderMap, into: &mut dyn Reflect) -> Result<(), Problem> {
    for (index, member) in into.schema().members.iter().enumerate() {
        let text = match member.location {
            Location::StatusCode => Some(status.to_string()),
            Location::Header => headers.get(member.wire_name).and_then(|value| value.to_str().ok()).map(str::to_owned),
            _ => None,
        };
        if let Some(text) = text {
            fill_text(into.member_mut(index), &text, member.name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_their_paths() {
        let check = |template: &str, path: &str, expect: Option<&[&str]>| {
            let labels = match_path(template, path);
            let values = labels.map(|l| l.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
            assert_eq!(values, expect.map(|e| e.iter().map(|s| (*s).to_owned()).collect()), "{template} {path}");
        };
        check("/v1/fs/{Id}", "/v1/fs/fs-1", Some(&["fs-1"]));
        check("/v1/fs/{Id}", "/v1/fs/a%2Fb", Some(&["a/b"]));
        check("/v1/fs/{Id}", "/v1/fs/", None);
        check("/v1/fs/{Id}", "/v1/fs/a/b", None);
        check("/v1/fs", "/v1/fs/", Some(&[]));
        check("/v1/{Rest+}", "/v1/a/b", Some(&["a/b"]));
        check("/v1/fs/{Id}", "/v1/fs/%zz", None);
    }
}
