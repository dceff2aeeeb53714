//! Emitting structures: one struct per shape, every member optional, tied to its table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::model::{Model, text};
use super::names;

/// The struct definitions of a service.
pub fn emit(model: &Model) -> Result<String, String> {
    let mut out = String::new();
    let mut ties = String::new();
    let mut seen = BTreeMap::new();
    for (name, shape) in &model.shapes {
        if !is_struct(shape) {
            continue;
        }
        let type_name = names::type_name(name);
        if let Some(other) = seen.insert(type_name.clone(), name) {
            return Err(format!("{}: shapes {name} and {other} get one name", model.name));
        }
        let mut fields = String::new();
        let mut places = String::new();
        let mut taken = BTreeMap::new();
        for (index, (member, target)) in members(shape).enumerate() {
            let field = names::field(member);
            if taken.insert(field.clone(), member).is_some() {
                return Err(format!("{}: {name} has two members {field}", model.name));
            }
            let target = rust_type(model, text(target, "shape"))?;
            let _ = writeln!(fields, "pub {field}: Option<{target}>,");
            let _ = write!(places, "{index} {field}, ");
        }
        let _ = writeln!(out, "#[derive(Clone, Default)]\npub struct {type_name} {{\n{fields}}}\n");
        let table = names::screaming(name);
        let _ = writeln!(ties, "    {type_name} tables::{table} {{ {} }}", places.trim_end_matches(", "));
    }
    let _ = writeln!(out, "wire::reflect! {{\n{ties}}}");
    Ok(out)
}

/// Whether a shape becomes a struct.
pub fn is_struct(shape: &Value) -> bool {
    text(shape, "type") == "structure" && !super::model::flag(shape, "document")
}

/// The members of a structure in model order.
pub fn members(shape: &Value) -> impl Iterator<Item = (&String, &Value)> {
    shape["members"].as_object().into_iter().flatten()
}

fn rust_type(model: &Model, name: &str) -> Result<String, String> {
    let shape = model.shapes.get(name).ok_or_else(|| format!("no shape {name}"))?;
    Ok(match text(shape, "type") {
        "structure" if is_struct(shape) => names::type_name(name),
        "structure" => "wire::Document".to_owned(),
        "list" => format!("Vec<{}>", rust_type(model, text(&shape["member"], "shape"))?),
        "map" => {
            let value = rust_type(model, text(&shape["value"], "shape"))?;
            format!("BTreeMap<String, {value}>")
        }
        "string" | "character" => "String".to_owned(),
        "integer" => "i32".to_owned(),
        "long" => "i64".to_owned(),
        "float" => "f32".to_owned(),
        "double" => "f64".to_owned(),
        "boolean" => "bool".to_owned(),
        "blob" => "Vec<u8>".to_owned(),
        "timestamp" => "wire::Timestamp".to_owned(),
        other => return Err(format!("{name} has the unknown type {other}")),
    })
}
