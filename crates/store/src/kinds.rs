//! The kinds of resources a store knows, each with how it is read from and written to JSON.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};

use domain::Resource;

/// A resource whose type is known only by its kind. It never changes, so values are equal when they are the same object;
/// what was written again counts as another one.
#[derive(Clone)]
pub(crate) struct Value(Arc<dyn Any + Send + Sync>);

impl Value {
    pub(crate) fn new<T: Resource>(resource: T) -> Self {
        Self(Arc::new(resource))
    }

    pub(crate) fn typed<T: Resource>(&self) -> Option<Arc<T>> {
        self.0.clone().downcast().ok()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// An index entry of a value: index name and the value found there.
pub(crate) type Entry = (&'static str, String);

/// All of a value.
pub(crate) type Entries = Vec<Entry>;

/// A function from JSON to a value with its index entries.
type Read = fn(&[u8]) -> Result<(Value, Entries), serde_json::Error>;

/// One kind.
#[derive(Clone)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) durable: bool,
    pub(crate) read: Read,
}

/// The kinds of resources a store knows. Every kind used with a store must be in it: using another one is a mistake
/// in the program, and [`crate::Snapshot`] then behaves as if there were no such resource.
#[derive(Clone, Default)]
pub struct Kinds {
    pub(crate) list: Vec<Kind>,
    pub(crate) by_type: HashMap<TypeId, usize>,
}

impl Kinds {
    /// No kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind that is kept on disk.
    #[must_use]
    pub fn durable<T: Resource>(self) -> Self {
        self.with::<T>(true)
    }

    /// Adds a kind that is kept in memory only, and is gone after a restart.
    #[must_use]
    pub fn volatile<T: Resource>(self) -> Self {
        self.with::<T>(false)
    }

    fn with<T: Resource>(mut self, durable: bool) -> Self {
        if self.by_type.insert(TypeId::of::<T>(), self.list.len()).is_none() {
            self.list.push(Kind { name: T::KIND, durable, read: read::<T> });
        }
        self
    }

    pub(crate) fn index_of<T: Resource>(&self) -> Option<usize> {
        self.by_type.get(&TypeId::of::<T>()).copied()
    }

    pub(crate) fn index_of_name(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|kind| kind.name == name)
    }
}

fn read<T: Resource>(json: &[u8]) -> Result<(Value, Entries), serde_json::Error> {
    let value: T = serde_json::from_slice(json)?;
    let indexes = value.indexes();
    Ok((Value::new(value), indexes))
}
