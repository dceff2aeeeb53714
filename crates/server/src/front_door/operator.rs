//! Pages for whoever runs the platform: health as JSON, metrics for Prometheus, and the reset for test suites.

use std::fmt::Write;

use http::{Response, StatusCode, header};
use serde_json::json;

use super::body::{self, Body};
use crate::platform::ControlPlane;

/// How each part of the platform is, as JSON. 200 when all are well, 503 otherwise.
pub fn health(control_plane: &ControlPlane) -> Response<Body> {
    let components = control_plane.components();
    let healthy = components.iter().all(|component| component.healthy);
    let list: serde_json::Map<_, _> = components
        .into_iter()
        .map(|component| (component.name, json!({ "healthy": component.healthy, "detail": component.detail })))
        .collect();
    let page = json!({
        "status": if healthy { "ok" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "clockRate": control_plane.platform.clock.rate(),
        "revision": control_plane.platform.store.snapshot().revision(),
        "components": list,
    });
    let mut response = Response::new(body::full(page.to_string()));
    *response.status_mut() = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Metrics in Prometheus's text format.
pub fn metrics(control_plane: &ControlPlane) -> Response<Body> {
    let mut page = String::new();
    for (name, help, value) in control_plane.metrics() {
        // Writing to a string cannot fail.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    }
    let mut response = Response::new(body::full(page));
    let format = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}
