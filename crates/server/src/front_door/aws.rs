//! An AWS request from its first byte to its answer: bounds, signature, route, handler, encoding.

use api::SERVICES;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use services::{Call, Origin};
use wire::{Face, Reply, Route, ServiceError, sigv4};

use super::{
    FrontDoor, Peer,
    body::{self, Body, ReadError},
    signature::{self, Caller},
    text,
};

/// The largest body of what an operator asks for, which needs none.
const OPERATORS_BODY: usize = 1024;
/// Before an instance's id: the path at which it is interrupted.
pub(super) const RECLAIM: &str = "/_longshore/spot/reclaim/";

/// Calls the handler that a route leads to, in whichever service.
macro_rules! dispatch {
    ($route:expr, $request:expr, $call:expr, { $($name:literal => $service:expr, $module:ident;)* }) => {
        match $route.operation.service.name {
            $($name => api::$module::dispatch($service, $call, $route, $request),)*
            _ => unserved($route),
        }
    };
}

impl FrontDoor {
    /// Answers an AWS request.
    pub(super) async fn aws(&self, peer: Peer, request: Request<Incoming>) -> Response<Body> {
        let request_id = self.control_plane.platform.ids().uuid();
        let (mut parts, body) = request.into_parts();
        name_host(&mut parts);
        let limit = wire::body_limit(SERVICES, &parts.headers);
        let answer = match body::read(body, limit, &self.room).await {
            Ok(body) => self.answer(peer, &borrow(&parts, &body.bytes), &request_id).await,
            Err(error) => {
                let face = wire::face(SERVICES, &borrow(&parts, &[]), "");
                wire::encode_error(&face, &unreadable(&error, limit), &request_id)
            }
        };
        answer.map(body::full)
    }

    async fn answer(&self, peer: Peer, request: &wire::Request<'_>, request_id: &str) -> Response<Bytes> {
        let fail = |face: &Face, error: &ServiceError| wire::encode_error(face, error, request_id);
        let claim = match sigv4::parse(request) {
            Ok(claim) => claim,
            Err(error) => {
                let face = wire::face(SERVICES, request, "");
                return fail(&face, &error.service_error(&face));
            }
        };
        let face = wire::face(SERVICES, request, &claim.service);
        let caller = match signature::verify(&self.control_plane.platform, &claim, request.body) {
            Ok(caller) => caller,
            Err(error) => return fail(&face, &error.service_error(&face)),
        };
        let route = match wire::route(SERVICES, request, &claim.service) {
            Ok(route) => route,
            Err(error) => return fail(&face, &error),
        };
        let face = route.face();
        if let Err(error) = self.prepare(&caller.scope.account, &caller.scope.region).await {
            return fail(&face, &error);
        }
        let operation = route.operation;
        let Caller { principal, scope } = caller;
        let platform = self.control_plane.platform.clone();
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let scheme = if peer.secure { "https" } else { "http" };
        let origin = Origin { source: peer.address, endpoint: format!("{scheme}://{host}") };
        let call = Call::new(platform, principal, scope, operation, request_id.to_owned(), origin);
        match call_handler(&route, request, call).await {
            Ok(output) => {
                tracing::debug!(service = operation.service.name, operation = operation.name, request_id, "served");
                wire::encode(&route, &*output, request_id)
            }
            Err(error) => {
                tracing::debug!(
                    service = operation.service.name,
                    operation = operation.name,
                    request_id,
                    code = error.code(),
                    "refused"
                );
                fail(&face, &error)
            }
        }
    }

    /// `POST /_longshore/reset`, signed with the root key: empties the account.
    pub(super) async fn reset(&self, _: Peer, request: Request<Incoming>) -> Response<Body> {
        if !self.allow_reset {
            return text(StatusCode::NOT_FOUND, "Start the platform with --allow-reset to have this.");
        }
        if request.method() != http::Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Use POST.");
        }
        if let Err(refusal) = self.of_root(request).await {
            return refusal;
        }
        match self.control_plane.reset().await {
            Ok(()) => {
                self.forget_prepared();
                text(StatusCode::OK, "The account is empty.\n")
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.message().to_owned()),
        }
    }

    /// `POST /_longshore/spot/reclaim/INSTANCE_ID`, signed with the root key: interrupts a Spot Instance. Answers when it ends.
    pub(super) async fn reclaim(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() != http::Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Use POST.");
        }
        let id = request.uri().path().trim_start_matches(RECLAIM).to_owned();
        if let Err(refusal) = self.of_root(request).await {
            return refusal;
        }
        let platform = &self.control_plane.platform;
        let now = platform.clock.now();
        let interrupted = platform.store.transact(|tx| services::ec2::interrupt_spot_instance(tx, &id, now)).await;
        match interrupted.map_err(services::commit_failure) {
            Ok(end) => text(StatusCode::OK, wire::Timestamp(end.seconds() * 1000).to_rfc3339()),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{}: {}", error.code(), error.message())),
        }
    }

    /// Whether a request without a body is signed with the root key; if not, what it is answered.
    async fn of_root(&self, request: Request<Incoming>) -> Result<(), Response<Body>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body::read(body, OPERATORS_BODY, &self.room).await else {
            return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "It takes no body."));
        };
        let request = borrow(&parts, &body.bytes);
        let platform = &self.control_plane.platform;
        let caller = sigv4::parse(&request).and_then(|claim| signature::verify(platform, &claim, request.body));
        match caller.map(|caller| caller.principal) {
            Ok(iam::Principal::Root { .. }) => Ok(()),
            Ok(_) => Err(text(StatusCode::FORBIDDEN, "Only the root key may do this.")),
            Err(error) => Err(text(StatusCode::FORBIDDEN, error.to_string())),
        }
    }
}

fn call_handler<'a>(route: &Route, request: &wire::Request<'_>, call: Call) -> Reply<'a> {
    dispatch!(route, request, call, {
        "acm" => &services::acm::Acm, acm;
        "ec2" => &services::ec2::Ec2, ec2;
        "ecr" => &services::ecr::Ecr, ecr;
        "ecs" => &services::ecs::Ecs, ecs;
        "elb" => &services::elb::Elb, elb;
        "elbv2" => &services::elbv2::Elbv2, elbv2;
        "iam" => &services::iam::Iam, iam;
        "logs" => &services::logs::Logs, logs;
        "ssm" => &services::ssm::Ssm, ssm;
        "sts" => &services::sts::Sts, sts;
    })
}

fn unserved<'a>(route: &Route) -> Reply<'a> {
    Box::pin(std::future::ready(Err(ServiceError::unserved(route.operation))))
}

/// HTTP/2 names the host in `:authority`; what was signed is the header.
fn name_host(parts: &mut http::request::Parts) {
    if !parts.headers.contains_key(header::HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
}

fn borrow<'a>(parts: &'a http::request::Parts, body: &'a [u8]) -> wire::Request<'a> {
    let headers: &HeaderMap = &parts.headers;
    wire::Request {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        headers,
        body,
    }
}

fn unreadable(error: &ReadError, limit: usize) -> ServiceError {
    match error {
        ReadError::TooLarge => {
            ServiceError::new("RequestEntityTooLarge", format!("The request body exceeds {limit} bytes.")).status(413)
        }
        ReadError::Broken => ServiceError::new("IncompleteBody", "The request body ended before its announced length."),
        ReadError::Slow => {
            ServiceError::new("RequestTimeout", "The request body was not sent within the timeout period.").status(408)
        }
        ReadError::NoRoom => {
            ServiceError::new("ServiceUnavailable", "Too many large requests are being read. Please try again.")
                .status(503)
        }
    }
}
