//! The query protocols' requests: form parameters whose names are paths into the structure.
//!
//! Plain query services say `Tags.member.1.Key`, EC2 says `Tag.1.Key`. Both are read from one sorted
//! table of parameters, in which a structure's members are the entries under its prefix.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::{Budget, Place, Problem, fill_text, special_float, to_base64};
use crate::schema::{Kind, Location, Member, Shape, Structure, TimestampFormat};
use crate::value::{Reflect, Slot, View};

/// Parameters in one request; the longest honest ones carry a few thousand.
const PARAMETER_LIMIT: usize = 50_000;

/// Dots in one parameter's name.
const SEGMENT_LIMIT: usize = 64;

/// Which query protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// IAM, STS and the others.
    Query,
    /// EC2.
    Ec2,
}

/// The decoded parameters of a form.
#[derive(Debug, Default)]
pub(crate) struct Form {
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Debug)]
struct Parameter {
    value: String,
    used: Cell<bool>,
}

impl Form {
    /// Adds the pairs of a query string or form body. The first value of a name wins.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), Problem> {
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (unescape(name)?, unescape(value)?);
            if name.split('.').count() > SEGMENT_LIMIT {
                return Err(Problem::new("A parameter's name nests too deeply."));
            }
            self.parameters.entry(name).or_insert(Parameter { value, used: Cell::new(false) });
            if self.parameters.len() > PARAMETER_LIMIT {
                return Err(Problem::new(format!("The request has more than {PARAMETER_LIMIT} parameters.")));
            }
        }
        Ok(())
    }

    /// The value of exactly this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let parameter = self.parameters.get(name)?;
        parameter.used.set(true);
        Some(&parameter.value)
    }

    /// The first parameter nobody asked for.
    pub(crate) fn unused(&self) -> Option<&str> {
        let signing = |name: &str| name.starts_with("X-Amz-") || name.starts_with("AWSAccessKeyId");
        self.parameters
            .iter()
            .find(|(name, parameter)| !parameter.used.get() && !signing(name))
            .map(|(name, _)| name.as_str())
    }

    fn has(&self, prefix: &str) -> bool {
        self.parameters.contains_key(prefix) || self.under(&format!("{prefix}.")).next().is_some()
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = &str> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        self.parameters.range::<str, _>(from).map(|(name, _)| name.as_str()).take_while({
            let prefix = prefix.to_owned();
            move |name| name.starts_with(&prefix)
        })
    }

    /// The numbers that follow the prefix, in order. Gaps are allowed, as at Amazon.
    fn numbers(&self, prefix: &str) -> Result<BTreeSet<u32>, Problem> {
        let mut found = BTreeSet::new();
        for name in self.under(prefix) {
            let rest = name.get(prefix.len()..).unwrap_or_default();
            let number = rest.split('.').next().unwrap_or_default();
            let number =
                number.parse().map_err(|_| Problem::about(name, format!("'{number}' is not a position in a list.")))?;
            found.insert(number);
        }
        Ok(found)
    }
}

/// Decodes `%41` and `+`; text that is not UTF-8 is refused.
fn unescape(text: &str) -> Result<String, Problem> {
    let broken = || Problem::new("A parameter is not correctly percent-encoded.");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let pair = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = pair else { return Err(broken()) };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| broken())
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Fills a structure from the parameters.
pub(crate) fn read(form: &Form, dialect: Dialect, into: &mut dyn Reflect) -> Result<(), Problem> {
    let reader = Reader { form, dialect, budget: Budget::default() };
    let structure = into.schema();
    reader.fields("", into, structure)
}

struct Reader<'a> {
    form: &'a Form,
    dialect: Dialect,
    budget: Budget,
}

impl Reader<'_> {
    fn fields(&self, prefix: &str, into: &mut dyn Reflect, structure: &'static Structure) -> Result<(), Problem> {
        self.budget.enter()?;
        for (index, member) in structure.members.iter().enumerate() {
            let path = list_name(join(prefix, name(member, self.dialect)), member.shape, self.dialect);
            if self.form.has(&path) {
                self.value(&path, Place::Member(into, index), member.shape)?;
            }
        }
        self.budget.leave();
        Ok(())
    }

    fn value(&self, path: &str, place: Place<'_>, shape: &'static Shape) -> Result<(), Problem> {
        match (&shape.kind, place.slot()) {
            (Kind::Structure(structure), Slot::Structure(into)) => {
                // An empty structure comes as its bare name.
                let _ = self.form.get(path);
                self.fields(path, into, structure)
            }
            (Kind::List { member, flattened }, Slot::List(list)) => {
                let _ = self.form.get(path);
                let prefix = match self.dialect {
                    Dialect::Query if !flattened => format!("{path}.{}.", element_name(member)),
                    _ => format!("{path}."),
                };
                for number in self.form.numbers(&prefix)? {
                    self.budget.element(member.shape)?;
                    let path = format!("{prefix}{number}");
                    self.value(&path, Place::Element(&mut *list), member.shape)?;
                }
                Ok(())
            }
            (Kind::Map { key, value, flattened }, Slot::Map(map)) => {
                let _ = self.form.get(path);
                let prefix = if *flattened { format!("{path}.") } else { format!("{path}.entry.") };
                for number in self.form.numbers(&prefix)? {
                    self.budget.element(value.shape)?;
                    let key_path = format!("{prefix}{number}.{}", key.wire_name);
                    let text = self
                        .form
                        .get(&key_path)
                        .ok_or_else(|| Problem::about(&key_path, format!("The map entry {key_path} is missing.")))?;
                    let path = format!("{prefix}{number}.{}", value.wire_name);
                    if self.form.has(&path) {
                        let place = Place::Entry(&mut *map, text.to_owned());
                        self.value(&path, place, value.shape)?;
                    }
                }
                Ok(())
            }
            (_, slot) => match self.form.get(path) {
                Some(text) => fill_text(slot, text, path),
                None => Err(Problem::about(path, format!("The parameter {path} takes a single value."))),
            },
        }
    }
}

fn name(member: &'static Member, dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Query => member.wire_name,
        Dialect::Ec2 => member.query_name,
    }
}

fn element_name(member: &'static Member) -> &'static str {
    member.wire_name
}

/// A flattened list of the plain dialect is named after its element where that has a name.
fn list_name(path: String, shape: &'static Shape, dialect: Dialect) -> String {
    match &shape.kind {
        Kind::List { member, flattened: true } if dialect == Dialect::Query && member.wire_name != "member" => {
            match path.rsplit_once('.') {
                Some((parent, _)) => format!("{parent}.{}", member.wire_name),
                None => member.wire_name.to_owned(),
            }
        }
        _ => path,
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Writes a structure as parameters, for our own client.
pub(crate) fn write(value: &dyn Reflect, dialect: Dialect) -> Vec<(String, String)> {
    let mut out = Vec::new();
    write_fields("", value, dialect, &mut out);
    out
}

fn write_fields(prefix: &str, value: &dyn Reflect, dialect: Dialect, out: &mut Vec<(String, String)>) {
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        if matches!(view, View::Absent) || member.location != Location::Body {
            continue;
        }
        let path = list_name(join(prefix, name(member, dialect)), member.shape, dialect);
        write_view(path, &view, member, dialect, out);
    }
}

fn write_view(
    path: String,
    view: &View<'_>,
    member: &'static Member,
    dialect: Dialect,
    out: &mut Vec<(String, String)>,
) {
    match (view, &member.shape.kind) {
        (View::Structure(inner), _) => write_fields(&path, *inner, dialect, out),
        (View::List(list), Kind::List { member, flattened }) => {
            if list.length() == 0 && dialect == Dialect::Query {
                out.push((path, String::new()));
                return;
            }
            let prefix = match dialect {
                Dialect::Query if !flattened => format!("{path}.{}", element_name(member)),
                _ => path,
            };
            for index in 0..list.length() {
                write_view(format!("{prefix}.{}", index + 1), &list.item(index), member, dialect, out);
            }
        }
        (View::Map(map), Kind::Map { key, value, flattened }) => {
            let prefix = if *flattened { path } else { format!("{path}.entry") };
            for (index, (name, view)) in map.entries().iter().enumerate() {
                let number = index + 1;
                out.push((format!("{prefix}.{number}.{}", key.wire_name), (*name).to_owned()));
                write_view(format!("{prefix}.{number}.{}", value.wire_name), view, value, dialect, out);
            }
        }
        _ => out.extend(scalar_text(view, member.timestamp, TimestampFormat::DateTime).map(|text| (path, text))),
    }
}

/// A scalar as the text protocols spell it; `None` for anything else.
pub(crate) fn scalar_text(view: &View<'_>, format: Option<TimestampFormat>, habit: TimestampFormat) -> Option<String> {
    Some(match view {
        View::String(text) => (*text).to_owned(),
        View::Integer(number) => number.to_string(),
        View::Long(number) => number.to_string(),
        View::Float(number) => special_float(f64::from(*number)).map_or_else(|| number.to_string(), str::to_owned),
        View::Double(number) => special_float(*number).map_or_else(|| number.to_string(), str::to_owned),
        View::Boolean(truth) => truth.to_string(),
        View::Blob(bytes) => to_base64(bytes),
        View::Timestamp(time) => match format.unwrap_or(habit) {
            TimestampFormat::EpochSeconds => time.to_epoch(),
            TimestampFormat::DateTime => time.to_rfc3339(),
            TimestampFormat::HttpDate => time.to_http_date(),
        },
        View::Document(document) => document.to_string(),
        View::Absent | View::List(_) | View::Map(_) | View::Structure(_) => return None,
    })
}

/// Percent-encodes everything but unreserved characters (RFC 3986), as SigV4, forms and queries want it.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    out
}
