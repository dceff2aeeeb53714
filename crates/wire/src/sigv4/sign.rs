//! Signing requests, which our own agent, demo and simulator do.

use std::fmt;

use http::{HeaderMap, HeaderValue};

use super::{ALGORITHM, body_sha256, canonical, mac, signing_key, string_to_sign};
use crate::Timestamp;
use crate::codec::form::percent_encode;

/// The keys and the scope a request is signed with.
#[derive(Clone)]
pub struct Keys {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
    /// Region of the scope.
    pub region: String,
    /// Service of the scope.
    pub service: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Keys {
    fn scope(&self, date: &str) -> String {
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }

    fn signature(&self, timestamp: &str, canonical: &str) -> String {
        let date = timestamp.get(..8).unwrap_or_default();
        let text = string_to_sign(timestamp, &self.scope(date), canonical);
        let key = signing_key(&self.secret_access_key, date, &self.region, &self.service);
        hex::encode(mac(&key, text.as_bytes()))
    }
}

/// Signs in the header form: adds `x-amz-date`, `x-amz-security-token` and `authorization`.
///
/// `headers` must hold `host`; it, `content-type` and every `x-amz-…` header are signed. A WebSocket
/// handshake is signed the same way, as a GET with an empty body.
pub fn sign(method: &str, path: &str, query: &str, headers: &mut HeaderMap, body: &[u8], keys: &Keys, now: Timestamp) {
    let timestamp = now.to_amz_date();
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set("x-amz-date", &timestamp);
    if let Some(token) = &keys.session_token {
        set("x-amz-security-token", token);
    }
    headers.remove("authorization");
    let mut signed: Vec<String> = headers
        .keys()
        .map(|name| name.as_str().to_owned())
        .filter(|name| name == "host" || name == "content-type" || name.starts_with("x-amz-"))
        .collect();
    signed.sort();
    let pairs = canonical::pairs(query).unwrap_or_default();
    let payload = match headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()) {
        Some(text) => text.to_owned(),
        None => hex::encode(body_sha256(body)),
    };
    let head = canonical::head(method, path, &pairs, headers, &signed, &keys.service).unwrap_or_default();
    let signature = keys.signature(&timestamp, &format!("{head}\n{payload}"));
    let date = timestamp.get(..8).unwrap_or_default();
    let text = format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={signature}",
        keys.access_key_id,
        keys.scope(date),
        signed.join(";")
    );
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert("authorization", value);
    }
}

/// The query string of a presigned GET: the given one with the signature's parameters added.
pub fn presign(path: &str, query: &str, host: &str, keys: &Keys, expires_seconds: u32, now: Timestamp) -> String {
    let timestamp = now.to_amz_date();
    let date = timestamp.get(..8).unwrap_or_default();
    let mut pairs = canonical::pairs(query).unwrap_or_default();
    let mut add = |name: &str, value: String| pairs.push((name.to_owned(), value));
    add("X-Amz-Algorithm", ALGORITHM.to_owned());
    add("X-Amz-Credential", format!("{}/{}", keys.access_key_id, keys.scope(date)));
    add("X-Amz-Date", timestamp.clone());
    add("X-Amz-Expires", expires_seconds.to_string());
    add("X-Amz-SignedHeaders", "host".to_owned());
    if let Some(token) = &keys.session_token {
        add("X-Amz-Security-Token", token.clone());
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(host) {
        headers.insert("host", value);
    }
    let signed = ["host".to_owned()];
    let head = canonical::head("GET", path, &pairs, &headers, &signed, &keys.service).unwrap_or_default();
    let signature = keys.signature(&timestamp, &format!("{head}\n{}", hex::encode(body_sha256(b""))));
    pairs.push(("X-Amz-Signature".to_owned(), signature));
    let parts: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", percent_encode(name), percent_encode(value))).collect();
    parts.join("&")
}
