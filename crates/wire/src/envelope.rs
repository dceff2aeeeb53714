//! Errors as each protocol writes them.

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use serde_json::Value as Json;

use crate::codec::{cbor, xml};
use crate::error::{Fault, ServiceError};
use crate::message::{finish, media_type};
use crate::route::Face;
use crate::schema::Protocol;

/// The whole HTTP answer for an error.
pub fn encode_error(face: &Face, error: &ServiceError, request_id: &str) -> Response<Bytes> {
    let builder = Response::builder().status(error.http_status()).header(CONTENT_TYPE, media_type(face.protocol));
    let namespace = face.service.map_or("", |service| service.xml_namespace);
    let body = match face.protocol {
        Protocol::Json10 | Protocol::Json11 | Protocol::RestJson => json(face, error),
        Protocol::Cbor => {
            let mut out = Vec::new();
            cbor::write_json_object(&fields(face, error), &mut out);
            out
        }
        Protocol::Query => query(error, namespace, request_id),
        Protocol::Ec2 => ec2(error, request_id),
    };
    let mut response = finish(builder, face.protocol, request_id, body);
    let headers = response.headers_mut();
    if face.protocol == Protocol::RestJson
        && let Ok(value) = error.code().parse()
    {
        headers.insert("x-amzn-errortype", value);
    }
    let query_compatible = face.service.is_some_and(|service| service.query_compatible);
    let json_or_cbor = matches!(face.protocol, Protocol::Json10 | Protocol::Json11 | Protocol::Cbor);
    if query_compatible
        && json_or_cbor
        && let Ok(value) = format!("{};{}", error.query_code(), side(error)).parse()
    {
        headers.insert("x-amzn-query-error", value);
    }
    response
}

fn side(error: &ServiceError) -> &'static str {
    match error.fault() {
        Fault::Client => "Sender",
        Fault::Server => "Receiver",
    }
}

/// `__type`, the text and the modelled fields, in that order.
fn fields(face: &Face, error: &ServiceError) -> Vec<(String, Json)> {
    let name = match (face.protocol, face.service) {
        // CBOR names the shape absolutely.
        (Protocol::Cbor, Some(service)) => format!("com.amazonaws.{}#{}", service.name, error.code()),
        _ => error.code().to_owned(),
    };
    let mut fields = Vec::new();
    if face.protocol != Protocol::RestJson {
        fields.push(("__type".to_owned(), Json::String(name)));
    }
    fields.extend(error.fields().iter().cloned());
    fields.push((error.message_member().to_owned(), Json::String(error.message().to_owned())));
    fields
}

fn json(face: &Face, error: &ServiceError) -> Vec<u8> {
    let object: serde_json::Map<String, Json> = fields(face, error).into_iter().collect();
    Json::Object(object).to_string().into_bytes()
}

fn query(error: &ServiceError, namespace: &str, request_id: &str) -> Vec<u8> {
    let mut out = format!("<ErrorResponse xmlns=\"{namespace}\"><Error>");
    xml::element("Type", side(error), &mut out);
    xml::element("Code", error.query_code(), &mut out);
    xml::element("Message", error.message(), &mut out);
    out.push_str("</Error>");
    xml::element("RequestId", request_id, &mut out);
    out.push_str("</ErrorResponse>");
    out.into_bytes()
}

fn ec2(error: &ServiceError, request_id: &str) -> Vec<u8> {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>");
    xml::element("Code", error.query_code(), &mut out);
    xml::element("Message", error.message(), &mut out);
    out.push_str("</Error></Errors>");
    xml::element("RequestID", request_id, &mut out);
    out.push_str("</Response>");
    out.into_bytes()
}
