//! The HTTP server of an endpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::limiter::{Limiter, STEADY};
use super::{Context, Served, documents, protection, stats};
use crate::aws::CallError;
use crate::engine::record::{ContainerRecord, TaskRecord};
use crate::roles::Lookup;

/// Connections of one task at once.
const CONNECTIONS: usize = 64;

/// Bytes of a request's body.
const BODY_LIMIT: usize = 4096;

/// Serves until it is aborted.
pub async fn run(listener: TcpListener, served: Served) {
    let shared = Arc::new((served, Limiter::new(Instant::now())));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::debug!(%error, "the metadata endpoint could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let shared = shared.clone();
                async move {
                    let (head, body) = request.into_parts();
                    // Only one kind of request has a body that counts.
                    let body = match head.method {
                        Method::PUT => Limited::new(body, BODY_LIMIT).collect().await.map(|all| all.to_bytes()),
                        _ => Ok(Bytes::new()),
                    };
                    Ok::<_, Infallible>(answer(&shared.0, &shared.1, &head, &body.unwrap_or_default()).await)
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(15)).max_buf_size(64 << 10);
            // A container that breaks its own connection is no event.
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
            drop(permit);
        });
    }
}

async fn answer(served: &Served, limiter: &Limiter, request: &Parts, body: &[u8]) -> Response<Full<Bytes>> {
    let (status, body) = if limiter.admit(Instant::now()) {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        match served {
            Served::Task(context) => route(context, &request.method, path, query, body).await,
            Served::Any(finder) => match named(path, query).and_then(|id| finder(id)) {
                Some(context) => route(&context, &request.method, path, query, body).await,
                None => of_nobody(path, query),
            },
        }
    } else {
        (StatusCode::TOO_MANY_REQUESTS, Value::String("You have reached maximum request limit.".to_owned()))
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(limit) = HeaderValue::from_str(&format!("{STEADY:.2}")) {
        headers.insert("x-rate-limit-limit", limit);
    }
    headers.insert("x-rate-limit-duration", HeaderValue::from_static("1"));
    response
}

/// The id in a path: of a container, or of credentials.
fn named<'a>(path: &'a str, query: &'a str) -> Option<&'a str> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next()?, parts.next()) {
        ("v1", Some("credentials")) => query.split('&').find_map(|pair| pair.strip_prefix("id=")),
        ("v2", Some("credentials" | "metadata")) => parts.next(),
        ("v3" | "v4" | "api", id) => id,
        _ => None,
    }
}

/// The answer to somebody whose id no task has.
fn of_nobody(path: &str, query: &str) -> (StatusCode, Value) {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some(version @ ("v1" | "v2")), Some("credentials")) => {
            let version = if version == "v1" { 1 } else { 2 };
            match named(path, query) {
                Some(_) => unknown_credentials(version),
                None => no_id(version),
            }
        }
        (Some("v3"), Some(id)) => unknown_container(id, 3),
        (Some("v4"), Some(id)) => unknown_container(id, 4),
        (Some("api"), Some(_)) => protection::unknown(),
        _ => not_found(path),
    }
}

/// One request, freed of its connection.
pub async fn route(context: &Context, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let ["api", id, "task-protection", "v1", "state"] = parts[..]
        && matches!(*method, Method::GET | Method::PUT)
    {
        return match is_own(context, id) {
            true => protection::state(context, method, body).await,
            false => protection::unknown(),
        };
    }
    if method != Method::GET {
        return (StatusCode::METHOD_NOT_ALLOWED, Value::String("method not allowed".to_owned()));
    }
    match parts.as_slice() {
        ["v2", "credentials", id] => credentials(context, id, 2),
        ["v2", "credentials"] => no_id(2),
        ["v1", "credentials"] => match query.split('&').find_map(|pair| pair.strip_prefix("id=")) {
            Some(id) => credentials(context, id, 1),
            None => no_id(1),
        },
        ["v2", rest @ ("metadata" | "stats")] => task_wide(context, if *rest == "stats" { "stats" } else { "" }, 2),
        ["v2", "metadata", id] => of_container(context, id, "", 2),
        [version @ ("v3" | "v4"), id, rest @ ..] => {
            let number = if *version == "v3" { 3 } else { 4 };
            match rest {
                [] => of_container(context, id, "", number),
                ["stats"] => of_container(context, id, "stats", number),
                ["task"] => known(context, id, number, |_, _| task_wide(context, "", number)),
                ["taskWithTags"] if number == 4 => {
                    let (status, mut body) = known(context, id, number, |_, _| task_wide(context, "", number));
                    if status == StatusCode::OK {
                        tags(context, &mut body).await;
                    }
                    (status, body)
                }
                ["task", "stats"] => known(context, id, number, |_, _| task_wide(context, "stats", number)),
                _ => not_found(path),
            }
        }
        _ => not_found(path),
    }
}

/// Adds the task's tags, or why they could not be had. A Fargate task has no container instance to show tags of.
async fn tags(context: &Context, body: &mut Value) {
    match (context.tags)().await {
        Ok(tags) if tags.is_empty() => {}
        Ok(tags) => body["TaskTags"] = json!(tags),
        Err(error) => {
            let (code, message, status) = match &error {
                CallError::Service(error) => (error.code(), error.message().to_owned(), error.http_status()),
                CallError::Transport(text) => ("InternalServerError", text.clone(), 500),
            };
            body["Errors"] = json!([{
                "ErrorField": "TaskTags",
                "ErrorCode": code,
                "ErrorMessage": message,
                "StatusCode": status,
                "ResourceARN": context.task_arn,
            }]);
        }
    }
}

fn not_found(path: &str) -> (StatusCode, Value) {
    let text: String = path.chars().take(200).collect();
    (StatusCode::NOT_FOUND, Value::String(format!("404 page not found: {text}")))
}

fn credentials(context: &Context, id: &str, version: u8) -> (StatusCode, Value) {
    match context.roles.lookup(&context.task_arn, id) {
        Lookup::Known(credentials) => {
            let body = json!({
                "RoleArn": credentials.role_arn,
                "AccessKeyId": credentials.access_key_id,
                "SecretAccessKey": credentials.secret_access_key,
                "Token": credentials.session_token,
                "Expiration": credentials.expiration,
            });
            (StatusCode::OK, body)
        }
        Lookup::Unknown => unknown_credentials(version),
        Lookup::Uninitialised => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "CredentialsUninitialized",
            version,
            "Credentials uninitialized for ID",
        ),
    }
}

fn unknown_credentials(version: u8) -> (StatusCode, Value) {
    refuse(StatusCode::BAD_REQUEST, "InvalidIdInRequest", version, "Credentials not found")
}

fn no_id(version: u8) -> (StatusCode, Value) {
    refuse(StatusCode::BAD_REQUEST, "NoIdInRequest", version, "No Credential ID in the request")
}

fn refuse(status: StatusCode, code: &str, version: u8, text: &str) -> (StatusCode, Value) {
    let message = format!("CredentialsV{version}Request: {text}");
    (status, json!({ "code": code, "message": message, "HTTPErrorCode": status.as_u16() }))
}

/// Whether an id is that of one of the task's containers.
fn is_own(context: &Context, id: &str) -> bool {
    known(context, id, 4, |_, _| (StatusCode::OK, Value::Null)).0 == StatusCode::OK
}

fn known(
    context: &Context,
    id: &str,
    version: u8,
    then: impl FnOnce(&TaskRecord, &ContainerRecord) -> (StatusCode, Value),
) -> (StatusCode, Value) {
    let record = (context.view)();
    let found = record.as_ref().and_then(|record| {
        let has = |one: &&ContainerRecord| {
            one.runtime_id.as_deref() == Some(id) || one.former_ids.iter().any(|former| former == id)
        };
        Some((record, record.containers.iter().find(has)?))
    });
    match found {
        Some((record, container)) => then(record, container),
        None => unknown_container(id, version),
    }
}

fn unknown_container(id: &str, version: u8) -> (StatusCode, Value) {
    let text = format!(
        "V{version} container metadata handler: unable to get container ID from request: unable to get docker ID from v{version} endpoint ID: {id}"
    );
    (StatusCode::NOT_FOUND, Value::String(text))
}

fn of_container(context: &Context, id: &str, what: &str, version: u8) -> (StatusCode, Value) {
    known(context, id, version, |record, container| {
        let body = match what {
            "stats" => stats::of_container(context, record, container),
            _ => documents::container(record, container, version, context.kind),
        };
        (StatusCode::OK, body)
    })
}

fn task_wide(context: &Context, what: &str, version: u8) -> (StatusCode, Value) {
    let Some(record) = (context.view)() else {
        return (StatusCode::NOT_FOUND, Value::String("the task is gone".to_owned()));
    };
    let body = match what {
        "stats" => stats::of_task(context, &record),
        _ => documents::task(context, &record, version),
    };
    (StatusCode::OK, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_machines_network_the_id_of_the_path_tells_who_asks() {
        for (path, query, id) in [
            ("/v4/0a-1/task", "", Some("0a-1")),
            ("/v3/0a-1", "", Some("0a-1")),
            ("/api/0a-1/task-protection/v1/state", "", Some("0a-1")),
            ("/v2/credentials/c", "", Some("c")),
            ("/v1/credentials", "x=y&id=c", Some("c")),
            ("/v2/credentials", "", None),
            ("/v2/metadata", "", None),
            ("/", "", None),
        ] {
            assert_eq!(named(path, query), id, "{path}");
        }
    }

    #[tokio::test]
    async fn who_does_not_know_an_id_learns_nothing() {
        let served = Served::Any(Arc::new(|_: &str| None));
        for (path, status, code) in [
            ("/v2/credentials/guess", StatusCode::BAD_REQUEST, Some("InvalidIdInRequest")),
            ("/v2/credentials", StatusCode::BAD_REQUEST, Some("NoIdInRequest")),
            ("/v4/guess/task", StatusCode::NOT_FOUND, None),
            ("/api/guess/task-protection/v1/state", StatusCode::NOT_FOUND, None),
            ("/v2/metadata", StatusCode::NOT_FOUND, None),
        ] {
            let request = Request::get(path).body(()).expect("a request").into_parts().0;
            let response = answer(&served, &Limiter::new(Instant::now()), &request, b"").await;
            assert_eq!(response.status(), status, "{path}");
            let (_, body) = of_nobody(path, "");
            assert_eq!(body.get("code").and_then(Value::as_str), code, "{path}");
        }
    }
}
