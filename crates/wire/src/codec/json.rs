//! JSON in both directions: awsJson bodies and the documents of restJson.
//!
//! Reading streams into the structure without a tree in between. Unknown members are skipped, as
//! Amazon does; a wrong type is refused with the words Amazon's own framework uses.

use std::fmt;

use serde_json::Value as Json;
use serde_json::de::SliceRead;

use super::{Budget, Place, Problem, element_of, from_base64, parse_float, special_float, to_base64, value_of};
use crate::Timestamp;
use crate::schema::{Kind, Location, Shape, Structure, TimestampFormat};
use crate::value::{Reflect, Slot, View};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Fills a structure from a JSON object. An empty body counts as an empty object.
pub(crate) fn read(body: &[u8], into: &mut dyn Reflect) -> Result<(), Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let budget = Budget::default();
    let mut source = serde_json::Deserializer::new(SliceRead::new(body));
    let structure = into.schema();
    let outcome = Fields { into, structure, budget: &budget }.deserialize(&mut source).and_then(|()| source.end());
    outcome.map_err(|error| {
        let broken = || Problem::new(format!("The request body is not valid JSON: {error}"));
        budget.kept().unwrap_or_else(broken)
    })
}

/// An object whose members go into a structure.
struct Fields<'s, 'b> {
    into: &'s mut dyn Reflect,
    structure: &'static Structure,
    budget: &'b Budget,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        fields(self.into, self.structure, self.budget, &mut map)
    }
}

fn fields<'de, A: MapAccess<'de>>(
    into: &mut dyn Reflect,
    structure: &'static Structure,
    budget: &Budget,
    map: &mut A,
) -> Result<(), A::Error> {
    while let Some(name) = map.next_key::<String>()? {
        let found = structure.members.iter().position(|m| m.wire_name == name && m.location == Location::Body);
        match found.and_then(|index| structure.members.get(index).map(|member| (index, member))) {
            Some((index, member)) => {
                let place = Place::Member(into, index);
                map.next_value_seed(Seed { place, shape: member.shape, budget })?;
            }
            None => {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    Ok(())
}

/// Any JSON value on its way to a place of a known shape.
struct Seed<'s, 'b> {
    place: Place<'s>,
    shape: &'static Shape,
    budget: &'b Budget,
}

impl Seed<'_, '_> {
    fn refuse<E: serde::de::Error>(&self, problem: Problem) -> E {
        self.budget.keep(problem);
        E::custom("refused")
    }

    /// The words of Amazon's own JSON framework.
    fn mismatch<E: serde::de::Error>(&self, token: &str) -> E {
        let text = match self.shape.kind {
            Kind::List { .. } => "Expected list or null".to_owned(),
            Kind::Map { .. } => "Expected map or null".to_owned(),
            Kind::Structure(_) => "Expected structure or null".to_owned(),
            _ => match token {
                "object" => "Start of structure or map found where not expected.".to_owned(),
                "list" => "Start of list found where not expected".to_owned(),
                token => format!("{token} can not be converted to {}", target(self.shape)),
            },
        };
        self.refuse(Problem::new(text))
    }

    fn number<E: serde::de::Error>(self, number: Number) -> Result<(), E> {
        let whole = number.whole();
        let float = number.float();
        let budget = self.budget;
        let out_of_range = |kind: &str| {
            budget.keep(Problem::new(format!("NUMBER_VALUE can not be converted to {kind}")));
            E::custom("refused")
        };
        if !matches!(self.shape.kind, Kind::Integer | Kind::Long | Kind::Float | Kind::Double | Kind::Timestamp) {
            return Err(self.mismatch("NUMBER_VALUE"));
        }
        match self.place.slot() {
            Slot::Integer(place) => {
                *place = whole.and_then(|n| i32::try_from(n).ok()).ok_or_else(|| out_of_range("an Integer"))?;
            }
            Slot::Long(place) => *place = whole.ok_or_else(|| out_of_range("a Long"))?,
            Slot::Float(place) => *place = float as f32,
            Slot::Double(place) => *place = float,
            Slot::Timestamp(place) => {
                *place = Timestamp::from_seconds(float).ok_or_else(|| out_of_range("a Date"))?;
            }
            _ => return Err(out_of_range("this member")),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

impl Number {
    fn whole(self) -> Option<i64> {
        match self {
            Number::Signed(n) => Some(n),
            Number::Unsigned(n) => i64::try_from(n).ok(),
            // Beyond 2^53 a float no longer says which integer was meant.
            Number::Float(n) if n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0 => Some(n as i64),
            Number::Float(_) => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Number::Signed(n) => n as f64,
            Number::Unsigned(n) => n as f64,
            Number::Float(n) => n,
        }
    }
}

fn target(shape: &Shape) -> &'static str {
    match shape.kind {
        Kind::String => "a String",
        Kind::Integer => "an Integer",
        Kind::Long => "a Long",
        Kind::Float => "a Float",
        Kind::Double => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Blob => "a Blob",
        Kind::Timestamp => "a Date",
        _ => "this member",
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        if let Kind::Document = self.shape.kind {
            let document: Json = serde::Deserialize::deserialize(source)?;
            if !document.is_null()
                && let Slot::Document(place) = self.place.slot()
            {
                *place = document;
            }
            return Ok(());
        }
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(target(self.shape))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        if !matches!(self.shape.kind, Kind::Boolean) {
            return Err(self.mismatch(if truth { "TRUE_VALUE" } else { "FALSE_VALUE" }));
        }
        if let Slot::Boolean(place) = self.place.slot() {
            *place = truth;
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.number(Number::Signed(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.number(Number::Unsigned(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.number(Number::Float(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let budget = self.budget;
        let wrong = |text: &str| {
            budget.keep(Problem::new(text));
            E::custom("refused")
        };
        if !matches!(self.shape.kind, Kind::String | Kind::Blob | Kind::Timestamp | Kind::Float | Kind::Double) {
            return Err(self.mismatch("STRING_VALUE"));
        }
        match self.place.slot() {
            Slot::String(place) => *place = text.to_owned(),
            Slot::Blob(place) => {
                *place = from_base64(text).ok_or_else(|| wrong("Invalid base64 text in a blob member"))?;
            }
            Slot::Timestamp(place) => {
                *place = Timestamp::parse(text).ok_or_else(|| wrong("STRING_VALUE can not be converted to a Date"))?;
            }
            Slot::Float(place) => {
                let number = special(text).ok_or_else(|| wrong("STRING_VALUE can not be converted to a Float"))?;
                *place = number as f32;
            }
            Slot::Double(place) => {
                *place = special(text).ok_or_else(|| wrong("STRING_VALUE can not be converted to a Double"))?;
            }
            _ => return Err(wrong("STRING_VALUE can not be converted to this member")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<(), A::Error> {
        let Some(member) = element_of(self.shape) else { return Err(self.mismatch("list")) };
        let budget = self.budget;
        if let Slot::List(list) = self.place.slot() {
            loop {
                let seed = Seed { place: Place::Element(&mut *list), shape: member.shape, budget };
                if source.next_element_seed(seed)?.is_none() {
                    break;
                }
                budget.element(member.shape).map_err(|problem| {
                    budget.keep(problem);
                    A::Error::custom("refused")
                })?;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<(), A::Error> {
        let budget = self.budget;
        match self.shape.kind {
            Kind::Structure(structure) => {
                budget.enter().map_err(|problem| {
                    budget.keep(problem);
                    A::Error::custom("refused")
                })?;
                if let Slot::Structure(into) = self.place.slot() {
                    fields(into, structure, budget, &mut source)?;
                }
                budget.leave();
                Ok(())
            }
            Kind::Map { .. } => {
                let Some(member) = value_of(self.shape) else { return Err(self.mismatch("object")) };
                if let Slot::Map(map) = self.place.slot() {
                    while let Some(key) = source.next_key::<String>()? {
                        budget.element(member.shape).map_err(|problem| {
                            budget.keep(problem);
                            A::Error::custom("refused")
                        })?;
                        let place = Place::Entry(&mut *map, key);
                        source.next_value_seed(Seed { place, shape: member.shape, budget })?;
                    }
                }
                Ok(())
            }
            _ => Err(self.mismatch("object")),
        }
    }
}

/// The numbers that JSON can only spell as text.
fn special(text: &str) -> Option<f64> {
    parse_float(text).filter(|number| !number.is_finite())
}

/// Writes the set body members of a structure as one object.
pub(crate) fn write(value: &dyn Reflect, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        if matches!(view, View::Absent) || member.location != Location::Body {
            continue;
        }
        separate(&mut first, out);
        text(member.wire_name, out);
        out.push(b':');
        write_view(&view, member.shape, member.timestamp, out);
    }
    out.push(b'}');
}

fn separate(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_view(view: &View<'_>, shape: &'static Shape, format: Option<TimestampFormat>, out: &mut Vec<u8>) {
    match view {
        View::Absent => out.extend_from_slice(b"null"),
        View::String(value) => text(value, out),
        View::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        View::Long(number) => out.extend_from_slice(number.to_string().as_bytes()),
        View::Float(number) => float(f64::from(*number), &number.to_string(), out),
        View::Double(number) => float(*number, &serde_json::json!(number).to_string(), out),
        View::Boolean(truth) => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
        View::Blob(bytes) => text(&to_base64(bytes), out),
        View::Timestamp(time) => match format {
            Some(TimestampFormat::DateTime) => text(&time.to_rfc3339(), out),
            Some(TimestampFormat::HttpDate) => text(&time.to_http_date(), out),
            _ => out.extend_from_slice(time.to_epoch().as_bytes()),
        },
        View::Document(document) => {
            let _ = serde_json::to_writer(out, document);
        }
        View::List(list) => {
            out.push(b'[');
            let mut first = true;
            if let Some(member) = element_of(shape) {
                for index in 0..list.length() {
                    separate(&mut first, out);
                    write_view(&list.item(index), member.shape, member.timestamp, out);
                }
            }
            out.push(b']');
        }
        View::Map(map) => {
            out.push(b'{');
            let mut first = true;
            if let Some(member) = value_of(shape) {
                for (key, value) in map.entries() {
                    separate(&mut first, out);
                    text(key, out);
                    out.push(b':');
                    write_view(&value, member.shape, member.timestamp, out);
                }
            }
            out.push(b'}');
        }
        View::Structure(inner) => write(*inner, out),
    }
}

fn float(number: f64, plain: &str, out: &mut Vec<u8>) {
    match special_float(number) {
        Some(name) => text(name, out),
        None => out.extend_from_slice(plain.as_bytes()),
    }
}
