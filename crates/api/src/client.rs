//! A thin client: builds signed requests and reads answers, for any operation we have the shapes of.
//!
//! The transport is the caller's, so that the agent, the demo and the simulator each use their own.
//! Nothing retries here and no idempotency token is invented: a caller that retries sends the same
//! input twice.

use http::{HeaderValue, Request, Response, Uri};
use wire::sigv4::{self, Keys};
use wire::{Operation, Reflect, ServiceError, Timestamp, exchange};

/// Where to call, and as whom.
#[derive(Clone, Debug)]
pub struct Client {
    /// `http://127.0.0.1:4580`, without a path.
    pub endpoint: Uri,
    /// Region of the credential scope.
    pub region: String,
    /// The keys.
    pub credentials: Credentials,
}

/// An access key, with its session token where it is temporary.
#[derive(Clone)]
pub struct Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token of temporary credentials.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Client {
    /// The signed request for an operation, such as `&api::ecs::operation::RUN_TASK`.
    ///
    /// Its target is a path; the caller connects to [`Client::endpoint`]. `Host` is set.
    pub fn request(&self, operation: &'static Operation, input: &dyn Reflect, now: Timestamp) -> Request<Vec<u8>> {
        let protocol = operation.service.protocols.first().copied().unwrap_or(wire::Protocol::Json11);
        let mut request = exchange::encode_request(operation, protocol, input);
        let keys = self.keys(operation.service.signing_name);
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let method = request.method().as_str().to_owned();
        let body = std::mem::take(request.body_mut());
        self.set_host(request.headers_mut());
        sigv4::sign(&method, &path, &query, request.headers_mut(), &body, &keys, now);
        *request.body_mut() = body;
        request
    }

    /// The signed headers of a WebSocket handshake with the given path and query, for the service of
    /// that signing name. The caller adds the `Upgrade` headers.
    pub fn handshake(&self, service: &str, path: &str, query: &str, now: Timestamp) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        self.set_host(&mut headers);
        sigv4::sign("GET", path, query, &mut headers, b"", &self.keys(service), now);
        headers
    }

    fn set_host(&self, headers: &mut http::HeaderMap) {
        let host = self.endpoint.authority().map_or("localhost", http::uri::Authority::as_str);
        if let Ok(value) = HeaderValue::from_str(host) {
            headers.insert("host", value);
        }
    }

    fn keys(&self, service: &str) -> Keys {
        Keys {
            access_key_id: self.credentials.access_key_id.clone(),
            secret_access_key: self.credentials.secret_access_key.clone(),
            session_token: self.credentials.session_token.clone(),
            region: self.region.clone(),
            service: service.to_owned(),
        }
    }
}

/// Reads the whole answer to an operation.
///
/// # Errors
/// The service's error, or `ClientParseError` for an answer that cannot be read.
pub fn decode<O: Reflect + Default>(
    operation: &'static Operation,
    response: &Response<impl AsRef<[u8]>>,
) -> Result<O, ServiceError> {
    let mut output = O::default();
    let body = response.body().as_ref();
    exchange::decode_response(operation, response.status().as_u16(), response.headers(), body, &mut output)?;
    Ok(output)
}
