//! Entry points for fuzzing: bytes in, no panic and no unbounded work out.
//!
//! Each takes the service tables it should aim at, because this crate has none of its own.

use http::{HeaderMap, HeaderValue, Method};

use crate::request::Request;
use crate::schema::{Operation, Protocol, Service};
use crate::value::Reflect;
use crate::{Route, Timestamp, sigv4};

/// Makes an empty structure of the shape that a target reads.
type Make = fn() -> Box<dyn Reflect>;

/// Reads `body` as the input of an operation in a protocol, whether or not the model allows it. What our client writes
/// of an input that could be read must read back as the same.
///
/// # Panics
/// When that promise is broken: it is what the fuzzer looks for.
pub fn decode(operation: &'static Operation, protocol: Protocol, body: &[u8], make: Make) {
    let mut headers = HeaderMap::new();
    if matches!(protocol, Protocol::Query | Protocol::Ec2) {
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    let route = Route { operation, protocol, labels: Vec::new() };
    settles(body, |body| {
        let request = Request { method: &Method::POST, path: "/", query: "", headers: &headers, body };
        let mut input = make();
        crate::read(&route, &request, &mut *input).ok()?;
        // The model's constraints see every value, the odd ones too.
        let _ = crate::validate::validate(operation, &*input);
        Some(crate::exchange::encode_request(operation, protocol, &*input).into_body())
    });
}

/// Reads `body` as the answer of an operation and as an error, as our client does. What the server writes of an answer
/// that could be read must read back as the same.
///
/// # Panics
/// When that promise is broken.
pub fn decode_answer(operation: &'static Operation, protocol: Protocol, body: &[u8], make: Make) {
    let media = HeaderValue::from_static(crate::message::media_type(protocol));
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, media)]);
    let route = Route { operation, protocol, labels: Vec::new() };
    settles(body, |body| {
        let mut output = make();
        crate::exchange::decode_response(operation, 200, &headers, body, &mut *output).ok()?;
        Some(crate::encode(&route, &*output, "id").into_body().to_vec())
    });
    let _ = crate::exchange::decode_response(operation, 400, &headers, body, &mut *make());
}

/// Reads and writes again: `None` from `again` is a refusal. Forms and XML cannot say an empty structure, so that
/// writing one may lose it, once and for good.
fn settles(body: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(first) = again(body) else { return };
    let Some(second) = again(&first) else { panic!("what we wrote is refused: {}", first.escape_ascii()) };
    let third = again(&second).unwrap_or_default();
    assert_eq!(third.escape_ascii().to_string(), second.escape_ascii().to_string(), "read back differently");
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

/// Parses and verifies the signature of a request given as in [`route`]. What our client signs must be accepted, in both
/// forms.
///
/// # Panics
/// When it is not: it is what the fuzzer looks for.
pub fn signature(head: &str, body: &[u8]) {
    let keys = sigv4::Keys {
        access_key_id: "AKIA".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
        region: "us-east-1".to_owned(),
        service: "ecs".to_owned(),
    };
    let hash = sigv4::body_sha256(body);
    with_request(head, body, |request| {
        if let Ok(claim) = sigv4::parse(request) {
            let _ = sigv4::verify(&claim, "secret", &hash, claim.signed_at);
            let _ = sigv4::verify(&claim, "secret", &hash, Timestamp(0));
        }
        let host = HeaderValue::from_static("localhost");
        let mut headers = request.headers.clone();
        headers.entry("host").or_insert(host.clone());
        sigv4::sign(request.method.as_str(), request.path, request.query, &mut headers, body, &keys, SIGNED_AT);
        let signed = Request { method: request.method, headers: &headers, ..*request };
        // What cannot be signed (a broken query string, one that is signed already) is refused.
        if let Ok(claim) = sigv4::parse(&signed) {
            let outcome = sigv4::verify(&claim, &keys.secret_access_key, &hash, SIGNED_AT);
            // The request itself may name the hash of another body.
            assert!(matches!(outcome, Ok(()) | Err(sigv4::Error::BodyMismatch)), "{outcome:?}");
        }
        let query = sigv4::presign(request.path, request.query, "localhost", &keys, 60, SIGNED_AT);
        let headers = HeaderMap::from_iter([(http::header::HOST, host)]);
        let signed = Request { method: &Method::GET, query: &query, headers: &headers, body: b"", ..*request };
        if let Ok(claim) = sigv4::parse(&signed) {
            let outcome = sigv4::verify(&claim, &keys.secret_access_key, &sigv4::body_sha256(b""), SIGNED_AT);
            assert!(outcome.is_ok(), "{outcome:?}");
        }
    });
}

/// When our client signs.
const SIGNED_AT: Timestamp = Timestamp(1_800_000_000_000);

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
