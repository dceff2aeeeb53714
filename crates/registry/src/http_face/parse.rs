//! Reading host names, query strings and ranges.

use domain::Scope;
use http::request::Parts;

/// The registry that a host name means: `{account}.dkr.ecr.{region}.localhost` or `….amazonaws.com`, with or without a
/// port, is that account's in that region; any other name is `default`'s.
pub fn host_scope(host: &str, default: &Scope) -> Scope {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
    let name = name.to_ascii_lowercase();
    let labels = [".localhost", ".amazonaws.com"].into_iter().find_map(|suffix| name.strip_suffix(suffix));
    let scope = labels.and_then(|labels| {
        let (account, rest) = labels.split_once(".dkr.ecr.")?;
        Some(Scope { account: account.parse().ok()?, region: rest.parse().ok()? })
    });
    scope.unwrap_or_else(|| default.clone())
}

/// The host and port that the client used, if they can be trusted to be such.
pub(super) fn host(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(http::header::HOST).and_then(|value| value.to_str().ok());
    let host = header.or_else(|| parts.uri.authority().map(|authority| authority.as_str()))?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte);
    (host.len() <= 255 && host.bytes().all(harmless)).then_some(host)
}

/// The realm of the authentication that is asked for.
pub(super) fn realm(parts: &Parts) -> String {
    format!("http://{}/", host(parts).unwrap_or("localhost"))
}

/// A parameter of the request's query string, decoded.
pub(super) fn query(parts: &Parts, name: &str) -> Option<String> {
    query_in(parts.uri.query()?, name)
}

/// A parameter of a query string, decoded; `None` also when it is no text.
pub(super) fn query_in(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value))?
    })
}

/// Undoes percent encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Encodes what cannot stand in a query parameter.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// Everything: no range, several, or one in another unit.
    Whole,
    /// From the first offset up to, not including, the second.
    Part(u64, u64),
    /// Nothing that there is.
    Unsatisfiable,
}

/// Reads a `Range` header for content of `size` bytes.
pub(super) fn range(header: &str, size: u64) -> Range {
    let Some((first, last)) = header.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Range::Whole;
    };
    let part = match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => return Range::Unsatisfiable,
            Ok(length) => (size.saturating_sub(length), size),
            Err(_) => return Range::Whole,
        },
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            (Ok(first), Err(_)) if last.is_empty() => (first, size),
            _ => return Range::Whole,
        },
    };
    if part.0 < part.1 { Range::Part(part.0, part.1) } else { Range::Unsatisfiable }
}

/// Reads a chunk's `Content-Range`: `{first}-{last}`, also as `bytes {first}-{last}/{size}`. Returns the first offset
/// and the number of bytes.
pub(super) fn content_range(header: &str) -> Option<(u64, u64)> {
    let range = header.trim();
    let range = range.strip_prefix("bytes").map_or(range, |rest| rest.trim_start_matches([' ', '=']));
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_say_account_and_region() {
        let default = Scope { account: "123456789012".parse().unwrap(), region: "us-east-1".parse().unwrap() };
        let check = |host: &str, expect: &str| assert_eq!(host_scope(host, &default).prefix(), expect, "{host}");
        check("999999999999.dkr.ecr.eu-west-1.localhost:4580", "999999999999/eu-west-1/");
        check("999999999999.dkr.ecr.eu-west-1.localhost", "999999999999/eu-west-1/");
        check("999999999999.DKR.ecr.eu-west-1.amazonaws.com", "999999999999/eu-west-1/");
        for other in ["localhost:4580", "127.0.0.1", "[::1]:4580", "x.dkr.ecr.eu-west-1.localhost", "", ":", "a:b"] {
            check(other, "123456789012/us-east-1/");
        }
    }

    #[test]
    fn ranges_are_within_the_content() {
        assert_eq!(range("bytes=0-0", 10), Range::Part(0, 1));
        assert_eq!(range("bytes=3-", 10), Range::Part(3, 10));
        assert_eq!(range("bytes=3-99", 10), Range::Part(3, 10));
        assert_eq!(range("bytes=-4", 10), Range::Part(6, 10));
        assert_eq!(range("bytes=-99", 10), Range::Part(0, 10));
        assert_eq!(range("bytes=10-", 10), Range::Unsatisfiable);
        assert_eq!(range("bytes=-0", 10), Range::Unsatisfiable);
        for whole in ["", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=-"] {
            assert_eq!(range(whole, 10), Range::Whole, "{whole}");
        }
    }

    #[test]
    fn chunks_say_where_they_begin() {
        assert_eq!(content_range("0-9"), Some((0, 10)));
        assert_eq!(content_range("bytes 5-5/10"), Some((5, 1)));
        for wrong in ["", "-", "5", "9-5", "a-b", "0-18446744073709551615"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn query_parameters_are_decoded() {
        assert_eq!(query_in("a=1&digest=sha256%3Aab", "digest").as_deref(), Some("sha256:ab"));
        assert_eq!(query_in("digest", "digest").as_deref(), Some(""));
        assert_eq!(query_in("digest=%", "digest"), None);
        assert_eq!(query_in("digest=%ff", "digest"), None);
        assert_eq!(query_in("x=1", "digest"), None);
        assert_eq!(query_in(&format!("t={}", encode("a/b:c d+é")), "t").as_deref(), Some("a/b:c d+é"));
    }
}
