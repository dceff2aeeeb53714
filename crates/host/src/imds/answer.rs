//! The rules of a request: which version it speaks, whether it may ask, and what it gets.

use std::net::Ipv4Addr;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use domain::instances::InstanceItem;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::{
    credentials::Credentials,
    token::{LONGEST, Tokens},
    tree,
};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TOKEN_LIFE: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Answers one instance.
pub(super) struct Answerer<'a> {
    pub(super) instance: &'a InstanceItem,
    pub(super) tokens: &'a Tokens,
    pub(super) credentials: &'a Credentials,
    pub(super) address: Ipv4Addr,
}

/// There is no such instance any more, or nothing can be said.
pub(super) fn gone() -> Response<Full<Bytes>> {
    refusal(StatusCode::NOT_FOUND)
}

impl Answerer<'_> {
    /// The answer, and whether it is a session token, which travels only so far.
    pub(super) async fn answer(&self, request: Request<()>) -> (Response<Full<Bytes>>, bool) {
        if !self.instance.metadata.options.enabled {
            return (refusal(StatusCode::FORBIDDEN), false);
        }
        if request.method() == Method::PUT && request.uri().path() == "/latest/api/token" {
            return (self.token(request.headers()), true);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return (refusal(StatusCode::METHOD_NOT_ALLOWED), false);
        }
        if !self.may_ask(request.headers()) {
            return (refusal(StatusCode::UNAUTHORIZED), false);
        }
        (self.path(request.uri().path()).await, false)
    }

    fn token(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        // Asked for through a proxy, a token would leave the instance.
        if headers.contains_key("x-forwarded-for") {
            return refusal(StatusCode::FORBIDDEN);
        }
        let life = headers.get(TOKEN_LIFE).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let Some(life) = life.filter(|life| (1..=LONGEST).contains(life)) else {
            return refusal(StatusCode::BAD_REQUEST);
        };
        let mut response = text(self.tokens.give(&self.instance.instance_id, life));
        response.headers_mut().insert(TOKEN_LIFE, HeaderValue::from(life));
        response
    }

    fn may_ask(&self, headers: &HeaderMap) -> bool {
        match headers.get(TOKEN) {
            Some(token) => token.to_str().is_ok_and(|token| self.tokens.accept(&self.instance.instance_id, token)),
            None => !self.instance.metadata.options.tokens_required,
        }
    }

    async fn path(&self, path: &str) -> Response<Full<Bytes>> {
        let path = path.trim_start_matches('/');
        let (version, rest) = path.split_once('/').unwrap_or((path, ""));
        if version.is_empty() {
            return text("latest".to_owned());
        }
        if !is_version(version) {
            return refusal(StatusCode::NOT_FOUND);
        }
        let metadata = &self.instance.metadata;
        let (area, below) = rest.split_once('/').unwrap_or((rest, ""));
        match (area, below.trim_end_matches('/')) {
            ("", _) => text("dynamic\nmeta-data\nuser-data".to_owned()),
            ("user-data", "") => match metadata.user_data.as_ref().and_then(|data| STANDARD.decode(data).ok()) {
                Some(data) => bytes(data.into(), "application/octet-stream"),
                None => refusal(StatusCode::NOT_FOUND),
            },
            ("dynamic", "") => text("instance-identity/".to_owned()),
            ("dynamic", "instance-identity") => text("document\nsignature".to_owned()),
            ("dynamic", "instance-identity/document") => text(metadata.identity_document.clone()),
            ("dynamic", "instance-identity/signature") => text(metadata.identity_signature.clone()),
            ("meta-data", below) => self.meta_data(below).await,
            _ => refusal(StatusCode::NOT_FOUND),
        }
    }

    async fn meta_data(&self, path: &str) -> Response<Full<Bytes>> {
        let role = self.instance.metadata.role.as_deref();
        if let Some(role) = role {
            match path.strip_prefix("iam/security-credentials") {
                Some("") => return text(role.to_owned()),
                Some(name) if name.strip_prefix('/') == Some(role) => return self.role_credentials(role).await,
                _ => {}
            }
        }
        if let ("public-keys", Some((name, _))) = (path, &self.instance.metadata.key) {
            // Amazon's list of keys is not that of the directory.
            return text(format!("0={name}"));
        }
        let mut tree = tree::meta_data(self.instance);
        if role.is_some() {
            // Only for the lists above it.
            tree.insert("iam/security-credentials/".to_owned(), String::new());
        }
        match tree::at(&tree, path) {
            Some(found) => text(found),
            None => refusal(StatusCode::NOT_FOUND),
        }
    }

    async fn role_credentials(&self, role: &str) -> Response<Full<Bytes>> {
        match self.credentials.of(&self.instance.instance_id, role, self.address).await {
            Ok(Some(body)) => bytes(body, "text/plain"),
            Ok(None) => refusal(StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::warn!(instance = self.instance.instance_id, %error, "no credentials for an instance");
                refusal(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }
}

/// `latest`, `1.0`, or a date as `2021-03-23`: they differ in what Amazon had then, and all of it is here.
fn is_version(version: &str) -> bool {
    let is_date = version.len() == 10
        && version.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    version == "latest" || version == "1.0" || is_date
}

fn text(body: String) -> Response<Full<Bytes>> {
    bytes(body.into(), "text/plain")
}

fn bytes(body: Bytes, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("EC2ws"));
    response
}

fn refusal(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = text(format!("{}\n", status.canonical_reason().unwrap_or_default()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
