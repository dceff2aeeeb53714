//! The agents' WebSocket sessions: the handshake is a signed GET, and what follows is `services::ecs`'s.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use services::ecs::agent_endpoints;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use wire::sigv4;

use super::{
    FrontDoor,
    body::{self, Body},
    signature,
};

/// Which of an agent's two sessions.
#[derive(Clone, Copy, Debug)]
pub enum Session {
    /// The agent communication service: work and credentials.
    Acs,
    /// The telemetry service: health and readings.
    Tcs,
}

/// Answers the handshake; on success the session goes on in a task of its own.
pub async fn connect(front_door: &Arc<FrontDoor>, session: Session, mut request: Request<Incoming>) -> Response<Body> {
    let platform = front_door.control_plane.platform.clone();
    let (method, uri, headers) = (request.method().clone(), request.uri().clone(), request.headers().clone());
    let borrowed = wire::Request {
        method: &method,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        headers: &headers,
        body: &[],
    };
    let caller = match sigv4::parse(&borrowed).and_then(|claim| signature::verify(&platform, &claim, &[])) {
        Ok(caller) => caller,
        Err(error) => return refusal(StatusCode::FORBIDDEN, "AccessDeniedException", &error.to_string()),
    };
    let is_websocket =
        headers.get(header::UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_websocket) else {
        return refusal(
            StatusCode::BAD_REQUEST,
            "BadRequestException",
            "This is a WebSocket: the Upgrade header is missing.",
        );
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return refusal(StatusCode::BAD_REQUEST, "BadRequestException", "The Sec-WebSocket-Version must be 13.");
    }
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    let query = uri.query().unwrap_or_default().to_owned();
    let (principal, scope) = (&caller.principal, &caller.scope);
    let begun = match session {
        Session::Acs => agent_endpoints::acs::begin(&platform, principal, scope, &query)
            .map(|begun| tokio::spawn(go_on(upgrade, |io| begun.serve(io)))),
        Session::Tcs => agent_endpoints::tcs::begin(&platform, principal, scope, &query)
            .map(|begun| tokio::spawn(go_on(upgrade, |io| begun.serve(io)))),
    };
    if let Err(error) = begun {
        return refusal(StatusCode::BAD_REQUEST, error.code(), error.message());
    }
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Serves the session once the connection has changed its protocol.
async fn go_on<F: Future<Output = ()>>(upgrade: OnUpgrade, serve: impl FnOnce(TokioIo<Upgraded>) -> F) {
    match upgrade.await {
        Ok(upgraded) => serve(TokioIo::new(upgraded)).await,
        Err(error) => tracing::debug!(%error, "an agent did not finish its handshake"),
    }
}

/// Refusals have the form that Amazon's agent reads: `{"<ErrorType>":"<text>"}`.
fn refusal(status: StatusCode, code: &str, text: &str) -> Response<Body> {
    let page = serde_json::json!({ code: text }).to_string();
    let mut response = Response::new(body::full(page));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
