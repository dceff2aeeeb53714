//! A slice as its consumer sees it.

use std::{collections::BTreeMap, sync::Arc};

/// One consumer's part of the desired state. Cloning it costs one pointer per item.
#[derive(Debug)]
pub struct Slice<T> {
    /// The publisher's number for this state; grows while the same publisher lives.
    pub revision: u64,
    /// Whether this is a state the publisher has once had. `false` only before the first contact of a consumer that
    /// has no slice on disk: nothing must be removed on the strength of it.
    pub known: bool,
    /// Whether the publisher has given or confirmed this state since this consumer started. One from the disk may lack
    /// what came last before the consumer was killed: it says what to make on an empty machine, not what to remove.
    pub confirmed: bool,
    /// The items by key.
    pub items: BTreeMap<String, Arc<T>>,
}

impl<T> Default for Slice<T> {
    fn default() -> Self {
        Self { revision: 0, known: false, confirmed: false, items: BTreeMap::new() }
    }
}

impl<T> Clone for Slice<T> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, known: self.known, confirmed: self.confirmed, items: self.items.clone() }
    }
}
