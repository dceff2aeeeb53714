//! Emitting the static tables: shapes with their constraints, structures, errors, operations.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::model::{Model, flag, text};
use super::shapes::{is_struct, members};
use super::{names, pattern};

/// The tables of a service's shapes.
pub fn emit_shapes(model: &Model) -> Result<String, String> {
    let mut out = String::new();
    let referenced = referenced(model);
    for (name, shape) in &model.shapes {
        if is_struct(shape) {
            let _ = write!(out, "{}", structure(model, name, shape));
        }
        if !referenced.contains(name.as_str()) {
            continue;
        }
        if let Some(shape) = shape_table(model, name, shape)? {
            let _ = writeln!(out, "static {}: Shape = {shape};", shape_static(name));
        }
    }
    Ok(out)
}

/// The shapes that stand inside another one; inputs and outputs mostly do not.
fn referenced(model: &Model) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for shape in model.shapes.values() {
        found.extend(members(shape).map(|(_, member)| text(member, "shape")));
        found.extend(["member", "key", "value"].iter().map(|part| text(&shape[*part], "shape")));
    }
    found
}

fn shape_static(name: &str) -> String {
    format!("S_{}", names::screaming(name))
}

fn structure(model: &Model, name: &str, shape: &Value) -> String {
    let required: Vec<&str> = shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut rows = String::new();
    for (member, target) in members(shape) {
        let needed = required.contains(&member.as_str());
        let _ = writeln!(rows, "{},", member_table(model, member, target, needed));
    }
    let mut out = format!("pub static {}: Structure = Structure::new({name:?}, &[\n{rows}])", names::screaming(name));
    if flag(shape, "union") {
        out.push_str(".union()");
    }
    if flag(shape, "sensitive") {
        out.push_str(".sensitive()");
    }
    out.push_str(";\n");
    out
}

fn member_table(model: &Model, name: &str, target: &Value, required: bool) -> String {
    let shape = text(target, "shape");
    let mut out = format!("Member::new({name:?}, {})", reference(model, shape));
    let wire = target["locationName"].as_str().unwrap_or(name);
    if wire != name {
        let _ = write!(out, ".wire({wire:?})");
    }
    if text(&model.metadata, "protocol") == "ec2" {
        let query = match target["queryName"].as_str() {
            Some(query) => query.to_owned(),
            None if target["locationName"].is_string() => names::capitalised(wire),
            None => name.to_owned(),
        };
        if query != name {
            let _ = write!(out, ".query({query:?})");
        }
    }
    if required {
        out.push_str(".required()");
    }
    let location = match text(target, "location") {
        "uri" => "Uri",
        "querystring" => "QueryString",
        "header" => "Header",
        "statusCode" => "StatusCode",
        _ => "",
    };
    if !location.is_empty() {
        let _ = write!(out, ".at(Location::{location})");
    }
    let declared = target["timestampFormat"]
        .as_str()
        .or_else(|| model.shapes.get(shape).and_then(|s| s["timestampFormat"].as_str()));
    if let Some(format) = declared.and_then(timestamp_format) {
        let _ = write!(out, ".timestamp(TimestampFormat::{format})");
    }
    out
}

fn timestamp_format(name: &str) -> Option<&'static str> {
    match name {
        "unixTimestamp" => Some("EpochSeconds"),
        "iso8601" => Some("DateTime"),
        "rfc822" => Some("HttpDate"),
        _ => None,
    }
}

/// How a member names its shape: one of the shared unconstrained ones, or the service's own.
fn reference(model: &Model, name: &str) -> String {
    let plain = model.shapes.get(name).and_then(plain);
    format!("&{}", plain.map_or_else(|| shape_static(name), str::to_owned))
}

/// The shared table of a shape without constraints.
fn plain(shape: &Value) -> Option<&'static str> {
    let constrained = ["min", "max", "enum", "pattern", "sensitive"].iter().any(|k| !shape[k].is_null());
    let name = match text(shape, "type") {
        "timestamp" => "TIMESTAMP",
        "boolean" => "BOOLEAN",
        "structure" if flag(shape, "document") => "DOCUMENT",
        _ if constrained => return None,
        "string" | "character" => "STRING",
        "integer" => "INTEGER",
        "long" => "LONG",
        "float" => "FLOAT",
        "double" => "DOUBLE",
        "blob" => "BLOB",
        _ => return None,
    };
    Some(name)
}

fn shape_table(model: &Model, name: &str, shape: &Value) -> Result<Option<String>, String> {
    if plain(shape).is_some() {
        return Ok(None);
    }
    let mut out = match text(shape, "type") {
        "structure" => return Ok(Some(format!("Shape::structure(&{})", names::screaming(name)))),
        "list" => {
            let member = &shape["member"];
            format!("Shape::list({})", member_table(model, "member", member, false))
        }
        "map" => format!(
            "Shape::map({}, {})",
            member_table(model, "key", &shape["key"], false),
            member_table(model, "value", &shape["value"], false)
        ),
        "string" | "character" => "Shape::new(Kind::String)".to_owned(),
        "integer" => "Shape::new(Kind::Integer)".to_owned(),
        "long" => "Shape::new(Kind::Long)".to_owned(),
        "float" => "Shape::new(Kind::Float)".to_owned(),
        "double" => "Shape::new(Kind::Double)".to_owned(),
        "blob" => "Shape::new(Kind::Blob)".to_owned(),
        other => return Err(format!("{name} has the unknown type {other}")),
    };
    if flag(shape, "flattened") {
        out.push_str(".flattened()");
    }
    for bound in ["min", "max"] {
        if let Some(number) = shape[bound].as_f64() {
            let _ = write!(out, ".{bound}({number:?})");
        }
    }
    // EC2 has its own words for a type that there is not, and new types come each month.
    let is_open = model.name == "ec2" && name == "InstanceType";
    if let Some(values) = shape["enum"].as_array().filter(|_| !is_open) {
        let values: Vec<String> = values.iter().filter_map(Value::as_str).map(|v| format!("{v:?}")).collect();
        let _ = write!(out, ".values(&[{}])", values.join(", "));
    }
    if let Some(text) = shape["pattern"].as_str() {
        let regex = pattern::translate(text);
        if regex.is_none() {
            eprintln!("note: {} {name}: this pattern is left to the handlers: {text}", model.name);
        }
        let _ = write!(out, ".pattern({text:?}, {:?})", regex.unwrap_or_default());
    }
    if flag(shape, "sensitive") {
        out.push_str(".sensitive()");
    }
    Ok(Some(out))
}

/// The errors of a service: a table and a constructor each.
pub fn emit_errors(model: &Model) -> String {
    let mut out = String::new();
    for (name, shape) in &model.errors {
        let error = &shape["error"];
        let fault = flag(shape, "fault");
        let default_status = if fault { 500 } else { 400 };
        let status = error["httpStatusCode"].as_u64().unwrap_or(default_status);
        let code = error["code"].as_str().unwrap_or(name);
        let message = members(shape)
            .map(|(member, _)| member.as_str())
            .find(|member| member.eq_ignore_ascii_case("message"))
            .unwrap_or("message");
        let code_member = shape["members"]["ErrorCode"].is_object().then_some("ErrorCode");
        let server = fault || status >= 500;
        let table = names::screaming(name);
        let _ = writeln!(
            out,
            "pub static {table}: ErrorShape = ErrorShape {{ name: {name:?}, code: {code:?}, \
             status: {status}, server_fault: {server}, message: {message:?}, \
             code_member: {code_member:?} }};"
        );
        let _ = writeln!(
            out,
            "pub fn {}(message: impl Into<String>) -> ServiceError {{ \
             ServiceError::modelled(&{table}, message) }}",
            names::field(name)
        );
    }
    out
}

/// The service's own table and one per operation.
pub fn emit_operations(model: &Model) -> Result<String, String> {
    let meta = &model.metadata;
    let signing = signing_name(meta);
    let prefix = iam_prefix(&model.name, signing);
    let mut out = format!(
        "pub static SERVICE: Service = Service {{ name: {:?}, id: {:?}, signing_name: {signing:?}, \
         iam_prefix: {prefix:?}, version: {:?}, target_prefix: {:?}, protocols: &[{}], \
         xml_namespace: {:?}, validation: {}, query_compatible: {}, operations: &[{}] }};\n",
        model.name,
        text(meta, "serviceId"),
        text(meta, "apiVersion"),
        text(meta, "targetPrefix"),
        protocols(meta)?,
        text(meta, "xmlNamespace"),
        validation(&model.name),
        !meta["awsQueryCompatible"].is_null(),
        model.operations.iter().map(|(name, _)| format!("&{}", names::screaming(name))).collect::<Vec<_>>().join(", "),
    );
    for (index, (name, operation)) in model.operations.iter().enumerate() {
        let side = |side: &str| match operation[side]["shape"].as_str() {
            Some(shape) => format!("&tables::{}", names::screaming(shape)),
            None => "&wire::schema::EMPTY".to_owned(),
        };
        let errors: Vec<String> = operation["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| format!("&error::{}", names::screaming(text(e, "shape"))))
            .collect();
        let http = &operation["http"];
        let _ = writeln!(
            out,
            "pub static {}: Operation = Operation {{ name: {name:?}, index: {index}, \
             service: &SERVICE, action: {:?}, method: {:?}, path: {:?}, status: {}, input: {}, \
             output: {}, has_output: {}, result_wrapper: {:?}, errors: &[{}], signed: {}, \
             idempotency_token: {:?}, pagination: {}, event_stream: {} }};",
            names::screaming(name),
            format!("{prefix}:{name}"),
            text(http, "method"),
            text(http, "requestUri"),
            http["responseCode"].as_u64().unwrap_or(200),
            side("input"),
            side("output"),
            operation["output"].is_object(),
            operation["output"]["resultWrapper"].as_str(),
            errors.join(", "),
            text(operation, "authtype") != "none",
            idempotency_token(model, operation),
            pagination(&model.paginators[name]),
            event_stream(model, operation),
        );
    }
    Ok(out)
}

fn signing_name(meta: &Value) -> &str {
    meta["signingName"].as_str().unwrap_or_else(|| text(meta, "endpointPrefix"))
}

/// Where IAM's prefix is not the signing name.
fn iam_prefix<'a>(service: &str, signing: &'a str) -> &'a str {
    match service {
        "cloudwatch" => "cloudwatch",
        "resourcegroupstaggingapi" => "tag",
        _ => signing,
    }
}

/// The models do not say how a service words their violations; this is what Amazon answers.
fn validation(service: &str) -> &'static str {
    match service {
        "ecr" => "Validation::Ecr",
        "ec2" => "Validation::Ec2",
        "ecs" | "logs" | "resourcegroupstaggingapi" => "Validation::Listed(\"InvalidParameterException\")",
        "iam" | "sts" | "elb" | "elbv2" | "autoscaling" => "Validation::Listed(\"ValidationError\")",
        "servicediscovery" => "Validation::Listed(\"InvalidInput\")",
        _ => "Validation::Listed(\"ValidationException\")",
    }
}

fn protocols(meta: &Value) -> Result<String, String> {
    let mut out = Vec::new();
    for protocol in meta["protocols"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.push(match protocol {
            "json" if text(meta, "jsonVersion") == "1.0" => "Protocol::Json10",
            "json" => "Protocol::Json11",
            "query" => "Protocol::Query",
            "ec2" => "Protocol::Ec2",
            "rest-json" => "Protocol::RestJson",
            "smithy-rpc-v2-cbor" => "Protocol::Cbor",
            other => return Err(format!("unknown protocol {other}")),
        });
    }
    Ok(out.join(", "))
}

fn idempotency_token<'a>(model: &'a Model, operation: &Value) -> Option<&'a str> {
    let input = model.shapes.get(text(&operation["input"], "shape"))?;
    members(input).find(|(_, m)| flag(m, "idempotencyToken")).map(|(name, _)| name.as_str())
}

fn event_stream(model: &Model, operation: &Value) -> bool {
    let output = model.shapes.get(text(&operation["output"], "shape"));
    output.is_some_and(|shape| {
        members(shape).any(|(_, m)| model.shapes.get(text(m, "shape")).is_some_and(|inner| flag(inner, "eventstream")))
    })
}

fn pagination(facts: &Value) -> String {
    // A few operations page by several tokens; the first one is the opaque one.
    let first = |key: &str| match &facts[key] {
        Value::Array(list) => list.first().and_then(Value::as_str),
        other => other.as_str(),
    };
    let parts = (first("input_token"), first("output_token"), first("result_key"));
    let (Some(input), Some(output), Some(result)) = parts else { return "None".to_owned() };
    format!(
        "Some(Pagination {{ input_token: {input:?}, output_token: {output:?}, limit: {:?}, \
         result: {result:?} }})",
        first("limit_key"),
    )
}
