//! Entry points for fuzzing: bytes in, no panic and no unbounded work out.
//!
//! Each takes the service tables it should aim at, because this crate has none of its own.

use http::{HeaderMap, HeaderValue, Method};

use crate::request::Request;
use crate::schema::{Operation, Protocol, Service};
use crate::value::Reflect;
use crate::{Route, Timestamp, sigv4};

/// Reads `body` as the input of an operation in a protocol. What our client writes of an accepted
/// input must read back as the same.
///
/// # Panics
/// When that promise is broken: it is what the fuzzer looks for.
pub fn decode(operation: &'static Operation, protocol: Protocol, body: &[u8], make: fn() -> Box<dyn Reflect>) {
    // Forms cannot say an empty structure, so that writing one may lose it, once and for good.
    let Some(first) = read_back(operation, protocol, body, make) else { return };
    let Some(second) = read_back(operation, protocol, &first, make) else { return };
    let third = read_back(operation, protocol, &second, make);
    assert_eq!(third.as_deref(), Some(second.as_slice()), "{} {protocol:?}", operation.name);
}

/// Reads a body and writes what it meant; `None` when it is refused.
fn read_back(
    operation: &'static Operation,
    protocol: Protocol,
    body: &[u8],
    make: fn() -> Box<dyn Reflect>,
) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    if matches!(protocol, Protocol::Query | Protocol::Ec2) {
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    let request = Request { method: &Method::POST, path: "/", query: "", headers: &headers, body };
    let route = Route { operation, protocol, labels: Vec::new() };
    let mut input = make();
    crate::decode(&route, &request, &mut *input).ok()?;
    Some(crate::exchange::encode_request(operation, protocol, &*input).into_body())
}

/// Reads `body` as the answer of an operation, as our client does.
pub fn decode_answer(operation: &'static Operation, media: &'static str, body: &[u8], into: &mut dyn Reflect) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static(media));
    let _ = crate::exchange::decode_response(operation, 200, &headers, body, into);
}

/// Routes a request whose first line and headers come from `head`, one per line.
pub fn route(services: &[&'static Service], head: &str, body: &[u8]) {
    with_request(head, body, |request| {
        for service in services {
            let _ = crate::route(services, request, service.signing_name);
        }
        let _ = crate::face(services, request, "");
    });
}

/// Parses and verifies the signature of a request given as in [`route`].
pub fn signature(head: &str, body: &[u8]) {
    with_request(head, body, |request| {
        if let Ok(claim) = sigv4::parse(request) {
            let hash = sigv4::body_sha256(body);
            let _ = sigv4::verify(&claim, "secret", &hash, claim.signed_at);
            let _ = sigv4::verify(&claim, "secret", &hash, Timestamp(0));
        }
    });
}

fn with_request(head: &str, body: &[u8], check: impl FnOnce(&Request<'_>)) {
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let (method, target) = first.split_once(' ').unwrap_or(("POST", first));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let parsed = (name.trim().parse::<http::HeaderName>(), HeaderValue::from_str(value.trim()));
        if let (Ok(name), Ok(value)) = parsed {
            headers.append(name, value);
        }
    }
    let method = method.parse().unwrap_or(Method::POST);
    check(&Request { method: &method, path, query, headers: &headers, body });
}
