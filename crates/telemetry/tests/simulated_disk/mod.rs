//! A disk in memory that forgets what was not synced, directory entries included, and tears the last write.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use redb::StorageBackend;
use telemetry::logs::Disk;

enum Pending {
    Write(usize, Vec<u8>),
    Resize(usize),
}

#[derive(Default)]
struct File {
    /// What reads see.
    now: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

type Files = BTreeMap<String, Arc<Mutex<File>>>;

#[derive(Default)]
struct Directories {
    now: Files,
    synced: Files,
}

/// The disk. The power goes after a given number of operations; from then on everything fails.
#[derive(Clone)]
pub struct SimulatedDisk {
    directories: Arc<Mutex<Directories>>,
    power: Arc<AtomicI64>,
    full: Arc<AtomicBool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl SimulatedDisk {
    /// An empty disk whose power lasts for `operations`.
    pub fn new(operations: i64) -> Self {
        Self { directories: Arc::default(), power: Arc::new(AtomicI64::new(operations)), full: Arc::default() }
    }

    /// Whether the power has gone.
    #[allow(dead_code, reason = "not all tests cut the power")]
    pub fn is_dead(&self) -> bool {
        self.power.load(Ordering::SeqCst) <= 0
    }

    /// Makes writes fail, or work again.
    #[allow(dead_code, reason = "not all tests fill the disk")]
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    fn has_room(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn spend(&self) -> io::Result<()> {
        if self.power.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(io::Error::other("no power"));
        }
        Ok(())
    }

    /// What is on the disk after the power cut: of each file what was synced, and of the later writes those that
    /// `kept` picks, the last of them torn.
    #[allow(dead_code, reason = "not all tests cut the power")]
    pub fn after_power_cut(&self, operations: i64, mut kept: impl FnMut() -> bool) -> Self {
        let disk = Self::new(operations);
        let old = locked(&self.directories);
        let mut new = Files::new();
        for (name, file) in &old.synced {
            let file = locked(file);
            let mut content = file.synced.clone();
            let pending: Vec<&Pending> = file.pending.iter().filter(|_| kept()).collect();
            for (index, pending_write) in pending.iter().enumerate() {
                match pending_write {
                    Pending::Resize(length) => content.resize(*length, 0),
                    Pending::Write(offset, data) => {
                        let torn = index + 1 == pending.len();
                        let length = if torn { data.len() / 1024 * 512 } else { data.len() };
                        if content.len() < offset + length {
                            content.resize(offset + length, 0);
                        }
                        content[*offset..offset + length].copy_from_slice(&data[..length]);
                    }
                }
            }
            let file = File { now: content.clone(), synced: content, pending: Vec::new() };
            new.insert(name.clone(), Arc::new(Mutex::new(file)));
        }
        *locked(&disk.directories) = Directories { now: new.clone(), synced: new };
        disk
    }

    fn backend(&self, file: Arc<Mutex<File>>) -> Box<dyn StorageBackend> {
        Box::new(Backend { disk: self.clone(), file })
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.spend()?;
        Ok(locked(&self.directories).now.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.spend()?;
        let file = locked(&self.directories).now.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(self.backend(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.spend()?;
        self.has_room()?;
        let file = Arc::<Mutex<File>>::default();
        locked(&self.directories).now.insert(name.to_owned(), file.clone());
        Ok(self.backend(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.spend()?;
        let mut directories = locked(&self.directories);
        let file = directories.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        directories.now.insert(to.to_owned(), file);
        // The power may go between the change and its sync.
        self.spend()?;
        directories.synced = directories.now.clone();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.spend()?;
        let mut directories = locked(&self.directories);
        directories.now.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.spend()?;
        directories.synced = directories.now.clone();
        Ok(())
    }
}

struct Backend {
    disk: SimulatedDisk,
    file: Arc<Mutex<File>>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a file on a simulated disk")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.file).now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = locked(&self.file);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        out.copy_from_slice(file.now.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.spend()?;
        self.disk.has_room()?;
        let mut file = locked(&self.file);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        file.now.resize(length, 0);
        file.pending.push(Pending::Resize(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.spend()?;
        let mut file = locked(&self.file);
        file.synced = file.now.clone();
        file.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.has_room()?;
        let powered = self.disk.spend();
        let mut file = locked(&self.file);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        // The write during which the power goes is on its way too.
        if powered.is_ok() || self.disk.power.load(Ordering::SeqCst) == -1 {
            if file.now.len() < offset + data.len() {
                file.now.resize(offset + data.len(), 0);
            }
            file.now[offset..offset + data.len()].copy_from_slice(data);
            file.pending.push(Pending::Write(offset, data.to_vec()));
        }
        powered
    }
}
