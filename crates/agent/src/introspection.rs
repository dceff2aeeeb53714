//! Introspection at 127.0.0.1:51678, as Amazon's agent has it: which instance this is and what runs on it, for whoever
//! is on the machine. Nothing secret, and read only.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::engine::record::{ContainerRecord, Desired, TaskRecord, TaskStatus};
use crate::metadata::documents;

/// Amazon's.
const PORT: u16 = 51_678;
/// Connections at once.
const CONNECTIONS: usize = 64;
/// The product's own, which `/license` shows.
const LICENSE: &str =
    "Longshore is licensed under the Apache License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0\n";

/// What is answered from.
pub struct Context {
    /// The cluster as configured.
    pub cluster: String,
    /// The instance's ARN.
    pub instance_arn: String,
    /// All tasks' newest records.
    pub tasks: Box<dyn Fn() -> Vec<Arc<TaskRecord>> + Send + Sync>,
}

/// Serves for as long as the agent runs. One that cannot is no reason for an instance not to work.
pub async fn serve(context: Context) {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, port = PORT, "there is no introspection");
            return;
        }
    };
    let context = Arc::new(context);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let context = context.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(&context, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(15)).max_buf_size(64 << 10);
            let _ = server.serve_connection(TokioIo::new(socket), service).await;
            drop(permit);
        });
    }
}

fn respond(context: &Context, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let (status, body, kind) = match (request.method(), path.trim_end_matches('/')) {
        (&Method::GET, "/license") => (StatusCode::OK, LICENSE.to_owned(), "text/plain"),
        (&Method::GET, path) => {
            let (status, body) = answer(context, path, query);
            (status, body.to_string(), "application/json")
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, String::new(), "text/plain"),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    response
}

fn answer(context: &Context, path: &str, query: &str) -> (StatusCode, Value) {
    match path {
        "" => (StatusCode::OK, json!({ "AvailableCommands": ["/v1/metadata", "/v1/tasks", "/license"] })),
        "/v1/metadata" => {
            let version = format!("Amazon ECS Agent - v{} ({})", env!("CARGO_PKG_VERSION"), crate::AGENT_HASH);
            let arn = &context.instance_arn;
            (StatusCode::OK, json!({ "Cluster": context.cluster, "ContainerInstanceArn": arn, "Version": version }))
        }
        "/v1/tasks" => tasks(&(context.tasks)(), query),
        _ => (StatusCode::NOT_FOUND, json!({})),
    }
}

fn tasks(records: &[Arc<TaskRecord>], query: &str) -> (StatusCode, Value) {
    let parameter = |name: &str| {
        let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        found.map(|(_, value)| value.replace("%3A", ":").replace("%3a", ":").replace("%2F", "/").replace("%2f", "/"))
    };
    let one = |found: Option<&Arc<TaskRecord>>| match found {
        Some(record) => (StatusCode::OK, task(record)),
        None => (StatusCode::NOT_FOUND, json!({})),
    };
    match (parameter("taskarn"), parameter("dockerid")) {
        (Some(_), Some(_)) => (StatusCode::BAD_REQUEST, json!({})),
        (Some(arn), None) => one(records.iter().find(|record| record.task.arn == arn)),
        // As Docker, the beginning of an id will do.
        (None, Some(id)) => one(records.iter().find(|record| {
            let begins = |own: &String| !id.is_empty() && own.starts_with(&id);
            record.containers.iter().any(|container| container.runtime_id.as_ref().is_some_and(begins))
        })),
        (None, None) => {
            (StatusCode::OK, json!({ "Tasks": records.iter().map(|record| task(record)).collect::<Vec<_>>() }))
        }
    }
}

fn task(record: &TaskRecord) -> Value {
    let known = match record.status() {
        TaskStatus::None => "NONE",
        TaskStatus::Pending => "PULLED",
        TaskStatus::Running => "RUNNING",
        TaskStatus::Stopped => "STOPPED",
    };
    let mut shown = json!({
        "Arn": record.task.arn,
        "KnownStatus": known,
        "Family": record.task.family,
        "Version": record.task.version,
        "Containers": record.containers.iter().map(|one| container(record, one)).collect::<Vec<_>>(),
    });
    let desired = if record.desired == Desired::Running { "RUNNING" } else { "STOPPED" };
    if desired != known {
        shown["DesiredStatus"] = json!(desired);
    }
    shown
}

fn container(record: &TaskRecord, container: &ContainerRecord) -> Value {
    let definition = record.task.containers.iter().find(|definition| definition.name == container.name);
    let mut shown = json!({
        "DockerId": container.runtime_id.clone().unwrap_or_default(),
        "DockerName": container.runtime_name.as_ref().unwrap_or(&container.name),
        "Name": container.name,
        "Image": definition.map(|one| one.defined_image.as_ref().unwrap_or(&one.image)),
        "ImageID": container.image_digest.clone().unwrap_or_default(),
        "Networks": documents::networks(&record.task, container, 3),
    });
    for (name, time) in [("CreatedAt", container.created_at), ("StartedAt", container.started_at)] {
        if let Some(time) = time {
            shown[name] = json!(documents::rfc3339(time));
        }
    }
    let ports = documents::ports(container);
    if !ports.is_empty() {
        shown["Ports"] = Value::Array(ports);
    }
    shown
}

#[cfg(test)]
mod tests {
    use domain::agent_protocol::payload::{Container, Task};

    use super::*;

    fn context() -> Context {
        let container = Container { name: "web".into(), image: "nginx".into(), ..Container::default() };
        let arn = "arn:aws:ecs:us-east-1:123456789012:task/c/0a".into();
        let mut record = TaskRecord::new(Task { arn, containers: vec![container], ..Task::default() });
        record.containers[0].runtime_id = Some("0a-1234".into());
        let record = Arc::new(record);
        Context { cluster: "c".into(), instance_arn: "i".into(), tasks: Box::new(move || vec![record.clone()]) }
    }

    #[test]
    fn the_instance_and_its_tasks_are_shown() {
        let context = context();
        let (_, metadata) = answer(&context, "/v1/metadata", "");
        assert_eq!((metadata["Cluster"].as_str(), metadata["ContainerInstanceArn"].as_str()), (Some("c"), Some("i")));
        let (_, all) = answer(&context, "/v1/tasks", "");
        assert_eq!(all["Tasks"][0]["Containers"][0]["DockerId"], "0a-1234");
        assert_eq!(all["Tasks"][0]["KnownStatus"], "NONE");
        assert_eq!(answer(&context, "/nothing", "").0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn one_task_is_found_by_its_arn_or_by_a_container() {
        let context = context();
        for query in ["dockerid=0a-12", "taskarn=arn%3Aaws%3Aecs%3Aus-east-1%3A123456789012%3Atask%2Fc%2F0a"] {
            let (status, found) = answer(&context, "/v1/tasks", query);
            assert_eq!((status, found["Containers"][0]["Name"].as_str()), (StatusCode::OK, Some("web")), "{query}");
        }
        assert_eq!(answer(&context, "/v1/tasks", "dockerid=ff").0, StatusCode::NOT_FOUND);
        assert_eq!(answer(&context, "/v1/tasks", "dockerid=0a&taskarn=x").0, StatusCode::BAD_REQUEST);
    }
}
