//! Reading Amazon's service models: the operations we list and every shape they reach.
//!
//! The models come with botocore, which is the Python library the tests use anyway. Only names,
//! types and constraints are taken; documentation texts are not.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A service as its model describes it, cut to the listed operations.
pub struct Model {
    /// Botocore's name of the service.
    pub name: String,
    /// The model's `metadata`.
    pub metadata: Value,
    /// Operations sorted by name.
    pub operations: Vec<(String, Value)>,
    /// Shapes reached from inputs and outputs.
    pub shapes: BTreeMap<String, Value>,
    /// Errors the operations name.
    pub errors: BTreeMap<String, Value>,
    /// Pagination facts per operation.
    pub paginators: Value,
}

/// Where the models are: `LONGSHORE_MODELS`, or botocore in the repository's `.venv`.
pub fn models_folder(root: &Path) -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("LONGSHORE_MODELS") {
        return Ok(PathBuf::from(folder));
    }
    let libraries = root.join(".venv/lib");
    let found = std::fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("site-packages/botocore/data"))
        .find(|path| path.is_dir());
    found.ok_or_else(|| {
        "no models found. Amazon's models come with botocore:\n  python3 -m venv .venv && \
         .venv/bin/pip install -r tests/requirements.txt\nor set LONGSHORE_MODELS to a botocore/data folder"
            .to_owned()
    })
}

/// Members that Amazon's own clients send though the public models lack them: the shape of each, by service and structure.
pub type Additions = BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>;

/// Loads one service.
pub fn load(models: &Path, name: &str, wanted: &[String], additions: &Additions) -> Result<Model, String> {
    let folder = newest(&models.join(name))?;
    let mut model =
        read_json(&folder, "service-2.json")?.ok_or_else(|| format!("{} has no service-2.json", folder.display()))?;
    let paginators = read_json(&folder, "paginators-1.json")?.unwrap_or(Value::Null);
    let mut operations = Vec::new();
    for operation in wanted {
        let found = model["operations"][operation].take();
        if found.is_null() {
            return Err(format!("{name} has no operation {operation}"));
        }
        operations.push((operation.clone(), found));
    }
    operations.sort_by(|a, b| a.0.cmp(&b.0));
    let mut all = model["shapes"].take();
    for (structure, members) in additions.get(name).into_iter().flatten() {
        let known = all[structure]["members"].as_object_mut();
        let known = known.ok_or_else(|| format!("{name} has no structure {structure} to add to"))?;
        for (member, shape) in members {
            if known.insert(member.clone(), serde_json::json!({ "shape": shape })).is_some() {
                return Err(format!("{name}: {structure}.{member} need not be added any more"));
            }
        }
    }
    let mut shapes = BTreeMap::new();
    let mut errors = BTreeMap::new();
    for (_, operation) in &operations {
        for side in ["input", "output"] {
            if let Some(shape) = operation[side]["shape"].as_str() {
                reach(&all, shape, &mut shapes);
            }
        }
        for error in operation["errors"].as_array().into_iter().flatten() {
            let shape = text(error, "shape");
            errors.insert(shape.to_owned(), all[shape].clone());
        }
    }
    Ok(Model {
        name: name.to_owned(),
        metadata: model["metadata"].take(),
        operations,
        shapes,
        errors,
        paginators: paginators["pagination"].clone(),
    })
}

/// A text member of a JSON object; empty when absent.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a truth member is there and true.
pub fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}

fn reach(all: &Value, name: &str, found: &mut BTreeMap<String, Value>) {
    if found.contains_key(name) {
        return;
    }
    let shape = &all[name];
    found.insert(name.to_owned(), shape.clone());
    for member in shape["members"].as_object().into_iter().flat_map(|m| m.values()) {
        reach(all, text(member, "shape"), found);
    }
    for part in ["member", "key", "value"] {
        if let Some(next) = shape[part]["shape"].as_str() {
            reach(all, next, found);
        }
    }
}

/// API versions are dates, so the last in order is the newest.
fn newest(folder: &Path) -> Result<PathBuf, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut versions: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    versions.sort();
    versions.pop().ok_or_else(|| format!("{} has no version", folder.display()))
}

fn read_json(folder: &Path, file: &str) -> Result<Option<Value>, String> {
    let plain = folder.join(file);
    let packed = folder.join(format!("{file}.gz"));
    let bytes = if let Ok(bytes) = std::fs::read(&plain) {
        bytes
    } else if let Ok(bytes) = std::fs::read(&packed) {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_end(&mut out)
            .map_err(|e| format!("{}: {e}", packed.display()))?;
        out
    } else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("{}: {e}", plain.display()))
}
