//! Headers on their way through: what is added, changed and removed as Amazon's load balancers do.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html>

use std::io::Write as _;

use domain::balancing::{LoadBalancerAttributes, XffMode};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{client::Client, responses::Failure};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The longest request line and the longest single header.
const LINE: usize = 16 * 1024;

/// The most of all headers of a request together.
const ALL: usize = 64 * 1024;

/// The most addresses in X-Forwarded-For.
const FORWARDERS: usize = 30;

/// Refuses requests beyond the limits.
pub fn check(uri_length: usize, headers: &HeaderMap) -> Result<(), Failure> {
    if uri_length > LINE {
        return Err(Failure::UriTooLong);
    }
    let mut all = 0;
    for (name, value) in headers {
        let length = name.as_str().len() + value.len();
        all += length;
        if length > LINE || all > ALL {
            return Err(Failure::BadRequest);
        }
    }
    // Amazon's defensive mode takes no other encoding: who reads it differently finds another end of the request.
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let understood = encodings.next().is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !understood || encodings.next().is_some() {
        return Err(Failure::BadRequest);
    }
    let forwarders = headers.get_all(X_FORWARDED_FOR).iter();
    if forwarders.map(|value| 1 + value.as_bytes().iter().filter(|byte| **byte == b',').count()).sum::<usize>()
        > FORWARDERS
    {
        return Err(Failure::TooManyForwarders);
    }
    Ok(())
}

/// Whether a host is written in characters that hosts and ports are made of. None at all is what HTTP/1.1 allows for.
pub fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

/// Whether two readers could find different ends of a response. Nothing else is asked for over a connection that has
/// brought one: what comes after it might be taken for the answer to somebody else's request.
pub fn is_ambiguous(status: StatusCode, headers: &HeaderMap) -> bool {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (first, another) = (lengths.next(), lengths.next().is_some());
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
    another
        || (chunked && (first.is_some() || bodiless))
        || (bodiless && first.is_some_and(|length| length.as_bytes() != b"0"))
}

/// Whether the request asks for a WebSocket.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrade && tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Makes a client's headers those that the target gets.
pub fn to_target(headers: &mut HeaderMap, client: &Client, attributes: &LoadBalancerAttributes, websocket: bool) {
    remove_hop_by_hop(headers);
    if client.http2 {
        join_cookies(headers);
    }
    // The load balancer itself has said, or will say, 100 Continue.
    headers.remove(header::EXPECT);
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if attributes.drop_invalid_header_fields {
        drop_invalid(headers);
    }
    let peer = if attributes.xff_client_port { &client.peer_with_port } else { &client.peer_address };
    forwarded_for(headers, attributes.xff_mode, peer);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme()));
    headers.insert(X_FORWARDED_PORT, client.port_value.clone());
    trace(headers, client.worker.seconds(), client.worker.random(), client.worker.random());
}

/// Makes a target's headers those that the client gets.
pub fn to_client(headers: &mut HeaderMap, switching: bool) {
    // Of two lengths the chunks are what the body was read by.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    if switching {
        let upgrade = headers.remove(header::UPGRADE);
        remove_hop_by_hop(headers);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(upgrade) = upgrade {
            headers.insert(header::UPGRADE, upgrade);
        }
    } else {
        remove_hop_by_hop(headers);
    }
}

/// The Host that the target gets. Unless it is preserved, a port other than 80 is added and port 80 is removed.
pub fn host(host: &str, port: u16, preserve: bool) -> Option<HeaderValue> {
    if preserve {
        return HeaderValue::from_str(host).ok();
    }
    let name = without_port(host);
    if port == 80 || port == 443 {
        HeaderValue::from_str(name).ok()
    } else if name.len() == host.len() {
        HeaderValue::from_str(&format!("{name}:{port}")).ok()
    } else {
        HeaderValue::from_str(host).ok()
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Removes what concerns one connection only, and what `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &header::CONNECTION).filter_map(|token| token.parse().ok()).collect();
        for name in named {
            // A client must not be able to take away what the target relies on.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
        headers.remove(name);
    }
}

/// HTTP/2 may split cookies over several fields; to HTTP/1 they are one.
fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (fields.next(), fields.next()) {
        let all = [first, second].into_iter().chain(fields);
        let joined = all.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
        if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// Removes header names other than letters, digits and hyphens.
fn drop_invalid(headers: &mut HeaderMap) {
    let valid = |name: &HeaderName| name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let invalid: Vec<HeaderName> = headers.keys().filter(|name| !valid(name)).cloned().collect();
    for name in invalid {
        headers.remove(name);
    }
}

fn forwarded_for(headers: &mut HeaderMap, mode: XffMode, peer: &HeaderValue) {
    match mode {
        XffMode::Preserve => {}
        XffMode::Remove => {
            headers.remove(X_FORWARDED_FOR);
        }
        XffMode::Append if !headers.contains_key(X_FORWARDED_FOR) => {
            headers.insert(X_FORWARDED_FOR, peer.clone());
        }
        XffMode::Append => {
            let mut chain: Vec<u8> = Vec::with_capacity(64);
            for value in headers.get_all(X_FORWARDED_FOR) {
                chain.extend_from_slice(value.as_bytes());
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(peer.as_bytes());
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(chain)) {
                headers.insert(X_FORWARDED_FOR, value);
            }
        }
    }
}

/// X-Amzn-Trace-Id: `Root` where there is none, `Self` in front where there is one.
fn trace(headers: &mut HeaderMap, seconds: u64, high: u64, low: u64) {
    let mut id = Vec::with_capacity(160);
    let (field, existing) = match headers.get(TRACE_ID) {
        Some(existing) if has_root(existing) => ("Self", Some(existing)),
        existing => ("Root", existing),
    };
    let written = write!(id, "{field}=1-{:08x}-{:016x}{:08x}", seconds & 0xffff_ffff, high, low & 0xffff_ffff);
    if let Some(existing) = existing {
        id.push(b';');
        id.extend_from_slice(existing.as_bytes());
    }
    if let (Ok(()), Ok(value)) = (written, HeaderValue::from_maybe_shared(bytes::Bytes::from(id))) {
        headers.insert(TRACE_ID, value);
    }
}

fn has_root(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.split(';').any(|part| part.trim_start().starts_with("Root=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_host_follows_the_listeners_port() {
        let check =
            |given: &str, port: u16, preserve: bool| host(given, port, preserve).unwrap().to_str().unwrap().to_owned();
        assert_eq!(check("example.com", 80, false), "example.com");
        assert_eq!(check("example.com:80", 80, false), "example.com");
        assert_eq!(check("example.com", 8080, false), "example.com:8080");
        assert_eq!(check("example.com:8080", 8080, false), "example.com:8080");
        assert_eq!(check("example.com:80", 80, true), "example.com:80");
        assert_eq!(check("[::1]", 8080, false), "[::1]:8080");
        assert_eq!(check("[::1]:80", 80, false), "[::1]");
    }

    #[test]
    fn hop_by_hop_headers_go_with_what_connection_names() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("host", "h"),
            ("x-public", "1"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "h"), ("x-public", "1")]));
        let mut headers = map(&[("connection", "host, content-length"), ("host", "h"), ("content-length", "3")]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "h"), ("content-length", "3")]));
    }

    #[test]
    fn chunks_overrule_a_length() {
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked"), ("x", "1")]);
        to_client(&mut headers, false);
        assert_eq!(headers, map(&[("x", "1")]));
    }

    #[test]
    fn cookies_become_one() {
        let mut headers = HeaderMap::new();
        for cookie in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookie));
        }
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
    }

    #[test]
    fn the_peer_is_appended_kept_away_or_removed() {
        let check = |mode: XffMode| {
            let mut headers = map(&[("x-forwarded-for", "1.1.1.1")]);
            forwarded_for(&mut headers, mode, &HeaderValue::from_static("2.2.2.2"));
            headers.get(X_FORWARDED_FOR).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(check(XffMode::Append).as_deref(), Some("1.1.1.1, 2.2.2.2"));
        assert_eq!(check(XffMode::Preserve).as_deref(), Some("1.1.1.1"));
        assert_eq!(check(XffMode::Remove), None);
    }

    #[test]
    fn trace_ids_have_a_root_and_keep_a_given_one() {
        let check = |given: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(TRACE_ID, HeaderValue::from_static(given));
            }
            trace(&mut headers, 0x6000_0001, 0xabc, 0xdef);
            headers.get(TRACE_ID).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(check(None), "Root=1-60000001-0000000000000abc00000def");
        assert_eq!(check(Some("Root=1-2-3;A=b")), "Self=1-60000001-0000000000000abc00000def;Root=1-2-3;A=b");
        assert_eq!(check(Some("A=b")), "Root=1-60000001-0000000000000abc00000def;A=b");
    }

    #[test]
    fn limits_are_amazons() {
        let forwarders = |count: usize| {
            let text = vec!["1.1.1.1"; count].join(",");
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_str(&text).unwrap());
            check(1, &headers)
        };
        assert_eq!(forwarders(30), Ok(()));
        assert_eq!(forwarders(31), Err(Failure::TooManyForwarders));
        assert_eq!(check(LINE + 1, &HeaderMap::new()), Err(Failure::UriTooLong));
        let mut headers = HeaderMap::new();
        headers.insert("x-big", HeaderValue::from_str(&"x".repeat(LINE)).unwrap());
        assert_eq!(check(1, &headers), Err(Failure::BadRequest));
    }

    #[test]
    fn all_headers_together_are_limited() {
        let mut headers = HeaderMap::new();
        for (count, expected) in [(4, Ok(())), (5, Err(Failure::BadRequest))] {
            headers.clear();
            for _ in 0..count {
                headers.append("x-big", HeaderValue::from_str(&"x".repeat(16_000)).unwrap());
            }
            assert_eq!(check(1, &headers), expected);
        }
    }

    #[test]
    fn only_chunks_are_understood() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(value));
            }
            check(1, &headers)
        };
        assert_eq!((of(&[]), of(&["Chunked"])), (Ok(()), Ok(())));
        for wrong in [&["gzip, chunked"][..], &["identity"], &["chunked", "chunked"], &["chunked", "identity"]] {
            assert_eq!(of(wrong), Err(Failure::BadRequest), "{wrong:?}");
        }
    }

    #[test]
    fn hosts_are_written_in_few_characters() {
        for host in ["", "example.com", "a_b:80", "[::1]:8080"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a/b", "user@host", "a\"b", "a<b", "\u{e9}"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn responses_with_two_ends_are_told() {
        let ambiguous = |status: u16, pairs: &[_]| is_ambiguous(StatusCode::from_u16(status).unwrap(), &map(pairs));
        let (length, chunks) = (("content-length", "3"), ("transfer-encoding", "chunked"));
        assert!(ambiguous(200, &[length, chunks]) && ambiguous(204, &[length]) && ambiguous(204, &[chunks]));
        assert!(!ambiguous(200, &[length]) && !ambiguous(200, &[chunks]) && !ambiguous(304, &[length]));
        assert!(!ambiguous(204, &[("content-length", "0")]) && !ambiguous(204, &[]));
    }

    #[test]
    fn only_websockets_are_upgraded() {
        assert!(asks_for_websocket(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!asks_for_websocket(&map(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        assert!(!asks_for_websocket(&map(&[("upgrade", "websocket")])));
    }
}
