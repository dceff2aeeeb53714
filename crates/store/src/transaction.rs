//! The view a writer works on: a snapshot that it may change, and the batch that comes of it.

use std::ops::Deref;

use domain::Resource;

use crate::{
    Batch, Change, Snapshot, Write,
    kinds::{Entries, Value},
    snapshot::Table,
};

/// The newest state, with this transaction's own writes already in it. Reads are those of [`Snapshot`].
pub struct Transaction {
    view: Snapshot,
    batch: Batch,
    changes: Vec<Change>,
}

impl Deref for Transaction {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.view
    }
}

impl Transaction {
    pub(crate) fn new(view: Snapshot) -> Self {
        Self { view, batch: Vec::new(), changes: Vec::new() }
    }

    /// Stores a resource under its key, in place of what was there.
    pub fn put<T: Resource>(&mut self, resource: T) {
        let key = resource.key();
        let new = resource.indexes();
        let Some((durable, old, table)) = self.table::<T>(&key) else { return };
        if durable {
            // A resource is plain data with string keys: turning it into JSON cannot fail.
            let value = serde_json::to_vec(&resource).unwrap_or_default();
            table.insert(&key, Value::new(resource), old, new);
            self.batch.push(Write::Put { kind: T::KIND, key: key.clone(), value });
        } else {
            table.insert(&key, Value::new(resource), old, new);
        }
        self.changes.push(Change { kind: T::KIND, key });
    }

    /// Removes a resource, if it is there.
    pub fn delete<T: Resource>(&mut self, key: &str) {
        if !self.view.contains::<T>(key) {
            return;
        }
        let Some((durable, old, table)) = self.table::<T>(key) else { return };
        table.remove(key, old);
        if durable {
            self.batch.push(Write::Delete { kind: T::KIND, key: key.to_owned() });
        }
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
        for (kind, table) in kinds.list.iter().zip(self.view.tables.iter_mut()) {
            for key in std::mem::take(table).into_keys() {
                if kind.durable {
                    self.batch.push(Write::Delete { kind: kind.name, key: key.clone() });
                }
                self.changes.push(Change { kind: kind.name, key });
            }
        }
    }

    pub(crate) fn into_parts(self) -> (Snapshot, Batch, Vec<Change>) {
        (self.view, self.batch, self.changes)
    }

    fn table<T: Resource>(&mut self, key: &str) -> Option<(bool, Entries, &mut Table)> {
        let index = self.view.kinds.index_of::<T>();
        debug_assert!(index.is_some(), "the kind {} was not given to the store", T::KIND);
        let index = index?;
        let durable = self.view.kinds.list.get(index)?.durable;
        let table = self.view.tables.get_mut(index)?;
        let old = table.get(key).and_then(Value::typed::<T>).map(|value| value.indexes()).unwrap_or_default();
        Some((durable, old, table))
    }
}
