//! The client's side: an input into a request, an answer into an output or an error.
//!
//! Nothing is sent here and nothing is signed; `api::client` puts the pieces together.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};

use crate::codec::form::{self, Dialect, percent_encode};
use crate::codec::{Problem, cbor, json, rest, xml_read};
use crate::error::ServiceError;
use crate::schema::{Operation, Protocol};
use crate::value::Reflect;

/// The request for an operation, with a path for a target and unsigned.
pub fn encode_request(operation: &'static Operation, protocol: Protocol, input: &dyn Reflect) -> Request<Vec<u8>> {
    let service = operation.service;
    let mut target = "/".to_owned();
    let mut method = "POST";
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    let mut body = Vec::new();
    match protocol {
        Protocol::Json10 | Protocol::Json11 => {
            let version = if protocol == Protocol::Json10 { "1.0" } else { "1.1" };
            set("content-type", &format!("application/x-amz-json-{version}"));
            set("x-amz-target", &format!("{}.{}", service.target_prefix, operation.name));
            json::write(input, &mut body);
        }
        Protocol::Cbor => {
            set("content-type", "application/cbor");
            set("smithy-protocol", "rpc-v2-cbor");
            target = format!("/service/{}/operation/{}", service.target_prefix, operation.name);
            cbor::write(input, &mut body);
        }
        Protocol::RestJson => {
            method = operation.method;
            target = rest::write_target(operation, input);
            if rest::has_body(operation) {
                set("content-type", "application/json");
                json::write(input, &mut body);
            }
        }
        Protocol::Query | Protocol::Ec2 => {
            set("content-type", "application/x-www-form-urlencoded; charset=utf-8");
            let dialect = if protocol == Protocol::Ec2 { Dialect::Ec2 } else { Dialect::Query };
            let mut text = format!("Action={}&Version={}", operation.name, service.version);
            for (name, value) in form::write(input, dialect) {
                text.push_str(&format!("&{}={}", percent_encode(&name), percent_encode(&value)));
            }
            body = text.into_bytes();
        }
    }
    let mut request = Request::new(body);
    *request.headers_mut() = headers;
    *request.method_mut() = method.parse().unwrap_or(http::Method::POST);
    *request.uri_mut() = target.parse().unwrap_or_default();
    request
}

/// Reads an answer into the output structure.
///
/// # Errors
/// The service's error, or `ClientParseError` for an answer that cannot be read.
pub fn decode_response(
    operation: &'static Operation,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    into: &mut dyn Reflect,
) -> Result<(), ServiceError> {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = Form::of(media);
    if status >= 300 {
        return Err(read_error(&form, status, headers, body));
    }
    let unreadable = |problem: Problem| ServiceError::new("ClientParseError", problem.text);
    match form {
        Form::Json => json::read(body, into).map_err(unreadable)?,
        Form::Cbor => cbor::read(body, into).map_err(unreadable)?,
        Form::Xml => {
            let root = xml_read::parse(&String::from_utf8_lossy(body)).map_err(unreadable)?;
            let inner = operation.result_wrapper.and_then(|name| root.child(name)).unwrap_or(&root);
            xml_read::read(inner, into).map_err(unreadable)?;
        }
    }
    rest::read_response(status, headers, into).map_err(unreadable)
}

enum Form {
    Json,
    Cbor,
    Xml,
}

impl Form {
    fn of(media: &str) -> Form {
        match media {
            media if media.contains("cbor") => Form::Cbor,
            media if media.contains("xml") => Form::Xml,
            _ => Form::Json,
        }
    }
}

fn read_error(form: &Form, status: u16, headers: &HeaderMap, body: &[u8]) -> ServiceError {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (code, message) = match form {
        Form::Xml => {
            let root = xml_read::parse(&String::from_utf8_lossy(body)).unwrap_or_default();
            let text = |name: &str| root.find(name).map(|element| element.text.clone());
            (text("Code"), text("Message"))
        }
        Form::Json => {
            let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let text = |name: &str| value.get(name).and_then(|v| v.as_str()).map(str::to_owned);
            (text("__type"), text("message").or_else(|| text("Message")))
        }
        Form::Cbor => {
            let mut error = CborError::default();
            let _ = cbor::read(body, &mut error);
            (error.kind, error.message.or(error.capital_message))
        }
    };
    let code = code.or_else(|| header("x-amzn-errortype").map(str::to_owned));
    let code = code.unwrap_or_else(|| format!("Http{status}"));
    // Some servers put the namespace before the name, others a link behind it.
    let name = code.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    ServiceError::new(name, message.unwrap_or_default()).status(status)
}

/// The two members of a CBOR error that a client needs.
#[derive(Clone, Default)]
struct CborError {
    kind: Option<String>,
    message: Option<String>,
    capital_message: Option<String>,
}

mod table {
    use crate::schema::{Member, STRING, Structure};

    pub(super) static ERROR: Structure = Structure::new(
        "Error",
        &[Member::new("__type", &STRING), Member::new("message", &STRING), Member::new("Message", &STRING)],
    );
}

crate::reflect! {
    CborError table::ERROR { 0 kind, 1 message, 2 capital_message }
}
