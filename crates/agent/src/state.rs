//! The agent's state on disk: small JSON files, each replaced as a whole, so that `kill -9` leaves the old or the new.
//!
//! Most need not survive the host's own crash: its containers do not either. What must is written durably.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a file; `None` if there is none. One that cannot be read is told, not overwritten.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = serde_json::from_slice(&text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?;
    Ok(Some(value))
}

/// Replaces a file, readable by its owner only.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, value, |_| Ok(()))
}

/// As [`write`], and on the disk when it returns.
pub fn write_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, value, File::sync_all)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn replace<T: Serialize>(path: &Path, value: &T, finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let text = serde_json::to_vec(value)?;
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    finish(&file)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every readable record of a directory of `.json` files; what cannot be read is logged and left.
pub fn read_all<T: DeserializeOwned>(directory: &Path) -> io::Result<Vec<T>> {
    let mut values = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(value) => values.extend(value),
            Err(error) => tracing::error!(path = %path.display(), %error, "a task's record cannot be read"),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_as_a_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.json");
        assert_eq!(read::<Vec<u8>>(&path).expect("readable"), None);
        write(&path, &vec![1]).expect("written");
        write_durably(&path, &vec![1, 2]).expect("written");
        assert_eq!(read::<Vec<u8>>(&path).expect("readable"), Some(vec![1, 2]));
        fs::write(directory.path().join("b.json"), "{").expect("written");
        assert_eq!(read_all::<Vec<u8>>(directory.path()).expect("readable"), [vec![1, 2]]);
        remove(&path).expect("removed");
        remove(&path).expect("nothing to remove");
    }
}
