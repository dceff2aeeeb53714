//! Things the store's tests share: two kinds of resources and a disk that forgets.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each test uses its part")]

use std::{
    io,
    sync::{Arc, Mutex},
};

use domain::Resource;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use redb::StorageBackend;
use serde::{Deserialize, Serialize};
use store::{JournalError, Kinds, embedded::Disk};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boat {
    pub name: String,
    pub harbour: String,
}

impl Resource for Boat {
    const KIND: &'static str = "test/boat";
    fn key(&self) -> String {
        self.name.clone()
    }
    fn indexes(&self) -> Vec<(&'static str, String)> {
        vec![("harbour", self.harbour.clone())]
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    pub place: String,
    pub wind: u32,
}

impl Resource for Weather {
    const KIND: &'static str = "test/weather";
    fn key(&self) -> String {
        self.place.clone()
    }
}

pub fn boat(name: &str, harbour: &str) -> Boat {
    Boat { name: name.into(), harbour: harbour.into() }
}

pub fn kinds() -> Kinds {
    Kinds::new().durable::<Boat>().volatile::<Weather>()
}

/// A disk in memory that keeps only what was synced when the power goes: a random part of the later writes reaches
/// the platter, in any order, the last of them torn; and a file whose directory was never synced is gone.
#[derive(Clone, Default, Debug)]
pub struct ForgetfulDisk(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    current: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    directory_synced: bool,
    /// After this many more writes or syncs everything fails, as when the power goes in the middle of it.
    fuse: Option<u32>,
    skip_directory_sync: bool,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl ForgetfulDisk {
    pub fn that_never_syncs_its_directory() -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().skip_directory_sync = true;
        disk
    }

    /// The power will go after `operations` more writes or syncs.
    pub fn light_fuse(&self, operations: u32) {
        self.0.lock().unwrap().fuse = Some(operations);
    }

    /// The disk works again.
    pub fn repair(&self) {
        self.0.lock().unwrap().fuse = None;
    }

    /// The disk as it is found after the power came back.
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.0.lock().unwrap();
        let mut platter = state.synced.clone();
        let mut kept: Vec<&Unsynced> = state.unsynced.iter().filter(|_| random.random_bool(0.5)).collect();
        // Writes reach the platter in any order.
        for at in (1..kept.len()).rev() {
            kept.swap(at, random.random_range(0..=at));
        }
        let torn = kept.choose(&mut random).map(|write| std::ptr::from_ref(*write));
        for write in kept {
            match write {
                Unsynced::Length(length) => platter.resize(*length, 0),
                Unsynced::Write(offset, data) => {
                    let is_torn = torn == Some(std::ptr::from_ref(write));
                    let data = if is_torn { &data[..random.random_range(0..=data.len())] } else { data };
                    if platter.len() < offset + data.len() {
                        platter.resize(offset + data.len(), 0);
                    }
                    platter[*offset..offset + data.len()].copy_from_slice(data);
                }
            }
        }
        if !state.directory_synced {
            platter.clear();
        }
        Self(Arc::new(Mutex::new(State {
            current: platter.clone(),
            synced: platter,
            directory_synced: state.directory_synced,
            ..State::default()
        })))
    }
}

impl State {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for ForgetfulDisk {
    type File = Self;

    fn open_file(&mut self) -> Result<Self, JournalError> {
        Ok(self.clone())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.burn()?;
        if !state.skip_directory_sync {
            state.directory_synced = true;
        }
        Ok(())
    }
}

impl StorageBackend for ForgetfulDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let offset = offset as usize;
        let data = state.current.get(offset..offset + out.len());
        out.copy_from_slice(data.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.burn()?;
        state.current.resize(len as usize, 0);
        state.unsynced.push(Unsynced::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.burn()?;
        state.synced = state.current.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.burn()?;
        let offset = offset as usize;
        if state.current.len() < offset + data.len() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        state.current[offset..offset + data.len()].copy_from_slice(data);
        state.unsynced.push(Unsynced::Write(offset, data.to_vec()));
        Ok(())
    }
}
