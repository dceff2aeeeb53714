//! A log in memory that outlives the stores opened on it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use store::{LogError, Revision, Write};

type Content = BTreeMap<(String, String), Vec<u8>>;

#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<(Revision, Content)>>);

impl store::Log for MemoryLog {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, LogError> {
        let state = self.0.lock().unwrap();
        state.1.iter().for_each(|((kind, key), value)| each(kind, key, value));
        Ok(state.0)
    }

    fn append(&mut self, batch: &[Write], expected: Revision) -> Result<Revision, LogError> {
        let mut state = self.0.lock().unwrap();
        assert_eq!(state.0, expected);
        for write in batch {
            match write {
                Write::Put { kind, key, value } => {
                    state.1.insert(((*kind).to_owned(), key.clone()), value.clone());
                }
                Write::Delete { kind, key } => {
                    state.1.remove(&((*kind).to_owned(), key.clone()));
                }
            }
        }
        state.0 += 1;
        Ok(state.0)
    }
}
