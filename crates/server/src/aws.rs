//! A small client of the platform's own API, for the demo and for knowing when the API answers.

use std::time::Duration;

use bytes::Bytes;
use domain::Clock;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use iam::AccessKey;
use wire::{Operation, Protocol, Reflect, ServiceError, exchange, sigv4};

use crate::data_directory::Settings;

/// The largest answer we read.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How far a platform is after its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Nothing answers.
    Silent,
    /// The API answers; a part of the platform (the Fargate host, the network) is still on its way.
    Answers,
    /// All parts are there: a task started now is placed.
    Complete,
}

/// How far the platform with these settings is.
pub async fn readiness(settings: &Settings) -> Readiness {
    match Client::new(settings, None).get("/health").await {
        Ok(response) if response.status().is_success() => Readiness::Complete,
        Ok(response) if response.headers().contains_key(header::CONTENT_TYPE) => Readiness::Answers,
        _ => Readiness::Silent,
    }
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refused.
    #[error("{}: {}", .0.code(), .0.message())]
    Service(ServiceError),
    /// Nothing answered, or not in HTTP.
    #[error("{url}: {cause}")]
    Connection {
        /// What was asked.
        url: String,
        /// Why it did not come.
        cause: String,
    },
}

impl ClientError {
    /// The service's error code; empty when there was no answer.
    pub fn code(&self) -> &str {
        match self {
            Self::Service(error) => error.code(),
            Self::Connection { .. } => "",
        }
    }
}

/// A client with one identity.
#[derive(Clone)]
pub struct Client {
    http: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
    endpoint: String,
    host: String,
    region: String,
    key: Option<AccessKey>,
}

impl Client {
    /// A client of the platform with these settings, signing with `key`.
    pub fn new(settings: &Settings, key: Option<AccessKey>) -> Self {
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
            endpoint: format!("http://{}", settings.local()),
            host: settings.local().to_string(),
            region: settings.region.to_string(),
            key,
        }
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Calls an operation.
    pub async fn call<O: Reflect + Default>(
        &self,
        operation: &'static Operation,
        input: &dyn Reflect,
    ) -> Result<O, ClientError> {
        let protocol = operation.service.protocols.first().copied().unwrap_or(Protocol::Json11);
        let mut request = exchange::encode_request(operation, protocol, input);
        self.sign(&mut request, operation.service.signing_name);
        let response = self.send(request.map(Bytes::from)).await?;
        let mut output = O::default();
        exchange::decode_response(
            operation,
            response.status().as_u16(),
            response.headers(),
            response.body(),
            &mut output,
        )
        .map_err(ClientError::Service)?;
        Ok(output)
    }

    fn sign(&self, request: &mut Request<Vec<u8>>, service: &str) {
        let Some(key) = &self.key else { return };
        let keys = sigv4::Keys {
            access_key_id: key.access_key_id.clone(),
            secret_access_key: key.secret_access_key.clone(),
            session_token: None,
            region: self.region.clone(),
            service: service.to_owned(),
        };
        self.add_host(request);
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let (method, body) = (request.method().to_string(), request.body().clone());
        let now = wire::Timestamp(Clock::system_now().millis());
        sigv4::sign(&method, &path, &query, request.headers_mut(), &body, &keys, now);
    }

    /// A signed POST without a body, to one of the platform's own paths.
    pub async fn post(&self, path: &str) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::new(Vec::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().unwrap_or_default();
        self.sign(&mut request, "ec2");
        self.send(request.map(Bytes::from)).await
    }

    /// A GET without a signature.
    pub async fn get(&self, path: &str) -> Result<Response<Bytes>, ClientError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = path.parse().unwrap_or_default();
        self.send(request).await
    }

    /// Sends a request with a path for a target, and reads the whole answer.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let url = if request.uri().authority().is_some() {
            request.uri().to_string()
        } else {
            format!("{}{target}", self.endpoint)
        };
        let fail = |cause: String| ClientError::Connection { url: url.clone(), cause };
        self.add_host(&mut request);
        *request.uri_mut() = url.parse().map_err(|error: http::uri::InvalidUri| fail(error.to_string()))?;
        if *request.method() == Method::GET && request.body().is_empty() {
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let exchange = async {
            let response = self.http.request(request.map(Full::new)).await.map_err(|error| fail(chain(&error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| fail(error.to_string()))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(fail(format!("no answer within {TIMEOUT:?}"))))
    }

    fn add_host<B>(&self, request: &mut Request<B>) {
        if !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(&self.host)
        {
            request.headers_mut().insert(header::HOST, host);
        }
    }
}

/// An error with its causes: hyper's own text leaves out the one that matters.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
