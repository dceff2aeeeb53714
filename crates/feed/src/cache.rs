//! The last slice on disk, so that a consumer starts without the server.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What is kept: the slice, and of which publisher it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cached<T> {
    pub(crate) epoch: Option<String>,
    pub(crate) revision: u64,
    pub(crate) items: BTreeMap<String, Arc<T>>,
}

/// Reads the slice. `None` when there is none; one that cannot be read is an error, and no slice.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<Option<Cached<T>>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the slice on disk, so that a reader at any later moment, after a power cut too, finds this one or the
/// one before, whole. There may be secrets in it: nobody else can read it.
pub(crate) fn save<T: Serialize>(path: &Path, cached: &Cached<T>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // One that was left there may have another mode.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec(cached).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_no_slice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/slice.json");
        assert!(load::<u32>(&path).unwrap().is_none());
        let items = BTreeMap::from([("a".to_owned(), Arc::new(1u32))]);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("tmp"), "left").unwrap();
        fs::set_permissions(path.with_extension("tmp"), fs::Permissions::from_mode(0o644)).unwrap();
        save(&path, &Cached { epoch: Some("e".into()), revision: 7, items }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = load::<u32>(&path).unwrap().unwrap();
        assert_eq!((loaded.revision, loaded.items.get("a").map(|item| **item)), (7, Some(1)));
        fs::write(&path, "{\"epoch\":").unwrap();
        assert!(load::<u32>(&path).is_err());
    }
}
