//! Behaviour of signing and verifying; against Amazon's own client they are tested end to end.

use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::request::Request;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn keys() -> Keys {
    Keys {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: Some("token".to_owned()),
        region: "us-east-1".to_owned(),
        service: "ecs".to_owned(),
    }
}

fn signed(path: &str, query: &str, body: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:4580"));
    headers.insert("x-amz-target", HeaderValue::from_static("X.RunTask"));
    sign("POST", path, query, &mut headers, body, &keys(), NOW);
    headers
}

fn check(headers: &HeaderMap, path: &str, query: &str, body: &[u8], now: Timestamp) -> Result<(), Error> {
    let request = Request { method: &Method::POST, path, query, headers, body };
    let claim = parse(&request)?;
    assert_eq!(claim.access_key_id, "AKIDEXAMPLE");
    assert_eq!(claim.session_token.as_deref(), Some("token"));
    verify(&claim, SECRET, &body_sha256(body), now)
}

#[test]
fn what_we_sign_verifies_within_five_minutes() {
    let headers = signed("/a b/../c", "b=2&a=%2F", b"{}");
    let at = |millis| check(&headers, "/a b/../c", "b=2&a=%2F", b"{}", Timestamp(NOW.0 + millis));
    assert_eq!(at(0), Ok(()));
    assert_eq!(at(SKEW_MILLIS), Ok(()));
    assert_eq!(at(-SKEW_MILLIS), Ok(()));
    assert!(matches!(at(SKEW_MILLIS + 1000), Err(Error::Time(text)) if text.contains("- 5 min.")));
    assert!(matches!(at(-SKEW_MILLIS - 1000), Err(Error::Time(text)) if text.contains("not yet current")));
}

#[test]
fn any_change_breaks_the_signature() {
    let headers = signed("/", "a=1", b"{}");
    assert_eq!(check(&headers, "/", "a=1", b"{ }", NOW), Err(Error::Mismatch));
    assert_eq!(check(&headers, "/x", "a=1", b"{}", NOW), Err(Error::Mismatch));
    assert_eq!(check(&headers, "/", "a=2", b"{}", NOW), Err(Error::Mismatch));
    let mut other = headers.clone();
    other.insert("x-amz-target", HeaderValue::from_static("X.StopTask"));
    assert_eq!(check(&other, "/", "a=1", b"{}", NOW), Err(Error::Mismatch));
}

#[test]
fn a_signed_hash_must_be_the_bodys() {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    let hash = hex::encode(body_sha256(b"one"));
    headers.insert("x-amz-content-sha256", HeaderValue::from_str(&hash).expect("hash"));
    sign("POST", "/", "", &mut headers, b"", &keys(), NOW);
    assert_eq!(check(&headers, "/", "", b"one", NOW), Ok(()));
    assert_eq!(check(&headers, "/", "", b"two", NOW), Err(Error::BodyMismatch));
    headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    sign("POST", "/", "", &mut headers, b"", &keys(), NOW);
    assert_eq!(check(&headers, "/", "", b"anything", NOW), Ok(()));
    headers.insert("x-amz-content-sha256", HeaderValue::from_static("STREAMING-UNSIGNED-PAYLOAD-TRAILER"));
    assert!(matches!(check(&headers, "/", "", b"", NOW), Err(Error::Unsupported(text)) if text.contains("STREAMING")));
}

#[test]
fn presigned_requests_last_as_long_as_they_say() {
    let query = presign("/", "Action=GetCallerIdentity&Version=2011-06-15", "localhost", &keys(), 60, NOW);
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    let at = |millis: i64| {
        let request = Request { method: &Method::GET, path: "/", query: &query, headers: &headers, body: b"" };
        let claim = parse(&request)?;
        verify(&claim, SECRET, &body_sha256(b""), Timestamp(NOW.0 + millis))
    };
    assert_eq!(at(60_000), Ok(()));
    assert!(matches!(at(61_000), Err(Error::Time(_))));
    let longer = query.replace("X-Amz-Expires=60", "X-Amz-Expires=6000");
    let request = Request { method: &Method::GET, path: "/", query: &longer, headers: &headers, body: b"" };
    let claim = parse(&request).expect("well-formed");
    assert_eq!(verify(&claim, SECRET, &body_sha256(b""), NOW), Err(Error::Mismatch));
}

#[test]
fn broken_signatures_are_named() {
    let with = |authorization: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        headers.insert("x-amz-date", HeaderValue::from_static("20231114T221320Z"));
        headers.insert("authorization", HeaderValue::from_str(authorization).expect("header"));
        parse(&Request { method: &Method::POST, path: "/", query: "", headers: &headers, body: b"" }).map(|_| ())
    };
    let incomplete = |text: &str, part: &str| match with(text) {
        Err(Error::Incomplete(message)) => assert!(message.contains(part), "{message}"),
        other => panic!("{other:?}"),
    };
    incomplete("Basic abc", "algorithm");
    incomplete("AWS4-HMAC-SHA256 Credential=x", "'Signature'");
    incomplete("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00", "exactly 5");
    let scope = "AWS4-HMAC-SHA256 Credential=a/20231114/us-east-1/ecs/aws4_request";
    assert!(matches!(with(&format!("{scope}, SignedHeaders=x-amz-date, Signature=00")), Err(Error::Invalid(_))));
    assert_eq!(with(&format!("{scope}, SignedHeaders=host, Signature=zz")), Err(Error::Mismatch));
    let other_day = scope.replace("20231114", "20231113");
    assert!(matches!(with(&format!("{other_day}, SignedHeaders=host, Signature=00")), Err(Error::Invalid(_))));
}

proptest! {
    #[test]
    fn no_header_panics(authorization in "(AWS4-HMAC-SHA256 )?[ -~]{0,200}", query in "[ -~]{0,100}") {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("localhost"));
        if let Ok(value) = HeaderValue::from_str(&authorization) {
            headers.insert("authorization", value);
        }
        let request = Request { method: &Method::POST, path: "/", query: &query, headers: &headers, body: b"" };
        if let Ok(claim) = parse(&request) {
            prop_assert!(verify(&claim, SECRET, &body_sha256(b""), NOW).is_err());
        }
    }
}
