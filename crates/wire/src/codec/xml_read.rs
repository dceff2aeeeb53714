//! Reading XML responses, which only our own client does.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::{Budget, Place, Problem, fill_text};
use crate::request::DEPTH_LIMIT;
use crate::schema::{Kind, Member};
use crate::value::{Reflect, Slot};

/// An element without its attributes.
#[derive(Debug, Default)]
pub(crate) struct Element {
    /// Local name.
    pub name: String,
    /// Character data directly inside.
    pub text: String,
    /// Elements directly inside.
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first element of that name at any depth.
    pub(crate) fn find(&self, name: &str) -> Option<&Element> {
        self.child(name).or_else(|| self.children.iter().find_map(|child| child.find(name)))
    }
}

/// Parses a document into its root element.
pub(crate) fn parse(text: &str) -> Result<Element, Problem> {
    let broken = |_| Problem::new("The response is not valid XML.");
    let mut reader = Reader::from_str(text);
    let mut stack = vec![Element::default()];
    loop {
        match reader.read_event().map_err(broken)? {
            Event::Start(tag) => {
                if stack.len() > DEPTH_LIMIT {
                    return Err(Problem::new("The response nests too deeply."));
                }
                stack.push(named(tag.local_name().as_ref()));
            }
            Event::Empty(tag) => {
                let element = named(tag.local_name().as_ref());
                if let Some(parent) = stack.last_mut() {
                    parent.children.push(element);
                }
            }
            Event::End(_) => {
                let element = stack.pop().ok_or_else(|| Problem::new("The response is not valid XML."))?;
                match stack.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => return Err(Problem::new("The response is not valid XML.")),
                }
            }
            Event::Text(piece) => {
                if let Some(element) = stack.last_mut() {
                    element.text.push_str(&piece);
                }
            }
            Event::CData(piece) => {
                if let Some(element) = stack.last_mut() {
                    element.text.push_str(&piece);
                }
            }
            Event::GeneralRef(name) => {
                let letter = reference(&name)?;
                if let Some(element) = stack.last_mut() {
                    element.text.push(letter);
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    match (stack.pop(), stack.pop()) {
        (Some(mut document), None) if document.children.len() == 1 => {
            document.children.pop().ok_or_else(|| Problem::new("The response is empty."))
        }
        _ => Err(Problem::new("The response is not one XML document.")),
    }
}

fn named(name: &str) -> Element {
    Element { name: name.to_owned(), ..Element::default() }
}

fn reference(name: &str) -> Result<char, Problem> {
    let number = match name.strip_prefix('#') {
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        },
        None => None,
    };
    let letter = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => number.and_then(char::from_u32),
    };
    letter.ok_or_else(|| Problem::new("The response has an unknown XML entity."))
}

/// Fills a structure from the elements inside `element`.
pub(crate) fn read(element: &Element, into: &mut dyn Reflect) -> Result<(), Problem> {
    fields(element, into, &Budget::default())
}

fn fields(element: &Element, into: &mut dyn Reflect, budget: &Budget) -> Result<(), Problem> {
    for (index, member) in into.schema().members.iter().enumerate() {
        let flat = matches!(member.shape.kind, Kind::List { flattened: true, .. } | Kind::Map { flattened: true, .. });
        if flat {
            flattened(element, into, index, member, budget)?;
        } else if let Some(child) = element.child(member.wire_name) {
            value(child, Place::Member(into, index), member, budget)?;
        }
    }
    Ok(())
}

fn flattened(
    element: &Element,
    into: &mut dyn Reflect,
    index: usize,
    member: &'static Member,
    budget: &Budget,
) -> Result<(), Problem> {
    let name = match &member.shape.kind {
        Kind::List { member: inner, .. } if inner.wire_name != "member" => inner.wire_name,
        _ => member.wire_name,
    };
    for child in element.children.iter().filter(|child| child.name == name) {
        budget.element(member.shape)?;
        match (&member.shape.kind, into.member_mut(index)) {
            (Kind::List { member, .. }, Slot::List(list)) => value(child, Place::Element(list), member, budget)?,
            (Kind::Map { .. }, Slot::Map(map)) => entry(child, map, member, budget)?,
            _ => {}
        }
    }
    Ok(())
}

fn entry(
    element: &Element,
    map: &mut dyn crate::value::Mapping,
    member: &'static Member,
    budget: &Budget,
) -> Result<(), Problem> {
    if let Kind::Map { key, value: inner, .. } = &member.shape.kind
        && let Some(name) = element.child(key.wire_name)
        && let Some(child) = element.child(inner.wire_name)
    {
        value(child, Place::Entry(map, name.text.clone()), inner, budget)?;
    }
    Ok(())
}

fn value(element: &Element, place: Place<'_>, member: &'static Member, budget: &Budget) -> Result<(), Problem> {
    match (&member.shape.kind, place.slot()) {
        (Kind::Structure(_), Slot::Structure(into)) => fields(element, into, budget),
        (Kind::List { member, .. }, Slot::List(list)) => {
            for child in element.children.iter().filter(|child| child.name == member.wire_name) {
                budget.element(member.shape)?;
                value(child, Place::Element(&mut *list), member, budget)?;
            }
            Ok(())
        }
        (Kind::Map { .. }, Slot::Map(map)) => {
            for child in element.children.iter().filter(|child| child.name == "entry") {
                budget.element(member.shape)?;
                entry(child, &mut *map, member, budget)?;
            }
            Ok(())
        }
        (_, slot) => fill_text(slot, &element.text, &element.name),
    }
}
