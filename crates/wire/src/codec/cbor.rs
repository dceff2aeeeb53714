//! CBOR in both directions, as rpc-v2-CBOR uses it.
//!
//! Timestamps are epoch seconds under tag 1. Indefinite lengths are read but never written. Every
//! length is checked against what is left of the body before anything is reserved.

use ciborium_ll::{Decoder, Encoder, Header, simple};

use super::{Budget, Place, Problem, element_of, value_of};
use crate::Timestamp;
use crate::schema::{Kind, Shape, Structure};
use crate::value::{Reflect, Slot, View};

type Source<'a> = Decoder<&'a [u8]>;

/// Fills a structure from a CBOR map. An empty body counts as an empty map.
pub(crate) fn read(body: &[u8], into: &mut dyn Reflect) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    let mut reader = Reader { source: Decoder::from(body), length: body.len(), budget: Budget::default() };
    let structure = into.schema();
    match reader.pull()? {
        Header::Map(count) => reader.fields(count, into, structure)?,
        _ => return Err(Problem::new("Expected structure or null")),
    }
    if reader.source.offset() != body.len() {
        return Err(Problem::new("The request body goes on after its CBOR value."));
    }
    Ok(())
}

struct Reader<'a> {
    source: Source<'a>,
    length: usize,
    budget: Budget,
}

impl Reader<'_> {
    fn pull(&mut self) -> Result<Header, Problem> {
        self.source.pull().map_err(|_| Problem::new("The request body is not valid CBOR."))
    }

    /// The bytes that are left, which bounds every length.
    fn left(&mut self) -> usize {
        self.length.saturating_sub(self.source.offset())
    }

    fn bytes(&mut self, length: Option<usize>) -> Result<Vec<u8>, Problem> {
        let broken = || Problem::new("The request body ends inside a CBOR string.");
        let left = self.left();
        if length.is_some_and(|n| n > left) {
            return Err(broken());
        }
        let mut out = Vec::new();
        let mut segments = self.source.bytes(length);
        while let Some(mut segment) = segments.pull().map_err(|_| broken())? {
            let mut buffer = [0; 4096];
            while let Some(chunk) = segment.pull(&mut buffer).map_err(|_| broken())? {
                out.extend_from_slice(chunk);
            }
        }
        Ok(out)
    }

    fn text(&mut self, length: Option<usize>) -> Result<String, Problem> {
        let broken = || Problem::new("The request body has a broken CBOR text.");
        if length.is_some() {
            // Read as bytes and checked as a whole: the text parser lets a cut-off last character pass.
            return String::from_utf8(self.bytes(length)?).map_err(|_| broken());
        }
        let mut out = String::new();
        let mut segments = self.source.text(length);
        while let Some(mut segment) = segments.pull().map_err(|_| broken())? {
            let mut buffer = [0; 4096];
            while let Some(chunk) = segment.pull(&mut buffer).map_err(|_| broken())? {
                out.push_str(chunk);
            }
        }
        Ok(out)
    }

    /// Calls `each` for every entry of an array or map until its end.
    fn entries(
        &mut self,
        count: Option<usize>,
        mut each: impl FnMut(&mut Self, Header) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.budget.enter()?;
        let mut done = 0usize;
        while count.is_none_or(|n| done < n) {
            let header = self.pull()?;
            if count.is_none() && matches!(header, Header::Break) {
                break;
            }
            each(self, header)?;
            done += 1;
        }
        self.budget.leave();
        Ok(())
    }

    fn key(&mut self, header: Header) -> Result<String, Problem> {
        match header {
            Header::Text(length) => self.text(length),
            _ => Err(Problem::new("A CBOR map has a key that is not text.")),
        }
    }

    fn fields(
        &mut self,
        count: Option<usize>,
        into: &mut dyn Reflect,
        structure: &'static Structure,
    ) -> Result<(), Problem> {
        self.entries(count, |reader, header| {
            let name = reader.key(header)?;
            let header = reader.pull()?;
            let found = structure.members.iter().enumerate().find(|(_, m)| m.wire_name == name);
            match found {
                Some((index, member)) => reader.value(header, Place::Member(into, index), member.shape),
                None => reader.skip(header),
            }
        })
    }

    fn value(&mut self, header: Header, place: Place<'_>, shape: &'static Shape) -> Result<(), Problem> {
        // Tags say nothing the shape does not.
        let header = match header {
            Header::Tag(_) => self.pull()?,
            header => header,
        };
        if let Header::Simple(simple::NULL | simple::UNDEFINED) = header {
            return Ok(());
        }
        let mismatch = || Problem::new(mismatch(&header, shape));
        match (&shape.kind, header) {
            (Kind::Structure(structure), Header::Map(count)) => {
                let structure = *structure;
                match place.slot() {
                    Slot::Structure(into) => self.fields(count, into, structure),
                    _ => Err(mismatch()),
                }
            }
            (Kind::List { .. }, Header::Array(count)) => {
                let (Slot::List(list), Some(member)) = (place.slot(), element_of(shape)) else {
                    return Err(mismatch());
                };
                self.entries(count, |reader, header| {
                    reader.budget.element(member.shape)?;
                    reader.value(header, Place::Element(&mut *list), member.shape)
                })
            }
            (Kind::Map { .. }, Header::Map(count)) => {
                let (Slot::Map(map), Some(member)) = (place.slot(), value_of(shape)) else {
                    return Err(mismatch());
                };
                self.entries(count, |reader, header| {
                    reader.budget.element(member.shape)?;
                    let key = reader.key(header)?;
                    let header = reader.pull()?;
                    reader.value(header, Place::Entry(&mut *map, key), member.shape)
                })
            }
            (Kind::String, Header::Text(length)) => {
                let text = self.text(length)?;
                if let Slot::String(slot) = place.slot() {
                    *slot = text;
                }
                Ok(())
            }
            (Kind::Blob, Header::Bytes(length)) => {
                let bytes = self.bytes(length)?;
                if let Slot::Blob(slot) = place.slot() {
                    *slot = bytes;
                }
                Ok(())
            }
            (_, Header::Positive(_) | Header::Negative(_) | Header::Float(_) | Header::Simple(_)) => {
                scalar(&header, place, shape).ok_or_else(mismatch)
            }
            _ => Err(mismatch()),
        }
    }

    fn skip(&mut self, header: Header) -> Result<(), Problem> {
        match header {
            Header::Tag(_) => {
                self.budget.enter()?;
                let header = self.pull()?;
                self.skip(header)?;
                self.budget.leave();
                Ok(())
            }
            Header::Text(length) => self.text(length).map(|_| ()),
            Header::Bytes(length) => self.bytes(length).map(|_| ()),
            Header::Array(count) => self.entries(count, |reader, header| reader.skip(header)),
            Header::Map(count) => self.entries(count, |reader, header| {
                reader.key(header)?;
                let header = reader.pull()?;
                reader.skip(header)
            }),
            Header::Break => Err(Problem::new("The request body has a stray CBOR break.")),
            _ => Ok(()),
        }
    }
}

fn scalar(header: &Header, place: Place<'_>, shape: &Shape) -> Option<()> {
    let whole = match header {
        Header::Positive(n) => i64::try_from(*n).ok(),
        // The header holds the bits' complement, so that -1 is 0.
        Header::Negative(n) => i64::try_from(*n).ok().map(|n| -1 - n),
        Header::Float(f) if f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0 => Some(*f as i64),
        _ => None,
    };
    let float = match header {
        Header::Float(f) => Some(*f),
        _ => whole.map(|n| n as f64),
    };
    if let (Kind::Boolean, Header::Simple(value)) = (&shape.kind, header) {
        let truth = match *value {
            simple::TRUE => true,
            simple::FALSE => false,
            _ => return None,
        };
        if let Slot::Boolean(slot) = place.slot() {
            *slot = truth;
        }
        return Some(());
    }
    if !matches!(shape.kind, Kind::Integer | Kind::Long | Kind::Float | Kind::Double | Kind::Timestamp) {
        return None;
    }
    match place.slot() {
        Slot::Integer(slot) => *slot = i32::try_from(whole?).ok()?,
        Slot::Long(slot) => *slot = whole?,
        Slot::Float(slot) => *slot = float? as f32,
        Slot::Double(slot) => *slot = float?,
        Slot::Timestamp(slot) => *slot = Timestamp::from_seconds(float?)?,
        _ => return None,
    }
    Some(())
}

fn mismatch(header: &Header, shape: &Shape) -> String {
    let found = match header {
        Header::Positive(_) | Header::Negative(_) | Header::Float(_) => "number",
        Header::Simple(_) => "boolean",
        Header::Text(_) => "text",
        Header::Bytes(_) => "bytes",
        Header::Array(_) => "list",
        Header::Map(_) => "map",
        Header::Tag(_) | Header::Break => "token",
    };
    let wanted = match shape.kind {
        Kind::String => "a String",
        Kind::Integer => "an Integer",
        Kind::Long => "a Long",
        Kind::Float => "a Float",
        Kind::Double => "a Double",
        Kind::Boolean => "a Boolean",
        Kind::Blob => "a Blob",
        Kind::Timestamp => "a Timestamp",
        Kind::Document => "a document",
        Kind::List { .. } => "a list",
        Kind::Map { .. } => "a map",
        Kind::Structure(_) => "a structure",
    };
    format!("Found a CBOR {found} that can not be converted to {wanted}")
}

/// Writes the set members of a structure as one map.
pub(crate) fn write(value: &dyn Reflect, out: &mut Vec<u8>) {
    let set = |index: &usize| !matches!(value.member(*index), View::Absent);
    let members = value.schema().members;
    push(out, Header::Map(Some((0..members.len()).filter(set).count())));
    for (index, member) in members.iter().enumerate() {
        let view = value.member(index);
        if !matches!(view, View::Absent) {
            text(member.wire_name, out);
            write_view(&view, member.shape, out);
        }
    }
}

/// Writes a map of texts, which is what an error is.
pub(crate) fn write_json_object(fields: &[(String, serde_json::Value)], out: &mut Vec<u8>) {
    push(out, Header::Map(Some(fields.len())));
    for (name, value) in fields {
        text(name, out);
        write_json(value, out);
    }
}

fn write_json(value: &serde_json::Value, out: &mut Vec<u8>) {
    match value {
        serde_json::Value::Null => push(out, Header::Simple(simple::NULL)),
        serde_json::Value::Bool(truth) => boolean(*truth, out),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => integer(number, out),
            None => push(out, Header::Float(number.as_f64().unwrap_or(f64::NAN))),
        },
        serde_json::Value::String(value) => text(value, out),
        serde_json::Value::Array(items) => {
            push(out, Header::Array(Some(items.len())));
            items.iter().for_each(|item| write_json(item, out));
        }
        serde_json::Value::Object(object) => {
            push(out, Header::Map(Some(object.len())));
            for (name, value) in object {
                text(name, out);
                write_json(value, out);
            }
        }
    }
}

fn push(out: &mut Vec<u8>, header: Header) {
    // Writing into memory cannot fail.
    let _ = Encoder::from(out).push(header);
}

fn text(value: &str, out: &mut Vec<u8>) {
    push(out, Header::Text(Some(value.len())));
    out.extend_from_slice(value.as_bytes());
}

fn boolean(truth: bool, out: &mut Vec<u8>) {
    push(out, Header::Simple(if truth { simple::TRUE } else { simple::FALSE }));
}

fn integer(number: i64, out: &mut Vec<u8>) {
    let header = match u64::try_from(number) {
        Ok(positive) => Header::Positive(positive),
        Err(_) => Header::Negative(number.unsigned_abs() - 1),
    };
    push(out, header);
}

fn write_view(view: &View<'_>, shape: &'static Shape, out: &mut Vec<u8>) {
    match view {
        View::Absent => push(out, Header::Simple(simple::NULL)),
        View::String(value) => text(value, out),
        View::Integer(number) => integer(i64::from(*number), out),
        View::Long(number) => integer(*number, out),
        View::Float(number) => push(out, Header::Float(f64::from(*number))),
        View::Double(number) => push(out, Header::Float(*number)),
        View::Boolean(truth) => boolean(*truth, out),
        View::Blob(bytes) => {
            push(out, Header::Bytes(Some(bytes.len())));
            out.extend_from_slice(bytes);
        }
        View::Timestamp(time) => {
            push(out, Header::Tag(1));
            if time.0 % 1000 == 0 {
                integer(time.seconds(), out);
            } else {
                push(out, Header::Float(time.0 as f64 / 1000.0));
            }
        }
        View::Document(document) => write_json(document, out),
        View::List(list) => {
            push(out, Header::Array(Some(list.length())));
            if let Some(member) = element_of(shape) {
                for index in 0..list.length() {
                    write_view(&list.item(index), member.shape, out);
                }
            }
        }
        View::Map(map) => {
            push(out, Header::Map(Some(map.length())));
            if let Some(member) = value_of(shape) {
                for (key, value) in map.entries() {
                    text(key, out);
                    write_view(&value, member.shape, out);
                }
            }
        }
        View::Structure(inner) => write(*inner, out),
    }
}
