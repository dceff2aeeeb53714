//! Answers questions about the codecs on standard input, one JSON object a line, so that another
//! language's client can be held against ours. The tests in `tests/e2e/test_wire_codecs.py` drive it.
//!
//! Structures are shown as JSON under the model's member names, whatever their protocol calls them:
//! blobs as base64, timestamps as milliseconds, special numbers as text.

use std::collections::HashMap;
use std::io::{BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wire::schema::Kind;
use wire::sigv4::{self, Keys};
use wire::value::{Slot, View};
use wire::{Operation, Protocol, Reflect, Request, Timestamp, exchange};

type Make = fn() -> Box<dyn Reflect>;

#[derive(Default)]
struct Catalogue {
    entries: HashMap<(&'static str, &'static str), (&'static Operation, Make, Make)>,
}

impl api::Each for Catalogue {
    fn each<I: Reflect + Default, O: Reflect + Default>(&mut self, operation: &'static Operation) {
        let key = (operation.service.name, operation.name);
        self.entries.insert(key, (operation, || Box::new(I::default()), || Box::new(O::default())));
    }
}

impl Catalogue {
    fn find(&self, question: &Value) -> Result<(&'static Operation, Make, Make), String> {
        let (service, name) = (text(question, "service"), text(question, "operation"));
        let found = self.entries.iter().find(|((s, n), _)| *s == service && *n == name);
        found.map(|(_, entry)| *entry).ok_or_else(|| format!("no operation {service} {name}"))
    }
}

fn main() {
    let mut catalogue = Catalogue::default();
    api::each_operation(&mut catalogue);
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = match serde_json::from_str::<Value>(&line) {
            Ok(question) => answer(&catalogue, &question).unwrap_or_else(|error| json!({ "problem": error })),
            Err(error) => json!({ "problem": error.to_string() }),
        };
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn answer(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    match text(question, "do") {
        "decode-request" => decode_request(catalogue, question),
        "encode-response" => encode_response(catalogue, question),
        "encode-request" => encode_request(catalogue, question),
        "decode-response" => decode_response(catalogue, question),
        "encode-error" => encode_error(catalogue, question),
        "verify" => verify(question),
        "sign" => Ok(sign(question)),
        "presign" => Ok(presign(question)),
        other => Err(format!("cannot do {other:?}")),
    }
}

/// Routes and decodes a request: the operation, the protocol and the input, or the error's answer.
fn decode_request(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    with_request(question, |request| {
        let signing = text(question, "signing_name");
        let fail = |error: &wire::ServiceError| {
            let face = wire::face(api::SERVICES, request, signing);
            Ok(json!({ "error": shown(&wire::encode_error(&face, error, "request-1")) }))
        };
        let route = match wire::route(api::SERVICES, request, signing) {
            Ok(route) => route,
            Err(error) => return fail(&error),
        };
        let key = (route.operation.service.name, route.operation.name);
        let (_, make, _) = catalogue.entries.get(&key).ok_or("routed to an unknown operation")?;
        let mut input = make();
        // Random values rarely fit a pattern, so that reading can be asked for without checking.
        let check = question["check"].as_bool().unwrap_or(true);
        let outcome =
            if check { wire::decode(&route, request, &mut *input) } else { wire::read(&route, request, &mut *input) };
        match outcome {
            Ok(()) => Ok(json!({
                "service": key.0,
                "operation": key.1,
                "protocol": format!("{:?}", route.protocol),
                "value": dump(&*input),
            })),
            Err(error) => fail(&error),
        }
    })
}

fn encode_response(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    let (operation, _, make) = catalogue.find(question)?;
    let mut output = make();
    load(&question["value"], &mut *output)?;
    // A route can only come from a request: the smallest one that leads to the operation will do.
    let request = exchange::encode_request(operation, protocol(question)?, &());
    let path = if operation.path.contains('{') { fill_labels(operation.path) } else { request.uri().path().to_owned() };
    let (method, headers, body) = (request.method(), request.headers(), request.body());
    let request = Request { method, path: &path, query: "", headers, body };
    let route = wire::route(api::SERVICES, &request, operation.service.signing_name).map_err(|e| e.to_string())?;
    Ok(shown(&wire::encode(&route, &*output, "request-1")))
}

fn fill_labels(template: &str) -> String {
    let parts = template.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn encode_request(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    let (operation, make, _) = catalogue.find(question)?;
    let mut input = make();
    load(&question["value"], &mut *input)?;
    let request = exchange::encode_request(operation, protocol(question)?, &*input);
    Ok(json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query().unwrap_or_default(),
        "headers": header_map(request.headers()),
        "body": STANDARD.encode(request.body()),
    }))
}

fn decode_response(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    let (operation, _, make) = catalogue.find(question)?;
    let mut output = make();
    let status = question["status"].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(200);
    let headers = headers(&question["headers"])?;
    match exchange::decode_response(operation, status, &headers, &body(question)?, &mut *output) {
        Ok(()) => Ok(json!({ "value": dump(&*output) })),
        Err(error) => Ok(json!({
            "code": error.code(),
            "message": error.message(),
            "status": error.http_status(),
        })),
    }
}

fn encode_error(catalogue: &Catalogue, question: &Value) -> Result<Value, String> {
    let (operation, _, _) = catalogue.find(question)?;
    let message = text(question, "message");
    let name = text(question, "error");
    let error = match operation.error(name) {
        Some(shape) => wire::ServiceError::modelled(shape, message),
        None => wire::ServiceError::new(name, message),
    };
    let face = wire::Face { protocol: protocol(question)?, service: Some(operation.service) };
    Ok(shown(&wire::encode_error(&face, &error, "request-1")))
}

fn verify(question: &Value) -> Result<Value, String> {
    with_request(question, |request| {
        let now = Timestamp(question["now"].as_i64().unwrap_or_default());
        let outcome = sigv4::parse(request).and_then(|claim| {
            let hash = sigv4::body_sha256(request.body);
            sigv4::verify(&claim, text(question, "secret"), &hash, now).map(|()| claim)
        });
        Ok(match outcome {
            Ok(claim) => json!({
                "access_key_id": claim.access_key_id,
                "region": claim.region,
                "service": claim.service,
                "session_token": claim.session_token,
            }),
            Err(error) => {
                let face = wire::face(api::SERVICES, request, text(question, "signing_name"));
                let error = error.service_error(&face);
                json!({ "error": shown(&wire::encode_error(&face, &error, "request-1")) })
            }
        })
    })
}

fn keys(question: &Value) -> Keys {
    Keys {
        access_key_id: text(question, "access_key_id").to_owned(),
        secret_access_key: text(question, "secret").to_owned(),
        session_token: question["session_token"].as_str().map(str::to_owned),
        region: text(question, "region").to_owned(),
        service: text(question, "service").to_owned(),
    }
}

fn sign(question: &Value) -> Value {
    let mut headers = headers(&question["headers"]).unwrap_or_default();
    let now = Timestamp(question["now"].as_i64().unwrap_or_default());
    let (method, path, query) = (text(question, "method"), text(question, "path"), text(question, "query"));
    let body = body(question).unwrap_or_default();
    sigv4::sign(method, path, query, &mut headers, &body, &keys(question), now);
    json!({ "headers": header_map(&headers) })
}

fn presign(question: &Value) -> Value {
    let now = Timestamp(question["now"].as_i64().unwrap_or_default());
    let (path, query, host) = (text(question, "path"), text(question, "query"), text(question, "host"));
    json!({ "query": sigv4::presign(path, query, host, &keys(question), 900, now) })
}

fn with_request(question: &Value, work: impl FnOnce(&Request<'_>) -> Result<Value, String>) -> Result<Value, String> {
    let method = text(question, "method").parse().map_err(|_| "bad method")?;
    let headers = headers(&question["headers"])?;
    let body = body(question)?;
    let (path, query) = (text(question, "path"), text(question, "query"));
    work(&Request { method: &method, path, query, headers: &headers, body: &body })
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn body(question: &Value) -> Result<Vec<u8>, String> {
    STANDARD.decode(text(question, "body")).map_err(|e| e.to_string())
}

fn headers(value: &Value) -> Result<http::HeaderMap, String> {
    let mut out = http::HeaderMap::new();
    for (name, text) in value.as_object().into_iter().flatten() {
        let name: http::HeaderName = name.parse().map_err(|_| "bad header name")?;
        let value = http::HeaderValue::from_str(text.as_str().unwrap_or_default()).map_err(|_| "bad header")?;
        out.insert(name, value);
    }
    Ok(out)
}

fn header_map(headers: &http::HeaderMap) -> Value {
    let pairs =
        headers.iter().map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))));
    Value::Object(pairs.collect())
}

fn shown(response: &http::Response<impl AsRef<[u8]>>) -> Value {
    json!({
        "status": response.status().as_u16(),
        "headers": header_map(response.headers()),
        "body": STANDARD.encode(response.body()),
    })
}

fn protocol(question: &Value) -> Result<Protocol, String> {
    Ok(match text(question, "protocol") {
        "json" if text(question, "json_version") == "1.0" => Protocol::Json10,
        "json" => Protocol::Json11,
        "query" => Protocol::Query,
        "ec2" => Protocol::Ec2,
        "rest-json" => Protocol::RestJson,
        "smithy-rpc-v2-cbor" => Protocol::Cbor,
        other => return Err(format!("no protocol {other:?}")),
    })
}

fn dump(value: &dyn Reflect) -> Value {
    let mut out = Map::new();
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        if !matches!(view, View::Absent) {
            out.insert(member.name.to_owned(), dump_view(&view));
        }
    }
    Value::Object(out)
}

fn dump_view(view: &View<'_>) -> Value {
    match view {
        View::Absent => Value::Null,
        View::String(text) => json!(text),
        View::Integer(number) => json!(number),
        View::Long(number) => json!(number),
        View::Float(number) => float(f64::from(*number)),
        View::Double(number) => float(*number),
        View::Boolean(truth) => json!(truth),
        View::Blob(bytes) => json!(STANDARD.encode(bytes)),
        View::Timestamp(time) => json!(time.0),
        View::Document(document) => (*document).clone(),
        View::List(list) => (0..list.length()).map(|index| dump_view(&list.item(index))).collect(),
        View::Map(map) => {
            Value::Object(map.entries().iter().map(|(key, view)| ((*key).to_owned(), dump_view(view))).collect())
        }
        View::Structure(inner) => dump(*inner),
    }
}

fn float(number: f64) -> Value {
    if number.is_finite() { json!(number) } else { json!(number.to_string()) }
}

fn load(value: &Value, into: &mut dyn Reflect) -> Result<(), String> {
    let schema = into.schema();
    for (name, value) in value.as_object().into_iter().flatten() {
        let (index, member) = schema.find(name).ok_or_else(|| format!("{} has no {name}", schema.name))?;
        load_slot(value, into.member_mut(index), &member.shape.kind)?;
    }
    Ok(())
}

fn load_slot(value: &Value, slot: Slot<'_>, kind: &'static Kind) -> Result<(), String> {
    let wrong = || format!("{value} does not fit {kind:?}");
    match (slot, kind) {
        (Slot::String(place), Kind::String) => *place = value.as_str().ok_or_else(wrong)?.to_owned(),
        (Slot::Integer(place), Kind::Integer) => {
            *place = value.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(wrong)?;
        }
        (Slot::Long(place), Kind::Long) => *place = value.as_i64().ok_or_else(wrong)?,
        (Slot::Float(place), Kind::Float) => *place = value.as_f64().ok_or_else(wrong)? as f32,
        (Slot::Double(place), Kind::Double) => *place = value.as_f64().ok_or_else(wrong)?,
        (Slot::Boolean(place), Kind::Boolean) => *place = value.as_bool().ok_or_else(wrong)?,
        (Slot::Blob(place), Kind::Blob) => {
            *place = STANDARD.decode(value.as_str().ok_or_else(wrong)?).map_err(|e| e.to_string())?;
        }
        (Slot::Timestamp(place), Kind::Timestamp) => *place = Timestamp(value.as_i64().ok_or_else(wrong)?),
        (Slot::Document(place), Kind::Document) => *place = value.clone(),
        (Slot::List(list), Kind::List { member, .. }) => {
            for item in value.as_array().ok_or_else(wrong)? {
                load_slot(item, list.append(), &member.shape.kind)?;
            }
        }
        (Slot::Map(map), Kind::Map { value: member, .. }) => {
            for (key, item) in value.as_object().ok_or_else(wrong)? {
                load_slot(item, map.insert_key(key.clone()), &member.shape.kind)?;
            }
        }
        (Slot::Structure(inner), Kind::Structure(_)) => load(value, inner)?,
        _ => return Err(wrong()),
    }
    Ok(())
}
