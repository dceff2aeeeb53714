//! Checking an input against its model: required members, lengths, ranges, patterns, enumerations.
//!
//! The words are those of Amazon's own frameworks, which differ by family: most services list all
//! violations in one message, ECR names one, EC2 has its own codes.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, OnceLock, RwLock};

use regex::Regex;

use crate::error::ServiceError;
use crate::schema::{Kind, Member, Operation, Pattern, Shape, Validation};
use crate::value::{Reflect, View};

/// Violations reported in one message.
const REPORTED: usize = 10;

/// Characters of a value repeated in a message.
const SHOWN: usize = 256;

/// Refuses an input its model forbids, in the service's words.
pub(crate) fn validate(operation: &'static Operation, input: &dyn Reflect) -> Result<(), ServiceError> {
    let mut checker = Checker { violations: Vec::new(), ec2: operation.service.validation == Validation::Ec2 };
    checker.structure("", input, false);
    if checker.violations.is_empty() {
        return Ok(());
    }
    Err(word(operation.service.validation, &checker.violations))
}

/// One broken constraint.
struct Violation {
    /// Where, such as `containerDefinitions.1.member.name`.
    path: String,
    /// What was there; `None` when nothing was, or when it must not be repeated.
    value: Option<String>,
    /// The constraint in Amazon's words.
    constraint: String,
    /// Whether the member is absent.
    missing: bool,
}

fn word(style: Validation, violations: &[Violation]) -> ServiceError {
    let first = violations.first();
    match style {
        Validation::Listed(code) => {
            let count = violations.len();
            let plural = if count == 1 { "error" } else { "errors" };
            let mut text = format!("{count} validation {plural} detected: ");
            for (index, violation) in violations.iter().enumerate() {
                let separator = if index == 0 { "" } else { "; " };
                let _ = match &violation.value {
                    Some(value) => write!(text, "{separator}Value '{value}' at '{}'", violation.path),
                    None => write!(text, "{separator}Value at '{}'", violation.path),
                };
                let _ = write!(text, " failed to satisfy constraint: {}", violation.constraint);
            }
            let query_code = if code == "ValidationException" { "ValidationError" } else { code };
            ServiceError::new(code, text).query(query_code)
        }
        Validation::Ecr => {
            let (path, constraint) = first.map_or(("", ""), |v| (&v.path, &v.constraint));
            let constraint = match constraint.strip_prefix("Member must satisfy regular expression pattern: ") {
                Some(pattern) => format!("must satisfy regular expression '{pattern}'"),
                None => constraint.strip_prefix("Member ").unwrap_or(constraint).to_owned(),
            };
            let text = format!("Invalid parameter at '{path}' failed to satisfy constraint: '{constraint}'");
            ServiceError::new("InvalidParameterException", text)
        }
        Validation::Ec2 => match first {
            Some(violation) if violation.missing => {
                let text = format!("The request must contain the parameter {}", violation.path);
                ServiceError::new("MissingParameter", text)
            }
            Some(violation) => {
                let value = violation.value.as_deref().unwrap_or_default();
                let text =
                    format!("Value ({value}) for parameter {} is invalid. {}", violation.path, violation.constraint);
                ServiceError::new("InvalidParameterValue", text)
            }
            None => ServiceError::new("InvalidParameterValue", "A parameter is invalid."),
        },
    }
}

struct Checker {
    violations: Vec<Violation>,
    ec2: bool,
}

impl Checker {
    fn structure(&mut self, path: &str, value: &dyn Reflect, hidden: bool) {
        let schema = value.schema();
        let hidden = hidden || schema.sensitive;
        for (index, member) in schema.members.iter().enumerate() {
            if self.violations.len() >= REPORTED {
                return;
            }
            let path = self.join(path, member);
            match value.member(index) {
                View::Absent if member.required => self.violations.push(Violation {
                    path,
                    value: None,
                    constraint: "Member must not be null".to_owned(),
                    missing: true,
                }),
                View::Absent => {}
                view => self.value(&path, &view, member.shape, hidden),
            }
        }
    }

    /// Amazon's frameworks write member names with a small first letter, EC2 as in the request.
    fn join(&self, path: &str, member: &'static Member) -> String {
        let name = if self.ec2 { member.query_name.to_owned() } else { uncapitalised(member.name) };
        if path.is_empty() { name } else { format!("{path}.{name}") }
    }

    fn value(&mut self, path: &str, view: &View<'_>, shape: &'static Shape, hidden: bool) {
        let hidden = hidden || shape.sensitive;
        for constraint in broken(view, shape) {
            let value = (!hidden).then(|| show(view));
            self.violations.push(Violation { path: path.to_owned(), value, constraint, missing: false });
        }
        match (view, &shape.kind) {
            (View::Structure(inner), _) => self.structure(path, *inner, hidden),
            (View::List(list), Kind::List { member, .. }) => {
                let nested = matches!(member.shape.kind, Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. });
                for index in 0..list.length() {
                    if self.violations.len() >= REPORTED {
                        return;
                    }
                    let item = list.item(index);
                    if nested {
                        let number = index + 1;
                        let path =
                            if self.ec2 { format!("{path}.{number}") } else { format!("{path}.{number}.member") };
                        self.value(&path, &item, member.shape, hidden);
                    } else if self.inner(path, view, &item, member.shape, hidden, "Member") {
                        // One element speaks for the list, whose constraints the message gives in full.
                        break;
                    }
                }
            }
            (View::Map(map), Kind::Map { key, value, .. }) => {
                for (name, item) in map.entries() {
                    if self.violations.len() >= REPORTED {
                        return;
                    }
                    if self.inner(path, view, &View::String(name), key.shape, hidden, "Map keys") {
                        break;
                    }
                    if matches!(value.shape.kind, Kind::Structure(_) | Kind::List { .. } | Kind::Map { .. }) {
                        self.value(&format!("{path}.{name}.member"), &item, value.shape, hidden);
                    } else if self.inner(path, view, &item, value.shape, hidden, "Map value") {
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks an element; its violation is reported at the list or map around it.
    fn inner(
        &mut self,
        path: &str,
        whole: &View<'_>,
        item: &View<'_>,
        shape: &'static Shape,
        hidden: bool,
        subject: &str,
    ) -> bool {
        if broken(item, shape).is_empty() {
            return false;
        }
        let all = constraints(shape).join(", ");
        let constraint = format!("{subject} must satisfy constraint: [{all}]");
        let value = (!hidden && !shape.sensitive).then(|| show(whole));
        self.violations.push(Violation { path: path.to_owned(), value, constraint, missing: false });
        true
    }
}

fn uncapitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The constraints of a shape that this value breaks.
fn broken(view: &View<'_>, shape: &'static Shape) -> Vec<String> {
    let mut out = Vec::new();
    let (size, noun) = match view {
        View::String(text) => (text.chars().count() as f64, "length"),
        View::Blob(bytes) => (bytes.len() as f64, "length"),
        View::List(list) => (list.length() as f64, "length"),
        View::Map(map) => (map.length() as f64, "length"),
        View::Integer(number) => (f64::from(*number), "value"),
        View::Long(number) => (*number as f64, "value"),
        View::Float(number) => (f64::from(*number), "value"),
        View::Double(number) => (*number, "value"),
        _ => return out,
    };
    if let Some(max) = shape.max.filter(|max| size > *max) {
        out.push(at_most(noun, max));
    }
    if let Some(min) = shape.min.filter(|min| size < *min) {
        out.push(at_least(noun, min));
    }
    if let View::String(text) = view {
        if !shape.values.is_empty() && !shape.values.contains(text) {
            out.push(one_of(shape.values));
        }
        if let Some(pattern) = shape.pattern.as_ref().filter(|pattern| !matches(pattern, text)) {
            out.push(like(pattern));
        }
    }
    out
}

/// Every constraint of a shape, as Amazon lists them.
fn constraints(shape: &'static Shape) -> Vec<String> {
    let number = matches!(shape.kind, Kind::Integer | Kind::Long | Kind::Float | Kind::Double);
    let noun = if number { "value" } else { "length" };
    let mut out = Vec::new();
    out.extend(shape.max.map(|max| at_most(noun, max)));
    out.extend(shape.min.map(|min| at_least(noun, min)));
    if !shape.values.is_empty() {
        out.push(one_of(shape.values));
    }
    out.extend(shape.pattern.as_ref().map(like));
    out
}

fn at_most(noun: &str, max: f64) -> String {
    format!("Member must have {noun} less than or equal to {max}")
}

fn at_least(noun: &str, min: f64) -> String {
    format!("Member must have {noun} greater than or equal to {min}")
}

fn one_of(values: &[&str]) -> String {
    format!("Member must satisfy enum value set: [{}]", values.join(", "))
}

fn like(pattern: &Pattern) -> String {
    format!("Member must satisfy regular expression pattern: {}", pattern.text)
}

/// A value as messages repeat it, cut short.
fn show(view: &View<'_>) -> String {
    let mut out = String::new();
    show_into(view, &mut out);
    if out.chars().count() > SHOWN {
        out = out.chars().take(SHOWN).chain("...".chars()).collect();
    }
    out
}

fn show_into(view: &View<'_>, out: &mut String) {
    if out.len() > SHOWN * 4 {
        return;
    }
    let _ = match view {
        View::String(text) => write!(out, "{text}"),
        View::Integer(number) => write!(out, "{number}"),
        View::Long(number) => write!(out, "{number}"),
        View::Float(number) => write!(out, "{number}"),
        View::Double(number) => write!(out, "{number}"),
        View::List(list) => {
            out.push('[');
            for index in 0..list.length() {
                if index > 0 {
                    out.push_str(", ");
                }
                show_into(&list.item(index), out);
            }
            out.push(']');
            Ok(())
        }
        View::Map(map) => {
            out.push('{');
            for (index, (key, value)) in map.entries().iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                let _ = write!(out, "{separator}{key}=");
                show_into(value, out);
            }
            out.push('}');
            Ok(())
        }
        View::Structure(inner) => write!(out, "{}", inner.schema().name),
        _ => Ok(()),
    };
}

/// Patterns by their source; `None` for one that does not compile, which codegen has ruled out.
type Compiled = HashMap<&'static str, Option<Arc<Regex>>>;

/// Compiled patterns, each built when first needed. The `regex` crate runs in linear time, so that no
/// text a caller sends can make one slow.
fn matches(pattern: &'static Pattern, text: &str) -> bool {
    static COMPILED: OnceLock<RwLock<Compiled>> = OnceLock::new();
    if pattern.regex.is_empty() {
        // Needs look-around, which the handlers of those few members check themselves.
        return true;
    }
    let cache = COMPILED.get_or_init(RwLock::default);
    let known = cache.read().ok().and_then(|cache| cache.get(pattern.regex).cloned());
    let regex = known.unwrap_or_else(|| {
        let built = Regex::new(pattern.regex).ok().map(Arc::new);
        if let Ok(mut cache) = cache.write() {
            cache.insert(pattern.regex, built.clone());
        }
        built
    });
    regex.is_none_or(|regex| regex.is_match(text))
}
