//! The reading half of the OCI distribution protocol: manifests and blobs, with basic and bearer authentication.
//!
//! Credentials go to the registry itself and to the token service it names, and to nobody else: a redirect to another host loses them.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::timeout;

use super::dial::{Dialer, is_local_name};
use super::manifest;
use super::{Digest, Endpoint, ImageError, Reference, RegistryAuth};

/// How long a server may think before it answers, and between two pieces of an answer.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// Of an error's text, this much is kept.
const MAXIMUM_ERROR: usize = 8 << 10;
/// Of redirects, this many are followed.
const MAXIMUM_REDIRECTS: usize = 6;

/// One repository of one registry.
pub(crate) struct Registry {
    dialer: Dialer,
    reference: Reference,
    auth: RegistryAuth,
    /// Scheme, host and port.
    base: String,
    /// The `Authorization` that was accepted last.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    pub(crate) fn new(
        mut dialer: Dialer,
        reference: Reference,
        auth: RegistryAuth,
        endpoints: &[Endpoint],
    ) -> Result<Self, ImageError> {
        let base = base(&reference.registry, endpoints);
        let invalid = |reason: String| ImageError::InvalidReference { reference: reference.to_string(), reason };
        let uri: Uri = base.parse().map_err(|error| invalid(format!("endpoint {base:?}: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(invalid(format!("endpoint {base:?} is no http or https address")));
        }
        for endpoint in endpoints.iter().filter(|endpoint| matches(&endpoint.registry, &reference.registry)) {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            let host = uri.host().unwrap_or_default();
            dialer.fixed.extend(endpoint.connect.map(|address| (format!("{host}:{port}"), address)));
            dialer.trusted.extend(endpoint.tls.clone().map(|tls| (host.to_owned(), tls)));
        }
        Ok(Self { dialer, reference, auth, base, authorization: Mutex::new(None) })
    }

    /// The bytes behind a tag or digest, verified if it is one.
    pub(crate) async fn manifest(&self, wanted: &str) -> Result<Bytes, ImageError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.reference.repository);
        let response = self.get(&url, None).await?;
        let status = response.status();
        let body = self.body(response, manifest::MAXIMUM_MANIFEST, &url).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, &body));
        }
        if let Ok(expected) = wanted.parse::<Digest>() {
            let actual = Digest::of(&body);
            if expected != actual {
                return Err(ImageError::DigestMismatch { expected: expected.to_string(), actual: actual.to_string() });
            }
        }
        Ok(body)
    }

    /// A blob from `offset` on, to be read and verified by the caller. The second value is where it really begins.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Response<Incoming>, u64), ImageError> {
        let url = format!("{}/v2/{}/blobs/{digest}", self.base, self.reference.repository);
        let response = self.get(&url, (offset > 0).then(|| format!("bytes={offset}-"))).await?;
        match response.status() {
            StatusCode::OK => Ok((response, 0)),
            StatusCode::PARTIAL_CONTENT if offset > 0 => Ok((response, offset)),
            status => {
                let body = self.body(response, MAXIMUM_ERROR, &url).await.unwrap_or_default();
                Err(self.refusal(status, &body))
            }
        }
    }

    /// Sends with the authorization known so far, and once more with the one the registry asks for.
    async fn get(&self, url: &str, range: Option<String>) -> Result<Response<Incoming>, ImageError> {
        let known = self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let response = self.follow(url, known.as_deref(), range.as_deref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let challenges: Vec<String> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
            .collect();
        let Some(authorization) = self.authorize(&challenges).await? else { return Ok(response) };
        let response = self.follow(url, Some(&authorization), range.as_deref()).await?;
        *self.authorization.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(authorization);
        Ok(response)
    }

    async fn follow(
        &self,
        url: &str,
        authorization: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response<Incoming>, ImageError> {
        let origin: Uri = self.parse(url)?;
        let mut current = origin.clone();
        for _ in 0..MAXIMUM_REDIRECTS {
            let trusted = current.authority() == origin.authority() && current.scheme() == origin.scheme();
            let response = self.send(&current, authorization.filter(|_| trusted), range).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location =
                response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            let next = resolve(&current, &location)
                .ok_or_else(|| self.unreachable(url, format!("redirect to {location:?}")))?;
            // Encryption is not given up on the way, and a public registry does not lead to services of this host.
            let host = next.host().unwrap_or_default();
            let downgraded = origin.scheme_str() == Some("https") && next.scheme_str() != Some("https");
            let inwards = is_loopback(host)
                && !is_loopback(origin.host().unwrap_or_default())
                && !self.dialer.fixed.iter().any(|(_, to)| to.ip().is_loopback());
            if downgraded || inwards {
                return Err(self.unreachable(
                    url,
                    format!("refused redirect to {}://{host}", next.scheme_str().unwrap_or_default()),
                ));
            }
            current = next;
        }
        Err(self.unreachable(url, format!("stopped after {MAXIMUM_REDIRECTS} redirects")))
    }

    async fn send(
        &self,
        uri: &Uri,
        authorization: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response<Incoming>, ImageError> {
        let url = uri.to_string();
        let connection =
            self.dialer.connect(uri).await.map_err(|error| self.failed(&url, error.text, error.timed_out))?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
            .await
            .map_err(|error| self.failed(&url, error.to_string(), false))?;
        tokio::spawn(driver);
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(HOST, authority)
            .header(USER_AGENT, "longshore")
            .header(ACCEPT, manifest::ACCEPT);
        for (name, value) in [(AUTHORIZATION, authorization), (RANGE, range)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.unreachable(&url, error.to_string()))?;
        match timeout(STALL, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(&url, error.to_string(), false)),
            Err(_) => Err(self.failed(&url, "net/http: timeout awaiting response headers".to_owned(), true)),
        }
    }

    /// The `Authorization` for one of the challenges; `None` if there is none we can meet.
    async fn authorize(&self, challenges: &[String]) -> Result<Option<String>, ImageError> {
        let basic = match &self.auth {
            RegistryAuth::Anonymous => None,
            RegistryAuth::Basic { username, password } => Some(format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"))
            )),
        };
        if let Some(parameters) = challenges.iter().find_map(|challenge| scheme(challenge, "bearer")) {
            return self.token(parameters, basic.as_deref()).await.map(Some);
        }
        Ok(basic.filter(|_| challenges.iter().any(|challenge| scheme(challenge, "basic").is_some())))
    }

    async fn token(&self, parameters: &str, basic: Option<&str>) -> Result<String, ImageError> {
        let parameter = |name: &str| parameter(parameters, name);
        let realm = parameter("realm").unwrap_or_default();
        let uri = self.parse(&realm)?;
        let host = uri.host().unwrap_or_default();
        let same_host = self.base.parse::<Uri>().is_ok_and(|base| base.host() == Some(host));
        if uri.scheme_str() != Some("https") && !is_loopback(host) && !same_host {
            return Err(self.unreachable(&realm, "the token service is not https".to_owned()));
        }
        let mut query = format!(
            "scope={}",
            encode(&parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository)))
        );
        if let Some(service) = parameter("service") {
            query.push_str(&format!("&service={}", encode(&service)));
        }
        let url = format!("{realm}{}{query}", if realm.contains('?') { "&" } else { "?" });
        let response = self.follow(&url, basic, None).await?;
        let status = response.status();
        let body = self.body(response, 1 << 20, &url).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, &body));
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let token = serde_json::from_slice::<Token>(&body).ok().and_then(|token| token.token.or(token.access_token));
        let token = token.ok_or_else(|| self.unreachable(&realm, "the token service gave no token".to_owned()))?;
        Ok(format!("Bearer {token}"))
    }

    async fn body(&self, response: Response<Incoming>, limit: usize, url: &str) -> Result<Bytes, ImageError> {
        match timeout(STALL, Limited::new(response.into_body(), limit).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.failed(url, error.to_string(), false)),
            Err(_) => Err(self.failed(url, "net/http: timeout reading the body".to_owned(), true)),
        }
    }

    fn parse(&self, url: &str) -> Result<Uri, ImageError> {
        url.parse::<Uri>()
            .ok()
            .filter(|uri| uri.host().is_some())
            .ok_or_else(|| self.unreachable(url, "invalid address".to_owned()))
    }

    fn failed(&self, url: &str, detail: String, timed_out: bool) -> ImageError {
        let (reference, url) = (self.reference.to_string(), without_query(url));
        if timed_out {
            ImageError::Timeout { reference, url, detail }
        } else {
            ImageError::Unreachable { reference, url, detail }
        }
    }

    fn unreachable(&self, url: &str, detail: String) -> ImageError {
        self.failed(url, detail, false)
    }

    /// What a status other than success means.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> ImageError {
        let reference = self.reference.to_string();
        let body = String::from_utf8_lossy(body.get(..MAXIMUM_ERROR).unwrap_or(body)).trim().to_owned();
        match status {
            StatusCode::NOT_FOUND => ImageError::NotFound { reference, body },
            StatusCode::UNAUTHORIZED => ImageError::Unauthorized { reference, body },
            StatusCode::FORBIDDEN => ImageError::Denied { reference, status: 403, body },
            StatusCode::TOO_MANY_REQUESTS => ImageError::TooManyRequests { reference, body },
            other => ImageError::Registry { reference, status: other.as_u16(), body },
        }
    }
}

/// A query may carry a signature.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

fn matches(pattern: &str, registry: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(suffix) => registry.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        None => pattern.eq_ignore_ascii_case(registry),
    }
}

fn base(registry: &str, endpoints: &[Endpoint]) -> String {
    if let Some(endpoint) = endpoints.iter().find(|endpoint| matches(&endpoint.registry, registry)) {
        return endpoint.url.trim_end_matches('/').to_owned();
    }
    if registry == "docker.io" {
        return "https://registry-1.docker.io".to_owned();
    }
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => registry,
    };
    format!("{}://{registry}", if is_loopback(host) { "http" } else { "https" })
}

fn is_loopback(host: &str) -> bool {
    is_local_name(host)
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The parameters of a challenge of this scheme.
fn scheme<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let (scheme, parameters) = challenge.trim().split_once(' ').unwrap_or((challenge.trim(), ""));
    scheme.eq_ignore_ascii_case(name).then_some(parameters)
}

/// `name="value"` or `name=value`; a comma inside quotes belongs to the value.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
    None
}

/// Where a redirect leads: another address, or another path of the same server.
fn resolve(current: &Uri, location: &str) -> Option<Uri> {
    let text = if location.starts_with("//") {
        format!("{}:{location}", current.scheme_str()?)
    } else if location.starts_with('/') {
        format!("{}://{}{location}", current.scheme_str()?, current.authority()?)
    } else {
        location.to_owned()
    };
    text.parse::<Uri>().ok().filter(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")))
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~/:".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_registry_is() {
        let endpoint = |registry: &str, url: &str| Endpoint {
            registry: registry.into(),
            url: url.into(),
            connect: None,
            tls: None,
        };
        let endpoints = [
            endpoint("docker.io", "http://127.0.0.1:5000/"),
            endpoint("*.dkr.ecr.us-east-1.amazonaws.com", "http://127.0.0.1:4580"),
        ];
        for (registry, expected) in [
            ("docker.io", "http://127.0.0.1:5000"),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "http://127.0.0.1:4580"),
            ("dkr.ecr.us-east-1.amazonaws.com", "https://dkr.ecr.us-east-1.amazonaws.com"),
            ("evildkr.ecr.us-east-1.amazonaws.com", "https://evildkr.ecr.us-east-1.amazonaws.com"),
            ("ghcr.io", "https://ghcr.io"),
            ("localhost:4580", "http://localhost:4580"),
            ("x.dkr.ecr.eu-west-1.localhost:4580", "http://x.dkr.ecr.eu-west-1.localhost:4580"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("127.0.0.1.example.com", "https://127.0.0.1.example.com"),
        ] {
            assert_eq!(base(registry, &endpoints), expected);
        }
        assert_eq!(base("docker.io", &[]), "https://registry-1.docker.io");
    }

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://auth.example/token",service="registry.example", scope="repository:a/b:pull,push",error=x"#;
        let parameters = scheme(text, "bearer").unwrap();
        for (name, expected) in [
            ("realm", "https://auth.example/token"),
            ("service", "registry.example"),
            ("scope", "repository:a/b:pull,push"),
            ("error", "x"),
        ] {
            assert_eq!(parameter(parameters, name).as_deref(), Some(expected));
        }
        assert_eq!(parameter(parameters, "nothing"), None);
        assert_eq!(scheme("Basic realm=x", "bearer"), None);
        assert_eq!(parameter("realm=\"unclosed", "realm").as_deref(), Some("unclosed"));
    }

    #[test]
    fn redirects() {
        let current: Uri = "https://a.example:8443/v2/x".parse().unwrap();
        let check = |location: &str| resolve(&current, location).map(|uri| uri.to_string());
        assert_eq!(check("/y?z=1").as_deref(), Some("https://a.example:8443/y?z=1"));
        assert_eq!(check("https://b.example/y").as_deref(), Some("https://b.example/y"));
        assert_eq!(check("//b.example/y").as_deref(), Some("https://b.example/y"));
        for bad in ["", "y", "file:///etc/passwd", "ftp://x/y"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
