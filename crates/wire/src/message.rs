//! Whole messages of the server's side: a request into a structure, a structure into an answer.

use std::borrow::Cow;
use std::io::Read;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Builder;
use http::{HeaderValue, Response};

use crate::codec::form::{self, Dialect};
use crate::codec::{Problem, cbor, json, rest, xml};
use crate::error::ServiceError;
use crate::request::{BODY_LIMIT, Request};
use crate::route::{self, Route};
use crate::schema::{Operation, Protocol};
use crate::validate::validate;
use crate::value::Reflect;

/// Reads a routed request into its input structure and checks it against the model.
///
/// # Errors
/// The protocol's error for what cannot be read, and the service's for what the model forbids.
pub fn decode(route: &Route, request: &Request<'_>, into: &mut dyn Reflect) -> Result<(), ServiceError> {
    read(route, request, into)?;
    validate(route.operation, into)
}

/// Reads a routed request into its input structure without checking it against the model.
///
/// # Errors
/// The protocol's error for what cannot be read.
pub fn read(route: &Route, request: &Request<'_>, into: &mut dyn Reflect) -> Result<(), ServiceError> {
    let body = plain_body(request)?;
    let request = &Request { body: &body, ..*request };
    let serialization = |problem: Problem| ServiceError::new("SerializationException", problem.text);
    match route.protocol {
        Protocol::Json10 | Protocol::Json11 => json::read(&body, into).map_err(serialization)?,
        Protocol::Cbor => cbor::read(&body, into).map_err(serialization)?,
        Protocol::RestJson => {
            if rest::has_body(route.operation) {
                json::read(&body, into).map_err(serialization)?;
            }
            rest::read_request(&route.labels, request.query, request.headers, into).map_err(serialization)?;
        }
        Protocol::Query => {
            let form = route::form(request)?;
            form::read(&form, Dialect::Query, into)
                .map_err(|problem| ServiceError::new("MalformedInput", problem.text))?;
        }
        Protocol::Ec2 => decode_ec2(request, into)?,
    }
    Ok(())
}

/// EC2 alone refuses parameters it does not know.
fn decode_ec2(request: &Request<'_>, into: &mut dyn Reflect) -> Result<(), ServiceError> {
    let form = route::form(request)?;
    let _ = (form.get("Action"), form.get("Version"));
    form::read(&form, Dialect::Ec2, into).map_err(|problem| match problem.parameter {
        Some(name) => {
            let text = format!("Invalid value for parameter {name}: {}", problem.text);
            ServiceError::new("InvalidParameterValue", text)
        }
        None => ServiceError::new("MalformedQueryString", problem.text),
    })?;
    match form.unused() {
        Some(name) => {
            let name: String = name.chars().take(128).collect();
            let text = format!("The parameter {name} is not recognized");
            Err(ServiceError::new("UnknownParameter", text))
        }
        None => Ok(()),
    }
}

/// The body with its content coding removed. SDKs compress large PutMetricData requests.
fn plain_body<'a>(request: &Request<'a>) -> Result<Cow<'a, [u8]>, ServiceError> {
    match request.header("content-encoding").map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => Ok(Cow::Borrowed(request.body)),
        Some("gzip") => {
            let mut out = Vec::new();
            let limit = BODY_LIMIT as u64 * 2;
            let mut source = flate2::read::GzDecoder::new(request.body).take(limit + 1);
            source
                .read_to_end(&mut out)
                .map_err(|_| ServiceError::new("SerializationException", "The request body is not valid gzip."))?;
            if out.len() as u64 > limit {
                let text = format!("The request body unpacks to more than {limit} bytes.");
                return Err(ServiceError::new("RequestEntityTooLarge", text).status(413));
            }
            Ok(Cow::Owned(out))
        }
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let text = format!("The content encoding {other:?} is not supported by Longshore.");
            Err(ServiceError::new("SerializationException", text))
        }
    }
}

/// The whole HTTP answer for a result.
pub fn encode(route: &Route, output: &dyn Reflect, request_id: &str) -> Response<Bytes> {
    let operation = route.operation;
    let mut builder = Response::builder().status(operation.status).header(CONTENT_TYPE, media_type(route.protocol));
    let body = match route.protocol {
        // An operation without output answers an empty body in JSON, as Amazon does.
        Protocol::Json10 | Protocol::Json11 if !operation.has_output => Vec::new(),
        Protocol::Json10 | Protocol::Json11 => {
            let mut out = Vec::new();
            json::write(output, &mut out);
            out
        }
        Protocol::Cbor => {
            let mut out = Vec::new();
            cbor::write(output, &mut out);
            out
        }
        Protocol::RestJson => {
            let (headers, status) = rest::write_response(output);
            for (name, value) in headers {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    builder = builder.header(name, value);
                }
            }
            if let Some(status) = status {
                builder = builder.status(status);
            }
            let mut out = Vec::new();
            if operation.has_output {
                json::write(output, &mut out);
            }
            out
        }
        Protocol::Query => query_answer(operation, output, request_id),
        Protocol::Ec2 => ec2_answer(operation, output, request_id),
    };
    finish(builder, route.protocol, request_id, body)
}

fn query_answer(operation: &Operation, output: &dyn Reflect, request_id: &str) -> Vec<u8> {
    let (name, namespace) = (operation.name, operation.service.xml_namespace);
    let mut out = format!("<{name}Response xmlns=\"{namespace}\">");
    if let Some(wrapper) = operation.result_wrapper {
        xml::open(wrapper, &mut out);
        xml::write(output, &mut out);
        xml::close(wrapper, &mut out);
    } else {
        xml::write(output, &mut out);
    }
    out.push_str("<ResponseMetadata>");
    xml::element("RequestId", request_id, &mut out);
    out.push_str("</ResponseMetadata></");
    out.push_str(name);
    out.push_str("Response>");
    out.into_bytes()
}

fn ec2_answer(operation: &Operation, output: &dyn Reflect, request_id: &str) -> Vec<u8> {
    let (name, namespace) = (operation.name, operation.service.xml_namespace);
    let mut out = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{name}Response xmlns=\"{namespace}/\">");
    xml::element("requestId", request_id, &mut out);
    if operation.has_output {
        xml::write(output, &mut out);
    } else {
        xml::element("return", "true", &mut out);
    }
    out.push_str("</");
    out.push_str(name);
    out.push_str("Response>");
    out.into_bytes()
}

/// The content type of a protocol's answers.
pub(crate) fn media_type(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Json10 => "application/x-amz-json-1.0",
        Protocol::Json11 => "application/x-amz-json-1.1",
        Protocol::RestJson => "application/json",
        Protocol::Cbor => "application/cbor",
        Protocol::Query => "text/xml",
        Protocol::Ec2 => "text/xml;charset=UTF-8",
    }
}

/// Adds the headers every answer has.
pub(crate) fn finish(builder: Builder, protocol: Protocol, request_id: &str, body: Vec<u8>) -> Response<Bytes> {
    let mut builder =
        builder.header("x-amzn-requestid", HeaderValue::from_str(request_id).unwrap_or(HeaderValue::from_static("-")));
    if protocol == Protocol::Cbor {
        builder = builder.header("smithy-protocol", "rpc-v2-cbor");
    }
    match builder.body(Bytes::from(body)) {
        Ok(response) => response,
        Err(_) => {
            // Only a status outside 100–999 gets here.
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}
