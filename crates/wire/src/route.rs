//! Which operation a request means: by target header, form action, REST path or rpc path.
//!
//! The service comes from the credential scope; services that share a signing name (the two load
//! balancing APIs) are told apart by version or target prefix.

use crate::codec::form::Form;
use crate::codec::rest;
use crate::error::ServiceError;
use crate::request::Request;
use crate::schema::{Operation, Protocol, Service};

/// A request's operation, and how it is spoken.
#[derive(Clone, Debug)]
pub struct Route {
    /// The operation; its service is `operation.service`.
    pub operation: &'static Operation,
    /// The protocol of request and answer.
    pub protocol: Protocol,
    /// Labels of a REST path.
    pub(crate) labels: Vec<(String, String)>,
}

impl Route {
    /// How answers to this request look.
    pub fn face(&self) -> Face {
        Face { protocol: self.protocol, service: Some(self.operation.service) }
    }
}

/// What is needed to write an error: enough is known of it before a request is routed.
#[derive(Clone, Copy, Debug)]
pub struct Face {
    /// The protocol.
    pub protocol: Protocol,
    /// The service, once known.
    pub service: Option<&'static Service>,
}

/// How the caller expects an error to look, from the request alone. `signing_name` is the service of
/// the credential scope; pass an empty text when there is none.
pub fn face(services: &[&'static Service], request: &Request<'_>, signing_name: &str) -> Face {
    let service = match signing_name {
        "" => by_version(services, request),
        name => services.iter().copied().find(|service| service.signing_name == name),
    };
    let protocol = if request.headers.contains_key("smithy-protocol") || request.content_type() == "application/cbor" {
        Protocol::Cbor
    } else if request.headers.contains_key("x-amz-target") {
        json_version(request)
    } else {
        match service.and_then(|service| service.protocols.first()).copied() {
            Some(Protocol::Cbor | Protocol::Json10 | Protocol::Json11) if is_form(request) => Protocol::Query,
            Some(Protocol::Cbor) => Protocol::Json11,
            Some(protocol) => protocol,
            None if is_form(request) => Protocol::Query,
            None => Protocol::Json11,
        }
    };
    Face { protocol, service }
}

/// The service that an unsigned form is for: EC2's errors look unlike the other query services'.
fn by_version(services: &[&'static Service], request: &Request<'_>) -> Option<&'static Service> {
    if !is_form(request) {
        return None;
    }
    let form = form(request).ok()?;
    let (version, action) = (form.get("Version")?, form.get("Action")?);
    services.iter().copied().find(|service| service.version == version && service.operation(action).is_some())
}

/// The operation a request means.
///
/// # Errors
/// Amazon's errors for what is no operation; `UnsupportedOperation` (501) for a service we lack.
pub fn route(services: &[&'static Service], request: &Request<'_>, signing_name: &str) -> Result<Route, ServiceError> {
    let candidates: Vec<&'static Service> =
        services.iter().copied().filter(|service| service.signing_name == signing_name).collect();
    let Some(first) = candidates.first().copied() else {
        let text = format!("The service {signing_name:?} is not served by Longshore.");
        return Err(ServiceError::new("UnsupportedOperation", text).unsupported());
    };
    if request.headers.contains_key("smithy-protocol") || request.path.starts_with("/service/") {
        return by_rpc_path(&candidates, request);
    }
    if let Some(target) = request.header("x-amz-target") {
        return by_target(&candidates, request, target);
    }
    if first.speaks(Protocol::RestJson) {
        return by_path(&candidates, request);
    }
    let query = candidates.iter().any(|s| s.speaks(Protocol::Query) || s.speaks(Protocol::Ec2));
    if query {
        return by_action(&candidates, request);
    }
    Err(unknown_operation("The request names no operation: the header X-Amz-Target is missing."))
}

fn by_target(candidates: &[&'static Service], request: &Request<'_>, target: &str) -> Result<Route, ServiceError> {
    let (prefix, name) = target.rsplit_once('.').unwrap_or(("", target));
    let service = candidates.iter().find(|service| service.target_prefix == prefix && !prefix.is_empty());
    let operation = service.and_then(|service| service.operation(name));
    let Some(operation) = operation else {
        return Err(unknown_operation(format!("The operation {:?} is not known.", clip(target))));
    };
    let protocol = json_version(request);
    let spoken = operation.service.speaks(Protocol::Json10) || operation.service.speaks(Protocol::Json11);
    let content_type = request.content_type();
    if !spoken || !matches!(content_type.as_str(), "application/x-amz-json-1.1" | "application/x-amz-json-1.0") {
        let text = format!("The content type {:?} is not application/x-amz-json-1.1.", clip(&content_type));
        return Err(ServiceError::new("SerializationException", text));
    }
    Ok(Route { operation, protocol, labels: Vec::new() })
}

fn by_rpc_path(candidates: &[&'static Service], request: &Request<'_>) -> Result<Route, ServiceError> {
    let mut parts = request.path.rsplit('/');
    let (name, word, prefix, service_word) = (parts.next(), parts.next(), parts.next(), parts.next());
    let wanted = (word == Some("operation") && service_word == Some("service")).then_some((name, prefix));
    let operation = wanted.and_then(|(name, prefix)| {
        let service = candidates.iter().find(|s| Some(s.target_prefix) == prefix && s.speaks(Protocol::Cbor))?;
        service.operation(name?)
    });
    let Some(operation) = operation else {
        return Err(unknown_operation(format!("The operation {:?} is not known.", clip(request.path))));
    };
    if request.header("smithy-protocol") != Some("rpc-v2-cbor") {
        let text = "Only the protocol rpc-v2-cbor is spoken here.";
        return Err(ServiceError::new("UnknownOperationException", text));
    }
    if !request.body.is_empty() && request.content_type() != "application/cbor" {
        let text = format!("The content type {:?} is not application/cbor.", clip(&request.content_type()));
        return Err(ServiceError::new("SerializationException", text));
    }
    Ok(Route { operation, protocol: Protocol::Cbor, labels: Vec::new() })
}

fn by_path(candidates: &[&'static Service], request: &Request<'_>) -> Result<Route, ServiceError> {
    let operations = candidates.iter().flat_map(|service| service.operations.iter().copied());
    let mut best: Option<Route> = None;
    for operation in operations.filter(|operation| operation.method == request.method.as_str()) {
        let Some(labels) = rest::match_path(operation.path, request.path) else { continue };
        let tighter =
            best.as_ref().is_none_or(|found| rest::looseness(operation.path) < rest::looseness(found.operation.path));
        if tighter {
            best = Some(Route { operation, protocol: Protocol::RestJson, labels });
        }
    }
    best.ok_or_else(|| {
        unknown_operation(format!("No operation answers {} {:?}.", request.method, clip(request.path))).status(404)
    })
}

fn by_action(candidates: &[&'static Service], request: &Request<'_>) -> Result<Route, ServiceError> {
    let form = form(request)?;
    let ec2 = candidates.iter().any(|service| service.speaks(Protocol::Ec2));
    let Some(action) = form.get("Action") else {
        let text = "The request must contain the parameter Action";
        return Err(ServiceError::new("MissingAction", text));
    };
    let version = form.get("Version");
    // A caller without a version gets the first service that has the action.
    let service = candidates.iter().find(|service| {
        version.is_none_or(|version| version == service.version) && service.operation(action).is_some()
    });
    let operation = service.and_then(|service| service.operation(action));
    let Some(operation) = operation else {
        let text = match version {
            _ if ec2 => format!("The action {} is not valid for this web service.", clip(action)),
            Some(version) => {
                format!("Could not find operation {} for version {}", clip(action), clip(version))
            }
            None => format!("Could not find operation {} for version NO_VERSION_SPECIFIED", clip(action)),
        };
        return Err(ServiceError::new("InvalidAction", text));
    };
    let protocol = if ec2 { Protocol::Ec2 } else { Protocol::Query };
    Ok(Route { operation, protocol, labels: Vec::new() })
}

/// The parameters of a query request: those of the body, then those of the URL.
pub(crate) fn form(request: &Request<'_>) -> Result<Form, ServiceError> {
    let malformed = |problem: crate::codec::Problem| ServiceError::new("MalformedQueryString", problem.text);
    let mut form = Form::default();
    if is_form(request) {
        let body = std::str::from_utf8(request.body)
            .map_err(|_| ServiceError::new("MalformedQueryString", "The request body is not text."))?;
        form.add(body.trim_end_matches(['\r', '\n'])).map_err(malformed)?;
    }
    form.add(request.query).map_err(malformed)?;
    Ok(form)
}

fn is_form(request: &Request<'_>) -> bool {
    request.content_type() == "application/x-www-form-urlencoded"
}

fn json_version(request: &Request<'_>) -> Protocol {
    match request.content_type().as_str() {
        "application/x-amz-json-1.0" => Protocol::Json10,
        _ => Protocol::Json11,
    }
}

fn unknown_operation(text: impl Into<String>) -> ServiceError {
    ServiceError::new("UnknownOperationException", text)
}

/// What a caller sent, short enough to send back.
fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}
