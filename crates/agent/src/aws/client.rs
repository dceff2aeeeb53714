//! One signed call over HTTP: encoded and decoded by `wire`, sent with a bound on time and size.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::Clock;
use domain::agent_protocol::payload::RoleCredentials;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use wire::sigv4::Keys;
use wire::{Operation, Reflect, ServiceError, exchange};

/// Amazon's agent waits this long: 30 s to connect, 10 s for TLS, 2 s more.
const TIMEOUT: Duration = Duration::from_secs(42);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// No answer the agent asks for is longer.
const ANSWER_LIMIT: usize = 4 << 20;

/// Where the platform's API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether it speaks TLS.
    pub secure: bool,
    /// `host:port`.
    pub authority: String,
}

impl Endpoint {
    /// Reads `http://host:port` or `https://host:port`; the rest of a URL is not ours to choose.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|error| format!("{text}: {error}"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some(scheme @ ("http" | "https")), Some(authority)) => {
                Ok(Endpoint { secure: scheme == "https", authority: authority.to_string() })
            }
            _ => Err(format!("{text} is not of the form http://host:port or https://host:port")),
        }
    }

    /// Of its URLs.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service's own error.
    #[error("{}: {} status code: {}", .0.code(), .0.message(), .0.http_status())]
    Service(ServiceError),
    /// No answer, or one that cannot be read.
    #[error("{0}")]
    Transport(String),
}

impl CallError {
    /// The service's error code, if it answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            CallError::Service(error) => Some(error.code()),
            CallError::Transport(_) => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            CallError::Transport(_) => true,
            CallError::Service(error) => {
                error.http_status() >= 500 && error.http_status() != 501
                    || matches!(
                        error.code(),
                        "ThrottlingException"
                            | "Throttling"
                            | "LimitExceededException"
                            | "ServiceUnavailableException"
                            | "OperationAbortedException"
                            | "ServerException"
                            | "TooManyRequestsException"
                    )
            }
        }
    }

    /// Whether other keys are needed.
    pub fn is_expired(&self) -> bool {
        let codes = ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"];
        self.code().is_some_and(|code| codes.contains(&code))
    }
}

/// The keys of a role for one service and region.
pub fn role_keys(credentials: &RoleCredentials, service: &str, region: &str) -> Keys {
    Keys {
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.clone(),
        session_token: Some(credentials.session_token.clone()).filter(|token| !token.is_empty()),
        region: region.to_owned(),
        service: service.to_owned(),
    }
}

/// Sends signed calls to one endpoint.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client with its own connection pool.
    pub fn new(endpoint: Endpoint, tls: Arc<ClientConfig>) -> Client {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_max_idle_per_host(8)
            .build(connector);
        Client { endpoint, tls, http }
    }

    /// Where it sends them.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How it speaks TLS; the sessions do as well.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// One call, signed with `keys`.
    pub async fn call<O: Reflect + Default>(
        &self,
        operation: &'static Operation,
        input: &(dyn Reflect + Sync),
        keys: &Keys,
    ) -> Result<O, CallError> {
        let transport = |what: String| CallError::Transport(format!("{}: {what}", operation.name));
        let protocol = operation.service.protocols.first().copied();
        let protocol = protocol.ok_or_else(|| transport("the service has no protocol".to_owned()))?;
        let request = exchange::encode_request(operation, protocol, input);
        let (parts, body) = self.signed(request, keys).map_err(&transport)?;
        let request = Request::from_parts(parts, Full::new(Bytes::from(body)));
        let answer = async {
            let response = self.http.request(request).await.map_err(|error| transport(full(&error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await;
            Ok((parts, body.map_err(|error| transport(error.to_string()))?.to_bytes()))
        };
        let (parts, body) = match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answer) => answer?,
            Err(_) => return Err(transport("no answer within 42 seconds".to_owned())),
        };
        let mut output = O::default();
        exchange::decode_response(operation, parts.status.as_u16(), &parts.headers, &body, &mut output)
            .map_err(CallError::Service)?;
        Ok(output)
    }

    fn signed(&self, request: Request<Vec<u8>>, keys: &Keys) -> Result<(http::request::Parts, Vec<u8>), String> {
        let (mut parts, body) = request.into_parts();
        let host = HeaderValue::from_str(&self.endpoint.authority).map_err(|error| error.to_string())?;
        parts.headers.insert(http::header::HOST, host);
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        wire::sigv4::sign(parts.method.as_str(), &path, &query, &mut parts.headers, &body, keys, now());
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = format!("{}://{}{target}", self.endpoint.scheme(), self.endpoint.authority)
            .parse()
            .map_err(|error: http::uri::InvalidUri| error.to_string())?;
        Ok((parts, body))
    }
}

/// Calls again while the platform is away or busy: for some ten seconds, more than it takes to be started again.
pub async fn patiently<T, F: Future<Output = Result<T, CallError>>>(call: impl Fn() -> F) -> Result<T, CallError> {
    let mut pause = Duration::from_millis(200);
    for _ in 0..6 {
        match call().await {
            Err(error) if error.is_temporary() => tracing::debug!(%error, "a call is made again"),
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    call().await
}

/// The time signatures carry: the system's own.
pub fn now() -> wire::Timestamp {
    wire::Timestamp(Clock::system_now().millis())
}

/// An error with its causes, which hyper keeps apart.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
