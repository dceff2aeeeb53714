//! What `host` asks on behalf of the instance metadata service: a role's credentials for an instance it has made sure of.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;

use super::FrontDoor;

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers `GET /instances/{id}/credentials`. Load balancers run as the same user as the server and could connect as well;
/// only root, which is `host`, gets an answer.
pub(super) async fn serve(front_door: Arc<FrontDoor>, stream: UnixStream) {
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == 0) {
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&front_door, request.uri().path());
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    // How it ended is of interest to `host` only.
    let _ = tokio::time::timeout(PATIENCE, server.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer(front_door: &FrontDoor, path: &str) -> Response<Full<Bytes>> {
    let instance = path.strip_prefix("/instances/").and_then(|rest| rest.strip_suffix("/credentials"));
    let body = instance.and_then(|id| services::ec2::instance_credentials(&front_door.control_plane.platform, id));
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::new(body.unwrap_or_default().into()));
    *response.status_mut() = status;
    response
}
