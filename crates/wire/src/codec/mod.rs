//! The five codecs. Each walks a structure through [`crate::Reflect`], guided by its table.
//!
//! A codec knows one encoding and nothing of services: where a protocol's dialects differ (EC2 against
//! the other query services), the difference is a parameter. Decoders take hostile input: they bound
//! depth and element counts and never index or panic.

pub(crate) mod cbor;
pub(crate) mod form;
pub(crate) mod json;
pub(crate) mod rest;
pub(crate) mod xml;
pub(crate) mod xml_read;

use std::cell::{Cell, RefCell};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::request::{DEPTH_LIMIT, ELEMENT_LIMIT};
use crate::schema::{Kind, Member, Shape};
use crate::value::{Mapping, Reflect, Sequence, Slot};

/// Why a message could not be decoded, for the caller's eyes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The text of the error.
    pub text: String,
    /// The parameter it is about, where the protocol names it.
    pub parameter: Option<String>,
}

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Problem { text: text.into(), parameter: None }
    }

    pub(crate) fn about(parameter: &str, text: impl Into<String>) -> Self {
        Problem { text: text.into(), parameter: Some(parameter.to_owned()) }
    }
}

/// Plain elements that may stand in a list for one structure: these are a few bytes each, those up to
/// a kilobyte. One PutMetricData request may carry 300,000 plain ones.
const STRUCTURE_COST: usize = 32;

/// What one message has used up of its bounds.
#[derive(Default)]
pub(crate) struct Budget {
    elements: Cell<usize>,
    depth: Cell<usize>,
    problem: RefCell<Option<Problem>>,
}

impl Budget {
    /// Counts one list element or map entry of this shape by what it may cost.
    pub(crate) fn element(&self, shape: &'static Shape) -> Result<(), Problem> {
        let cost = if matches!(shape.kind, Kind::Structure(_)) { STRUCTURE_COST } else { 1 };
        self.elements.set(self.elements.get() + cost);
        if self.elements.get() > ELEMENT_LIMIT * STRUCTURE_COST {
            return Err(Problem::new("The request has too many list elements."));
        }
        Ok(())
    }

    /// Enters one level; [`Budget::leave`] must follow.
    pub(crate) fn enter(&self) -> Result<(), Problem> {
        self.depth.set(self.depth.get() + 1);
        if self.depth.get() > DEPTH_LIMIT {
            return Err(Problem::new("The request nests too deeply."));
        }
        Ok(())
    }

    pub(crate) fn leave(&self) {
        self.depth.set(self.depth.get().saturating_sub(1));
    }

    /// Keeps a problem past an error type that cannot carry it.
    pub(crate) fn keep(&self, problem: Problem) {
        self.problem.borrow_mut().get_or_insert(problem);
    }

    pub(crate) fn kept(&self) -> Option<Problem> {
        self.problem.borrow_mut().take()
    }
}

/// Where a value goes, before it is known whether there is one: a null leaves no trace.
pub(crate) enum Place<'a> {
    /// A member of a structure.
    Member(&'a mut dyn Reflect, usize),
    /// One more element of a list.
    Element(&'a mut dyn Sequence),
    /// The value of this key.
    Entry(&'a mut dyn Mapping, String),
}

impl<'a> Place<'a> {
    /// Makes room for the value.
    pub(crate) fn slot(self) -> Slot<'a> {
        match self {
            Place::Member(structure, index) => structure.member_mut(index),
            Place::Element(list) => list.append(),
            Place::Entry(map, key) => map.insert_key(key),
        }
    }
}

/// The element of a list shape.
pub(crate) fn element_of(shape: &'static Shape) -> Option<&'static Member> {
    match &shape.kind {
        Kind::List { member, .. } => Some(member),
        _ => None,
    }
}

/// The value of a map shape.
pub(crate) fn value_of(shape: &'static Shape) -> Option<&'static Member> {
    match &shape.kind {
        Kind::Map { value, .. } => Some(value),
        _ => None,
    }
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.as_bytes()).ok()
}

/// The names of the numbers JSON has none for.
pub(crate) fn special_float(number: f64) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        n if n == f64::INFINITY => Some("Infinity"),
        n if n == f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

/// Reads a number as text, the special names included.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok().filter(|n: &f64| n.is_finite()),
    }
}

/// Fills a slot from a protocol that has only text (forms, XML, headers, paths).
pub(crate) fn fill_text(slot: Slot<'_>, text: &str, name: &str) -> Result<(), Problem> {
    let wrong = |kind: &str| Problem::about(name, format!("'{text}' is not a valid {kind}."));
    match slot {
        Slot::String(place) => *place = text.to_owned(),
        Slot::Integer(place) => *place = text.trim().parse().map_err(|_| wrong("integer"))?,
        Slot::Long(place) => *place = text.trim().parse().map_err(|_| wrong("integer"))?,
        Slot::Float(place) => {
            *place = parse_float(text.trim()).ok_or_else(|| wrong("number"))? as f32;
        }
        Slot::Double(place) => *place = parse_float(text.trim()).ok_or_else(|| wrong("number"))?,
        Slot::Boolean(place) => {
            *place = match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(wrong("boolean")),
            }
        }
        Slot::Blob(place) => {
            *place = from_base64(text.trim()).ok_or_else(|| wrong("base64 text"))?;
        }
        Slot::Timestamp(place) => {
            *place = crate::Timestamp::parse(text).ok_or_else(|| wrong("timestamp"))?;
        }
        Slot::Document(place) => {
            *place = serde_json::from_str(text).map_err(|_| wrong("JSON document"))?;
        }
        Slot::List(_) | Slot::Map(_) | Slot::Structure(_) | Slot::Missing => {
            return Err(Problem::about(name, "A single value was found where a structure belongs."));
        }
    }
    Ok(())
}
