//! How the codecs see generated structures: members by position, values by kind.
//!
//! The generated code only says which field stands at which position ([`crate::reflect!`]); all
//! knowledge of names and traits is in the [`crate::schema`] tables. Debug output and equality are
//! written once here as well, so that thousands of structures need no derived code for them, and
//! so that no sensitive member can reach a log.

use std::collections::BTreeMap;
use std::fmt;

use crate::Timestamp;
use crate::schema::{EMPTY, Kind, Shape, Structure};

/// Free-form JSON, for the few members the models leave open.
pub type Document = serde_json::Value;

/// A value being read out of a structure.
pub enum View<'a> {
    /// The member is not set.
    Absent,
    /// Text.
    String(&'a str),
    /// 32-bit integer.
    Integer(i32),
    /// 64-bit integer.
    Long(i64),
    /// Single precision.
    Float(f32),
    /// Double precision.
    Double(f64),
    /// Truth value.
    Boolean(bool),
    /// Bytes.
    Blob(&'a [u8]),
    /// Point in time.
    Timestamp(Timestamp),
    /// Any JSON.
    Document(&'a Document),
    /// List.
    List(&'a dyn Sequence),
    /// Map.
    Map(&'a dyn Mapping),
    /// Structure.
    Structure(&'a dyn Reflect),
}

/// A place in a structure that a decoder fills.
pub enum Slot<'a> {
    /// There is no such member.
    Missing,
    /// Text.
    String(&'a mut String),
    /// 32-bit integer.
    Integer(&'a mut i32),
    /// 64-bit integer.
    Long(&'a mut i64),
    /// Single precision.
    Float(&'a mut f32),
    /// Double precision.
    Double(&'a mut f64),
    /// Truth value.
    Boolean(&'a mut bool),
    /// Bytes.
    Blob(&'a mut Vec<u8>),
    /// Point in time.
    Timestamp(&'a mut Timestamp),
    /// Any JSON.
    Document(&'a mut Document),
    /// List.
    List(&'a mut dyn Sequence),
    /// Map.
    Map(&'a mut dyn Mapping),
    /// Structure.
    Structure(&'a mut dyn Reflect),
}

/// A generated structure, seen by position.
pub trait Reflect: Send + Sync + 'static {
    /// Its table.
    fn schema(&self) -> &'static Structure;
    /// The member at this position of the table.
    fn member(&self, index: usize) -> View<'_>;
    /// The same member, set to its empty value first when it was absent.
    fn member_mut(&mut self, index: usize) -> Slot<'_>;
}

/// Anything a member may hold.
pub trait Value: Send + Sync + 'static {
    /// Reads it.
    fn view(&self) -> View<'_>;
    /// Makes room for it.
    fn slot(&mut self) -> Slot<'_>;
}

/// A list, seen by position.
pub trait Sequence: Send + Sync {
    /// Number of elements.
    fn length(&self) -> usize;
    /// The element at this position.
    fn item(&self, index: usize) -> View<'_>;
    /// Appends an empty element and returns it.
    fn append(&mut self) -> Slot<'_>;
}

/// A map with text keys.
pub trait Mapping: Send + Sync {
    /// Number of entries.
    fn length(&self) -> usize;
    /// All entries in key order.
    fn entries(&self) -> Vec<(&str, View<'_>)>;
    /// Inserts an empty value under the key and returns it.
    fn insert_key(&mut self, key: String) -> Slot<'_>;
}

macro_rules! scalar {
    ($($type:ty => $kind:ident),* $(,)?) => { $(
        impl Value for $type {
            fn view(&self) -> View<'_> {
                View::$kind(*self)
            }
            fn slot(&mut self) -> Slot<'_> {
                Slot::$kind(self)
            }
        }
    )* };
}

scalar!(
    i32 => Integer,
    i64 => Long,
    f32 => Float,
    f64 => Double,
    bool => Boolean,
    Timestamp => Timestamp,
);

impl Value for String {
    fn view(&self) -> View<'_> {
        View::String(self)
    }
    fn slot(&mut self) -> Slot<'_> {
        Slot::String(self)
    }
}

impl Value for Vec<u8> {
    fn view(&self) -> View<'_> {
        View::Blob(self)
    }
    fn slot(&mut self) -> Slot<'_> {
        Slot::Blob(self)
    }
}

impl Value for Document {
    fn view(&self) -> View<'_> {
        View::Document(self)
    }
    fn slot(&mut self) -> Slot<'_> {
        Slot::Document(self)
    }
}

// Never inlined: thousands of members share these few functions.
impl<T: Value + Default> Value for Option<T> {
    #[inline(never)]
    fn view(&self) -> View<'_> {
        match self {
            Some(value) => value.view(),
            None => View::Absent,
        }
    }
    #[inline(never)]
    fn slot(&mut self) -> Slot<'_> {
        self.get_or_insert_default().slot()
    }
}

impl<T: Value + Default> Value for Vec<T> {
    fn view(&self) -> View<'_> {
        View::List(self)
    }
    fn slot(&mut self) -> Slot<'_> {
        Slot::List(self)
    }
}

impl<T: Value + Default> Sequence for Vec<T> {
    fn length(&self) -> usize {
        self.len()
    }
    fn item(&self, index: usize) -> View<'_> {
        self.get(index).map_or(View::Absent, Value::view)
    }
    fn append(&mut self) -> Slot<'_> {
        self.push(T::default());
        self.last_mut().map_or(Slot::Missing, Value::slot)
    }
}

impl<T: Value + Default> Value for BTreeMap<String, T> {
    fn view(&self) -> View<'_> {
        View::Map(self)
    }
    fn slot(&mut self) -> Slot<'_> {
        Slot::Map(self)
    }
}

impl<T: Value + Default> Mapping for BTreeMap<String, T> {
    fn length(&self) -> usize {
        self.len()
    }
    fn entries(&self) -> Vec<(&str, View<'_>)> {
        self.iter().map(|(key, value)| (key.as_str(), value.view())).collect()
    }
    fn insert_key(&mut self, key: String) -> Slot<'_> {
        self.entry(key).or_default().slot()
    }
}

impl Reflect for () {
    fn schema(&self) -> &'static Structure {
        &EMPTY
    }
    fn member(&self, _: usize) -> View<'_> {
        View::Absent
    }
    fn member_mut(&mut self, _: usize) -> Slot<'_> {
        Slot::Missing
    }
}

/// Ties generated structures to their tables.
///
/// `reflect! { Tag schema::TAG { 0 key, 1 value } }` implements [`Reflect`], [`Value`], `Debug` (with
/// sensitive members hidden) and `PartialEq`. All of it is `#[inline]`, so that code is made where a
/// structure is used, and none for the operations nobody serves.
#[macro_export]
macro_rules! reflect {
    ($($type:ident $module:ident :: $table:ident { $($index:literal $field:ident),* $(,)? })*) => { $(
        impl $crate::Reflect for $type {
            #[inline]
            fn schema(&self) -> &'static $crate::schema::Structure {
                &$module::$table
            }
            #[inline]
            fn member(&self, index: usize) -> $crate::View<'_> {
                match index {
                    $($index => $crate::Value::view(&self.$field),)*
                    _ => $crate::View::Absent,
                }
            }
            #[inline]
            fn member_mut(&mut self, index: usize) -> $crate::Slot<'_> {
                match index {
                    $($index => $crate::Value::slot(&mut self.$field),)*
                    _ => $crate::Slot::Missing,
                }
            }
        }
        impl $crate::Value for $type {
            #[inline]
            fn view(&self) -> $crate::View<'_> {
                $crate::View::Structure(self)
            }
            #[inline]
            fn slot(&mut self) -> $crate::Slot<'_> {
                $crate::Slot::Structure(self)
            }
        }
        impl ::std::fmt::Debug for $type {
            #[inline]
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                $crate::value::debug(self, f)
            }
        }
        impl PartialEq for $type {
            #[inline]
            fn eq(&self, other: &Self) -> bool {
                $crate::value::equal(self, other)
            }
        }
    )* };
}

/// Writes the set members of a structure, sensitive ones hidden.
pub fn debug(value: &dyn Reflect, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let schema = value.schema();
    let mut out = f.debug_struct(schema.name);
    for (index, member) in schema.members.iter().enumerate() {
        let view = value.member(index);
        if !matches!(view, View::Absent) {
            out.field(member.name, &Shown { view, shape: member.shape, hidden: schema.sensitive });
        }
    }
    out.finish()
}

struct Shown<'a> {
    view: View<'a>,
    shape: &'static Shape,
    hidden: bool,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.hidden || self.shape.sensitive;
        match (&self.view, &self.shape.kind) {
            (View::List(list), Kind::List { member, .. }) => {
                let shape = member.shape;
                let items = (0..list.length()).map(|index| Shown { view: list.item(index), shape, hidden });
                f.debug_list().entries(items).finish()
            }
            (View::Map(map), Kind::Map { value, .. }) => {
                let shape = value.shape;
                let entries = map.entries().into_iter();
                f.debug_map().entries(entries.map(|(key, view)| (key, Shown { view, shape, hidden }))).finish()
            }
            (View::Structure(inner), _) if !hidden => debug(*inner, f),
            _ if hidden => f.write_str("<sensitive>"),
            (View::String(text), _) => write!(f, "{text:?}"),
            (View::Integer(number), _) => write!(f, "{number}"),
            (View::Long(number), _) => write!(f, "{number}"),
            (View::Float(number), _) => write!(f, "{number}"),
            (View::Double(number), _) => write!(f, "{number}"),
            (View::Boolean(truth), _) => write!(f, "{truth}"),
            (View::Blob(bytes), _) => write!(f, "<{} bytes>", bytes.len()),
            (View::Timestamp(time), _) => write!(f, "{time:?}"),
            (View::Document(document), _) => write!(f, "{document}"),
            _ => f.write_str("<absent>"),
        }
    }
}

/// Whether two structures hold the same members with the same values.
pub fn equal(left: &dyn Reflect, right: &dyn Reflect) -> bool {
    let schema = left.schema();
    std::ptr::eq(schema, right.schema())
        && (0..schema.members.len()).all(|index| same(&left.member(index), &right.member(index)))
}

fn same(left: &View<'_>, right: &View<'_>) -> bool {
    match (left, right) {
        (View::Absent, View::Absent) => true,
        (View::String(a), View::String(b)) => a == b,
        (View::Integer(a), View::Integer(b)) => a == b,
        (View::Long(a), View::Long(b)) => a == b,
        (View::Float(a), View::Float(b)) => a == b,
        (View::Double(a), View::Double(b)) => a == b,
        (View::Boolean(a), View::Boolean(b)) => a == b,
        (View::Blob(a), View::Blob(b)) => a == b,
        (View::Timestamp(a), View::Timestamp(b)) => a == b,
        (View::Document(a), View::Document(b)) => a == b,
        (View::List(a), View::List(b)) => {
            a.length() == b.length() && (0..a.length()).all(|i| same(&a.item(i), &b.item(i)))
        }
        (View::Map(a), View::Map(b)) => {
            let (a, b) = (a.entries(), b.entries());
            a.len() == b.len() && a.iter().zip(&b).all(|((ka, va), (kb, vb))| ka == kb && same(va, vb))
        }
        (View::Structure(a), View::Structure(b)) => equal(*a, *b),
        _ => false,
    }
}
