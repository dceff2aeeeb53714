//! Blobs that a running request needs: from before it looks whether a blob is there until its reference is durable.
//!
//! The collector removes a blob only under [`Pins::unless_held`]: nobody can begin to rely on the blob between the
//! look at its references and its removal, and whoever comes later finds it gone and writes it again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::repositories::Digest;

#[derive(Default, Clone)]
pub(crate) struct Pins(Arc<Mutex<HashMap<Digest, usize>>>);

/// Keeps a blob from being collected as long as it lives.
pub(crate) struct Pin {
    pins: Pins,
    digest: Digest,
}

impl Pin {
    /// Keeps the blob as long as the process lives: nobody knows whether its reference was saved.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Pins {
    pub(crate) fn hold(&self, digest: &Digest) -> Pin {
        *self.lock().entry(digest.clone()).or_default() += 1;
        Pin { pins: self.clone(), digest: digest.clone() }
    }

    /// Runs `remove` while nobody can take a pin, if nobody has one on this blob.
    pub(crate) fn unless_held<T>(&self, digest: &Digest, remove: impl FnOnce() -> T) -> Option<T> {
        let pins = self.lock();
        if pins.contains_key(digest) { None } else { Some(remove()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.lock();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hasher;

    #[test]
    fn a_blob_is_free_when_its_last_pin_is_gone() {
        let pins = Pins::default();
        let digest = Hasher::of(b"x");
        let (first, second) = (pins.hold(&digest), pins.hold(&digest));
        drop(first);
        assert_eq!(pins.unless_held(&digest, || ()), None);
        assert_eq!(pins.unless_held(&Hasher::of(b"y"), || ()), Some(()));
        drop(second);
        assert_eq!(pins.unless_held(&digest, || ()), Some(()));
    }
}
