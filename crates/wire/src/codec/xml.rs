//! The query protocols' responses: elements named by the table.

use super::form::scalar_text;
use crate::schema::{Kind, Location, Member, TimestampFormat};
use crate::value::{Reflect, View};

/// Writes the set members of a structure as elements.
pub(crate) fn write(value: &dyn Reflect, out: &mut String) {
    for (index, member) in value.schema().members.iter().enumerate() {
        let view = value.member(index);
        if !matches!(view, View::Absent) && member.location == Location::Body {
            write_view(member.wire_name, &view, member, out);
        }
    }
}

fn write_view(name: &str, view: &View<'_>, member: &'static Member, out: &mut String) {
    match (view, &member.shape.kind) {
        (View::Structure(inner), _) => {
            open(name, out);
            write(*inner, out);
            close(name, out);
        }
        (View::List(list), Kind::List { member, flattened }) => {
            let element = match (*flattened, member.wire_name) {
                (true, "member") => name,
                (_, element) => element,
            };
            if !flattened {
                open(name, out);
            }
            for index in 0..list.length() {
                write_view(element, &list.item(index), member, out);
            }
            if !flattened {
                close(name, out);
            }
        }
        (View::Map(map), Kind::Map { key, value, flattened }) => {
            let entry = if *flattened { name } else { "entry" };
            if !flattened {
                open(name, out);
            }
            for (text, view) in map.entries() {
                open(entry, out);
                element(key.wire_name, text, out);
                write_view(value.wire_name, &view, value, out);
                close(entry, out);
            }
            if !flattened {
                close(name, out);
            }
        }
        _ => {
            if let Some(text) = scalar_text(view, member.timestamp, TimestampFormat::DateTime) {
                element(name, &text, out);
            }
        }
    }
}

/// One element with text.
pub(crate) fn element(name: &str, text: &str, out: &mut String) {
    open(name, out);
    escape(text, out);
    close(name, out);
}

/// A start tag.
pub(crate) fn open(name: &str, out: &mut String) {
    out.push('<');
    out.push_str(name);
    out.push('>');
}

/// An end tag.
pub(crate) fn close(name: &str, out: &mut String) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Text as character data. Characters that XML 1.0 cannot carry become the replacement character, so
/// that one odd name does not make a whole listing unreadable.
fn escape(text: &str, out: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // A bare carriage return would be read back as a line feed.
            '\r' => out.push_str("&#xD;"),
            '\n' | '\t' => out.push(letter),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(letter),
        }
    }
}
