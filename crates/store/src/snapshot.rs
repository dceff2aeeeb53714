//! An immutable view of everything in the store.

use std::{ops::Bound, sync::Arc};

use domain::Resource;
use imbl::{OrdMap, OrdSet, ordmap::DiffItem};

use crate::{
    Revision,
    kinds::{Entry, Kind, Kinds, Value},
};

/// Resources and index entries of one kind.
#[derive(Clone, Default)]
pub(crate) struct Table {
    values: OrdMap<Arc<str>, Value>,
    /// From index name and value (see [`place`]) to the keys of the resources found there. Each write copies the nodes on
    /// its way through these maps, so their keys must be cheap to clone.
    indexes: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
}

/// Where an index has its entries for a value. No index name has a line break.
fn place(index: &str, value: &str) -> String {
    [index, "\n", value].concat()
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The key as the table has it, and what is there.
    pub(crate) fn known(&self, key: &str) -> Option<(Arc<str>, Value)> {
        self.values.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()))
    }

    pub(crate) fn insert(&mut self, key: Arc<str>, value: Value, old: &[Entry], new: &[Entry]) {
        self.reindex(&key, old, new);
        self.values.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &Arc<str>, old: &[Entry]) {
        self.reindex(key, old, &[]);
        self.values.remove(key);
    }

    pub(crate) fn into_keys(self) -> impl Iterator<Item = String> {
        self.values.into_iter().map(|(key, _)| key.to_string())
    }

    fn reindex(&mut self, key: &Arc<str>, old: &[Entry], new: &[Entry]) {
        for entry @ (index, value) in old {
            if !new.contains(entry) {
                let place = place(index, value);
                let emptied = self.indexes.get_mut(place.as_str()).is_some_and(|keys| {
                    keys.remove(key);
                    keys.is_empty()
                });
                if emptied {
                    self.indexes.remove(place.as_str());
                }
            }
        }
        for entry @ (index, value) in new {
            if !old.contains(entry) {
                let place = place(index, value);
                match self.indexes.get_mut(place.as_str()) {
                    Some(keys) => drop(keys.insert(key.clone())),
                    None => drop(self.indexes.insert(place.into(), OrdSet::unit(key.clone()))),
                }
            }
        }
    }
}

/// Everything in the store at one revision. Cloning is cheap; reading needs no lock.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) tables: imbl::Vector<Table>,
    pub(crate) revision: Revision,
}

impl Snapshot {
    pub(crate) fn empty(kinds: Arc<Kinds>) -> Self {
        let tables = kinds.list.iter().map(|_| Table::default()).collect();
        Self { kinds, tables, revision: 0 }
    }

    /// The same snapshot with nothing in it but what is never written to disk.
    pub(crate) fn volatile_only(&self) -> Self {
        let keep = |(kind, table): (&Kind, &Table)| if kind.durable { Table::default() } else { table.clone() };
        Self { tables: self.kinds.list.iter().zip(&self.tables).map(keep).collect(), ..self.clone() }
    }

    /// How many batches had been appended when this snapshot was taken.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The resource with this key.
    pub fn get<T: Resource>(&self, key: &str) -> Option<Arc<T>> {
        self.table::<T>()?.get(key)?.typed()
    }

    /// Whether there is a resource with this key.
    pub fn contains<T: Resource>(&self, key: &str) -> bool {
        self.table::<T>().is_some_and(|table| table.get(key).is_some())
    }

    /// The resources whose keys start with `prefix`, in key order. Costs as much as it gives.
    pub fn list<'a, T: Resource>(&'a self, prefix: &'a str) -> impl Iterator<Item = Arc<T>> + 'a {
        self.list_after(prefix, "")
    }

    /// As [`Snapshot::list`], beginning with the first key after `after`: how a further page is read.
    pub fn list_after<'a, T: Resource>(&'a self, prefix: &'a str, after: &str) -> impl Iterator<Item = Arc<T>> + 'a {
        let (start, skip): (Arc<str>, Option<Arc<str>>) =
            if after > prefix { (after.into(), Some(after.into())) } else { (prefix.into(), None) };
        self.table::<T>()
            .into_iter()
            .flat_map(move |table| table.values.range(start.clone()..))
            .skip_while(move |(key, _)| skip.as_ref() == Some(key))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(|(_, value)| value.typed())
    }

    /// As [`Snapshot::list`] in reverse order, beginning with the last key before `before` where it is given.
    pub fn list_before<'a, T: Resource>(
        &'a self,
        prefix: &'a str,
        before: Option<&str>,
    ) -> impl Iterator<Item = Arc<T>> + 'a {
        let start: Arc<str> = prefix.into();
        let end: Arc<str> = before.map_or_else(|| format!("{prefix}\u{10ffff}").into(), Into::into);
        self.table::<T>()
            .filter(|_| start < end)
            .into_iter()
            .flat_map(move |table| table.values.range(start.clone()..end.clone()).rev())
            .filter_map(|(_, value)| value.typed())
    }

    /// The resources found under `value` in an index (see [`Resource::indexes`]), in key order. Costs as much as it
    /// gives.
    pub fn find<'a, T: Resource>(
        &'a self,
        index: &'static str,
        value: impl Into<String>,
    ) -> impl Iterator<Item = Arc<T>> + 'a {
        self.find_after(index, value, "")
    }

    /// As [`Snapshot::find`], beginning with the first key after `after`: how a further page is read.
    pub fn find_after<'a, T: Resource>(
        &'a self,
        index: &'static str,
        value: impl Into<String>,
        after: &str,
    ) -> impl Iterator<Item = Arc<T>> + 'a {
        let place = place(index, &value.into());
        let start = (Bound::Excluded(after), Bound::Unbounded);
        let table = self.table::<T>();
        let keys = table.and_then(|table| table.indexes.get(place.as_str())).map(|keys| keys.range::<_, str>(start));
        keys.into_iter().flatten().filter_map(move |key| table?.values.get(key)?.typed())
    }

    /// How many resources an index has under `value`. Costs nothing.
    pub fn count<T: Resource>(&self, index: &'static str, value: impl Into<String>) -> usize {
        let place = place(index, &value.into());
        self.table::<T>().and_then(|table| table.indexes.get(place.as_str())).map_or(0, OrdSet::len)
    }

    /// How many resources of a kind there are.
    pub fn count_all<T: Resource>(&self) -> usize {
        self.table::<T>().map_or(0, |table| table.values.len())
    }

    /// What is different from an earlier snapshot, or a later one: what each resource was there and what it is here. Costs
    /// what was written between the two, and not what there is.
    pub fn changes_since<'a, T: Resource>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Option<Arc<T>>, Option<Arc<T>>)> + 'a {
        let tables = other.table::<T>().zip(self.table::<T>());
        tables.into_iter().flat_map(|(old, new)| old.values.diff(&new.values)).map(|item| match item {
            DiffItem::Add(_, new) => (None, new.typed()),
            DiffItem::Update { old: (_, old), new: (_, new) } => (old.typed(), new.typed()),
            DiffItem::Remove(_, old) => (old.typed(), None),
        })
    }

    fn table<T: Resource>(&self) -> Option<&Table> {
        self.tables.get(self.kinds.index_of::<T>()?)
    }
}
