//! The view a writer works on: the newest state, changed in place, and the batch that comes of it.

use std::{ops::Deref, sync::Arc};

use domain::Resource;

use crate::{
    Batch, Change, Snapshot, Write,
    kinds::{Entries, Value},
    snapshot::Table,
};

/// The newest state, with this transaction's own writes already in it. Reads are those of [`Snapshot`].
///
/// One serves all transactions, one after the other: a view of its own for each would copy, with every write, what the
/// batch's other transactions have copied already. What a transaction that is not kept has changed is undone.
pub struct Transaction {
    view: Snapshot,
    batch: Batch,
    changes: Vec<Change>,
    undo: Vec<Undo>,
}

/// How one write is taken back.
enum Undo {
    /// A resource was written or removed: the place of its table, its key, what was there with its index entries, and
    /// the index entries that are there now.
    Resource { table: usize, key: Arc<str>, before: Option<Value>, old: Entries, new: Entries },
    /// Everything was removed.
    Cleared(imbl::Vector<Table>),
}

impl Deref for Transaction {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.view
    }
}

impl Transaction {
    pub(crate) fn new(view: Snapshot) -> Self {
        Self { view, batch: Vec::new(), changes: Vec::new(), undo: Vec::new() }
    }

    /// Stores a resource under its key, in place of what was there.
    pub fn put<T: Resource>(&mut self, resource: T) {
        let Some((index, durable)) = self.place::<T>() else { return };
        let key = resource.key();
        if durable {
            // A resource is plain data with string keys: turning it into JSON cannot fail.
            let value = serde_json::to_vec(&resource).unwrap_or_default();
            self.batch.push(Write::Put { kind: T::KIND, key: key.clone(), value });
        }
        let new = resource.indexes();
        self.write::<T>(index, &key, Some(Value::new(resource)), new);
        self.changes.push(Change { kind: T::KIND, key });
    }

    /// Removes a resource, if it is there.
    pub fn delete<T: Resource>(&mut self, key: &str) {
        if !self.view.contains::<T>(key) {
            return;
        }
        let Some((index, durable)) = self.place::<T>() else { return };
        if durable {
            self.batch.push(Write::Delete { kind: T::KIND, key: key.to_owned() });
        }
        self.write::<T>(index, key, None, Vec::new());
        self.changes.push(Change { kind: T::KIND, key: key.to_owned() });
    }

    /// Reads a resource, changes it and stores it again. Returns whether it was there.
    pub fn update<T: Resource>(&mut self, key: &str, change: impl FnOnce(&mut T)) -> bool {
        let Some(resource) = self.view.get::<T>(key) else { return false };
        let mut resource = T::clone(&resource);
        change(&mut resource);
        self.put(resource);
        true
    }

    /// Removes every resource of every kind.
    pub fn clear(&mut self) {
        let kinds = self.view.kinds.clone();
        self.undo.push(Undo::Cleared(self.view.tables.clone()));
        for (kind, table) in kinds.list.iter().zip(self.view.tables.iter_mut()) {
            for key in std::mem::take(table).into_keys() {
                if kind.durable {
                    self.batch.push(Write::Delete { kind: kind.name, key: key.clone() });
                }
                self.changes.push(Change { kind: kind.name, key });
            }
        }
    }

    /// Keeps what was written since the last transaction was kept.
    pub(crate) fn keep(&mut self) -> (Batch, Vec<Change>) {
        self.undo.clear();
        (std::mem::take(&mut self.batch), std::mem::take(&mut self.changes))
    }

    /// Takes back what was written since the last transaction was kept.
    pub(crate) fn undo(&mut self) {
        self.batch.clear();
        self.changes.clear();
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Cleared(tables) => self.view.tables = tables,
                Undo::Resource { table, key, before, old, new } => {
                    let Some(table) = self.view.tables.get_mut(table) else { continue };
                    match before {
                        Some(value) => table.insert(key, value, &new, &old),
                        None => table.remove(&key, &new),
                    }
                }
            }
        }
    }

    fn place<T: Resource>(&self) -> Option<(usize, bool)> {
        let index = self.view.kinds.index_of::<T>();
        debug_assert!(index.is_some(), "the kind {} was not given to the store", T::KIND);
        Some((index?, self.view.kinds.list.get(index?)?.durable))
    }

    fn write<T: Resource>(&mut self, index: usize, key: &str, value: Option<Value>, new: Entries) {
        let Some(table) = self.view.tables.get_mut(index) else { return };
        let (key, before) = match table.known(key) {
            Some((key, before)) => (key, Some(before)),
            None => (key.into(), None),
        };
        let old = before.as_ref().and_then(Value::typed::<T>).map(|value| value.indexes()).unwrap_or_default();
        match value {
            Some(value) => table.insert(key.clone(), value, &old, &new),
            None => table.remove(&key, &old),
        }
        self.undo.push(Undo::Resource { table: index, key, before, old, new });
    }
}
