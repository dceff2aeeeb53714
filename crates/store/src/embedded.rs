//! The embedded journal: one redb file in the data directory.
//!
//! redb gives atomic, checksummed, fsynced batches in one file. What it leaves to us is the file's directory entry:
//! a file that was created and synced can still be missing after a power cut when its directory was not synced, so
//! [`open`] syncs the directory before anything is acknowledged. File and directory are reached through [`Disk`], so
//! that the tests can put a disk underneath that forgets what was not synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, backends::FileBackend,
};

use crate::{Journal, JournalError, Revision, Write};

/// Resources by kind and key.
const RESOURCES: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("resources");
/// `revision` and `format`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The layout of the two tables; a newer one is refused.
const FORMAT: u64 = 1;
/// All state lives in memory anyway: the engine needs little cache.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Where the journal's file lives.
pub trait Disk {
    /// An open file.
    type File: StorageBackend;
    /// Opens the file, creating it if it is missing.
    fn open_file(&mut self) -> Result<Self::File, JournalError>;
    /// Makes the file's directory entry durable.
    fn sync_directory(&mut self) -> io::Result<()>;
}

/// A directory of the host's file system.
pub struct Directory(PathBuf);

impl Disk for Directory {
    type File = FileBackend;

    fn open_file(&mut self) -> Result<FileBackend, JournalError> {
        let path = self.0.join("state.redb");
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| JournalError::Engine(format!("{}: {error}", path.display())))?;
        FileBackend::new(file).map_err(|error| opening(error, &path.display().to_string()))
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }
}

/// Opens the journal in a directory, making both if they are missing.
pub fn open(directory: &Path) -> Result<Embedded<Directory>, JournalError> {
    fs::create_dir_all(directory).map_err(|error| JournalError::Engine(format!("{}: {error}", directory.display())))?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(engine)?;
    }
    open_on(Directory(directory.to_owned()))
}

/// Opens the journal on a disk.
pub fn open_on<D: Disk>(mut disk: D) -> Result<Embedded<D>, JournalError> {
    let database = Some(open_database(&mut disk)?);
    Ok(Embedded { disk, database })
}

fn open_database(disk: &mut impl Disk) -> Result<Database, JournalError> {
    let backend = disk.open_file()?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
    let database = database.map_err(|error| opening(error, "the data directory"))?;
    let transaction = database.begin_write().map_err(engine)?;
    {
        let mut meta = transaction.open_table(META).map_err(engine)?;
        transaction.open_table(RESOURCES).map_err(engine)?;
        let format = meta.get("format").map_err(engine)?.map(|value| value.value());
        match format {
            None => drop(meta.insert("format", FORMAT).map_err(engine)?),
            Some(FORMAT) => {}
            Some(other) => {
                return Err(JournalError::Engine(format!(
                    "the data has format {other}, this version reads {FORMAT}: use the version that wrote it"
                )));
            }
        }
    }
    transaction.commit().map_err(engine)?;
    disk.sync_directory().map_err(engine)?;
    Ok(database)
}

/// The embedded journal.
pub struct Embedded<D> {
    disk: D,
    /// `None` after a failed append: redb then refuses everything until the file is opened again, which is also when
    /// it finds out whether the batch is there.
    database: Option<Database>,
}

impl<D: Disk + Send + 'static> Journal for Embedded<D> {
    fn load(&mut self, each: &mut dyn FnMut(&str, &str, &[u8])) -> Result<Revision, JournalError> {
        let database = match &self.database {
            Some(database) => database,
            None => self.database.insert(open_database(&mut self.disk)?),
        };
        let transaction = database.begin_read().map_err(engine)?;
        for entry in transaction.open_table(RESOURCES).map_err(engine)?.iter().map_err(engine)? {
            let (key, value) = entry.map_err(engine)?;
            let (kind, key) = key.value();
            each(kind, key, value.value());
        }
        let meta = transaction.open_table(META).map_err(engine)?;
        let revision = meta.get("revision").map_err(engine)?.map_or(0, |value| value.value());
        Ok(revision)
    }

    fn append(&mut self, batch: &[Write], expected: Revision) -> Result<Revision, JournalError> {
        let Some(database) = &self.database else {
            return Err(JournalError::Engine("the store has failed and has not been read again".to_owned()));
        };
        let appended = append(database, batch, expected);
        if appended.is_err() {
            self.database = None;
        }
        appended
    }
}

fn append(database: &Database, batch: &[Write], expected: Revision) -> Result<Revision, JournalError> {
    let transaction = database.begin_write().map_err(engine)?;
    let next = expected + 1;
    {
        let mut meta = transaction.open_table(META).map_err(engine)?;
        let found = meta.get("revision").map_err(engine)?.map_or(0, |value| value.value());
        if found != expected {
            return Err(JournalError::Conflict { expected, found });
        }
        meta.insert("revision", next).map_err(engine)?;
        let mut resources = transaction.open_table(RESOURCES).map_err(engine)?;
        for write in batch {
            match write {
                Write::Put { kind, key, value } => {
                    resources.insert((*kind, key.as_str()), value.as_slice()).map_err(engine)?;
                }
                Write::Delete { kind, key } => {
                    resources.remove((*kind, key.as_str())).map_err(engine)?;
                }
            }
        }
    }
    transaction.commit().map_err(engine)?;
    Ok(next)
}

fn engine(error: impl std::fmt::Display) -> JournalError {
    JournalError::Engine(error.to_string())
}

fn opening(error: DatabaseError, place: &str) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::InUse(place.to_owned()),
        error => JournalError::Engine(format!("{place}: {error}")),
    }
}
