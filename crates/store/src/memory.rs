//! A journal in memory, for tests and simulations. It outlives the stores that are opened on it, as a disk does, and can
//! be told to fail.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{Journal, JournalError, Revision, Write};

/// What is kept. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    content: Arc<Mutex<Content>>,
    full: Arc<AtomicBool>,
}

#[derive(Default)]
struct Content {
    revision: Revision,
    resources: BTreeMap<(&'static str, String), Vec<u8>>,
}

impl Memory {
    /// From now on there is room for no more batches, or there is again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Memory {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, JournalError> {
        let content = self.content();
        content.resources.iter().for_each(|((kind, key), value)| each(kind, key, value));
        Ok(content.revision)
    }

    fn append(&mut self, batch: &[Write], expected: Revision) -> Result<Revision, JournalError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(JournalError::Engine("no space left".to_owned()));
        }
        let mut content = self.content();
        if content.revision != expected {
            return Err(JournalError::Conflict { expected, found: content.revision });
        }
        for write in batch {
            match write.clone() {
                Write::Put { kind, key, value } => drop(content.resources.insert((kind, key), value)),
                Write::Delete { kind, key } => drop(content.resources.remove(&(kind, key))),
            }
        }
        content.revision += 1;
        Ok(content.revision)
    }
}
